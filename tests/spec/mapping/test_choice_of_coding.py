"""Which coding of a CodeableConcept speaks, for each kind of record; what one code that says several things becomes."""

from collections.abc import Iterator
from typing import Any

import pytest

from omop_etl.mapping.codes import coded_elements
from tests.mapping_helpers import LOINC, RXNORM, SNOMED, UCUM, Slice, mapped, patient, resource, tiny_vocabulary

SYSTEMS = {
    "SNOMED": SNOMED,
    "LOINC": LOINC,
    "RxNorm": RXNORM,
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "CVX": "http://hl7.org/fhir/sid/cvx",
    "ATC": "http://www.whocc.no/atc",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "HCPCS": "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "ICD9Proc": "http://hl7.org/fhir/sid/icd-9-cm/procedure",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICDO3": "http://terminology.hl7.org/CodeSystem/icd-o-3",
    "MedDRA": "http://terminology.hl7.org/CodeSystem/MDR",
    "local": "urn:hospital:codes",
}
DOMAIN = {
    "Condition": "Condition",
    "Procedure": "Procedure",
    "Observation": "Measurement",
    "MedicationStatement": "Drug",
    "MedicationRequest": "Drug",
    "MedicationAdministration": "Drug",
    "MedicationDispense": "Drug",
    "Immunization": "Drug",
    "AdverseEvent": "Condition",
    "AllergyIntolerance": "Observation",
    "Device": "Device",
    "DiagnosticReport": "Measurement",
}
TABLE = {
    "Condition": "condition_occurrence",
    "Procedure": "procedure_occurrence",
    "Measurement": "measurement",
    "Drug": "drug_exposure",
    "Observation": "observation",
    "Device": "device_exposure",
}
ELEMENT = {
    "Condition": "code",
    "Procedure": "code",
    "Observation": "code",
    "AllergyIntolerance": "code",
    "DiagnosticReport": "code",
    "Immunization": "vaccineCode",
    "AdverseEvent": "event",
    "Device": "type",
}
# kind of record | the codings, in the order of the source (* chosen by the user, - one that maps to nothing) | the one that speaks
CHOICES = """
Condition                | ICD10CM SNOMED        | SNOMED
Condition                | ICD10 ICDO3           | ICDO3
Condition                | local ICD10           | ICD10
Condition                | -SNOMED ICD10         | ICD10
Condition                | SNOMED ICD10*         | SNOMED
Procedure                | CPT4 SNOMED           | SNOMED
Procedure                | HCPCS CPT4            | CPT4
Procedure                | ICD9Proc HCPCS        | HCPCS
Procedure                | -SNOMED CPT4          | CPT4
MedicationStatement      | ATC RxNorm            | RxNorm
MedicationStatement      | ATC NDC               | NDC
MedicationRequest        | NDC RxNorm            | RxNorm
MedicationAdministration | SNOMED RxNorm         | RxNorm
MedicationDispense       | SNOMED ATC            | ATC
MedicationDispense       | local -RxNorm NDC     | NDC
Immunization             | RxNorm CVX            | CVX
Immunization             | NDC RxNorm            | RxNorm
Observation              | SNOMED LOINC          | LOINC
Observation              | local SNOMED          | SNOMED
Observation              | SNOMED* LOINC         | LOINC
DiagnosticReport         | SNOMED LOINC          | LOINC
AllergyIntolerance       | RxNorm SNOMED         | SNOMED
AdverseEvent             | SNOMED MedDRA         | MedDRA
Device                   | HCPCS SNOMED          | SNOMED
"""
FIRST = 2_000_000_000
TWO_VALUES, TWO_ROUTES, TWO_TYPES, TWO_DRUGS = "two-values", "two-routes", "two-types", "two-drugs"
LOW, HIGH = FIRST + 9_001, FIRST + 9_002


def rows() -> Iterator[tuple[int, str, list[str], str]]:
    for number, line in enumerate(CHOICES.strip().splitlines()):
        kind, codings, speaks = (part.strip() for part in line.split("|"))
        yield number, kind, codings.split(), speaks


