"""Each study check finds the defect that is planted for it, and nothing unrelated does; clean data raise nothing.

A defect is one change to the tiny slice. What follows from it by its nature (a death before birth also lies before the
events) is named beside it.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omop_etl.gates.definitions import definitions
from tests import slices
from tests.gate_helpers import broken, counted
from tests.slices import Rows, clean_rows, ledger_of, number, write_slice

Change = Callable[[Rows], None]


def row(rows: Rows, table: str, **wanted: Any) -> dict[str, Any]:
    return next(one for one in rows[table] if all(one.get(key) == value for key, value in wanted.items()))


def changed(table: str, where: dict[str, Any], **values: Any) -> Change:
    return lambda rows: row(rows, table, **where).update(values)


def dropped(table: str, where: dict[str, Any]) -> Change:
    return lambda rows: rows[table].remove(row(rows, table, **where))


def copied(table: str, where: dict[str, Any], **values: Any) -> Change:
    def change(rows: Rows) -> None:
        key = {f"{table}_id": number("prova", "copy", table)} if table not in ("death", "person") else {}
        rows[table].append(row(rows, table, **where) | key | values)

    return change


def both(*changes: Change) -> Change:
    def change(rows: Rows) -> None:
        for one in changes:
            one(rows)

    return change


def a_second_palbociclib_patient_on_ribociclib(rows: Rows) -> None:
    copied("drug_exposure", {"drug_concept_id": slices.PALBOCICLIB}, drug_concept_id=slices.RIBOCICLIB, quantity=600.0)(
        rows
    )


def never_seen(rows: Rows) -> None:
    """A person of whom only the diagnosis of 2015 and the drug of 2019 are known."""
    person = rows["person"][1]["person_id"]
    for table, found in rows.items():
        rows[table] = [
            one
            for one in found
            if one.get("person_id") != person
            or table in ("person", "condition_occurrence", "drug_exposure", "observation_period", "observation")
            or (table == "measurement" and one["measurement_date"] < date(2019, 5, 15))
        ]


def nothing_known(rows: Rows) -> None:
    rows["person"].append(rows["person"][0] | {"person_id": number("prova", "nobody")})
    rows["observation_period"].append(
        rows["observation_period"][0]
        | {"observation_period_id": number("prova", "nobody's"), "person_id": number("prova", "nobody")}
    )


def heaped(rows: Rows) -> None:
    for one in rows["drug_exposure"][:3]:
        one["drug_exposure_start_date"] = date(2019, 6, 1)


def premenopausal_with_suppression(rows: Rows) -> None:
    changed("observation", {}, value_as_concept_id=slices.PREMENOPAUSAL)(rows)
    copied(
        "drug_exposure",
        {"drug_concept_id": slices.PALBOCICLIB},
        drug_concept_id=slices.GOSERELIN,
        quantity=None,
        dose_unit_source_value=None,
    )(rows)


KI67 = {"measurement_source_value": "29593-1"}
PALBO = {"drug_concept_id": slices.PALBOCICLIB}


def marker(concept: int) -> dict[str, Any]:
    return {"measurement_concept_id": concept}


DEFECTS: dict[str, tuple[Change, dict[str, str]]] = {
    "born after the diagnosis": (
        changed("person", {}, year_of_birth=2016),
        {"G-BIRTH-01": "BLOCK"},
    ),
    "born in 1890": (changed("person", {}, year_of_birth=1890), {"G-BIRTH-02": "BLOCK"}),
    "born after the extraction": (
        changed("person", {}, year_of_birth=2025),
        {"G-BIRTH-01": "BLOCK", "G-BIRTH-02": "BLOCK", "G-DEATH-03": "BLOCK"},
    ),
    "no observation period": (dropped("observation_period", {}), {"G-PERIOD-01": "WARN"}),
    "two deaths": (copied("death", {}, death_date=date(2024, 12, 3)), {"G-DEATH-01": "BLOCK"}),
    "death before the last visit": (changed("death", {}, death_date=date(2024, 11, 1)), {"G-DEATH-02": "BLOCK"}),
    "death before birth": (
        changed("death", {}, death_date=date(1949, 1, 1)),
        {"G-DEATH-02": "BLOCK", "G-DEATH-03": "BLOCK"},
    ),
    "death after the extraction": (
        changed("death", {}, death_date=date(2025, 1, 1)),
        {"G-FUTURE-death.death_date": "BLOCK"},
    ),
    "metastasis before the primary": (
        changed("condition_occurrence", {"condition_concept_id": slices.BONE}, condition_start_date=date(2014, 1, 7)),
        {"G-ORDER-01": "WARN"},
    ),
    "palbociclib before the metastasis": (
        changed("drug_exposure", PALBO, drug_exposure_start_date=date(2019, 4, 10)),
        {"G-ORDER-02": "WARN"},
    ),
    "progression before the metastasis": (
        changed("measurement", marker(slices.PROGRESSION), measurement_date=date(2019, 4, 2)),
        {"G-ORDER-03": "WARN"},
    ),
    "progression on day 14": (
        changed("measurement", marker(slices.PROGRESSION), measurement_date=date(2019, 5, 28)),
        {"G-PROGRESSION-01": "WARN"},
    ),
    "progression on day 15": (
        changed("measurement", marker(slices.PROGRESSION), measurement_date=date(2019, 5, 29)),
        {},
    ),
    "ER of 101 %": (changed("measurement", marker(slices.ER), value_as_number=101.0), {"G-RECEPTOR-01": "WARN"}),
    "ER of 100 %": (changed("measurement", marker(slices.ER), value_as_number=100.0), {}),
    "PgR of -1 %": (changed("measurement", marker(slices.PGR), value_as_number=-1.0), {"G-RECEPTOR-02": "WARN"}),
    "Ki-67 of 200 %": (changed("measurement", KI67, value_as_number=200.0), {"G-RECEPTOR-03": "WARN"}),
    "Ki-67 of 0.2": (changed("measurement", KI67, value_as_number=0.2), {"G-RECEPTOR-04": "WARN"}),
    "Ki-67 of 1 %": (changed("measurement", KI67, value_as_number=1.0), {}),
    "HER2 3+": (
        changed("measurement", marker(slices.HER2_IHC), value_as_concept_id=slices.THREE_PLUS),
        {"G-RECEPTOR-05": "WARN"},
    ),
    "premenopausal at 68 and without suppression": (
        changed("observation", {}, value_as_concept_id=slices.PREMENOPAUSAL),
        {"G-MENOPAUSE-01": "WARN", "G-MENOPAUSE-02": "WARN"},
    ),
    "premenopausal at 68": (premenopausal_with_suppression, {"G-MENOPAUSE-01": "WARN"}),
    "premenopausal without suppression": (
        both(
            changed("observation", {}, value_as_concept_id=slices.PREMENOPAUSAL),
            changed("person", {}, year_of_birth=1975),
        ),
        {"G-MENOPAUSE-02": "WARN"},
    ),
    "120 mg of palbociclib": (changed("drug_exposure", PALBO, quantity=120.0), {"G-DOSE-01": "WARN"}),
    "a dose in tablets": (changed("drug_exposure", PALBO, quantity=21.0, dose_unit_source_value="tablet"), {}),
    "two CDK4/6 inhibitors at once": (a_second_palbociclib_patient_on_ribociclib, {"G-DRUG-01": "WARN"}),
    "alive and not seen since 2019": (never_seen, {"G-CONTACT-01": "WARN"}),
    "drugs that start on day 1": (heaped, {"G-HEAP-01": "WARN"}),
    "a diagnosis of 1 January": (
        changed(
            "condition_occurrence", {"condition_concept_id": slices.PRIMARY}, condition_start_date=date(2015, 1, 1)
        ),
        {"G-HEAP-02": "WARN"},
    ),
    "nothing known of a person": (nothing_known, {"G-COMPLETE-01": "WARN"}),
    "ER without a number": (changed("measurement", marker(slices.ER), value_as_number=None), {"G-COMPLETE-02": "WARN"}),
    "no PgR": (dropped("measurement", marker(slices.PGR)), {"G-COMPLETE-03": "WARN"}),
    "HER2 without a score": (
        changed("measurement", marker(slices.HER2_IHC), value_as_concept_id=0),
        {"G-COMPLETE-04": "WARN"},
    ),
    "no primary diagnosis": (
        dropped("condition_occurrence", {"condition_concept_id": slices.PRIMARY}),
        {"G-COMPLETE-05": "WARN", "G-COMPLETE-10": "WARN"},
    ),
    "metastatic, site unknown": (
        changed("condition_occurrence", {"condition_concept_id": slices.BONE}, condition_concept_id=432851),
        {"G-COMPLETE-06": "WARN"},
    ),
    "ECOG of a month before": (
        changed("measurement", marker(slices.ECOG), measurement_date=date(2019, 4, 13), measurement_datetime=None),
        {"G-COMPLETE-07": "WARN"},
    ),
    "no Ki-67": (dropped("measurement", KI67), {"G-COMPLETE-08": "WARN"}),
    "no grade": (dropped("measurement", marker(slices.GRADE)), {"G-COMPLETE-09": "WARN"}),
    "breast cancer without histology": (
        changed("condition_occurrence", {"condition_concept_id": slices.PRIMARY}, condition_concept_id=4112853),
        {"G-COMPLETE-10": "WARN"},
    ),
    "no height": (dropped("measurement", marker(slices.HEIGHT)), {}),  # reported only
    "an unmapped measurement more": (
        both(*[changed("measurement", marker(slices.HEMOGLOBIN), measurement_concept_id=0)] * 2),
        {"G-UNMAPPED-measurement.measurement_concept_id": "WARN"},
    ),
    "a visit that ends before it starts": (
        changed("visit_occurrence", {}, visit_end_date=date(2024, 11, 19)),
        {"G-INTERVAL-visit_occurrence.visit_end_date": "BLOCK"},
    ),
    "a time of the next day": (
        changed("visit_occurrence", {}, visit_start_datetime=datetime(2024, 11, 21, 0, 30)),
        {"G-DATETIME-visit_occurrence.visit_start_date": "BLOCK"},
    ),
    "a visit that is not there": (
        changed("measurement", marker(slices.ECOG), visit_occurrence_id=4711),
        {"G-REFERENCE-measurement.visit_occurrence_id": "BLOCK"},
    ),
    "a concept of another domain": (
        changed("observation", {}, observation_type_concept_id=slices.OUTPATIENT),
        {"G-DOMAIN-observation.observation_type_concept_id": "BLOCK"},
    ),
    "a classification as standard concept": (
        changed("drug_exposure", PALBO | {"stop_reason": "progression"}, drug_concept_id=947735),
        {"G-STANDARD-drug_exposure.drug_concept_id": "BLOCK"},
    ),
    "a concept that does not exist": (
        changed("procedure_occurrence", {}, procedure_concept_id=2_000_000_123),
        {"G-CONCEPT-procedure_occurrence.procedure_concept_id": "BLOCK"},
    ),
    "the same prescription twice": (
        copied("drug_exposure", {"drug_concept_id": slices.ANASTROZOLE}),
        {"G-DUPLICATE-drug_exposure.drug_concept_id": "WARN"},
    ),
}


def rows_for(defect: str) -> Rows:
    rows = clean_rows()
    if defect == "a concept that does not exist":
        rows["procedure_occurrence"] += [
            {
                "procedure_occurrence_id": number("prova", "procedure", at),
                "person_id": rows["person"][0]["person_id"],
                "procedure_concept_id": 0,
                "procedure_date": date(2020, 1, 2) + timedelta(at),
                "procedure_type_concept_id": slices.EHR,
            }
            for at in range(2)
        ]
    return rows


def test_clean_data_raise_nothing(vocabulary: Path, tmp_path: Path) -> None:
    counts = counted(write_slice(tmp_path / "slice"), vocabulary)
    assert broken(counts) == {}
    assert len(counts) > 300


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_by_its_check_alone(defect: str, vocabulary: Path, tmp_path: Path) -> None:
    change, expected = DEFECTS[defect]
    rows = rows_for(defect)
    unmapped = {"G-UNMAPPED-procedure_occurrence.procedure_concept_id": "WARN"} if rows["procedure_occurrence"] else {}
    change(rows)
    assert broken(counted(write_slice(tmp_path / "slice", rows), vocabulary)) == expected | unmapped


LEDGER_DEFECTS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], dict[str, str]]] = {
    "a row that no resource gave": (lambda lines: lines.pop(), {"G-LEDGER-01": "BLOCK"}),
    "a row that is not in the table": (lambda lines: lines[0].update(row_count=2), {"G-LEDGER-01": "BLOCK"}),
    "excluded without a reason": (
        lambda lines: lines.append(lines[0] | {"outcome": "excluded", "cdm_table": None, "row_count": 0}),
        {"G-LEDGER-02": "BLOCK"},
    ),
    "an outcome that no one knows": (
        lambda lines: lines.append(lines[0] | {"outcome": "lost", "cdm_table": None, "row_count": 0}),
        {"G-LEDGER-02": "BLOCK"},
    ),
    "many in quarantine": (
        lambda lines: lines.extend(
            [lines[0] | {"outcome": "quarantined", "reason": "no-json", "cdm_table": None, "row_count": 0}] * 5
        ),
        {"G-LEDGER-03": "WARN"},
    ),
    "rows of a table that has no file": (
        lambda lines: lines.append(lines[0] | {"cdm_table": "episode"}),
        {"G-LEDGER-01": "BLOCK"},
    ),
}


@pytest.mark.parametrize("defect", LEDGER_DEFECTS)
def test_the_ledger_is_held_against_the_tables(defect: str, vocabulary: Path, tmp_path: Path) -> None:
    change, expected = LEDGER_DEFECTS[defect]
    rows = clean_rows()
    lines = ledger_of(rows)
    change(lines)
    assert broken(counted(write_slice(tmp_path / "slice", rows, ledger=lines), vocabulary)) == expected


def test_linkage_tokens(vocabulary: Path, tmp_path: Path) -> None:
    rows = clean_rows()
    people = [one["person_id"] for one in rows["person"]]
    same = [{"person_id": person, "linkage_token": "a" * 64} for person in people]
    found = counted(write_slice(tmp_path / "same", rows, links=same), vocabulary, tmp_path)
    assert broken(found) == {"G-LINK-02": "WARN"}
    assert found["G-LINK-02"].numerator == len(people) - 1
    none = write_slice(tmp_path / "none", rows, links=[])
    assert broken(counted(none, vocabulary)) == {"G-LINK-01": "WARN"}
    (none / "side" / "person_link.parquet").unlink()
    assert broken(counted(none, vocabulary)) == {"G-LINK-01": "WARN"}


def test_every_study_check_has_a_defect_here() -> None:
    found = {code for _, expected in DEFECTS.values() for code in expected}
    found |= {code for _, expected in LEDGER_DEFECTS.values() for code in expected}
    found |= {"G-LINK-01", "G-LINK-02"}  # their own test
    reported_only = {check.code for check in definitions().checks if check.severity == "REPORT"}
    own = {check.code for check in definitions().checks if not check.column and not check.structural}
    assert own - found == reported_only


@pytest.mark.parametrize("code", ["G-COMPLETE-11", "G-COMPLETE-12"])
def test_what_is_only_reported_is_counted(code: str, vocabulary: Path, tmp_path: Path) -> None:
    rows = clean_rows()
    for concept in (slices.HEIGHT, slices.HEMOGLOBIN):
        rows["measurement"] = [one for one in rows["measurement"] if one["measurement_concept_id"] != concept]
    count = counted(write_slice(tmp_path / "slice", rows), vocabulary)[code]
    assert (count.numerator, count.denominator) == (4, 4)
