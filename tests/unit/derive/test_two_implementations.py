"""The SQL and the plain-Python reference derive alike, on random histories near every edge of the rules.

Same-day events, missing ends, overlaps, ends before starts, what is dated after death or cut-off, declared lines: every
date is an edge apart from an anchor.
"""

import os
from collections.abc import Iterator
from datetime import date, timedelta

import duckdb
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from omop_etl.derive import reference
from omop_etl.derive.rules import apply, load_rules
from tests.derive_helpers import connect, day_of, fill, is_drug, patients
from tests.warehouses import Event

CUT_OFF = date(2024, 2, 29)
INDEX = st.sampled_from([date(2021, 6, 1), date(2020, 2, 29), date(2022, 12, 31), date(2023, 11, 29)])
DRUGS = st.sampled_from(
    [
        "palbociclib", "ribociclib", "letrozole", "letrozole", "exemestane", "tamoxifen", "fulvestrant", "paclitaxel",
        "paclitaxel", "capecitabine", "everolimus", "alpelisib", "trastuzumab deruxtecan", "goserelin", "unmapped drug",
    ]
)  # fmt: skip
LENGTHS = st.sampled_from([None, None, -3, 0, 1, 27, 28, 29, 59, 60, 61, 89, 90, 91, 180, 400])
STEPS = st.sampled_from([0, 0, 1, 14, 27, 28, 29, 30, 31, 59, 60, 61, 82, 89, 90, 91, 92, 120, 181])
STOPS = st.sampled_from(["", "", "toxicity", "toxicity", "progression", "death", "other", "Toxicity ", "unheard of"])


@st.composite
def history(draw: st.DrawFn, person: int) -> list[Event]:
    """One patient: a walk through time, at each stop of which something happens."""
    index = draw(INDEX)

    def iso(day: date) -> str:
        return day.isoformat()

    found = [Event(person, "born", "1960-04")]
    primary = draw(st.sampled_from([None, 0, 90, 91, 800, 2000]))
    advanced = index - timedelta(days=draw(st.sampled_from([0, 1, 28, 60, 91, 200])))
    found.append(Event(person, "bone metastasis", iso(advanced)))
    if primary is not None:
        found.append(Event(person, "primary NST", iso(advanced - timedelta(days=primary))))
    if draw(st.booleans()):
        start = advanced - timedelta(days=draw(st.sampled_from([3, 30, 364, 715, 729, 730, 731, 745, 1500])))
        end = draw(st.sampled_from([None, -400, -366, -365, -364, -31, -30, -1, 0, 1, 40, 200]))
        until = iso(max(start, advanced + timedelta(days=end))) if end is not None else ""
        begun = iso(start)[: draw(st.sampled_from([7, 10]))]  # known to the day, or to the month
        found.append(Event(person, draw(st.sampled_from(["letrozole", "tamoxifen"])), begun, until))
    if draw(st.sampled_from([True, True, True, False])):
        length = draw(LENGTHS)
        until = iso(index + timedelta(days=length)) if length is not None else ""
        found.append(Event(person, "palbociclib", iso(index), until, draw(STOPS) if until else ""))
    day = draw(st.sampled_from([advanced, index]))
    for _ in range(draw(st.integers(1, 9))):
        day += timedelta(days=draw(STEPS))
        what = draw(st.sampled_from(["drug", "drug", "drug", "PD", "PD", "SD", "SD", "PR", "visit"]))
        if what == "drug":
            length = draw(LENGTHS)
            until = iso(day + timedelta(days=length)) if length is not None else ""
            found.append(Event(person, draw(DRUGS), iso(day), until, draw(STOPS) if until else ""))
        else:
            found.append(Event(person, what, iso(day)))
    if draw(st.sampled_from([True, False, False])):
        for _ in range(draw(st.integers(1, 3))):
            on = index + timedelta(days=draw(st.sampled_from([-40, 0, 0, 28, 60, 90, 91, 200])))
            found.append(Event(person, "declared line", iso(on), value=str(draw(st.integers(0, 4)))))
    if draw(st.sampled_from([True, False, False])):
        found.append(Event(person, "consent", iso(index + timedelta(days=draw(st.sampled_from([-9, 0, 1, 14, 100]))))))
    if draw(st.booleans()):
        found.append(Event(person, "death", iso(draw(st.sampled_from([index, day])) + timedelta(days=draw(STEPS)))))
    return found


