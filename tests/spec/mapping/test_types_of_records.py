"""Who says it, and in which context: the type concept, and how sure a diagnosis is. The tables are run as they stand."""

from pathlib import Path
from typing import Any

import pytest

from tests.mapping_helpers import RXNORM, Slice, concept, mapped, patient, resource

# kind of record | said in the resource -> type concept
TYPES = """
Condition                |                                        -> 32817 EHR
Condition                | category encounter-diagnosis           -> 32827 EHR encounter record
Condition                | category problem-list-item             -> 32840 EHR problem list
Condition                | category health-concern                -> 32817 EHR
Condition                | category local problem-list-item       -> 32840 EHR problem list
Condition                | asserter Patient/p                     -> 32865 Patient self-report
Condition                | asserter RelatedPerson/r               -> 32865 Patient self-report
Condition                | asserter Practitioner/s                -> 32817 EHR
Condition                | category problem-list-item asserter Patient/p -> 32865 Patient self-report
Observation              |                                        -> 32817 EHR
Observation              | category laboratory                    -> 32856 Lab
Observation              | category vital-signs                   -> 32817 EHR
Observation              | category survey                        -> 32817 EHR
Observation              | performer Patient/p                    -> 32865 Patient self-report
Observation              | category survey performer RelatedPerson/r -> 32865 Patient self-report
Observation              | performer Practitioner/s               -> 32817 EHR
Procedure                |                                        -> 32827 EHR encounter record
Procedure                | asserter Patient/p                     -> 32865 Patient self-report
MedicationRequest        |                                        -> 32838 EHR prescription
MedicationRequest        | reportedBoolean true                   -> 32865 Patient self-report
MedicationRequest        | reportedReference Patient/p            -> 32865 Patient self-report
MedicationRequest        | reportedReference Practitioner/s       -> 32838 EHR prescription
MedicationStatement      |                                        -> 32830 EHR medication list
MedicationStatement      | informationSource Patient/p            -> 32865 Patient self-report
MedicationStatement      | informationSource Practitioner/s       -> 32830 EHR medication list
MedicationAdministration |                                        -> 32818 EHR administration record
MedicationAdministration | performer.actor Patient/p              -> 32865 Patient self-report
MedicationDispense       |                                        -> 32825 EHR dispensing record
Immunization             |                                        -> 32827 EHR encounter record
Immunization             | reportOrigin recall                    -> 32865 Patient self-report
Immunization             | reportOrigin provider                  -> 32827 EHR encounter record
AllergyIntolerance       |                                        -> 32817 EHR
AllergyIntolerance       | asserter Patient/p                     -> 32865 Patient self-report
AdverseEvent             |                                        -> 32817 EHR
AdverseEvent             | recorder Patient/p                     -> 32865 Patient self-report
DiagnosticReport         |                                        -> 32856 Lab
DiagnosticReport         | category LAB                           -> 32856 Lab
DiagnosticReport         | category SP                            -> 32835 EHR Pathology report
Specimen                 |                                        -> 32856 Lab
Device                   |                                        -> 32817 EHR
"""
# verificationStatus | clinicalStatus -> condition_status_concept_id, or the reason why there is no row
STATUS = """
confirmed        | active     -> 32893 Confirmed diagnosis
provisional      | active     -> 32899 Preliminary diagnosis
differential     | active     -> 32899 Preliminary diagnosis
unconfirmed      | active     -> 32899 Preliminary diagnosis
confirmed        | resolved   -> 32893 Confirmed diagnosis
                 | resolved   -> 32906 Resolved condition
                 | active     -> 0
                 |            -> 0
refuted          | active     -> X-REFUTED
entered-in-error | active     -> X-ERROR
"""
TABLES = {
    "Condition": "condition_occurrence",
    "AdverseEvent": "condition_occurrence",
    "Procedure": "procedure_occurrence",
    "Observation": "measurement",
    "DiagnosticReport": "measurement",
    "AllergyIntolerance": "observation",
    "Device": "device_exposure",
    "Specimen": "specimen",
}


def said(words: list[str]) -> dict[str, Any]:
    """Elements of a resource from `element value element value`."""
    made: dict[str, Any] = {}
    while words:
        name, value, *words = words
        if name == "category":
            codings = [{"code": value}]
            if value == "local":
                codings, words = [{"code": "x"}, {"code": words[0]}], words[1:]
            made["category"] = [{"coding": codings}]
        elif name == "reportOrigin":
            made |= {"primarySource": False, "reportOrigin": {"coding": [{"code": value}]}}
        elif name == "reportedBoolean":
            made[name] = value == "true"
        elif name == "performer":
            made[name] = [{"reference": value}]
        elif name == "performer.actor":
            made["performer"] = [{"actor": {"reference": value}}]
        else:
            made[name] = {"reference": value}
    return made


