"""What a resource says in another order, with other words or beside a hospital's own codes: it means the same."""

from typing import Any

import pytest

from tests.mapping_helpers import CATEGORY, UCUM, Slice, concept, mapped, patient, resource

LOCAL = "urn:hospital:codes"
STATUS = {
    "Condition": CATEGORY + "condition-ver-status",
    "AllergyIntolerance": CATEGORY + "allergyintolerance-verification",
}
ABSENT = CATEGORY + "data-absent-reason"
BARE = {"medicationCodeableConcept": None}


def supply(value: float, **unit: str) -> dict[str, Any]:
    return {"dispenseRequest": {"expectedSupplyDuration": {"value": value, **unit}}}


RESOURCES = [
    patient(),
    {"resourceType": "Practitioner", "id": "s"},
    # the hospital's own code stands before FHIR's
    *(
        resource(kind, f"{kind}-{code}", verificationStatus=concept((LOCAL, "K"), (STATUS[kind], code)))
        for kind in STATUS
        for code in ("refuted", "entered-in-error", "confirmed")
    ),
    resource("Condition", "resolved", clinicalStatus=concept((LOCAL, "K"), (CATEGORY + "condition-clinical", "resolved"))),
    resource("Observation", "not-done", valueQuantity=None, dataAbsentReason=concept((LOCAL, "z"), (ABSENT, "not-performed"))),
    resource("Observation", "not-known", valueQuantity=None, dataAbsentReason=concept((LOCAL, "z"), (ABSENT, "unknown"))),
    resource("Observation", "fourth-category", category=[
        *(concept((LOCAL, code)) for code in "xyz"), concept((CATEGORY + "observation-category", "laboratory")),
    ]),
    resource("DiagnosticReport", "fourth-category", category=[*(concept((LOCAL, c)) for c in "xyz"), concept((LOCAL, "LAB"))]),
    resource("Observation", "fourth-performer", performer=[
        *({"reference": f"Organization/{n}"} for n in range(3)), {"reference": "Practitioner/s"},
    ]),
    resource("Observation", "at-home", performer=[{"reference": "Organization/o"}, {"reference": "Patient/p"}]),
    resource("Observation", "with-a-nurse", performer=[
        {"reference": "Organization/o"}, {"reference": "Patient/p"}, {"reference": "Practitioner/s"},
    ]),
    resource("Observation", "fourth-focus", focus=[
        *({"reference": f"Patient/{n}"} for n in range(3)), {"reference": "Condition/Condition-confirmed"},
    ]),
    resource("Immunization", "recalled", primarySource=False, reportOrigin=concept((LOCAL, "K"), (LOCAL, "recall"))),
    # dates that stand elsewhere
    resource("AllergyIntolerance", "since", recordedDate=None, onsetPeriod={"start": "2019-01-01"}),
    resource("AllergyIntolerance", "until", recordedDate=None, onsetPeriod={"end": "2019-02-01"}),
    resource("AllergyIntolerance", "last", recordedDate=None, lastOccurrence="2019-03-01"),
    resource("Specimen", "until", collection={"collectedPeriod": {"end": "2019-04-01"}}),
    resource("Observation", "timed", effectiveDateTime=None, effectiveTiming={"event": ["2019-05-01"]}),
    # how long a supply lasts
    resource("MedicationRequest", "two-weeks", **supply(2, unit="weeks")),
    resource("MedicationRequest", "two-weeks-ucum", **supply(2, unit="Woche", code="wk", system=UCUM)),
    resource("MedicationRequest", "ten", **supply(10)),
    resource("MedicationRequest", "boxes", **supply(2, unit="boxes")),
    resource("MedicationDispense", "two-weeks", daysSupply={"value": 2, "code": "wk", "system": UCUM}),
    resource("MedicationDispense", "giorni", daysSupply={"value": 21, "unit": "giorni"}),
    # a drug of which only a word or a number is told
    resource("MedicationRequest", "by-display", **BARE, medicationReference={"display": "aspirina"}),
    resource("MedicationStatement", "by-identifier", **BARE, medicationReference={"identifier": {"value": "1"}}),
]  # fmt: skip


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    return mapped(tmp_path_factory.mktemp("orders"), RESOURCES)


