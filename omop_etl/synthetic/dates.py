"""Calendar arithmetic of the study, and how a hospital's system writes a day down."""

import random
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo


def add_months(day: date, months: int) -> date:
    """The same day so many calendar months later, clipped to the end of a shorter month (30 Nov + 3 → 28 or 29 Feb)."""
    ahead = day.month - 1 + months
    year, month = day.year + ahead // 12, ahead % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def days_after(day: date, days: float) -> date:
    """`day` and so many days; fractions are cut."""
    return day + timedelta(days=int(days))


def between(rng: random.Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included; `low` when the range is empty."""
    return rng.randint(low, high) if high > low else low


def day_between(rng: random.Random, first: date, last: date) -> date:
    """A day from `first` to `last`, both included; `first` when the range is empty."""
    return first + timedelta(days=between(rng, 0, (last - first).days))


@cache
def _offset(zone: str, day: date, hour: int) -> str:
    offset = datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone)).utcoffset() or timedelta()
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def at_time(day: date, hour: int, minute: int, zone: str) -> str:
    """A FHIR dateTime of that local wall-clock time, with the zone's offset of that day."""
    return f"{day.isoformat()}T{hour:02}:{minute:02}:00{_offset(zone, day, hour)}"


def in_utc(day: date, hour: int, minute: int, zone: str) -> str:
    """The same instant written in UTC: its date text may be the day before or after the local day."""
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone))
    return local.astimezone(ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%SZ")


def local_day(text: str, zone: str) -> date:
    """The local day of a FHIR date or dateTime."""
    if len(text) == 10:
        return date.fromisoformat(text)
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(ZoneInfo(zone)).date()
