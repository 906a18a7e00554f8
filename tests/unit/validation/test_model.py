"""One resource at a time: what is refused, why, and where; and what is let through."""

import pytest

from fhir_adapters.knowledge import table
from fhir_adapters.landing.rules import Identity, Refusal, resource_types
from fhir_adapters.validation.model import Fault, check, check_line, code_rules, target_rules, unread_elements

OBSERVATION = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}}
PATIENT = {"resourceType": "Patient", "id": "p"}
ENCOUNTER = {"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"}}
CONDITION = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}}


def fault_of(resource: dict, **more: object) -> Fault | None:
    resource = {key: value for key, value in {**resource, **more}.items() if value != "absent"}
    return check(resource, Identity(resource["resourceType"], resource["id"]))


@pytest.mark.requirement("f2o-012")
@pytest.mark.parametrize(
    ("resource", "more", "fault"),
    [
        (OBSERVATION, {"status": "absent"}, Fault("Q-MISSING", "status")),
        (OBSERVATION, {"code": "absent"}, Fault("Q-MISSING", "code")),
        (OBSERVATION, {"component": [{"valueString": "x"}]}, Fault("Q-MISSING", "component.code")),
        (OBSERVATION, {"SECRET": 1}, Fault("Q-UNKNOWN-ELEMENT", None)),
        (OBSERVATION, {"valueQuantity": {"SECRET": 1}}, Fault("Q-UNKNOWN-ELEMENT", "valueQuantity")),
        (OBSERVATION, {"category": {}}, Fault("Q-KIND", "category")),
        (OBSERVATION, {"code": []}, Fault("Q-KIND", "code")),
        (OBSERVATION, {"subject": "Patient/SECRET"}, Fault("Q-KIND", "subject")),
        (OBSERVATION, {"valueString": 5}, Fault("Q-KIND", "valueString")),
        (OBSERVATION, {"code": {"coding": [None]}}, Fault("Q-KIND", "code.coding")),
        (OBSERVATION, {"effectiveDateTime": "SECRET"}, Fault("Q-VALUE", "effectiveDateTime")),
        (OBSERVATION, {"effectiveDateTime": "2021-13-01"}, Fault("Q-VALUE", "effectiveDateTime")),
        (OBSERVATION, {"valueInteger": 5.5}, Fault("Q-VALUE", "valueInteger")),
        (OBSERVATION, {"valueString": ""}, Fault("Q-VALUE", "valueString")),
        (OBSERVATION, {"valueString": "a", "valueInteger": 1}, Fault("Q-CHOICE", None)),
        (OBSERVATION, {"contained": [{"resourceType": "SECRET"}]}, Fault("Q-MODEL", None)),
        (OBSERVATION, {"status": "SECRET"}, Fault("Q-CODE", "status")),
        (OBSERVATION, {"valueQuantity": {"value": 1, "comparator": "~"}}, Fault("Q-CODE", "valueQuantity.comparator")),
        (OBSERVATION, {"subject": {"reference": "Encounter/x"}}, Fault("Q-REFERENCE", "subject")),
        (OBSERVATION, {"effectiveDateTime": "2021-03-01T10:00+01:00"}, Fault("Q-VALUE", "effectiveDateTime")),
        (OBSERVATION, {"encounter": {"reference": "http://x/fhir/Patient/x"}}, Fault("Q-REFERENCE", "encounter")),
        (PATIENT, {"gender": "M"}, Fault("Q-CODE", "gender")),
        (PATIENT, {"birthDate": "1950-13"}, Fault("Q-VALUE", "birthDate")),
        (PATIENT, {"multipleBirthInteger": 1, "multipleBirthBoolean": True}, Fault("Q-CHOICE", None)),
        (
            PATIENT,
            {"link": [{"other": {"reference": "Group/1"}, "type": "seealso"}]},
            Fault("Q-REFERENCE", "link.other"),
        ),
        (ENCOUNTER, {"class": "AMB"}, Fault("Q-KIND", "class")),
        (
            CONDITION,
            {
                "verificationStatus": {
                    "coding": [
                        {"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "sure"},
                    ]
                }
            },
            Fault("Q-CODE", "verificationStatus"),
        ),
    ],
)
def test_what_is_refused(resource: dict, more: dict, fault: Fault) -> None:
    found = fault_of(resource, **more)
    assert found == fault
    assert "SECRET" not in str(found)


@pytest.mark.parametrize(
    ("resource", "more"),
    [
        (OBSERVATION, {}),
        (OBSERVATION, {"id": "a_b"}),
        (OBSERVATION, {"effectiveDateTime": "2021"}),
        (OBSERVATION, {"effectiveDateTime": "2021-03"}),
        (OBSERVATION, {"effectiveDateTime": "2021-03-01T10:00:00"}),  # the site's zone, by mappings/dates.toml
        (OBSERVATION, {"_status": {"extension": [{"url": "http://x", "valueCode": "unknown"}]}, "status": "absent"}),
        (OBSERVATION, {"valueQuantity": {"value": 1.50, "comparator": "<"}}),
        (OBSERVATION, {"subject": {"reference": "urn:uuid:1"}, "performer": [{"reference": "#practitioner"}]}),
        (OBSERVATION, {"subject": {"reference": "Patient?identifier=x"}, "focus": [{"reference": "Condition/1"}]}),
        (OBSERVATION, {"subject": {"reference": "http://x/Patient/1/_history/2"}}),
        (OBSERVATION, {"subject": {"reference": "LocalThing/1"}}),
        (PATIENT, {"name": [{"family": ["SECRET"]}], "telecom": "SECRET", "text": 5}),
        (CONDITION, {"verificationStatus": {"coding": [{"system": "urn:local", "code": "sure"}]}}),
        (CONDITION, {"verificationStatus": {"text": "sure"}}),
        ({"resourceType": "MedicinalProduct", "id": "m"}, {"anything": 1}),  # R4 has it, the model does not
    ],
)
def test_what_passes(resource: dict, more: dict) -> None:
    assert fault_of(resource, **more) is None


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        (b"{", Refusal("?", None, "Q-JSON")),
        (b"[]", Refusal("?", None, "Q-OBJECT")),
        (b'{"resourceType":"Patient"}', Refusal("Patient", None, "Q-NO-ID")),
        (b'{"resourceType":"Group","id":"g"}', Refusal("Group", "g", "Q-FOREIGN-TYPE")),
        (
            b'{"resourceType":"Patient","id":"p","extension":[{"url":"x","x":1,"x":2}]}',
            Refusal("Patient", "p", "Q-DUPLICATE-KEY"),
        ),
        (
            b'{"resourceType":"Patient","id":"p","extension":' + b"[" * 990 + b'{"":1}' + b"]" * 990 + b"}",
            Refusal("Patient", "p", "Q-DEPTH"),
        ),
        (b'{"resourceType":"Patient","id":"p","active":"SECRET"}', Refusal("Patient", "p", "Q-VALUE", "active")),
        (b'{"resourceType":"Patient","id":"p","gender":"female"}', None),
        (b'{"resourceType":"Patient","id":"p","gender":"\\u0066emale"}', None),
    ],
)
def test_lines(line: bytes, refusal: Refusal | None) -> None:
    assert check_line(line, "Patient") == refusal


