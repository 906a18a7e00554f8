"""The macros of partial_dates and its plain-Python reference give the same answer for every text, zone and rule."""

from dataclasses import replace
from datetime import UTC, date, datetime

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.partial_dates import MACROS, DateRules, date_rules, macros, parse

ZONES = ["Europe/Rome", "UTC", "Asia/Kathmandu", "America/St_Johns"]
QUERY = """SELECT fhir_date(t, z), fhir_end_date(t, z), fhir_datetime(t, z), fhir_end_datetime(t, z), fhir_precision(t),
                  fhir_imputed(t)
           FROM (SELECT unnest(?::VARCHAR[]) AS t, unnest(?::VARCHAR[]) AS z)"""

_NOTABLE = """
2021-03-27 2021-03-28 2021-03-29 2021-10-30 2021-10-31 2021-11-01 1893-10-31 1893-11-01 1866-12-12 1916-06-03 2038-01-19
2038-03-28 2099-10-25 2000-02-29 1999-12-31 1800-01-01 2100-12-31 2021-02-29 2021-13-01 1919-10-31 1935-03-30 1986-01-01
"""
_days = st.sampled_from(_NOTABLE.split()) | st.dates(date(1790, 1, 1), date(2110, 12, 31)).map(str)
_two = st.integers(0, 61).map("{:02d}".format)
_fractions = st.just("") | st.from_regex(r"\.[0-9]{1,12}", fullmatch=True)
_offsets = st.sampled_from(["", "Z", "+01:00", "+02:00", "+14:00", "-12:00", "+14:01", "-13:59", "+05:45", "-03:30"])
_times = st.builds(
    "{}T{}:{}:{}{}{}".format,
    _days,
    st.integers(0, 24).map("{:02d}".format),
    st.sampled_from(["00", "30", "59", "60"]) | _two,
    st.sampled_from(["00", "59", "60", "61"]) | _two,
    _fractions,
    _offsets | st.from_regex(r"[+-][0-2][0-9]:[0-7][0-9]", fullmatch=True),
)
_partial = _days.map(lambda day: day[:7]) | _days.map(lambda day: day[:4])
_valid = _days | _times | _partial
_noise = st.sampled_from(list(" \t+-:.0T1Zz9eE/²٣é\0"))


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """A text with one or two characters replaced, inserted, dropped or repeated."""
    text = draw(_valid)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(_noise | st.just("")) + text[place + draw(st.integers(0, 1)) :]
    return text


_texts = _valid | _mutated() | st.text(max_size=30).filter(lambda text: text.isprintable())


def connect(rules: DateRules | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    connection.execute("SET TimeZone = 'Asia/Tokyo'")  # the session's zone must not matter
    connection.execute(macros(rules) if rules else MACROS)
    return connection


DATABASE = connect()


def reference(text: str, zone: str, rules: DateRules | None = None) -> tuple[object, ...]:
    start, end = parse(text, zone, rules=rules), parse(text, zone, end=True, rules=rules)
    if start is None or end is None:
        assert start is end
        return (None,) * 6
    return start.date, end.date, start.datetime, end.datetime, start.precision, start.imputed


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(_texts, st.sampled_from(ZONES)), min_size=1, max_size=40))
def test_macros_and_reference_agree(cases: list[tuple[str, str]]) -> None:
    cases = [(text, zone) for text, zone in cases if "\0" not in text]  # DuckDB's parameters end at a zero byte
    found = DATABASE.execute(QUERY, [[text for text, _ in cases], [zone for _, zone in cases]]).fetchall()
    assert [(case, row) for case, row in zip(cases, found, strict=True)] == [(case, reference(*case)) for case in cases]


def test_every_half_hour_around_the_changes_of_clock() -> None:
    hours = [
        f"{day}T{hour:02d}:{minute}:00{offset}"
        for day in ("2021-03-27", "2021-03-28", "2021-10-30", "2021-10-31", "1893-10-31", "2037-10-25", "2038-10-31")
        for hour in range(24)
        for minute in ("00", "30")
        for offset in ("Z", "+01:00", "-03:30", "")
    ]
    for zone in ZONES:
        found = DATABASE.execute(QUERY, [hours, [zone] * len(hours)]).fetchall()
        assert found == [reference(text, zone) for text in hours]


def test_null_stays_null() -> None:
    assert DATABASE.execute(QUERY, [[None], ["Europe/Rome"]]).fetchall() == [(None,) * 6]


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "mid-period", "end": "mid-period"},
        {"start": "last-day", "end": "first-day"},
        {"absent": "none", "without_offset": "reject"},
        {"earliest": 1900, "latest": 2050, "leap_second": 58},
    ],
    ids=str,
)
def test_each_rule_that_can_be_chosen(changes: dict[str, object]) -> None:
    rules = replace(date_rules(), **changes)
    texts = [
        "2021",
        "2020-02",
        "1899-12",
        "2051",
        "2021-12",
        "2021-03-01",
        "2021-03-01T10:00:00",
        "2016-12-31T23:59:60Z",
    ]
    texts += ["2021-03-01T10:00:00.5", "2021-03-01T10:00:00+01:00", "2021-13", "2051-01-01T00:00:00Z"]
    found = connect(rules).execute(QUERY, [texts, ["Europe/Rome"] * len(texts)]).fetchall()
    assert found == [reference(text, "Europe/Rome", rules) for text in texts]


def test_an_end_never_comes_before_a_start_in_the_same_period() -> None:
    """Why outer-bounds: what is known to the month or year encloses every day that it may have been."""
    for text, day in (("2021-03", "2021-03-17"), ("2021", "2021-03-17"), ("2020-02", "2020-02-29")):
        start, end, known = parse(text, "UTC"), parse(text, "UTC", end=True), parse(day, "UTC")
        assert start and end and known and start.imputed and end.imputed and not known.imputed
        assert start.date <= known.date <= end.date


@given(st.datetimes(datetime(1850, 1, 1), datetime(2090, 1, 1)), st.sampled_from(["Z", "+01:00", "-03:30"]))
def test_instant_is_utc(moment: datetime, offset: str) -> None:
    text = moment.isoformat(timespec="microseconds") + offset
    expected = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    assert DATABASE.execute("SELECT fhir_instant(t) FROM (SELECT ?::VARCHAR AS t)", [text]).fetchone() == (expected,)


@pytest.mark.parametrize("text", ["2021-03-01", "2021", "2021-03-01T10:00:00", "", "2021-02-30T10:00:00Z"])
def test_what_is_no_instant(text: str) -> None:
    assert DATABASE.execute("SELECT fhir_instant(t) FROM (SELECT ?::VARCHAR AS t)", [text]).fetchone() == (None,)