def lines(text: str) -> list[tuple[list[str], str]]:
    return [
        ([part.strip() for part in line.partition("->")[0].split("|")], line.partition("->")[2].strip())
        for line in text.strip().splitlines()
    ]


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told: list[dict[str, Any]] = [patient()]
    for number, ((kind, words), _) in enumerate(lines(TYPES)):
        told.append(resource(kind, f"t{number}", **said(words.split())))
    return mapped(tmp_path_factory.mktemp("types"), told)


@pytest.mark.requirement("f2o-050", "f2o-051", "f2o-052", "f2o-053")
@pytest.mark.parametrize("number", range(len(lines(TYPES))), ids=lambda n: " ".join(lines(TYPES)[n][0]).strip())
def test_types(slice_: Slice, number: int) -> None:
    (kind, _), answer = lines(TYPES)[number]
    table = TABLES.get(kind, "drug_exposure")
    row = slice_.one(kind, f"t{number}", table)
    column = table.removesuffix("_occurrence").removesuffix("_exposure")
    assert row[f"{column}_type_concept_id"] == int(answer.split()[0])


@pytest.mark.requirement("f2o-060")
def test_how_sure_a_diagnosis_is(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = [patient()]
    for number, ((verified, clinical), _) in enumerate(lines(STATUS)):
        more: dict[str, Any] = {"verificationStatus": {"coding": [{"code": verified}]}} if verified else {}
        more |= {"clinicalStatus": {"coding": [{"code": clinical}]}} if clinical else {}
        told.append(resource("Condition", f"c{number}", **more))
    found = mapped(tmp_path, told)
    for number, (given, answer) in enumerate(lines(STATUS)):
        if answer.startswith("X-"):
            assert found.why("Condition", f"c{number}")[1] == answer, given
        else:
            row = found.one("Condition", f"c{number}", "condition_occurrence")
            assert row["condition_status_concept_id"] == int(answer.split()[0]), given


# what the record refers to -> what becomes of it
REFERENCES = """
subject Patient/p                               -> row
subject https://x.example/fhir/Patient/p        -> row
subject https://x.example/fhir/Patient/p/_history/3 -> row
subject urn:uuid:p                              -> row
subject #inside                                 -> X-NO-SUBJECT
subject Patient?identifier=1                    -> X-NO-SUBJECT
subject Group/g                                 -> X-NO-SUBJECT
subject Patient/nobody                          -> X-NO-PERSON
encounter Encounter/v                           -> visit
encounter https://x.example/Encounter/v         -> visit
encounter Encounter/nowhere                     -> row
encounter #inside                               -> visit by date
performer Practitioner/s                        -> provider
performer https://x.example/Practitioner/s      -> provider
performer #inside                               -> row
performer Practitioner/nowhere                  -> row
"""


def test_references(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = [
        patient(),
        {"resourceType": "Practitioner", "id": "s"},
        resource("Encounter", "v"),
    ]
    inside = [{"resourceType": kind, "id": "inside"} for kind in ("Patient", "Practitioner", "Encounter")]
    for number, ((what,), _) in enumerate(lines(REFERENCES)):
        element, reference = what.split()
        value = {"reference": reference}
        more: dict[str, Any] = {element: [value] if element == "performer" else value}
        if reference == "#inside":
            more["contained"] = inside
        # on another day than the visit's, but where that is what is asked
        day = "2020-03-05" if number == 11 else "2021-01-01"
        told.append(resource("Observation", f"r{number}", effectiveDateTime=day, **more))
    found = mapped(tmp_path, told)
    visit = found.one("Encounter", "v", "visit_occurrence")["visit_occurrence_id"]
    provider = found.one("Practitioner", "s", "provider")["provider_id"]
    for number, ((what,), answer) in enumerate(lines(REFERENCES)):
        if answer.startswith("X-"):
            assert found.why("Observation", f"r{number}") == ("excluded", answer), what
            continue
        row = found.one("Observation", f"r{number}", "measurement")
        assert row["visit_occurrence_id"] == (visit if answer.startswith("visit") else None), what
        assert row["provider_id"] == (provider if answer == "provider" else None), what
        assert found.why("Observation", f"r{number}")[1] == ("V-BY-DATE" if answer == "visit by date" else None), what


def test_a_contained_medication_is_the_one_that_is_named(tmp_path: Path) -> None:
    """A statement may hold several Medications: an ingredient beside the product."""
    held = [
        {"resourceType": "Medication", "id": "ingredient", "code": concept((RXNORM, "72965"))},
        {"resourceType": "Medication", "id": "product", "code": concept((RXNORM, "1873916"))},
        {"resourceType": "Practitioner", "id": "staff"},
    ]
    kinds = ("MedicationStatement", "MedicationRequest", "MedicationAdministration", "MedicationDispense")
    told = [patient()]
    for kind in kinds:
        one = resource(kind, kind, medicationReference={"reference": "#product"}, contained=held)
        del one["medicationCodeableConcept"]
        told.append(one)
    found = mapped(tmp_path, told)
    for kind in kinds:
        assert found.one(kind, kind, "drug_exposure")["drug_concept_id"] == 1592911, kind
