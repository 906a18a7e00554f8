"""Boundaries and comparison of dates, times and decimals, against a plain-Python account of the same rules."""

import calendar
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.views import evaluate

ZONES = st.sampled_from(["Z", "+02:00", "-05:30", ""])


@st.composite
def moments(draw: st.DrawFn) -> str:
    """A FHIR date or dateTime of any precision, near the others."""
    year, month = draw(st.sampled_from([2020, 2021])), draw(st.integers(1, 12))
    day = draw(st.integers(1, calendar.monthrange(year, month)[1]))
    clock = f"{draw(st.integers(0, 23)):02}:{draw(st.sampled_from([0, 30]))!s:0>2}:{draw(st.integers(0, 59)):02}"
    fraction = draw(st.sampled_from(["", ".5", ".123"]))
    zone = draw(ZONES)
    full = f"{year}-{month:02}-{day:02}T{clock}{fraction}{zone}"
    return draw(st.sampled_from([full[:4], full[:7], full[:10], full]))


def run(
    columns: dict[str, str], resources: list[dict[str, Any]], resource: str = "Observation"
) -> list[dict[str, Any]]:
    made = [{"name": name, "path": path} for name, path in columns.items()]
    return evaluate({"resource": resource, "select": [{"column": made}]}, resources)


def span(text: str, *, wall: bool) -> tuple[datetime, datetime]:
    """First moment and end (exclusive) of what a text covers, on the wall clock or as an instant."""
    start = datetime.fromisoformat(text + "2020-01-01"[len(text) :] if len(text) < 10 else text)
    if wall or start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
    if len(text) == 4:
        return start, start.replace(year=start.year + 1)
    if len(text) == 7:
        return start, (start + timedelta(days=31)).replace(day=1)
    return start, start + (timedelta(days=1) if len(text) == 10 else timedelta(microseconds=1))


def compared(a: str, b: str) -> dict[str, bool | None]:
    wall = not all(re.search(r"(Z|[+-]\d\d:\d\d)$", text) and "T" in text for text in (a, b))
    (a_start, a_end), (b_start, b_end) = span(a, wall=wall), span(b, wall=wall)
    same = (a_start, a_end) == (b_start, b_end)
    before, after = a_end <= b_start, b_end <= a_start

    def answer(yes: bool, no: bool) -> bool | None:
        return True if yes else False if no else None

    return {
        "=": answer(same, before or after),
        "!=": answer(before or after, same),
        "<": answer(before, after or same),
        "<=": answer(before or same, after),
        ">": answer(after, before or same),
        ">=": answer(after or same, before),
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(moments(), moments()), min_size=1, max_size=20))
def test_comparison_knows_precision_and_zone(pairs: list[tuple[str, str]]) -> None:
    operators = ["=", "!=", "<", "<=", ">", ">="]
    resources = [
        {"resourceType": "Observation", "id": str(n), "effectiveDateTime": a, "valueDateTime": b}
        for n, (a, b) in enumerate(pairs)
    ]
    paths = {f"c{n}": f"effective.ofType(dateTime) {one} value.ofType(dateTime)" for n, one in enumerate(operators)}
    rows = run({"id": "id"} | paths, resources)
    for row in rows:
        a, b = pairs[int(row["id"])]
        assert {one: row[f"c{n}"] for n, one in enumerate(operators)} == compared(a, b), (a, b)


def test_comparison_with_literals() -> None:
    [row] = run(
        {
            "date": "birthDate < @1970-07",
            "uncertain": "birthDate < @1970-06-15",
            "string": "birthDate = '1970-06'",
            "no_date": "birthDate = '?'",
            "instants": "@2015-01-01T10:00:00Z < @2015-01-01T12:30:00+02:00",
            "times": "@T10:30:00 < @T10:30:05",
            "uncertain_times": "@T10:30 < @T10:30:05",
        },
        [{"resourceType": "Patient", "birthDate": "1970-06"}],
        "Patient",
    )
    assert row == {"date": True, "uncertain": None, "string": True, "no_date": None} | {
        "instants": True,
        "times": True,
        "uncertain_times": None,
    }


