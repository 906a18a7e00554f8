"""Periods that are open at one end or both: what each kind of record makes of them. The table is run as it stands."""

from pathlib import Path
from typing import Any

from tests.mapping_helpers import mapped, patient, resource

EXTRACTED = "2024-06-30T12:00:00Z"
# record | from | until | and also -> start | end | the start was imputed? or the reason why there is no row
PERIODS = """
Observation effectivePeriod           | 2020-01-10 | 2020-02-20 |                    -> 2020-01-10 |            | no
Observation effectivePeriod           | 2020-01-10 |            |                    -> 2020-01-10 |            | no
Observation effectivePeriod           |            | 2020-02-20 |                    -> 2020-02-20 |            | yes
Observation effectivePeriod           |            | 2020-02-20 | issued 2020-03-01T08:00:00Z -> 2020-02-20 |   | yes
Observation effectivePeriod           |            |            | issued 2020-03-01T08:00:00Z -> 2020-03-01 |   | no
Procedure performedPeriod             | 2020-01-10 |            |                    -> 2020-01-10 |            | no
Procedure performedPeriod             |            | 2020-02-20 |                    -> 2020-02-20 | 2020-02-20 | yes
Procedure performedPeriod             |            |            |                    -> X-NO-DATE
Condition onsetPeriod                 | 2020-01-10 |            |                    -> 2020-01-10 |            | no
Condition onsetPeriod                 |            | 2020-02-20 | recordedDate 2020-03-01 -> 2020-03-01 |        | no
Condition onsetPeriod                 |            | 2020-02-20 |                    -> 2020-02-20 |            | yes
DiagnosticReport effectivePeriod      |            | 2020-02-20 |                    -> 2020-02-20 |            | yes
MedicationStatement effectivePeriod   | 2020-01-10 |            | status completed   -> 2020-01-10 | 2020-01-10 | no
MedicationStatement effectivePeriod   | 2020-01-10 |            | status active      -> 2020-01-10 | 2024-06-30 | no
MedicationStatement effectivePeriod   |            | 2020-02-20 | status completed   -> X-NO-DATE
MedicationAdministration effectivePeriod | 2020-01-10 |         | status in-progress -> 2020-01-10 | 2024-06-30 | no
MedicationAdministration effectivePeriod |         | 2020-02-20 | status completed   -> X-NO-DATE
Encounter period                      |            | 2020-02-20 |                    -> 2020-02-20 | 2020-02-20 | yes
Encounter period                      | 2020-01-10 |            | status finished    -> 2020-01-10 | 2020-01-10 | no
Encounter period                      |            |            |                    -> X-NO-DATE
Coverage period                       |            | 2020-02-20 |                    -> 2020-02-20 | 2020-02-20 | no
Coverage period                       | 2020-01-10 |            |                    -> 2020-01-10 | 2020-01-10 | no
"""
# A drug that only ended has no row: a start put on its last day would be a start of treatment that nobody saw.
DATES = {
    "Observation": ("measurement", "measurement_date", None),
    "Procedure": ("procedure_occurrence", "procedure_date", "procedure_end_date"),
    "Condition": ("condition_occurrence", "condition_start_date", "condition_end_date"),
    "DiagnosticReport": ("note", "note_date", None),
    "MedicationStatement": ("drug_exposure", "drug_exposure_start_date", "drug_exposure_end_date"),
    "MedicationAdministration": ("drug_exposure", "drug_exposure_start_date", "drug_exposure_end_date"),
    "Encounter": ("visit_occurrence", "visit_start_date", "visit_end_date"),
    "Coverage": ("payer_plan_period", "payer_plan_period_start_date", "payer_plan_period_end_date"),
}
DATED = ("effectiveDateTime", "performedDateTime", "onsetDateTime", "period")


def test_periods(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = [patient()]
    expected = []
    for number, line in enumerate(PERIODS.strip().splitlines()):
        given, _, answer = line.partition("->")
        what, start, end, also = (part.strip() for part in given.split("|"))
        kind, element = what.split()
        period = {name: text for name, text in (("start", start), ("end", end)) if text}
        one = resource(kind, f"r{number}", meta={"lastUpdated": EXTRACTED})
        one = {name: value for name, value in one.items() if name not in DATED} | {element: period}
        if also:
            name, value = also.split()
            one[name] = value
        told.append(one)
        expected.append((line, kind, f"r{number}", [part.strip() for part in answer.split("|")]))
    found = mapped(tmp_path, told)
    imputed = {(row["cdm_table"], row["cdm_id"]) for row in found.rows("side/imputed") if row["start_imputed"]}
    for line, kind, identity, answer in expected:
        table, first, last = DATES[kind]
        if len(answer) == 1:
            assert found.why(kind, identity) == ("excluded", answer[0]), line
            continue
        start, end, guessed = answer
        row = found.one(kind, identity, table)
        assert str(row[first]) == start, line
        if last:
            assert str(row[last] or "") == end, line
        assert ((table, row[f"{table}_id"]) in imputed) == (guessed == "yes"), line
