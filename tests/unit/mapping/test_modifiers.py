"""Elements that change what a resource means (FHIR's modifier elements): none is passed over in silence (f2o-063)."""

from typing import Any

import pytest

from fhir_adapters.views.elements import element
from omop_etl.conformance.elements import column_elements
from omop_etl.mapping.recipes import recipes
from tests.mapping_helpers import HEMOGLOBIN, LOINC, RXNORM, UCUM, Slice, concept, mapped, patient, resource

EXTENSION = [{"url": "http://example.org/not", "valueBoolean": True}]
MODIFIED = {"modifierExtension": EXTENSION}
STAFF = {"actor": {"reference": "Practitioner/s"}}
DOSE = {"doseAndRate": [{"doseQuantity": {"value": 1, "unit": "mg"}}]}
TIMED = {"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}} | MODIFIED}
MEDICATION = {"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "72965"))}
REFERRED = {"medicationCodeableConcept": None, "medicationReference": {"reference": "#in"}}
# the part that is modified → (resource type, what it holds)
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Condition.stage": ("Condition", {"stage": [{"summary": {"text": "II"}} | MODIFIED]}),
    "Device.udiCarrier": ("Device", {"udiCarrier": [{"deviceIdentifier": "1"} | MODIFIED]}),
    "DocumentReference.context": ("DocumentReference", {"context": MODIFIED}),
    "Encounter.participant": (
        "Encounter",
        {"participant": [{"individual": {"reference": "Practitioner/s"}} | MODIFIED]},
    ),
    "Encounter.hospitalization": ("Encounter", {"hospitalization": MODIFIED}),
    "Encounter.location": ("Encounter", {"location": [{"location": {"reference": "Location/l"}} | MODIFIED]}),
    "ImagingStudy.series": ("ImagingStudy", {"series": [{"uid": "2.25.2", "modality": {"code": "CT"}} | MODIFIED]}),
    "Immunization.performer": ("Immunization", {"performer": [STAFF | MODIFIED]}),
    "Location.position": ("Location", {"position": {"longitude": 9, "latitude": 45} | MODIFIED}),
    "MedicationAdministration.performer": ("MedicationAdministration", {"performer": [STAFF | MODIFIED]}),
    "MedicationAdministration.dosage": ("MedicationAdministration", {"dosage": {"dose": {"value": 1}} | MODIFIED}),
    "MedicationAdministration.contained": (
        "MedicationAdministration",
        REFERRED | {"contained": [MEDICATION | MODIFIED]},
    ),
    "MedicationDispense.performer": ("MedicationDispense", {"performer": [STAFF | MODIFIED]}),
    "MedicationDispense.dosageInstruction": ("MedicationDispense", {"dosageInstruction": [DOSE | MODIFIED]}),
    "MedicationDispense.dosageInstruction.timing": ("MedicationDispense", {"dosageInstruction": [TIMED]}),
    "MedicationDispense.contained": ("MedicationDispense", REFERRED | {"contained": [MEDICATION | MODIFIED]}),
    "MedicationRequest.dispenseRequest": (
        "MedicationRequest",
        {"dispenseRequest": {"quantity": {"value": 1}} | MODIFIED},
    ),
    "MedicationRequest.dosageInstruction": ("MedicationRequest", {"dosageInstruction": [DOSE, DOSE | MODIFIED]}),
    "MedicationRequest.dosageInstruction.timing": ("MedicationRequest", {"dosageInstruction": [TIMED]}),
    "MedicationRequest.contained": ("MedicationRequest", REFERRED | {"contained": [MEDICATION | MODIFIED]}),
    "MedicationStatement.dosage": ("MedicationStatement", {"dosage": [DOSE | MODIFIED]}),
    "MedicationStatement.dosage.timing": ("MedicationStatement", {"dosage": [TIMED]}),
    "MedicationStatement.contained": ("MedicationStatement", REFERRED | {"contained": [MEDICATION | MODIFIED]}),
    "Observation.effectiveTiming": (
        "Observation",
        {"effectiveDateTime": None, "effectiveTiming": {"event": ["2020-03-05"]} | MODIFIED},
    ),
    "Observation.referenceRange": ("Observation", {"referenceRange": [{"low": {"value": 1}}, MODIFIED]}),
    "Patient.link": (
        "Patient",
        {"birthDate": "1970", "link": [{"type": "seealso", "other": {"reference": "Patient/p"}} | MODIFIED]},
    ),
    "Procedure.performer": ("Procedure", {"performer": [STAFF | MODIFIED]}),
    "Specimen.collection": ("Specimen", {"collection": {"collectedDateTime": "2020-03-05"} | MODIFIED}),
}
# read as parts of their own: only the part is left out
ALONE = {"Observation.component", "Observation.component.referenceRange"}


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if one is not None}