def test_the_tables_speak_of_elements_that_the_model_has() -> None:
    from fhir.resources.R4B import get_fhir_model_class

    def fields(model: type) -> dict[str, object]:
        return {field.alias or name: field for name, field in model.model_fields.items()}  # type: ignore[attr-defined]

    for row in table("codes", "fhir", "required_codes.csv"):
        kind, name, *_ = row["path"].split(".")
        field = fields(get_fhir_model_class(kind))[name]
        listed = (field.json_schema_extra or {}).get("enum_values")  # type: ignore[attr-defined]
        if listed:  # the model's list is open ("+") where the specification's continues
            assert set(listed) - {"+"} <= set(row["codes"].split()), row["path"]
    for row in table("codes", "fhir", "unread_elements.csv"):
        kind, name = row["path"].split(".")
        assert name in fields(get_fhir_model_class("Patient" if kind == "*" else kind))


def test_every_type_can_be_checked() -> None:
    for kind in sorted(resource_types()):
        check({"resourceType": kind, "id": "1"}, Identity(kind, "1"))
        assert isinstance(code_rules(kind), tuple)
    assert ("link", "other") in [rule.path for rule in target_rules("Patient")]
    assert ("component",) not in [rule.path for rule in target_rules("Observation")]
    assert "text" in unread_elements("Observation")
