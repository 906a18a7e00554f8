"""Nothing is relied on that FHIR lets a source leave out (f2o-011): each element of a full resource is taken away in turn."""

from typing import Any

import pytest

from omop_etl.mapping.recipes import recipes
from tests.mapping_helpers import LOINC, RXNORM, SNOMED, UCUM, Slice, concept, mapped, patient, resource

DOSE = {
    "route": concept((SNOMED, "26643006")),
    "doseAndRate": [{"doseQuantity": {"value": 125, "unit": "mg", "code": "mg", "system": UCUM}}],
    "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
}
STAFF, VISIT = {"reference": "Practitioner/staff"}, {"reference": "Encounter/visit"}
QUANTITY = {"value": 1.5, "comparator": "<", "unit": "g", "code": "g", "system": UCUM}
# the elements that the views read, and their parts
FULL: dict[str, dict[str, Any]] = {
    "AdverseEvent": {
        "subject": {"reference": "Patient/p"},
        "actuality": "actual",
        "event": concept((SNOMED, "254837009"), text="x"),
        "encounter": VISIT,
        "date": "2020-03-05",
        "detected": "2020-03-05",
        "recordedDate": "2020-03-05",
        "recorder": STAFF,
        "seriousness": concept((SNOMED, "1")),
        "severity": concept((SNOMED, "2")),
        "outcome": concept((SNOMED, "3")),
        "extension": [{"url": "http://example.org/x", "valueCode": "y"}],
    },
    "AllergyIntolerance": {
        "clinicalStatus": concept(("x", "active")),
        "verificationStatus": concept(("x", "confirmed")),
        "encounter": VISIT,
        "onsetDateTime": "2020-01-01",
        "lastOccurrence": "2020-02-01",
        "asserter": STAFF,
        "recorder": STAFF,
    },
    "Condition": {
        "clinicalStatus": concept(("x", "resolved")),
        "verificationStatus": concept(("x", "confirmed")),
        "category": [concept(("x", "problem-list-item"))],
        "severity": concept((SNOMED, "1")),
        "bodySite": [concept((SNOMED, "2")), {"text": "left"}],
        "stage": [{"summary": concept((SNOMED, "3"))}, {"assessment": [{"reference": "Observation/Observation"}]}],
        "encounter": VISIT,
        "recordedDate": "2020-03-06",
        "abatementDateTime": "2021-01-01",
        "asserter": STAFF,
        "recorder": STAFF,
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/condition-related",
                "valueReference": {"reference": "Condition/other"},
            }
        ],
    },
    "Coverage": {"type": {"text": "x", "coding": [{"code": "PUBLICPOL"}]}, "payor": [{"display": "SSN"}]},
    "Device": {
        "udiCarrier": [{"deviceIdentifier": "1"}],
        "expirationDate": "2030-01-01",
        "lotNumber": "L",
        "type": concept((SNOMED, "170615005"), text="x"),
    },
    "DiagnosticReport": {
        "category": [concept(("x", "LAB"))],
        "encounter": VISIT,
        "issued": "2020-03-05T10:00:00Z",
        "performer": [STAFF],
        "conclusion": "x",
        "conclusionCode": [concept((SNOMED, "254837009"))],
        "presentedForm": [{"contentType": "text/plain"}],
    },
    "DocumentReference": {
        "docStatus": "final",
        "author": [STAFF],
        "context": {"encounter": [VISIT], "period": {"start": "2020-03-05"}},
    },
    "Encounter": {
        "participant": [{"individual": STAFF}],
        "hospitalization": {
            "admitSource": concept(("x", "emd")),
            "dischargeDisposition": concept(("x", "home")),
        },
        "location": [{"location": {"reference": "Location/Location"}}],
        "serviceProvider": {"reference": "Organization/Organization"},
        "partOf": VISIT,
    },
    "ImagingStudy": {"encounter": VISIT, "procedureCode": [concept((SNOMED, "77477000"))]},
    "Immunization": {
        "encounter": VISIT,
        "primarySource": False,
        "reportOrigin": concept(("x", "recall")),
        "lotNumber": "L",
        "route": concept((SNOMED, "26643006")),
        "doseQuantity": {"value": 1, "unit": "mL", "code": "mL", "system": UCUM},
        "isSubpotent": False,
        "performer": [{"actor": STAFF}],
    },
    "Location": {
        "name": "Reparto",
        "type": [concept((SNOMED, "225746001"))],
        "address": {"line": ["x"], "city": "x", "state": "MI", "postalCode": "1", "country": "IT"},
        "position": {"longitude": 9.1, "latitude": 45.4},
    },
    "Medication": {"status": "active", "code": concept((RXNORM, "72965"))},
    "MedicationAdministration": {
        "statusReason": [concept(("x", "toxicity"))],
        "context": VISIT,
        "performer": [{"actor": STAFF}],
        "dosage": {"route": concept((SNOMED, "26643006")), "dose": {"value": 5, "unit": "mg", "code": "mg"}},
        "contained": [{"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "72965"))}],
    },
    "MedicationDispense": {
        "context": VISIT,
        "performer": [{"actor": STAFF}],
        "quantity": {"value": 21},
        "daysSupply": {"value": 21},
        "whenPrepared": "2020-03-04",
        "dosageInstruction": [DOSE],
        "contained": [{"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "72965"))}],
    },
    "MedicationRequest": {
        "doNotPerform": False,
        "reportedBoolean": False,
        "encounter": VISIT,
        "requester": STAFF,
        "dosageInstruction": [DOSE],
        "dispenseRequest": {
            "quantity": {"value": 21},
            "numberOfRepeatsAllowed": 1,
            "expectedSupplyDuration": {"value": 21, "code": "d"},
        },
        "contained": [{"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "72965"))}],
    },
    "MedicationStatement": {
        "statusReason": [concept(("x", "toxicity"))],
        "context": VISIT,
        "informationSource": STAFF,
        "dateAsserted": "2020-04-01",
        "dosage": [DOSE],
        "contained": [{"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "72965"))}],
    },
    "Observation": {
        "category": [concept(("x", "laboratory"))],
        "focus": [{"reference": "Condition/Condition"}],
        "encounter": VISIT,
        "issued": "2020-03-05T10:00:00Z",
        "performer": [STAFF],
        "valueQuantity": QUANTITY,
        "dataAbsentReason": concept(("x", "unknown")),
        "interpretation": [concept(("x", "H"))],
        "referenceRange": [{"low": {"value": 1}, "high": {"value": 2}}],
        "hasMember": [{"reference": "Observation/x"}],
        "component": [
            {
                "code": concept((LOINC, "8480-6")),
                "valueQuantity": QUANTITY,
                "dataAbsentReason": concept(("x", "unknown")),
                "interpretation": [concept(("x", "H"))],
                "referenceRange": [{"low": {"value": 1}, "high": {"value": 2}}],
            }
        ],
    },
    "Organization": {"name": "Ospedale", "type": [concept(("x", "prov"))]},
    "Patient": {
        "gender": "female",
        "birthDate": "1960-05-12",
        "deceasedDateTime": "2024-01-01",
        "extension": [
            {"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex", "valueCode": "F"},
            {
                "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
                "extension": [{"url": "ombCategory", "valueCoding": {"code": "2106-3"}}],
            },
        ],
        "address": [{"use": "home", "state": "MI", "country": "IT"}],
        "generalPractitioner": [STAFF],
        "managingOrganization": {"reference": "Organization/Organization"},
        "link": [{"type": "seealso", "other": {"reference": "Patient/p"}}],
        "identifier": [{"system": "urn:palmares:linkage-token", "value": "0" * 64}],
    },
    "Practitioner": {"gender": "male"},
    "PractitionerRole": {
        "practitioner": STAFF,
        "organization": {"reference": "Organization/Organization"},
        "specialty": [concept((SNOMED, "62247001"))],
    },
    "Procedure": {
        "encounter": VISIT,
        "recorder": STAFF,
        "asserter": STAFF,
        "performer": [{"actor": STAFF}],
        "bodySite": [concept((SNOMED, "2"))],
    },
    "Specimen": {"status": "available", "receivedTime": "2020-03-06"},
}
HOMELESS = {"Location", "Medication", "Organization", "Patient", "Practitioner", "PractitionerRole"}
# without these a resource cannot be a row, and says why; FHIR asks for some of them, and sources forget them
DECIDE = {
    ("Patient", "birthDate"): "X-NO-BIRTH-YEAR",
    ("PractitionerRole", "practitioner"): "X-UNREFERENCED",
    ("Condition", "code"): "X-NO-CODE",
    ("Procedure", "code"): "X-NO-CODE",
    ("AllergyIntolerance", "code"): "X-NO-CODE",
    ("AdverseEvent", "event"): "X-NO-CODE",
    ("Device", "type"): "X-NO-CODE",
    ("Immunization", "vaccineCode"): "X-NO-CODE",
    ("Procedure", "performedDateTime"): "X-NO-DATE",
    ("Encounter", "period"): "X-NO-DATE",
    ("Coverage", "period"): "X-NO-DATE",
    ("Device", "manufactureDate"): "X-NO-DATE",
    ("ImagingStudy", "started"): "X-NO-DATE",
    ("Immunization", "occurrenceDateTime"): "X-NO-DATE",
    ("MedicationRequest", "authoredOn"): "X-NO-DATE",
    ("MedicationStatement", "effectiveDateTime"): "X-NO-DATE",
    ("MedicationAdministration", "effectiveDateTime"): "X-NO-DATE",
    ("MedicationRequest", "medicationCodeableConcept"): "X-NO-CODE",
    ("MedicationStatement", "medicationCodeableConcept"): "X-NO-CODE",
    ("MedicationDispense", "medicationCodeableConcept"): "X-NO-CODE",
    ("MedicationAdministration", "medicationCodeableConcept"): "X-NO-CODE",
}
# what R4 asks of each type, and nothing else
MINIMAL: dict[str, dict[str, Any]] = {
    "AdverseEvent": {"actuality": "actual", "subject": {"reference": "Patient/p"}},
    "AllergyIntolerance": {"patient": {"reference": "Patient/p"}},
    "Condition": {"subject": {"reference": "Patient/p"}},
    "Coverage": {"status": "active", "beneficiary": {"reference": "Patient/p"}, "payor": [{"display": "SSN"}]},
    "Device": {},
    "DiagnosticReport": {"status": "final", "code": {}},
    "DocumentReference": {"status": "current", "content": [{"attachment": {"contentType": "text/plain"}}]},
    "Encounter": {"status": "finished", "class": {"code": "AMB"}},
    "ImagingStudy": {"status": "available", "subject": {"reference": "Patient/p"}},
    "Immunization": {
        "status": "completed",
        "patient": {"reference": "Patient/p"},
        "vaccineCode": {"text": "x"},
        "occurrenceDateTime": "2020-01-01",
    },
    "Location": {},
    "Medication": {},
    "MedicationAdministration": {
        "status": "completed",
        "medicationCodeableConcept": {"text": "x"},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2020-01-01",
    },
    "MedicationDispense": {"status": "completed", "medicationCodeableConcept": {"text": "x"}},
    "MedicationRequest": {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": "x"},
        "subject": {"reference": "Patient/p"},
    },
    "MedicationStatement": {
        "status": "active",
        "medicationCodeableConcept": {"text": "x"},
        "subject": {"reference": "Patient/p"},
    },
    "Observation": {"status": "final", "code": {"text": "x"}},
    "Organization": {"name": "x"},
    "Patient": {},
    "Practitioner": {},
    "PractitionerRole": {},
    "Procedure": {"status": "completed", "subject": {"reference": "Patient/p"}},
    "Specimen": {},
}


def full(kind: str, identity: str) -> dict[str, Any]:
    return resource(kind, identity, of=None if kind in HOMELESS else "p", **FULL[kind])


def variants() -> dict[tuple[str, str], dict[str, Any]]:
    """(type, what was taken away) → resource."""
    found = {}
    for kind in FULL:
        whole = full(kind, "x")
        for name in whole.keys() - {"resourceType", "id"}:
            identity = f"{kind}-{name}"
            found[kind, name] = {k: v for k, v in full(kind, identity).items() if k != name}
            # and of a part in the resource's own structure, each of its elements
            part = whole[name][0] if isinstance(whole[name], list) and whole[name] else whole[name]
            if isinstance(part, dict) and "coding" not in part and "reference" not in part:
                for inner in part:
                    less = {k: v for k, v in part.items() if k != inner} or None
                    value = [less] if isinstance(whole[name], list) and less else less
                    one = full(kind, f"{identity}-{inner}") | {name: value}
                    found[kind, f"{name}.{inner}"] = {k: v for k, v in one.items() if v is not None}
    return found


VARIANTS = variants()


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told = [patient(), {"resourceType": "Practitioner", "id": "staff"}, resource("Encounter", "visit")]
    told += [full(kind, kind) for kind in FULL]
    told += [{"resourceType": kind, "id": f"minimal-{kind}"} | more for kind, more in MINIMAL.items()]
    # each Medication is asked for, so that it is merged
    told += [
        resource("MedicationRequest", f"uses-{one['id']}", medicationReference={"reference": f"Medication/{one['id']}"})
        for (kind, _), one in VARIANTS.items()
        if kind == "Medication"
    ]
    for one in told:
        if one["id"].startswith("uses-"):
            del one["medicationCodeableConcept"]
    return mapped(tmp_path_factory.mktemp("optional"), [*told, *VARIANTS.values()])


def test_every_type_and_every_element_that_is_read_is_there() -> None:
    assert FULL.keys() == MINIMAL.keys() == recipes().keys()
    for kind, recipe in recipes().items():
        whole = full(kind, "x") | {"meta": {}, "modifierExtension": [], "implicitRules": ""}
        read = {
            column["path"].split(".")[0].split(" ")[0].split("(")[0]
            for select in recipe.view["select"]
            for column in select["column"]
        }
        # of a choice one alternative is there; iif() asks after the same
        read -= {"iif", "onset", "abatement", "effective", "performed", "value", "occurrence", "medication", "reported"}
        read -= {"deceased"}
        assert not {name for name in read if name not in whole}, kind


@pytest.mark.requirement("f2o-011")
@pytest.mark.parametrize("kind", sorted(FULL))
def test_without_any_one_element_it_is_a_row_or_has_its_reason(slice_: Slice, kind: str) -> None:
    lines = {
        line["resource_id"]: (line["outcome"], line["reason"])
        for line in slice_.rows("ledger")
        if line["resource_type"] == kind
    }
    for (of, name), one in VARIANTS.items():
        if of != kind:
            continue
        outcome, reason = lines[one["id"]]
        if name in ("subject", "patient", "beneficiary"):
            assert (outcome, reason) == ("excluded", "X-NO-SUBJECT"), name
        elif (kind, name) in DECIDE:
            assert (outcome, reason) == ("excluded", DECIDE[kind, name]), name
        else:
            assert outcome in ("written", "merged"), (name, reason)


@pytest.mark.requirement("f2o-011")
@pytest.mark.parametrize("kind", sorted(MINIMAL))
def test_with_only_what_r4_asks_for(slice_: Slice, kind: str) -> None:
    lines = [line for line in slice_.rows("ledger") if line["resource_id"] == f"minimal-{kind}"]
    assert {line["outcome"] for line in lines} in ({"written"}, {"excluded"})
    assert all((line["outcome"] == "excluded") == (line["reason"] is not None) for line in lines)
