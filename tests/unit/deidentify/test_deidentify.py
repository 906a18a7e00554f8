"""What passes of a resource: pseudonyms that hold together, dates that are cut, words that stay, meaning that is not lost."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing.rules import Identity
from fhir_adapters.pseudonyms import LinkageKey, SiteKey
from fhir_adapters.validation.model import check

KEY = SiteKey(bytes(range(32)))
LINKAGE = LinkageKey(bytes(range(1, 33)))
CODE = "RSSMRA71E01F205E"  # HL7 Italia's example
LOINC = {"system": "http://loinc.org", "code": "718-7"}


def through(resource: dict[str, Any], **given_: Any) -> Any:
    return Deidentifier(KEY, settings=given_, linkage=LINKAGE).resource(resource)


def person(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "4711", **more}


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o1", "status": "final", "code": {"coding": [LOINC]}, **more}


def code_of(caught: pytest.ExceptionInfo[PalmaresError]) -> str:
    return caught.value.code


# --- ids and references


def test_ids_are_pseudonyms_by_type() -> None:
    assert through(person())["id"] == KEY.pseudonym("patient", "4711")
    assert through(observation())["id"] == KEY.pseudonym("observation", "o1")


@pytest.mark.parametrize(
    "reference",
    [
        "Patient/4711",
        "/Patient/4711",
        "https://fhir.ospedale.example/r4/Patient/4711",
        "Patient/4711/_history/3",
        "https://fhir.ospedale.example/r4/Patient/4711/_history/3",
        "urn:uuid:4711",
    ],
)
def test_each_way_to_refer_leads_to_the_same_patient(reference: str) -> None:
    got = through(observation(subject={"reference": reference, "display": "Rossi Maria", "type": "Patient"}))
    assert got["subject"] == {"reference": f"Patient/{KEY.pseudonym('patient', '4711')}"}


def test_a_urn_that_the_bundle_explains() -> None:
    deidentifier = Deidentifier(KEY)
    got = deidentifier.resource(
        observation(focus=[{"reference": "urn:uuid:abc"}]), urns={"urn:uuid:abc": ("Procedure", "p1")}
    )
    assert got["focus"] == [{"reference": f"Procedure/{KEY.pseudonym('procedure', 'p1')}"}]


def test_contained_resources_and_what_points_to_them() -> None:
    got = through(
        {
            "resourceType": "MedicationStatement",
            "id": "m1",
            "status": "active",
            "subject": {"reference": "Patient/4711"},
            "contained": [
                {"resourceType": "Patient", "id": "p", "name": [{"family": "Rossi"}]},
                {
                    "resourceType": "Medication",
                    "id": "med",
                    "code": {"coding": [{"system": "http://www.whocc.no/atc", "code": "L01EF01"}]},
                },
            ],
            "medicationReference": {"reference": "#med"},
        }
    )
    (inner,) = got["contained"]
    assert inner["resourceType"] == "Medication"
    assert got["medicationReference"]["reference"] == f"#{inner['id']}" != "#med"


def test_two_contained_resources_are_not_confused() -> None:
    contained = [
        {
            "resourceType": "Medication",
            "id": name,
            "code": {"coding": [{"system": "http://www.whocc.no/atc", "code": code}]},
        }
        for name, code in (("one", "L01EF01"), ("two", "L01EF02"))
    ]
    for chosen in ({}, {"pseudonyms": "hospital"}):
        deidentifier = Deidentifier(KEY if not chosen else None, settings=chosen)
        got = deidentifier.resource(
            {
                "resourceType": "MedicationStatement",
                "id": "m",
                "medicationReference": {"reference": "#two"},
                "contained": contained,
            }
        )
        pointed = [one for one in got["contained"] if got["medicationReference"]["reference"] == f"#{one['id']}"]
        assert [one["code"]["coding"][0]["code"] for one in pointed] == ["L01EF02"]


def test_why_an_object_is_absent_leaves_sound_fhir() -> None:
    why = [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
    resource = observation(subject={"extension": why}, code={"extension": why}, effectivePeriod={"extension": why})
    assert check(resource, Identity("Observation", "o1")) is None
    got = through(resource)
    assert check(got, Identity("Observation", got["id"])) is None


def test_logical_and_conditional_references_keep_a_pseudonym_only() -> None:
    identifier = {"system": "http://hl7.it/sid/codiceFiscale", "value": CODE}
    one = through(observation(subject={"identifier": identifier}))["subject"]
    assert one == through(observation(subject={"identifier": identifier, "display": "Rossi"}))["subject"]
    assert one != through(observation(subject={"identifier": {**identifier, "value": "x"}}))["subject"]
    assert CODE not in str(one)
    searched = through(observation(subject={"reference": f"Patient?identifier={CODE}"}))["subject"]["reference"]
    assert searched.startswith("Patient?identifier=") and CODE not in searched
    assert through(observation(subject={"reference": "Rossi Maria"}))["subject"] == {"reference": "withheld"}


def test_the_record_number_makes_the_pseudonym_where_the_site_says_so() -> None:
    deidentifier = Deidentifier(KEY, settings={"patient_identifier": "urn:mrn"})
    patient = person(identifier=[{"system": "urn:mrn", "value": " 0012345"}])
    deidentifier.learn(patient)
    expected = KEY.pseudonym("patient", "0012345")
    assert deidentifier.resource(patient)["id"] == expected
    assert deidentifier.resource(observation(subject={"reference": "Patient/4711"}))["subject"]["reference"].endswith(
        expected
    )
    assert deidentifier.resource({"resourceType": "Patient", "id": "1"})["id"] == KEY.pseudonym("patient", "1")


def test_a_reference_by_record_number_leads_to_the_patient_where_the_site_says_whose_it_is() -> None:
    identifier = {"system": "urn:mrn", "value": "12345"}
    settings = {"patient_identifier": "urn:mrn", "record_number_digits": 7}
    got = through(observation(subject={"identifier": identifier, "display": "Rossi"}), **settings)["subject"]
    assert got == {"reference": f"Patient/{KEY.pseudonym('patient', '0012345')}"}
    assert "reference" not in through(observation(encounter={"identifier": identifier}), **settings)["encounter"]
    assert "reference" not in through(observation(subject={"identifier": identifier}))["subject"]
    assert (
        "reference"
        not in through(observation(subject={"identifier": {"system": "urn:mrn", "value": " "}}), **settings)["subject"]
    )


def test_ids_of_a_hospital_that_has_replaced_them_stay() -> None:
    got = through(observation(subject={"reference": "https://x.example/Patient/4711"}), pseudonyms="hospital")
    assert (got["id"], got["subject"]["reference"]) == ("o1", "Patient/4711")
    assert through(person(id=CODE), pseudonyms="hospital")["id"] != CODE


def test_no_key_no_pseudonyms() -> None:
    with pytest.raises(PalmaresError) as caught:
        Deidentifier(None)
    assert code_of(caught) == "E-SRC-03"
    assert Deidentifier(None, settings={"pseudonyms": "hospital"}).resource(person())["id"] == "4711"


def test_an_id_that_is_none_stays_none() -> None:
    for bad in ("Rossi Maria", "a/b", "x" * 65, ""):
        got = through(person(id=bad))["id"]
        assert got.endswith(" ") and "Rossi" not in got
    assert through(person(id="Rossi Maria"))["id"] != through(person(id="Verdi Anna"))["id"]
    assert "id" not in through({"resourceType": "Patient"})


# --- the patient


@pytest.mark.parametrize(
    ("birth", "kept"),
    [
        ("1961-05-17", "1961-05"),
        ("1961-05", "1961-05"),
        ("1961", "1961"),
        ("1961-05-17T10:00:00+02:00", "1961-05"),
        ("1934-12-31", "1934"),
        ("1935-01-01", "1935-01"),
        ("1919-03-04", "1926"),
        ("1890-01-01", "1890"),
        ("17/05/1961", "withheld"),
        ("maggio 1961", "withheld"),
        ("1961-05-17 Rossi", "withheld"),
        (19610517, 1),
    ],
)
def test_birth_dates(birth: Any, kept: Any) -> None:
    assert through(person(birthDate=birth))["birthDate"] == kept


def test_the_linkage_token_takes_the_place_of_the_codice_fiscale() -> None:
    identifiers = [
        {"system": "urn:mrn", "value": "0012345"},
        {"system": "http://hl7.it/sid/codiceFiscale", "value": CODE.lower()},
        {"system": "urn:oid:2.16.840.1.113883.2.9.4.3.2", "value": CODE[:-1] + "X"},
    ]
    deidentifier = Deidentifier(KEY, linkage=LINKAGE)
    got = deidentifier.resource(person(identifier=identifiers))
    assert got["identifier"] == [{"system": "urn:palmares:linkage-token", "value": LINKAGE.token(CODE)}]
    assert deidentifier.counts["Patient", "identifier", "fiscal-code-invalid"] == 1
    assert "identifier" not in Deidentifier(KEY).resource(person(identifier=identifiers))
    assert through(got | {"resourceType": "Patient"})["identifier"] == got["identifier"]


def test_a_codice_fiscale_is_one_whatever_its_system_is_called() -> None:
    got = through(person(identifier=[{"system": "urn:anagrafe", "value": CODE}, {"value": "0012345"}]))
    assert got["identifier"] == [{"system": "urn:palmares:linkage-token", "value": LINKAGE.token(CODE)}]


def test_omocodia_is_another_person() -> None:
    omocode = "RSSMRA71E01F2L5Z"  # not necessarily valid: the check decides
    from fhir_adapters.pseudonyms import check_character

    omocode = omocode[:15] + check_character(omocode[:15])
    got = through(person(identifier=[{"system": "http://hl7.it/sid/codiceFiscale", "value": omocode}]))
    assert got["identifier"][0]["value"] == LINKAGE.token(omocode) != LINKAGE.token(CODE)


def test_names_addresses_and_contacts_stay() -> None:
    got = through(
        person(
            name=[{"family": "Rossi"}],
            telecom=[{"value": "3331234567"}],
            address=[
                {"line": ["Via Roma 1"], "city": "Milano", "postalCode": "20100", "state": "Lombardia", "country": "IT"}
            ],
            contact=[{"name": {"family": "Rossi"}}],
            photo=[{"data": "AAAA"}],
            gender="female",
        )
    )
    assert got == {
        "resourceType": "Patient",
        "id": KEY.pseudonym("patient", "4711"),
        "address": [{"state": "Lombardia", "country": "IT"}],
        "gender": "female",
    }


# --- words and codes


def test_display_and_text_stay() -> None:
    got = through(observation(code={"coding": [{**LOINC, "display": "Rossi", "version": "Rossi"}], "text": "Rossi"}))
    assert got["code"] == {"coding": [LOINC], "text": "withheld"}
    assert through(observation(valueString="Rossi Maria"))["valueString"] == "withheld"
    assert (
        through(observation(note=[{"text": "Rossi"}], text={"div": "<div>Rossi</div>"})).keys() == observation().keys()
    )


def test_systems_that_nobody_declared() -> None:
    coding = {"system": "http://lab.ospedale.example/analisi", "code": "EMOGLOB"}
    (got,) = through(observation(code={"coding": [coding]}))["code"]["coding"]
    assert got["system"].startswith("urn:palmares:withheld:") and got["code"].startswith("withheld-")
    (same,) = through(observation(code={"coding": [coding]}))["code"]["coding"]
    assert got == same
    declared = through(observation(code={"coding": [coding]}), code_systems=[coding["system"]])
    assert declared["code"]["coding"] == [coding]


@pytest.mark.parametrize(
    ("system", "code", "stays"),
    [
        ("http://loinc.org", "85337-4", True),
        ("http://loinc.org", "Rossi", False),
        ("http://loinc.org", CODE, False),
        ("http://snomed.info/sct", "254837009", True),
        ("http://snomed.info/sct", "254837008", False),
        ("http://snomed.info/sct/900000000000207008/version/20230131", "254837009", True),
        ("http://www.whocc.no/atc", "L01EF01", True),
        ("http://hl7.org/fhir/sid/icd-10", "C50.9", True),
        ("http://hl7.org/fhir/sid/icd-9-cm", "174.9", True),
        ("urn:palmares:her2-ihc", "1+", True),
        ("urn:palmares:site:site01:drug", CODE, False),
        ("urn:palmares:site:site01:drug", "maria.rossi@example.it", False),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB", True),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "Rossi Maria", False),
        (None, "HB", True),
        (None, "Rossi", False),
    ],
)  # fmt: skip
def test_a_code_that_has_not_its_systems_form_becomes_a_hash(system: str | None, code: str, stays: bool) -> None:
    coding = {"code": code} | ({"system": system} if system else {})
    (got,) = through(observation(code={"coding": [coding]}))["code"]["coding"]
    assert (got["code"] == code) == stays
    assert got.get("system") == system or not system


@pytest.mark.parametrize(
    "unit", ["mg/dL", "10*3/uL", "g/dl", "mmol/L", "%", "mm[Hg]", "UI/L", "µmol/L", "{score}", "10^9/L", "kg/m2"]
)
def test_units_pass(unit: str) -> None:
    assert through(observation(valueQuantity={"value": 1, "unit": unit}))["valueQuantity"]["unit"] == unit


@pytest.mark.parametrize("unit", ["Rossi", "mg Rossi", CODE, "1234567", "via Roma 1", "x" * 30])
def test_what_is_no_unit_does_not(unit: str) -> None:
    got = through(observation(valueQuantity={"value": 1, "unit": unit, "code": unit}))["valueQuantity"]
    assert got == {"value": 1, "unit": "withheld", "code": "withheld"}


def test_an_age_over_89_is_90() -> None:
    age = {"coding": [{"system": "http://loinc.org", "code": "30525-0"}]}
    assert through(observation(code=age, valueQuantity={"value": 93.5}))["valueQuantity"]["value"] == 90
    assert through(observation(code=age, valueQuantity={"value": 89}))["valueQuantity"]["value"] == 89
    assert through(observation(valueQuantity={"value": 930}))["valueQuantity"]["value"] == 930


def test_what_an_observation_says_of_a_person_by_its_code() -> None:
    def coded(code: str, **value: Any) -> dict[str, Any]:
        return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, **value}

    got = through(observation(**coded("21112-8", valueDateTime="1961-05-17")))
    assert got["valueDateTime"] == "1961-05"
    assert through(observation(**coded("21112-8", valueDateTime="17/05/1961")))["valueDateTime"] == "withheld"
    assert through(observation(**coded("21112-8", valueDateTime="1919-05-17T10:00:00Z")))["valueDateTime"] == "1926"
    assert through(observation(**coded("30525-0", valueInteger=93)))["valueInteger"] == 90
    named = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    assert through(observation(**coded("54125-0", valueCodeableConcept=named)))["valueString"] == "withheld"
    inner = through(
        observation(
            component=[coded("54125-0", valueCodeableConcept=named), coded("30525-0", valueQuantity={"value": 99})]
        )
    )
    assert inner["component"][0]["valueString"] == "withheld" and "valueCodeableConcept" not in inner["component"][0]
    assert inner["component"][1]["valueQuantity"]["value"] == 90
    assert through(observation(**coded("718-7", valueDateTime="1961-05-17")))["valueDateTime"] == "1961-05-17"


# --- meaning


def test_a_modifier_is_never_dropped() -> None:
    modifier = [{"url": "http://ospedale.example/negato", "valueString": "Rossi"}]
    got = through(
        observation(modifierExtension=modifier, component=[{"code": {"text": "x"}, "modifierExtension": modifier}])
    )
    assert got["modifierExtension"] == [{"url": "urn:palmares:withheld"}] == got["component"][0]["modifierExtension"]
    assert check(got, Identity("Observation", got["id"])) is None
    known = [{"url": "http://hl7.org/fhir/StructureDefinition/condition-assertedDate", "valueBoolean": True}]
    assert through(observation(modifierExtension=known))["modifierExtension"] == [{"url": known[0]["url"]}]
    assert through(observation(implicitRules="http://x"))["implicitRules"] == "withheld"


def test_extensions_pass_only_when_listed() -> None:
    race = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}
    listed = {
        "url": race,
        "extension": [
            {"url": "ombCategory", "valueCoding": {**coding, "display": "Rossi"}},
            {"url": "text", "valueString": "Rossi"},
        ],
    }
    got = through(person(extension=[listed, {"url": "http://x", "valueString": "Rossi"}]))
    assert got["extension"] == [{"url": race, "extension": [{"url": "ombCategory", "valueCoding": coding}]}]
    assert "extension" not in through(person(extension=[{"url": "http://x", "valueString": "Rossi"}]))


def test_why_a_value_is_absent_passes() -> None:
    why = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
    assert through(person(_birthDate=why))["_birthDate"] == why
    assert "_birthDate" not in through(person(_birthDate={"extension": [{"url": "x", "valueString": "Rossi"}]}))


def test_what_is_wrong_stays_wrong_and_says_nothing() -> None:
    got = through(
        observation(status="Rossi", code="Rossi", subject=["Rossi"], effectiveDateTime="Rossi", rossi="Rossi")
    )
    assert got == {
        "resourceType": "Observation",
        "id": KEY.pseudonym("observation", "o1"),
        "status": "withheld",
        "code": "withheld",
        "subject": [],
        "effectiveDateTime": "withheld",
        "withheld": True,
    }
    assert check(got, Identity("Observation", got["id"])) is not None


def test_of_a_type_without_a_place_in_omop_type_and_id_pass() -> None:
    deidentifier = Deidentifier(KEY)
    related = deidentifier.resource({"resourceType": "RelatedPerson", "id": "1", "name": [{"family": "Rossi"}]})
    assert related is not None and related.keys() == {"resourceType", "id"}
    assert related["id"] != "1"
    assert check(related, Identity("RelatedPerson", related["id"])) is None
    assert deidentifier.counts["RelatedPerson", "", "not-needed"] == 1
    assert deidentifier.resource({"resourceType": "Rossi", "id": "1"})["resourceType"] == "Withheld"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
ELEMENTS = st.sampled_from(
    "id meta identifier birthDate gender address extension modifierExtension contained link name generalPractitioner _gender".split()  # noqa: SIM905
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(ELEMENTS, JSON, max_size=6))
def test_any_json_passes_without_a_crash_and_without_a_change_of_the_input(content: dict[str, Any]) -> None:
    resource = {"resourceType": "Patient", **content}
    before = copy.deepcopy(resource)
    deidentifier = Deidentifier(KEY, settings={"patient_identifier": "urn:mrn"})
    deidentifier.learn(resource)
    assert deidentifier.resource(resource) == Deidentifier(KEY, settings={"patient_identifier": "urn:mrn"}).resource(
        resource
    )
    assert resource == before


def test_twice_is_once_where_the_hospital_has_replaced_the_ids() -> None:
    once = through(
        observation(
            subject={"reference": "Patient/1"},
            valueQuantity={"value": 5, "unit": "mg/dL"},
            code={"coding": [LOINC, {"system": "http://x", "code": "y"}], "text": "x"},
        ),
        pseudonyms="hospital",
    )
    assert through(once, pseudonyms="hospital") == once


def test_the_keys_pass_to_a_worker_and_are_shown_nowhere() -> None:
    assert pickle.loads(pickle.dumps(KEY)).fingerprint == KEY.fingerprint  # noqa: S301
    assert bytes(range(32)).hex() not in repr(vars(Deidentifier(KEY)))