def boundaries(text: str, *, date: bool) -> tuple[str, str]:
    """The first and last full value that a partial date or dateTime may stand for."""
    year, month = int(text[:4]), int(text[5:7] or 0)
    last_month = month or 12
    last_day = calendar.monthrange(year, last_month)[1]
    low = text[:10] + "0000-01-01"[len(text) : 10]
    high = text[:10] if len(text) >= 10 else f"{year:04}-{last_month:02}-{last_day:02}"
    if date:
        return low, high
    found = re.fullmatch(r".{10}T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?", text)
    clock, fraction, zone = found.groups() if found else ("", "", "")
    if not clock:
        return f"{low}T00:00:00.000+14:00", f"{high}T23:59:59.999-12:00"
    digits = (fraction or ".")[1:]
    return (
        f"{low}T{clock}.{digits.ljust(3, '0')}{zone or '+14:00'}",
        f"{high}T{clock}.{digits.ljust(3, '9')}{zone or '-12:00'}",
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(moments(), min_size=1, max_size=20))
def test_boundaries_of_dates(texts: list[str]) -> None:
    resources = [
        {"resourceType": "Patient", "id": str(n), "deceasedDateTime": text, "birthDate": text[:10]}
        for n, text in enumerate(texts)
    ]
    time, date = "deceased.ofType(dateTime)", "birthDate"
    rows = run(
        {
            "id": "id",
            "low": f"{time}.lowBoundary()",
            "high": f"{time}.highBoundary()",
            "low_date": f"{date}.lowBoundary()",
            "high_date": f"{date}.highBoundary()",
        },
        resources,
        "Patient",
    )
    for row in rows:
        text = texts[int(row["id"])]
        assert (row["low"], row["high"]) == boundaries(text, date=False)
        assert (row["low_date"], row["high_date"]) == boundaries(text[:10], date=True)


def test_boundaries_of_periods_times_and_instants() -> None:
    observation = {
        "resourceType": "Observation",
        "effectivePeriod": {"start": "2015", "end": "2016-02"},
        "issued": "2015-02-07T13:28:17.239+02:00",
        "valueTime": "12:34:00",
    }
    [row] = run(
        {
            "start": "effective.ofType(Period).lowBoundary()",
            "end": "effective.ofType(Period).highBoundary()",
            "instant": "issued.highBoundary()",
            "low": "value.ofType(time).lowBoundary()",
            "high": "value.ofType(time).highBoundary()",
            "integer": "3.lowBoundary()",
            "none": "{}.lowBoundary()",
        },
        [observation],
    )
    assert row == {
        "start": "2015-01-01T00:00:00.000+14:00",
        "end": "2016-02-29T23:59:59.999-12:00",
        "instant": "2015-02-07T13:28:17.239+02:00",
        "low": "12:34:00.000",
        "high": "12:34:00.999",
        "integer": 2.5,
        "none": None,
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.decimals(-1000, 1000, places=3), min_size=1, max_size=20))
def test_boundaries_of_decimals(numbers: list[Decimal]) -> None:
    # DuckDB's reader keeps a number's shortest form, and one zero after the point of a whole decimal
    shortest = [Decimal(repr(float(number))) for number in numbers]
    resources = [
        {"resourceType": "Observation", "id": str(n), "valueQuantity": {"value": float(number)}}
        for n, number in enumerate(numbers)
    ]
    path = "value.ofType(Quantity).value"
    for row in run({"id": "id", "low": f"{path}.lowBoundary()", "high": f"{path}.highBoundary()"}, resources):
        number = shortest[int(row["id"])]
        half = Decimal(5).scaleb(int(number.as_tuple().exponent) - 1)
        assert row["low"] == float(number - half) and row["high"] == float(number + half)