@pytest.mark.requirement("f2o-060")
@pytest.mark.parametrize("kind", list(STATUS))
def test_a_record_that_was_withdrawn_is_none_wherever_its_coding_stands(slice_: Slice, kind: str) -> None:
    assert slice_.why(kind, f"{kind}-refuted") == ("excluded", "X-REFUTED")
    assert slice_.why(kind, f"{kind}-entered-in-error") == ("excluded", "X-ERROR")
    assert slice_.why(kind, f"{kind}-confirmed") == ("written", None)


def test_the_status_that_is_known_speaks(slice_: Slice) -> None:
    status = "condition_status_concept_id"
    assert slice_.one("Condition", "Condition-confirmed", "condition_occurrence")[status] == 32893
    assert slice_.one("Condition", "resolved", "condition_occurrence")[status] == 32906
    assert slice_.why("Observation", "not-done") == ("excluded", "X-DATA-ABSENT")
    assert slice_.one("Observation", "not-known", "measurement")["value_source_value"] == "unknown"


@pytest.mark.requirement("f2o-051", "f2o-053")
def test_of_many_the_one_that_tells(slice_: Slice) -> None:
    def row(name: str) -> dict[str, Any]:
        return slice_.one("Observation", name, "measurement")

    assert row("fourth-category")["measurement_type_concept_id"] == 32856
    assert slice_.one("DiagnosticReport", "fourth-category", "measurement")["measurement_type_concept_id"] == 32856
    assert row("fourth-performer")["provider_id"] == slice_.one("Practitioner", "s", "provider")["provider_id"]
    assert row("at-home")["measurement_type_concept_id"] == 32865
    assert row("with-a-nurse")["measurement_type_concept_id"] == 32817
    tumour = slice_.one("Condition", "Condition-confirmed", "condition_occurrence")["condition_occurrence_id"]
    assert row("fourth-focus")["measurement_event_id"] == tumour
    assert slice_.one("Immunization", "recalled", "drug_exposure")["drug_type_concept_id"] == 32865


@pytest.mark.parametrize(
    ("kind", "name", "table", "column", "day", "imputed"),
    [
        ("AllergyIntolerance", "since", "observation", "observation_date", "2019-01-01", False),
        ("AllergyIntolerance", "until", "observation", "observation_date", "2019-02-01", True),
        ("AllergyIntolerance", "last", "observation", "observation_date", "2019-03-01", True),
        ("Specimen", "until", "specimen", "specimen_date", "2019-04-01", True),
        ("Observation", "timed", "measurement", "measurement_date", "2019-05-01", False),
    ],
)
@pytest.mark.requirement("f2o-070", "f2o-071")
def test_a_date_that_stands_elsewhere(
    slice_: Slice, kind: str, name: str, table: str, column: str, day: str, imputed: bool
) -> None:
    row = slice_.one(kind, name, table)
    assert str(row[column]) == day
    told = {(line["cdm_table"], line["cdm_id"]) for line in slice_.rows("side/imputed")}
    assert ((table, row[f"{table}_id"]) in told) == imputed


@pytest.mark.parametrize(
    ("kind", "name", "days", "end"),
    [
        ("MedicationRequest", "two-weeks", 14, "2020-03-18"),
        ("MedicationRequest", "two-weeks-ucum", 14, "2020-03-18"),
        ("MedicationRequest", "ten", 10, "2020-03-14"),
        ("MedicationRequest", "boxes", None, "2020-03-05"),
        ("MedicationDispense", "two-weeks", 14, "2020-03-18"),
        ("MedicationDispense", "giorni", 21, "2020-03-25"),
    ],
)
def test_days_of_supply(slice_: Slice, kind: str, name: str, days: int | None, end: str) -> None:
    row = slice_.one(kind, name, "drug_exposure")
    assert (row["days_supply"], str(row["drug_exposure_end_date"])) == (days, end)


def test_a_drug_that_is_only_named_is_one_without_a_concept(slice_: Slice) -> None:
    for kind, name in (("MedicationRequest", "by-display"), ("MedicationStatement", "by-identifier")):
        assert slice_.one(kind, name, "drug_exposure")["drug_concept_id"] == 0
    assert {line["reason"] for line in slice_.unmapped() if line["cdm_field"] == "drug_exposure.drug_concept_id"} == {
        "no-code"
    }
