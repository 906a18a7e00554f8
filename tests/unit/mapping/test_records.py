"""What a record says, column by column: values, drugs, persons, deaths, notes, images, plans."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mapping_helpers import (
    CATEGORY,
    HEMOGLOBIN,
    LOINC,
    RXNORM,
    SNOMED,
    UCUM,
    Slice,
    concept,
    mapped,
    patient,
    resource,
)

SYSTOLIC = concept((LOINC, "8480-6"))


def value(identity: str, **given: Any) -> dict[str, Any]:
    return {
        k: v for k, v in resource("Observation", identity, **({"valueQuantity": None} | given)).items() if v is not None
    }


def category(*codes: str) -> list[dict[str, Any]]:
    return [{"coding": [{"system": CATEGORY + "observation-category", "code": code}]} for code in codes]


def component(number: float, **more: Any) -> dict[str, Any]:
    return {"code": SYSTOLIC, "valueQuantity": {"value": number, "code": "mm[Hg]", "system": UCUM}} | more


MODIFIER = [{"url": "http://example.org/unreliable"}]
DOSE = {
    "doseAndRate": [{"doseQuantity": {"value": 125, "unit": "mg", "code": "mg", "system": UCUM}}],
    "route": concept((SNOMED, "26643006")),
}
TOKEN = "0123456789abcdef" * 4
RESOURCES = [
    patient(),
    patient("month", birthDate="1960-05"),
    patient("year", birthDate="1960"),
    patient("other", gender="other"),
    patient("dead", deceasedDateTime="2021-03"),
    patient("dead-someday", deceasedBoolean=True),
    patient("dead-of", deceasedDateTime="2021-04-05"),
    patient("certified"),
    patient("alive"),
    patient("dead-unclear", deceasedDateTime="2021-08-30"),
    patient("dead-undated", deceasedBoolean=True),
    patient("token", identifier=[{"system": "urn:palmares:linkage-token", "value": TOKEN}]),
    patient("no-token", identifier=[{"system": "urn:palmares:linkage-token", "value": "Mario Rossi"}]),
    patient(
        "home",
        address=[{"line": ["Via Roma 1"], "city": "Milano", "postalCode": "20100", "state": "MI", "country": "US"}],
    ),
    patient("neighbour", address=[{"line": ["Via Roma 2"], "city": "Milano", "state": "MI", "country": "US"}]),
    # values
    value("number", valueQuantity={"value": 4.2, "comparator": "<", "unit": "g/dL", "code": "g/dL", "system": UCUM}),
    value("unit-text-only", valueQuantity={"value": 4.2, "unit": "mg/dL"}),
    value("unit-unknown", valueQuantity={"value": 1, "unit": "spoons"}),
    value("integer", valueInteger=7),
    value("string", valueString="two words"),
    value("boolean", valueBoolean=True),
    value("range", valueRange={"low": {"value": 1, "code": "mg/dL"}, "high": {"value": 2.5}}),
    value("ratio", valueRatio={"numerator": {"value": 1}, "denominator": {"value": 128}}),
    value("ratio-by-nought", valueRatio={"numerator": {"value": 1}, "denominator": {"value": 0}}),
    value("when", valueDateTime="2020-01"),
    value("clock", valueTime="10:30:00"),
    value("period", valuePeriod={"start": "2020-01-01"}),
    value(
        "ranges",
        valueQuantity={"value": 3},
        referenceRange=[{"low": {"value": 1}, "high": {"value": 5}}, {"low": {"value": 9}}],
    ),
    value("interpreted", interpretation=[{"coding": [{"code": "POS"}]}]),
    value("unknown", dataAbsentReason={"coding": [{"code": "unknown"}]}),
    value("address", code=concept((LOINC, "56799-0")), valueString="Via Roma 1"),
    # types
    value("lab", valueInteger=1, category=category("local", "laboratory")),
    value("survey", valueInteger=1, category=category("survey")),
    value("by-patient", valueInteger=1, category=category("laboratory"), performer=[{"reference": "Patient/p"}]),
    value("by-relative", valueInteger=1, performer=[{"reference": "RelatedPerson/r"}]),
    value("vague", valueInteger=1, effectiveDateTime="2020-05"),
    # components
    value(
        "panel", component=[component(120), component(80), component(1, modifierExtension=MODIFIER), {"code": SYSTOLIC}]
    ),
    value("both", valueInteger=3, component=[component(5)]),
    value("none-speaks", component=[{"code": SYSTOLIC}]),
    # drugs
    resource(
        "MedicationRequest",
        "prescribed",
        dispenseRequest={
            "quantity": {"value": 21},
            "numberOfRepeatsAllowed": 2,
            "expectedSupplyDuration": {"value": 3, "code": "wk"},
        },
    ),
    resource(
        "MedicationStatement",
        "taken",
        effectiveDateTime=None,
        effectivePeriod={"start": "2020-01-01", "end": "2020-06"},
        dosage=[DOSE | {"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
        statusReason=[{"coding": [{"code": "toxicity"}]}],
    ),
    resource(
        "MedicationStatement",
        "goes-on",
        effectiveDateTime=None,
        effectivePeriod={"start": "2020-01-01"},
        dateAsserted="2020-09-09",
    ),
    resource("MedicationStatement", "told", informationSource={"reference": "Patient/p"}),
    resource("MedicationStatement", "stopped", status="stopped"),
    resource("MedicationAdministration", "given", dosage={"dose": {"value": 500, "code": "mg"}}),
    resource("MedicationDispense", "dispensed", quantity={"value": 30}, daysSupply={"value": 15}),
    resource("Immunization", "shot", lotNumber="L1"),
    resource("Immunization", "recalled", primarySource=False, reportOrigin={"coding": [{"code": "recall"}]}),
    resource(
        "MedicationStatement",
        "by-reference",
        medicationCodeableConcept=None,
        medicationReference={"reference": "Medication/m"},
    ),
    resource(
        "MedicationStatement",
        "by-absolute-reference",
        medicationCodeableConcept=None,
        medicationReference={"reference": "http://x/Medication/m"},
    ),
    resource(
        "MedicationStatement",
        "contained",
        medicationCodeableConcept=None,
        medicationReference={"reference": "#in"},
        contained=[{"resourceType": "Medication", "id": "in", "code": concept((RXNORM, "1873916"))}],
    ),
    resource(
        "MedicationStatement",
        "gone",
        medicationCodeableConcept=None,
        medicationReference={"reference": "Medication/gone"},
    ),
    {"resourceType": "Medication", "id": "m", "code": concept((RXNORM, "72965"))},
    # death
    resource(
        "Observation",
        "cause-1",
        "dead-of",
        code=concept((LOINC, "69453-9")),
        valueQuantity=None,
        valueCodeableConcept=concept((SNOMED, "254837009")),
    ),
    resource(
        "Observation",
        "cause-2",
        "certified",
        code=concept((LOINC, "69453-9")),
        valueQuantity=None,
        valueCodeableConcept=concept((SNOMED, "254837009")),
        effectiveDateTime="2021-08-09",
    ),
    *(
        resource(
            "Observation",
            f"cause-of-{name}",
            name,
            code=concept((LOINC, "69453-9")),
            valueQuantity=None,
            valueCodeableConcept=concept((SNOMED, "not-applicable")),
            effectiveDateTime="2021-09-01",
        )
        for name in ("alive", "dead-unclear", "dead-undated")
    ),
    # others
    resource("Condition", "long", clinicalStatus={"coding": [{"code": "resolved"}]}, abatementDateTime="2021"),
    resource("Condition", "perhaps", verificationStatus={"coding": [{"code": "differential"}]}),
    resource("Condition", "listed", category=[{"coding": [{"code": "problem-list-item"}]}]),
    resource(
        "DiagnosticReport",
        "report",
        code={"coding": [{"system": LOINC, "code": "718-7", "display": "Hemoglobin"}], "text": "Hemoglobin"},
        conclusion="free text of a person",
    ),
    resource(
        "DiagnosticReport",
        "titled",
        code={"coding": [{"system": LOINC, "code": "718-7", "display": "Hemoglobin"}], "text": "of Mario Rossi"},
    ),
    resource(
        "DocumentReference", "letter", content=[{"attachment": {"data": "bmFtZXM=", "contentType": "text/plain"}}]
    ),
    resource("Coverage", "self", payor=[{"reference": "Patient/p", "display": "Mario Rossi"}]),
    resource("Coverage", "insured", period={"end": "2021-06-30"}),
    resource("ImagingStudy", "scan"),
    resource("ImagingStudy", "no-uid", identifier=[]),
    resource("AdverseEvent", "event"),
    resource(
        "Specimen",
        "sample",
        collection={
            "collectedDateTime": "2020-03-05",
            "quantity": {"value": 2, "unit": "mL", "code": "mL", "system": UCUM},
        },
    ),
]


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    resources = [{k: v for k, v in one.items() if v is not None} for one in RESOURCES]
    return mapped(tmp_path_factory.mktemp("records"), resources)


VALUES: dict[str, dict[str, Any]] = {
    "number": {
        "value_as_number": 4.2,
        "operator_concept_id": 4171756,
        "unit_concept_id": 8713,
        "unit_source_value": "g/dL",
    },
    "unit-text-only": {"unit_concept_id": 8840, "unit_source_value": "mg/dL"},
    "unit-unknown": {"unit_concept_id": 0, "unit_source_value": "spoons"},
    "integer": {"value_as_number": 7.0, "unit_concept_id": None},
    "string": {"value_source_value": None, "value_as_number": None, "value_as_concept_id": None},
    "boolean": {"value_as_concept_id": 4188539, "value_source_value": "true"},
    "range": {"value_source_value": "1 - 2.5", "unit_concept_id": 8840, "value_as_number": None},
    "ratio": {"value_source_value": "1:128", "value_as_number": 1 / 128},
    "ratio-by-nought": {"value_source_value": "1:0", "value_as_number": None},
    "when": {"value_source_value": "2020-01"},
    "clock": {"value_source_value": "10:30:00"},
    "period": {"value_source_value": "2020-01-01"},
    "ranges": {"range_low": 1.0, "range_high": 5.0},
    "interpreted": {"value_source_value": "POS", "value_as_number": None},
    "unknown": {"value_source_value": "unknown", "value_as_number": None, "value_as_concept_id": None},
    "lab": {"measurement_type_concept_id": 32856},
    "survey": {"measurement_type_concept_id": 32817},
    "by-patient": {"measurement_type_concept_id": 32865},
    "by-relative": {"measurement_type_concept_id": 32865},
    "vague": {"measurement_type_concept_id": 32882},
}


@pytest.mark.requirement("f2o-051", "f2o-052", "f2o-053", "f2o-071")
@pytest.mark.parametrize("name", VALUES)
def test_value(slice_: Slice, name: str) -> None:
    row = slice_.one("Observation", name, "measurement")
    assert {column: row[column] for column in VALUES[name]} == VALUES[name]


def test_free_text_is_counted_and_not_written(tmp_path: Path) -> None:
    """An answer or an end told in words may hold a name: only value_as_string of observation, which stays, has it."""
    told = "Mario Rossi, via Roma"
    found = mapped(
        tmp_path,
        [
            patient(),
            resource("Observation", "measured", valueQuantity=None, valueString=told),
            resource(
                "Observation",
                "parts",
                valueQuantity=None,
                component=[{"code": concept((LOINC, HEMOGLOBIN[0])), "valueString": told}],
            ),
            resource("Observation", "asked", code=concept((LOINC, "99999-9")), valueQuantity=None, valueString=told),
            resource("Condition", "ended", abatementString=told),
        ],
    )
    for path in sorted(found.folder.glob("*.parquet")):
        rows = [{k: v for k, v in row.items() if k != "value_as_string"} for row in found.rows(path.stem)]
        assert told[:11] not in str(rows), path.name
    assert [row["value_as_string"] for row in found.rows("observation")] == [told]
    losses = json.loads((found.folder / "manifest.json").read_text())["losses"]
    assert (losses["text-answer"], losses["abatement-text"]) == (2, 1)


@pytest.mark.requirement("f2o-022")
def test_an_answer_that_tells_where_someone_lives_is_not_written(slice_: Slice) -> None:
    row = slice_.one("Observation", "address", "observation")
    assert (row["value_as_string"], row["value_source_value"]) == (None, None)
    assert slice_.manifest()["losses"]["identifying-answer"] == 1


def test_components(slice_: Slice) -> None:
    rows = slice_.of("Observation", "panel")["measurement"]
    assert sorted(row["value_as_number"] for row in rows) == [
        80.0,
        120.0,
    ]  # the unreliable and the silent one are left out
    assert len({row["measurement_id"] for row in rows}) == 2
    both = slice_.of("Observation", "both")["measurement"]
    assert sorted(row["value_as_number"] for row in both) == [3.0, 5.0]
    assert slice_.why("Observation", "none-speaks")[0] == "excluded"


DRUGS: dict[str, tuple[str, dict[str, Any]]] = {
    "prescribed": (
        "MedicationRequest",
        {
            "drug_type_concept_id": 32838,
            "quantity": 21.0,
            "refills": 2,
            "days_supply": 21,
            "drug_exposure_end_date": "2020-03-25",
            "verbatim_end_date": None,
        },
    ),
    "taken": (
        "MedicationStatement",
        {
            "drug_type_concept_id": 32830,
            "quantity": 125.0,
            "dose_unit_source_value": "mg",
            "sig": "125 mg; 1 per 1 d",
            "stop_reason": "toxicity",
            "drug_exposure_start_date": "2020-01-01",
            "drug_exposure_end_date": "2020-06-30",
            "verbatim_end_date": "2020-06-30",
            "route_source_value": "26643006",
        },
    ),
    "goes-on": ("MedicationStatement", {"drug_exposure_end_date": "2020-09-09", "verbatim_end_date": None}),
    "told": ("MedicationStatement", {"drug_type_concept_id": 32865}),
    "stopped": ("MedicationStatement", {"drug_exposure_end_date": "2020-03-05"}),
    "given": (
        "MedicationAdministration",
        {"drug_type_concept_id": 32818, "quantity": 500.0, "drug_exposure_end_date": "2020-03-05"},
    ),
    "dispensed": (
        "MedicationDispense",
        {"drug_type_concept_id": 32825, "quantity": 30.0, "days_supply": 15, "drug_exposure_end_date": "2020-03-19"},
    ),
    "shot": ("Immunization", {"drug_type_concept_id": 32827, "lot_number": "L1"}),
    "recalled": ("Immunization", {"drug_type_concept_id": 32865}),
    "by-reference": ("MedicationStatement", {"drug_concept_id": 1315946, "drug_source_value": "72965"}),
    "by-absolute-reference": ("MedicationStatement", {"drug_concept_id": 1315946}),
    "contained": ("MedicationStatement", {"drug_concept_id": 1592911}),
    "gone": ("MedicationStatement", {"drug_concept_id": 0, "drug_source_value": None}),
}


@pytest.mark.parametrize("name", DRUGS)
def test_drug(slice_: Slice, name: str) -> None:
    resource_type, expected = DRUGS[name]
    row = slice_.one(resource_type, name, "drug_exposure")
    assert {
        column: str(row[column]) if column.endswith("_date") and row[column] else row[column] for column in expected
    } == expected


def test_person(slice_: Slice) -> None:
    def born(identity: str) -> tuple[Any, ...]:
        row = slice_.one("Patient", identity, "person")
        parts = [row[f"{part}_of_birth"] for part in ("year", "month", "day")]
        return (*parts, row["birth_datetime"] is not None)

    assert born("p") == (1960, 5, 12, True)
    assert born("month") == (1960, 5, None, False)
    assert born("year") == (1960, None, None, False)
    other = slice_.one("Patient", "other", "person")
    assert (other["gender_concept_id"], other["gender_source_value"]) == (0, "other")
    counted = [row for row in slice_.unmapped() if row["cdm_field"] == "person.gender_concept_id"]
    assert [row["source_code"] for row in counted] == ["other"]


@pytest.mark.requirement("f2o-022")
def test_of_an_address_only_state_and_country_are_kept(slice_: Slice) -> None:
    home, neighbour = (slice_.one("Patient", name, "person")["location_id"] for name in ("home", "neighbour"))
    assert home == neighbour
    rows = [row for row in slice_.rows("location") if row["location_id"] == home]
    assert len(rows) == 1
    kept = {name: one for name, one in rows[0].items() if one not in (None, 0)}
    assert set(kept) == {"location_id", "state", "location_source_value", "country_source_value", "country_concept_id"}


@pytest.mark.requirement("f2o-090")
def test_death(slice_: Slice) -> None:
    deaths = {row["person_id"]: row for row in slice_.rows("death")}

    def of(identity: str) -> dict[str, Any] | None:
        return deaths.get(slice_.one("Patient", identity, "person")["person_id"])

    month = of("dead")
    assert month is not None
    assert (str(month["death_date"]), month["death_type_concept_id"], month["cause_concept_id"]) == (
        "2021-03-31",
        32882,
        None,
    )
    certified, caused = of("certified"), of("dead-of")
    assert certified is not None and caused is not None
    assert (str(caused["death_date"]), caused["cause_concept_id"], caused["cause_source_value"]) == (
        "2021-04-05",
        4112853,
        "254837009",
    )
    assert str(certified["death_date"]) == "2021-08-09"
    assert of("dead-someday") is None
    # an answer that is no disease tells no death; it is the cause of one that the patient's record tells
    assert of("alive") is None
    unclear, undated = of("dead-unclear"), of("dead-undated")
    assert unclear is not None and undated is not None
    assert (str(unclear["death_date"]), unclear["cause_concept_id"], unclear["cause_source_value"]) == (
        "2021-08-30",
        0,
        "not-applicable",
    )
    assert str(undated["death_date"]) == "2021-09-01"
    assert slice_.manifest()["losses"]["deceased-without-day"] == 2
    assert slice_.manifest()["losses"]["cause-without-death"] == 1
    assert len(deaths) == 5


def test_the_linkage_token_is_a_token_or_nothing(slice_: Slice) -> None:
    person = slice_.one("Patient", "token", "person")["person_id"]
    assert slice_.rows("side/person_link") == [{"person_id": person, "linkage_token": TOKEN}]


def test_condition(slice_: Slice) -> None:
    row = slice_.one("Condition", "long", "condition_occurrence")
    assert (row["condition_status_concept_id"], row["condition_status_source_value"]) == (32906, "resolved")
    assert str(row["condition_end_date"]) == "2021-12-31"
    assert slice_.one("Condition", "perhaps", "condition_occurrence")["condition_status_concept_id"] == 32899
    assert slice_.one("Condition", "listed", "condition_occurrence")["condition_type_concept_id"] == 32840


@pytest.mark.requirement("f2o-022", "f2o-081")
def test_notes_hold_no_text_of_the_hospital(slice_: Slice) -> None:
    report, titled = (slice_.one("DiagnosticReport", name, "note") for name in ("report", "titled"))
    assert report["note_title"] == "Hemoglobin"  # the name of its code
    assert titled["note_title"] is None
    assert {row["note_text"] for row in slice_.rows("note")} == {"[text withheld: it stays in the hospital]"}
    assert slice_.one("DocumentReference", "letter", "note")["note_source_value"] == "34108-1"


def test_plans(slice_: Slice) -> None:
    own, insured = (slice_.one("Coverage", name, "payer_plan_period") for name in ("self", "insured"))
    assert own["payer_source_value"] is None  # who pays for himself is a person
    assert insured["payer_source_value"] == "SSN"
    assert str(insured["payer_plan_period_start_date"]) == str(insured["payer_plan_period_end_date"]) == "2021-06-30"


def test_images(slice_: Slice) -> None:
    procedure = slice_.one("ImagingStudy", "scan", "procedure_occurrence")
    image = slice_.one("ImagingStudy", "scan", "image_occurrence")
    assert procedure["procedure_concept_id"] == 4300757
    assert (image["procedure_occurrence_id"], image["image_study_uid"], image["image_series_uid"]) == (
        procedure["procedure_occurrence_id"],
        "2.25.1",
        "2.25.2",
    )
    assert "image_occurrence" not in slice_.of("ImagingStudy", "no-uid")
    assert slice_.manifest()["losses"]["image-without-uid"] == 1


def test_others(slice_: Slice) -> None:
    sample = slice_.one("Specimen", "sample", "specimen")
    assert (sample["specimen_concept_id"], sample["quantity"], sample["unit_concept_id"]) == (4001225, 2.0, 8587)
    assert slice_.one("AdverseEvent", "event", "condition_occurrence")["condition_concept_id"] == 4112853


def test_observation_period(slice_: Slice) -> None:
    person = slice_.one("Patient", "p", "person")["person_id"]
    rows = [row for row in slice_.rows("observation_period") if row["person_id"] == person]
    assert len(rows) == 1  # no visit: the span of the records
    assert str(rows[0]["observation_period_start_date"]) == "2020-01-01"
    assert rows[0]["period_type_concept_id"] == 32882


def test_places_of_residence_are_told_apart_by_their_words_alone(tmp_path: Path) -> None:
    """An empty state is none, and no word runs into the next: two rows of one identity would end the run."""
    places = {
        "none": {"country": "IT"},
        "empty": {"state": "", "country": "IT"},
        "spaces": {"state": "  ", "country": "IT"},
        "bar-1": {"state": "a|b", "country": "c"},
        "bar-2": {"state": "a", "country": "b|c"},
        "nowhere": {"state": "", "country": ""},
    }
    found = mapped(tmp_path, [patient(name, address=[place]) for name, place in places.items()])
    ids = {name: found.one("Patient", name, "person")["location_id"] for name in places}
    assert ids["none"] == ids["empty"] == ids["spaces"] is not None
    assert ids["bar-1"] != ids["bar-2"] and ids["nowhere"] is None
    assert len(found.rows("location")) == 3


def test_numbers_that_no_record_can_mean_do_not_end_the_run(tmp_path: Path) -> None:
    """Found by fuzzing: a supply of 1e308 days is nobody's, and the other records are mapped all the same."""
    told = [patient()]
    for number, value in enumerate((1e308, -1e308, 40_000, 3_000_000_000, -5, 0, 21.6)):
        told.append(
            resource("MedicationDispense", f"d{number}", daysSupply={"value": value}, quantity={"value": value})
        )
        supply = {"expectedSupplyDuration": {"value": value, "code": "wk"}, "numberOfRepeatsAllowed": value}
        told.append(resource("MedicationRequest", f"r{number}", dispenseRequest=supply))
        told.append(resource("Observation", f"o{number}", valueQuantity={"value": value}))
    found = mapped(tmp_path, told)
    days = [found.one("MedicationDispense", f"d{n}", "drug_exposure")["days_supply"] for n in range(7)]
    assert days == [None, None, None, None, -5, 0, 22]
    ends = [str(found.one("MedicationDispense", f"d{n}", "drug_exposure")["drug_exposure_end_date"]) for n in range(7)]
    assert ends == ["2020-03-05"] * 6 + ["2020-03-26"]
    assert found.one("Observation", "o0", "measurement")["value_as_number"] == 1e308


def test_a_series_that_is_told_twice_is_one_image(tmp_path: Path) -> None:
    one = {"uid": "2.25.2", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}}
    study = resource("ImagingStudy", "scan", series=[one, one, one | {"uid": ""}, one | {"uid": "2.25.3"}])
    found = mapped(tmp_path, [patient(), study])
    rows = found.of("ImagingStudy", "scan")["image_occurrence"]
    assert sorted(row["image_series_uid"] for row in rows) == ["2.25.2", "2.25.3"]
    assert found.manifest()["losses"]["image-without-uid"] == 1