def part(code: str, **more: Any) -> dict[str, Any]:
    return {"code": concept((LOINC, code)), "valueInteger": 1} | more


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    told = [
        resource(kind, name.replace(".", "-"), of=None if kind in ("Patient", "Location") else "p", **more)
        for name, (kind, more) in PARTS.items()
    ]
    told += [
        patient("contact", contact=[MODIFIED | {"relationship": [{"text": "x"}]}]),
        resource(
            "Observation",
            "parts",
            valueQuantity=None,
            component=[
                part("8480-6"),
                part("8462-4", **MODIFIED),
                part("8867-4", referenceRange=[{"low": {"value": 1}} | MODIFIED]),
            ],
        ),
        resource("Immunization", "weak", isSubpotent=True),
        patient(
            "moved",
            address=[{"use": "old", "state": "RM", "country": "IT"}, {"use": "home", "state": "MI", "country": "IT"}],
        ),
        patient("left", address=[{"use": "old", "state": "RM", "country": "IT"}]),
        resource("Observation", "below", valueQuantity={"value": 5, "comparator": "<", "code": "g/dL", "system": UCUM}),
        resource("Observation", "enough", valueQuantity={"value": 5, "comparator": "ad"}),
        resource(
            "Observation",
            "titre",
            valueQuantity=None,
            valueRatio={"numerator": {"value": 1, "comparator": "<"}, "denominator": {"value": 8}},
        ),
        # a question of the observation table, which knows no operators
        resource(
            "Observation",
            "asked",
            code=concept(("urn:palmares:observation", "menopausal-status")),
            valueQuantity={"value": 8, "comparator": ">"},
        ),
        resource(
            "Observation",
            "asked-part",
            valueQuantity=None,
            component=[part(HEMOGLOBIN[0], valueInteger=None, valueQuantity={"value": 7, "comparator": ">="})],
        ),
    ]
    return mapped(tmp_path_factory.mktemp("modifiers"), [patient(), *map(without_nulls, told)])


@pytest.mark.requirement("f2o-063")
@pytest.mark.parametrize("name", PARTS)
def test_a_modified_part_quarantines_its_resource(slice_: Slice, name: str) -> None:
    assert slice_.why(PARTS[name][0], name.replace(".", "-")) == ("quarantined", "Q-MODIFIER")


def test_each_part_that_is_read_has_a_case() -> None:
    """Every backbone element from which a view reads anything: where a modifier extension may stand."""
    found = set()
    for recipe in recipes().values():
        for reading in column_elements(recipe.view).values():
            for path in reading.paths:
                type_, names = recipe.resource_type, []
                for name in path:
                    one = element(type_, name)
                    if one is None:
                        break
                    names.append(name)
                    type_ = one.type
                    if name != "modifierExtension" and element(type_, "modifierExtension") is not None:
                        found.add(".".join((recipe.resource_type, *names)))
    found = {one for one in found if not one.startswith("Organization.contact")}
    assert found == {name for name in PARTS if not name.endswith(".contained")} | ALONE


@pytest.mark.requirement("f2o-063")
def test_a_part_that_nobody_reads_changes_nothing(slice_: Slice) -> None:
    assert slice_.one("Patient", "contact", "person")


@pytest.mark.requirement("f2o-063")
def test_a_modified_component_is_left_out_and_counted(slice_: Slice) -> None:
    [row] = slice_.of("Observation", "parts")["measurement"]
    assert row["measurement_source_value"] == "8480-6"
    assert slice_.manifest()["losses"]["modified-component"] == 2


@pytest.mark.requirement("f2o-063")
def test_a_dose_that_does_not_count_is_told(slice_: Slice) -> None:
    assert slice_.one("Immunization", "weak", "drug_exposure")
    assert slice_.manifest()["losses"]["subpotent-dose"] == 1


@pytest.mark.requirement("f2o-063")
def test_a_number_with_a_comparator_is_never_read_as_that_number(slice_: Slice) -> None:
    def said(name: str, table: str = "measurement") -> tuple[Any, ...]:
        row = slice_.one("Observation", name, table)
        return row.get("operator_concept_id"), row["value_as_number"], row["value_source_value"]

    assert said("below") == (4171756, 5.0, "< 5")
    assert said("titre") == (4171756, 1 / 8, "< 1:8")
    assert said("enough") == (None, None, "ad 5")
    assert said("asked-part") == (4171755, 7.0, ">= 7")
    assert said("asked", "observation") == (None, None, "> 8")


@pytest.mark.requirement("f2o-063")
def test_an_old_address_is_no_residence(slice_: Slice) -> None:
    places = {row["location_id"]: row for row in slice_.rows("location")}
    moved, left = (slice_.one("Patient", name, "person")["location_id"] for name in ("moved", "left"))
    assert places[moved]["location_source_value"] == "MI"
    assert left is None