@st.composite
def population(draw: st.DrawFn) -> list[Event]:
    return [one for person in range(1, draw(st.integers(1, 12)) + 1) for one in draw(history(person))]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


LONG = int(os.environ.get("PALMARES_EXAMPLES", "16"))  # many more by hand: PALMARES_EXAMPLES=3000


@settings(
    max_examples=LONG, deadline=None, derandomize="PALMARES_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(what=population())
def test_sql_and_reference_agree(warehouse: duckdb.DuckDBPyConnection, what: list[Event]) -> None:
    rules = load_rules("palmares2", cut_off=CUT_OFF)
    fill(warehouse, what)
    apply(warehouse, rules)
    for one in what:
        note(f"{one.person} | {one.event} | {one.on} | {one.until} | {one.value}")
    of = patients(what, rules)

    plain_lines = {
        (person, line.number): (
            line.start, line.end, line.reason, line.regimen, line.index, line.flags, line.before,
            "+".join(sorted({drug.drug for drug, _ in line.drugs})),
        )
        for person, patient in of.items()
        for line in reference.lines(patient, rules)
    }  # fmt: skip
    rows = warehouse.execute(
        "SELECT person_id, line_number, start_date, end_date, end_reason, regimen, is_index, flags, next_start, drugs FROM line"
    ).fetchall()
    assert {(person, number): tuple(rest) for person, number, *rest in rows} == plain_lines

    plain_endpoints = {
        (person, one.paramcd): (one.start, one.end, one.event, one.censored, one.entry_day, list(one.flags))
        for person, patient in of.items()
        for one in reference.endpoints(patient, rules)
    }
    rows = warehouse.execute(
        "SELECT person_id, paramcd, start_date, end_date, evntdesc, cnsdtdsc, entry_day, flags FROM endpoint"
    ).fetchall()
    assert {(person, name): tuple(rest) for person, name, *rest in rows} == plain_endpoints

    resistance = dict(
        warehouse.execute("SELECT person_id, value FROM state WHERE name = 'endocrine-resistance'").fetchall()
    )
    assert resistance == {
        person: reference.resistance(patient, rules) for person, patient in of.items() if patient.advanced
    }


@settings(max_examples=LONG, deadline=None, derandomize="PALMARES_EXAMPLES" not in os.environ,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(what=population())
def test_sql_and_reference_agree_on_eras(warehouse: duckdb.DuckDBPyConnection, what: list[Event]) -> None:
    rules = load_rules("palmares2", cut_off=CUT_OFF)
    drugs = [one for one in what if is_drug(one) and one.event != "unmapped drug" and day_of(one.on) <= CUT_OFF]
    fill(warehouse, drugs)
    apply(warehouse, rules)
    exposures: dict[tuple[int, str], list[tuple[date, date]]] = {}
    for one in drugs:
        start, end = day_of(one.on), day_of(one.until or one.on)
        exposures.setdefault((one.person, one.event), []).append((start, min(max(start, end), CUT_OFF)))
    expected = sorted(
        (person, name, era.start, era.end, era.count, era.gap_days)
        for (person, name), several in exposures.items()
        for era in reference.eras(several, int(rules.parameters["era_gap_days"]))
    )
    rows = warehouse.execute(
        "SELECT person_id, value, drug_era_start_date, drug_era_end_date, drug_exposure_count, gap_days FROM cdm_drug_era "
        "JOIN (SELECT DISTINCT ON (concept_id) concept_id, value FROM concept_set WHERE list_contains(?, value)) AS word "
        "ON word.concept_id = drug_concept_id ORDER BY ALL",
        [sorted({one.event for one in drugs})],
    ).fetchall()
    assert rows == expected
