"""Calendar arithmetic at its edges, and how a day is written down."""

from calendar import monthrange
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omop_etl.synthetic.dates import add_months, at_time, in_utc

DAYS = st.dates(date(1990, 1, 1), date(2030, 12, 31))
ROME = "Europe/Rome"


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [
        (date(2023, 11, 30), 3, date(2024, 2, 29)),
        (date(2022, 11, 30), 3, date(2023, 2, 28)),
        (date(2024, 10, 1), 3, date(2025, 1, 1)),
        (date(2024, 12, 31), 2, date(2025, 2, 28)),
        (date(2024, 1, 31), 1, date(2024, 2, 29)),
        (date(2024, 5, 31), 12, date(2025, 5, 31)),
    ],
)
def test_months_are_clipped_to_the_end_of_the_month(day: date, months: int, expected: date) -> None:
    assert add_months(day, months) == expected


@given(DAYS, st.integers(0, 60))
def test_adding_months_keeps_the_day_or_clips_it(day: date, months: int) -> None:
    later = add_months(day, months)
    assert (later.year - day.year) * 12 + later.month - day.month == months
    assert later.day == min(day.day, monthrange(later.year, later.month)[1])


@given(DAYS, st.integers(4, 23), st.integers(0, 59))
def test_a_time_in_utc_is_the_same_instant(day: date, hour: int, minute: int) -> None:
    local = datetime.fromisoformat(at_time(day, hour, minute, ROME))
    assert local == datetime.fromisoformat(in_utc(day, hour, minute, ROME))
    assert local.astimezone(ZoneInfo(ROME)).date() == day


def test_shortly_after_midnight_utc_is_the_day_before() -> None:
    assert in_utc(date(2021, 3, 5), 0, 30, ROME) == "2021-03-04T23:30:00Z"
    assert at_time(date(2021, 7, 5), 9, 0, ROME) == "2021-07-05T09:00:00+02:00"
