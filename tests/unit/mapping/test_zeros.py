"""Unmapped is concept 0, with the source code kept, and is counted (law 2, f2o-063): held for every column of every table at once."""

from collections import Counter
from typing import Any

import pytest

from omop_etl.cdm import tables
from tests.mapping_helpers import LOINC, SNOMED, UCUM, Slice, concept, mapped, patient, resource

LOCAL = "urn:hospital:codes"
X = concept((LOCAL, "x"))
STAY = {"hospitalization": {"admitSource": concept(("a", "hosp-trans")), "dischargeDisposition": concept(("d", "exp"))}}
RESOURCES: list[dict[str, Any]] = [
    patient(
        gender="other",
        address=[{"state": "Lombardia", "country": "Nowhere"}],
        extension=[
            {
                "url": f"http://hl7.org/fhir/us/core/StructureDefinition/us-core-{name}",
                "extension": [{"url": "ombCategory", "valueCoding": {"code": "UNK"}}],
            }
            for name in ("race", "ethnicity")
        ],
    ),
    {"resourceType": "Practitioner", "id": "s", "gender": "other"},
    {
        "resourceType": "PractitionerRole",
        "id": "r",
        "practitioner": {"reference": "Practitioner/s"},
        "specialty": [X],
    },
    {"resourceType": "Organization", "id": "o", "name": "Ospedale", "type": [concept(("t", "prov"))]},
    {
        "resourceType": "Location",
        "id": "l",
        "name": "Reparto",
        "type": [concept((SNOMED, "225746001"))],
        "address": {"country": "Nowhere"},
    },
    resource("Encounter", "stay", **{"class": {"code": "XXX"}}, **STAY),
    resource("Encounter", "part", **{"class": {"code": "YYY"}}, partOf={"reference": "Encounter/stay"}, **STAY),
    resource("Condition", "c", code=X, severity=X, bodySite=[X], stage=[{"summary": X}]),
    resource("Procedure", "p", code=X, bodySite=[X]),
    resource("MedicationStatement", "m", medicationCodeableConcept=X, dosage=[{"route": X}]),
    resource("MedicationRequest", "q", medicationCodeableConcept=X, dosageInstruction=[{"route": X}]),
    resource("Immunization", "i", vaccineCode=X, route=X),
    resource("Device", "d", type=X),
    resource("AllergyIntolerance", "a", code=X),
    resource("AdverseEvent", "e", event=X, seriousness=X, severity=X, outcome=X),
    resource("Observation", "n", code=X, valueQuantity={"value": 1, "unit": "spoons"}),
    resource("Observation", "w", code=X, valueQuantity=None, valueCodeableConcept=X),
    resource(
        "Observation",
        "parts",
        valueQuantity=None,
        component=[
            {"code": X, "valueQuantity": {"value": 1, "code": "spoons", "system": UCUM}},
            {"code": concept((LOINC, "8480-6")), "valueCodeableConcept": X},
        ],
    ),
    resource(
        "Specimen",
        "s",
        type=X,
        collection={"collectedDateTime": "2020-03-05", "bodySite": X, "quantity": {"value": 1, "unit": "spoons"}},
    ),
    resource("DiagnosticReport", "r", code=X, conclusionCode=[X]),
    resource("DocumentReference", "t", type=X),
    resource("Coverage", "v", type={"coding": [{"code": "PUBLICPOL"}]}),
    resource("ImagingStudy", "g", procedureCode=[X], series=[]),
]
# the concept of these says who told it, in which state it is, or where a link leads: no source code stands behind a 0
NO_CODE = ("_source_concept_id", "_type_concept_id", "event_field_concept_id", "condition_status_concept_id")
NAMED_OTHERWISE = {"value_as_concept_id": "value_source_value", "visit_detail_concept_id": "visit_detail_source_value"}


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told = [{name: value for name, value in one.items() if value is not None} for one in RESOURCES]
    return mapped(tmp_path_factory.mktemp("zeros"), told)


@pytest.mark.requirement("f2o-032", "f2o-033", "f2o-063")
def test_each_zero_with_a_source_code_is_counted_once(slice_: Slice) -> None:
    counted: Counter[str] = Counter()
    for row in slice_.unmapped():
        counted[row["cdm_field"]] += int(row["records"])
    seen: dict[str, int] = {}
    for name, facts in tables().items():
        if not (slice_.folder / f"{name}.parquet").is_file():
            continue
        rows = slice_.rows(name)
        for column in facts.names:
            source = NAMED_OTHERWISE.get(column, column.replace("_concept_id", "_source_value"))
            if not column.endswith("_concept_id") or column.endswith(NO_CODE) or source not in facts.names:
                continue
            zeros = [row for row in rows if row[column] == 0 and row[source] is not None]
            if zeros:
                seen[f"{name}.{column}"] = len(zeros)
    missing = {field: (count, counted[field]) for field, count in seen.items() if counted[field] != count}
    assert missing == {}
    # the resources above leave a 0 in each of these
    assert {
        "person.gender_concept_id",
        "person.race_concept_id",
        "person.ethnicity_concept_id",
        "location.country_concept_id",
        "care_site.place_of_service_concept_id",
        "provider.gender_concept_id",
        "provider.specialty_concept_id",
        "visit_occurrence.visit_concept_id",
        "visit_occurrence.admitted_from_concept_id",
        "visit_occurrence.discharged_to_concept_id",
        "visit_detail.visit_detail_concept_id",
        "visit_detail.admitted_from_concept_id",
        "condition_occurrence.condition_concept_id",
        "procedure_occurrence.procedure_concept_id",
        "drug_exposure.drug_concept_id",
        "drug_exposure.route_concept_id",
        "device_exposure.device_concept_id",
        "measurement.measurement_concept_id",
        "measurement.unit_concept_id",
        "measurement.value_as_concept_id",
        "observation.observation_concept_id",
        "observation.value_as_concept_id",
        "specimen.specimen_concept_id",
        "specimen.unit_concept_id",
        "specimen.anatomic_site_concept_id",
        "payer_plan_period.payer_concept_id",
        "payer_plan_period.plan_concept_id",
    } <= seen.keys()
    assert counted["note.note_class_concept_id"] == 2


def test_who_pays_is_counted_and_not_named(slice_: Slice) -> None:
    assert "SSN" not in (slice_.folder / "unmapped.csv").read_text(encoding="utf-8")