def identity_of(number: int, place: int) -> int:
    return FIRST + number * 10 + place


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    concepts: list[tuple[int, str, str, str, str]] = []
    relations: list[tuple[int, int, str]] = []
    told: list[dict[str, Any]] = [patient()]
    for number, kind, codings, _ in rows():
        listed = []
        for place, word in enumerate(codings):
            name = word.strip("*-")
            code = f"{number}{place}" if name in ("CVX", "NDC") else f"C{number}.{place}"
            code = code.zfill(11) if name == "NDC" else code
            if name != "local":
                standard = "" if word.startswith("-") else "S"
                concepts.append((identity_of(number, place), DOMAIN[kind], name, standard, code))
                relations += [(identity_of(number, place),) * 2 + ("Maps to",)] if standard else []
            listed.append(
                {"system": SYSTEMS[name], "code": code} | ({"userSelected": True} if word.endswith("*") else {})
            )
        element = ELEMENT.get(kind, "medicationCodeableConcept")
        told.append(resource(kind, f"r{number}", **{element: {"coding": listed}}))
    # one code, two standard concepts
    for domain, code in (
        ("Meas Value", TWO_VALUES),
        ("Route", TWO_ROUTES),
        ("Specimen", TWO_TYPES),
        ("Drug", TWO_DRUGS),
    ):
        place = FIRST + 9_000 + len(concepts) * 10
        concepts.append((place, domain, "SNOMED", "", code))
        for target in (place + 2, place + 1):
            concepts.append((target, domain, "SNOMED", "S", f"{code}-{target}"))
            relations += [(place, target, "Maps to"), (target, target, "Maps to")]
    told += [
        resource("Observation", "values", valueCodeableConcept={"coding": [{"system": SNOMED, "code": TWO_VALUES}]}),
        resource(
            "MedicationStatement", "routes", dosage=[{"route": {"coding": [{"system": SNOMED, "code": TWO_ROUTES}]}}]
        ),
        resource("Specimen", "types", type={"coding": [{"system": SNOMED, "code": TWO_TYPES}]}),
        resource(
            "MedicationStatement",
            "drugs",
            medicationCodeableConcept={"coding": [{"system": SNOMED, "code": TWO_DRUGS}]},
            dosage=[{"doseAndRate": [{"doseQuantity": {"value": 1, "code": "mg", "system": UCUM}}]}],
        ),
    ]
    del told[-4]["valueQuantity"]
    folder = tmp_path_factory.mktemp("choice")
    return mapped(folder, told, vocabulary=tiny_vocabulary(folder / "athena", concepts, relations))


@pytest.mark.requirement("f2o-033", "f2o-034", "f2o-035")
@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row[1]} {' '.join(row[2])}")
def test_the_coding_that_speaks(slice_: Slice, row: tuple[int, str, list[str], str]) -> None:
    number, kind, codings, speaks = row
    place = [word.strip("*-") for word in codings].index(speaks)
    table = TABLE[DOMAIN[kind]]
    found = slice_.one(kind, f"r{number}", table)
    column = table.removesuffix("_occurrence").removesuffix("_exposure")
    assert found[f"{column}_concept_id"] == identity_of(number, place)
    assert found[f"{column}_source_concept_id"] == identity_of(number, place)


def ids(slice_: Slice, kind: str, name: str, table: str, column: str) -> list[int]:
    return sorted(row[column] for row in slice_.of(kind, name)[table])


def test_one_code_to_two_standard_concepts_by_the_policy_of_its_table(slice_: Slice) -> None:
    """coded_elements.csv: a record is one row per concept; an answer, a route or a sample has one place, and the lowest id has it."""
    two = ids(slice_, "MedicationStatement", "drugs", "drug_exposure", "drug_concept_id")
    assert len(two) == 2 and two[1] == two[0] + 1
    # both rows keep the code, and what is said of the exposure
    assert {row["quantity"] for row in slice_.of("MedicationStatement", "drugs")["drug_exposure"]} == {1.0}
    [value] = ids(slice_, "Observation", "values", "observation", "value_as_concept_id")
    [route] = ids(slice_, "MedicationStatement", "routes", "drug_exposure", "route_concept_id")
    [sample] = ids(slice_, "Specimen", "types", "specimen", "specimen_concept_id")
    assert [one % 10 for one in (value, route, sample)] == [1, 1, 1]


def test_each_list_of_codings_has_its_policy() -> None:
    assert {row["several"] for row in coded_elements()} == {"all", "lowest"}
    for row in coded_elements():
        one_place = row["element"] in ("value", "component_value", "route", "kind", "site", "series_site", "specialty")
        assert not one_place or row["several"] == "lowest", row
