"""The SQL and the plain-Python reference answer alike, on random histories near every edge of the protocol.

Every date is an edge apart from an anchor: the windows' ends and a day to either side, month ends, leap days, the cut-off.
"""

import os
from collections.abc import Iterator
from datetime import date, timedelta

import duckdb
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from omop_etl.cohorts import reference
from omop_etl.cohorts.eligibility import evaluate
from omop_etl.study.rules import load_study
from tests.warehouses import Event, connect, fill, people

CUT_OFF = date(2024, 2, 29)
ANCHORS = st.sampled_from(
    [
        date(2021, 6, 1), date(2020, 2, 29), date(2023, 11, 28), date(2023, 11, 29), date(2023, 11, 30),
        date(2023, 12, 1), date(2022, 12, 31), date(2024, 2, 28),
    ]
)  # fmt: skip
EDGES = st.sampled_from([0, 1, 13, 14, 15, 27, 28, 29, 30, 31, 40, 60, 89, 90, 91, 92, 120, 180, 400])
OFFSETS = st.builds(lambda sign, days: sign * days, st.sampled_from([-1, -1, 1]), EDGES)

DRUGS = st.sampled_from(
    [
        "palbociclib", "ribociclib", "abemaciclib", "letrozole", "exemestane", "tamoxifen", "fulvestrant", "elacestrant",
        "megestrol", "goserelin", "denosumab", "paclitaxel", "everolimus", "trastuzumab deruxtecan", "unmapped drug",
    ]
)  # fmt: skip
PERCENT = st.sampled_from(["0", "0.9", "1", "1.1", "9.9", "10", "10.1", "90", "100", "101", "-1", "< 1", "<= 1", ">= 1", "> 1",
                           "< 10", ">= 10", "> 0.5", "", "positive"])  # fmt: skip
MARKERS = st.one_of(
    st.tuples(st.sampled_from(["ER", "PgR"]), PERCENT),
    st.tuples(st.just("HER2 IHC"), st.sampled_from(["0", "1+", "2+", "3+", "negative", ""])),
    st.tuples(st.just("HER2 ISH"), st.sampled_from(["amplified", "not-amplified", ""])),
)


@st.composite
def history(draw: st.DrawFn, person: int, site: str, token: str | None, anchor: date) -> list[Event]:
    """One person at one site; `anchor` is the day around which things happen."""

    def day(around: date = anchor) -> str:
        return (around + timedelta(days=draw(OFFSETS))).isoformat()

    def add(what: str, on: str = "", until: str = "", value: str = "") -> None:
        found.append(Event(person, what, on, until, value, site))

    found: list[Event] = []
    add("born", draw(st.sampled_from(["1960-04", "1960-05", "1960"])))
    add("sex", value=draw(st.sampled_from(["F", "F", "M"])))
    if token:
        add("linkage token", value=token)
    lesion = draw(st.sampled_from(["bone metastasis", "CNS metastasis", "liver metastasis", None]))
    if lesion:
        add(lesion, day())
    if draw(st.booleans()):
        add("primary NST", day())
    if draw(st.sampled_from([False, False, True])):
        add(draw(st.sampled_from(["locally advanced", "stage 4"])), day())
    if draw(st.sampled_from([True, True, False])):
        add(draw(st.sampled_from(["palbociclib", "ribociclib"])), anchor.isoformat())
    for drug in draw(st.lists(DRUGS, max_size=4)):
        on = day()
        length = draw(st.sampled_from([None, 0, 1, 28, 90, 400]))
        month_only = draw(st.sampled_from([False, False, True]))
        add(
            drug,
            on[:7] if month_only else on,
            "" if length is None else (date.fromisoformat(on) + timedelta(days=length)).isoformat(),
        )
    for marker, value in draw(st.lists(MARKERS, max_size=5)):
        # a lesion that is not known at the cut-off cannot make a sample metastatic
        known = lesion is not None and date.fromisoformat(next(e.on for e in found if e.event == lesion)) <= CUT_OFF
        origin = draw(st.sampled_from(["primary", "metastasis"])) if known else "primary"
        add(f"{marker} of {origin}", draw(st.sampled_from([anchor.isoformat(), day(), day()])), value=value)
    for response in draw(st.lists(st.sampled_from(["PD", "PD", "SD"]), max_size=2)):
        add(response, day())
    if draw(st.booleans()):
        add("visit", day())
    if draw(st.booleans()):
        add("death", day(draw(st.sampled_from([anchor, CUT_OFF]))))
    return found


@st.composite
def population(draw: st.DrawFn) -> list[Event]:
    """A few persons at three sites, some of them the same patient, some alike."""
    anchor = draw(ANCHORS)
    found: list[Event] = []
    for person in range(1, draw(st.integers(1, 8)) + 1):
        site = draw(st.sampled_from(["s01", "s02", "s03"]))
        token = draw(st.sampled_from([None, "a", "b", f"own-{person}", f"own-{person}"]))
        around = draw(st.sampled_from([anchor, anchor, anchor + timedelta(days=14), anchor + timedelta(days=15)]))
        found += draw(history(person, site, token, around))
    return found


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect([]) as connection:
        yield connection


LONG = int(os.environ.get("PALMARES_EXAMPLES", "60"))  # many more by hand: PALMARES_EXAMPLES=5000


@pytest.mark.long
@settings(
    max_examples=LONG, deadline=None, derandomize="PALMARES_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(what=population(), variant=st.sampled_from([None, None, "partner-window-28", "observed-follow-up"]))
def test_sql_and_reference_agree(warehouse: duckdb.DuckDBPyConnection, what: list[Event], variant: str | None) -> None:
    study = load_study("palmares2", cut_off=CUT_OFF, variant=variant)
    fill(warehouse, what)
    evaluate(warehouse, study)
    rows = warehouse.execute("SELECT person_id, criterion_name, answer, reason, flag FROM answer").fetchall()
    answers = reference.eligibility(people(what), study.parameters, study.cut_off)
    names = [criterion.name for criterion in study.criteria]
    sql = {(person, name): tuple(rest) for person, name, *rest in rows}
    plain = {
        (person, name): (one.answer, one.reason, one.flag)
        for person, several in answers.items()
        for name, one in zip(names, several, strict=True)
    }
    for one in what:
        note(f"{one.person} | {one.site} | {one.event} | {one.on} | {one.until} | {one.value}")
    assert sql == plain
