"""FHIR date, dateTime and instant texts: local date, local datetime, precision, and whether the date was imputed.

`MACROS` holds DuckDB macros (the fast way, no Python in the loop); `parse` is the same rule in plain Python, and a
property test compares the two. The choices stand in `mappings/dates.toml`.

    fhir_date(text, zone)          DATE       first day of what is known, in the zone; NULL when the text is no FHIR date
    fhir_end_date(text, zone)      DATE       last day of what is known
    fhir_datetime(text, zone)      TIMESTAMP  local wall clock; midnight of fhir_date when the text has no time of day
    fhir_end_datetime(text, zone)  TIMESTAMP  likewise for an end
    fhir_precision(text)           VARCHAR    'year', 'month', 'day' or 'time'; NULL when the text is no FHIR date
    fhir_imputed(text)             BOOLEAN    the day was imputed (precision year or month)
    fhir_instant(text)             TIMESTAMP  UTC; NULL unless the text has a time and an offset

`fhir_datetime(t, z)::DATE = fhir_date(t, z)` always holds. Pass plain columns: a macro repeats its argument. Where both
the date and the datetime are wanted, compute the datetime once and cast it: the change of zone is the costly part
(about 2 million a second and core; a plain date or zone UTC, 5 million and more).

Zones are IANA names; both ways use the tz database, so before a country had a standard time (Italy: 1893-11-01, by this
database) an offset is turned into local mean time (Rome +00:49:56). DuckDB and Python carry their own copies of the
database; they can differ for zones whose rules changed lately.
"""

import re
import tomllib
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fhir_adapters.knowledge import mappings_folder


@dataclass(frozen=True)
class DateRules:
    """The choices of `mappings/dates.toml`; its comments explain them."""

    start: str
    end: str
    absent: str
    without_offset: str
    leap_second: int
    earliest: int
    latest: int


@dataclass(frozen=True)
class FhirDate:
    """What a FHIR date text says at a site: `date` and `datetime` local to its zone, and how precise the text was."""

    date: date
    datetime: datetime | None
    precision: str  # year, month, day, time
    imputed: bool


def date_rules() -> DateRules:
    """The rules of `mappings/dates.toml`."""
    return _rules(mappings_folder() / "dates.toml")


@cache
def _rules(path: Path) -> DateRules:
    settings: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return DateRules(
        start=settings["partial"]["start"],
        end=settings["partial"]["end"],
        absent=settings["time"]["absent"],
        without_offset=settings["time"]["without_offset"],
        leap_second=settings["time"]["leap_second"],
        earliest=settings["years"]["earliest"],
        latest=settings["years"]["latest"],
    )


# --- the reference in plain Python -------------------------------------------------------------------------------------

_GRAMMAR = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)(\.(?P<fraction>\d+))?"
    r"(?P<offset>Z|[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00)?)?)?)?",
    re.ASCII,
)


def parse(text: str, zone: str, *, end: bool = False, rules: DateRules | None = None) -> FhirDate | None:
    """The date of a FHIR date, dateTime or instant in a site's zone; None when the text is none of these.

    `end` takes the rule for the end of a period.
    """
    rules = rules or date_rules()
    found = _GRAMMAR.fullmatch(text)
    if found is None or not rules.earliest <= int(found["year"]) <= rules.latest:
        return None
    year, month = int(found["year"]), int(found["month"] or 1)
    if not 1 <= month <= 12:
        return None
    if found["day"] is None:
        day = _impute(year, month if found["month"] else None, rules.end if end else rules.start)
        return _without_time(day, "month" if found["month"] else "year", rules)
    if not 1 <= int(found["day"]) <= monthrange(year, month)[1]:
        return None
    day = date(year, month, int(found["day"]))
    if found["hour"] is None:
        return _without_time(day, "day", rules)
    second = rules.leap_second if found["second"] == "60" else int(found["second"])
    microsecond = int((found["fraction"] or "0")[:6].ljust(6, "0"))
    wall = datetime.combine(day, time(int(found["hour"]), int(found["minute"]), second, microsecond))
    if found["offset"] is None:
        return FhirDate(wall.date(), wall, "time", imputed=False) if rules.without_offset == "site" else None
    local = wall.replace(tzinfo=_offset(found["offset"])).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return FhirDate(local.date(), local, "time", imputed=False)


def _impute(year: int, month: int | None, rule: str) -> date:
    if rule == "first-day":
        return date(year, month or 1, 1)
    if rule == "last-day":
        return date(year, month or 12, monthrange(year, month or 12)[1])
    return date(year, month, 15) if month else date(year, 7, 1)


def _without_time(day: date, precision: str, rules: DateRules) -> FhirDate:
    midnight = datetime.combine(day, time()) if rules.absent == "midnight" else None
    return FhirDate(day, midnight, precision, imputed=precision != "day")


def _offset(text: str) -> timezone:
    if text == "Z":
        return UTC
    size = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-size if text[0] == "-" else size)


# --- the macros --------------------------------------------------------------------------------------------------------

_DATE_GLOB = "[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]"
_TIME_GLOB = _DATE_GLOB + "T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
_TIME_REGEX = r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"  # the rare forms: fractions, leap seconds
_OFFSET_REGEX = r"(Z|[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00)"

_IMPUTE = {
    "first-day": {"month": "{first}", "year": "{first}"},
    "mid-period": {"month": "{first} + 14", "year": "CAST({first} + INTERVAL 6 MONTH AS DATE)"},
    "last-day": {"month": "last_day({first})", "year": "CAST({first} + INTERVAL 12 MONTH AS DATE) - 1"},
}


def _day(rule: str) -> str:
    """SQL for the day of a text without time: a whole date, else imputed by `rule`; NULL when it is none."""
    month = _IMPUTE[rule]["month"].format(first="TRY_CAST(t || '-01' AS DATE)")
    year = _IMPUTE[rule]["year"].format(first="TRY_CAST(t || '-01-01' AS DATE)")
    return f"""CASE
        WHEN NOT fhir_year_fits(t) THEN NULL
        WHEN strlen(t) = 10 THEN CASE WHEN t GLOB '{_DATE_GLOB}' THEN TRY_CAST(t AS DATE) END
        WHEN strlen(t) = 7 AND t GLOB '[12][0-9][0-9][0-9]-[01][0-9]' THEN {month}
        WHEN strlen(t) = 4 AND t GLOB '[12][0-9][0-9][0-9]' THEN {year}
    END"""


def macros(rules: DateRules) -> str:
    """The DuckDB statements that define the macros under `rules`; run them once per database that may be written to."""
    bare = "fhir_bare_time(t)" if rules.without_offset == "site" else "CAST(NULL AS TIMESTAMP)"
    midnight = {"midnight": "CAST({day} AS TIMESTAMP)", "none": "CAST(NULL AS TIMESTAMP)"}[rules.absent]
    no_leap = f"CASE WHEN substring(t, 18, 2) = '60' THEN left(t, 17) || '{rules.leap_second:02d}' || substring(t, 20) ELSE t END"
    definitions = {
        # texts compare as the years do, because the globs and expressions let only digits follow
        "fhir_year_fits(t)": f"t >= '{rules.earliest}' AND t < '{rules.latest + 1}'",
        # DuckDB's cast forgives blanks, short fields, 24:00 and wide offsets, so the shape is looked at first
        "fhir_moment(t)": f"""CASE
        WHEN NOT fhir_year_fits(t) THEN NULL
        WHEN strlen(t) = 20 AND t GLOB '{_TIME_GLOB}Z'
            THEN CASE WHEN substring(t, 12, 2) < '24' THEN TRY_CAST(t AS TIMESTAMPTZ) END
        WHEN strlen(t) = 25 AND t GLOB '{_TIME_GLOB}[+-][01][0-9]:[0-5][0-9]'
            THEN CASE WHEN substring(t, 12, 2) < '24' AND substring(t, 21) <= '14:00' THEN TRY_CAST(t AS TIMESTAMPTZ) END
        WHEN regexp_full_match(t, '{_TIME_REGEX}{_OFFSET_REGEX}') THEN TRY_CAST({no_leap} AS TIMESTAMPTZ)
    END""",
        "fhir_bare_time(t)": f"""CASE
        WHEN fhir_year_fits(t) AND regexp_full_match(t, '{_TIME_REGEX}') THEN TRY_CAST({no_leap} AS TIMESTAMP)
    END""",
        "fhir_has_offset(t)": "ends_with(t, 'Z') OR substring(t, strlen(t) - 5, 1) IN ('+', '-')",
        "fhir_first_day(t)": _day(rules.start),
        "fhir_last_day(t)": _day(rules.end),
        # without ICU where the zone is UTC
        "fhir_local(moment, zone)": "CASE WHEN zone = 'UTC' THEN make_timestamp(epoch_us(moment)) "
        "ELSE timezone(zone, moment) END",
        "fhir_time(t, zone)": f"CASE WHEN fhir_has_offset(t) THEN fhir_local(fhir_moment(t), zone) ELSE {bare} END",
        "fhir_instant(t)": "make_timestamp(epoch_us(fhir_moment(t)))",
        "fhir_date(t, zone)": "CASE WHEN strlen(t) <= 10 THEN fhir_first_day(t) ELSE CAST(fhir_time(t, zone) AS DATE) END",
        "fhir_end_date(t, zone)": "CASE WHEN strlen(t) <= 10 THEN fhir_last_day(t) "
        "ELSE CAST(fhir_time(t, zone) AS DATE) END",
        "fhir_datetime(t, zone)": f"CASE WHEN strlen(t) <= 10 THEN {midnight.format(day='fhir_first_day(t)')} "
        "ELSE fhir_time(t, zone) END",
        "fhir_end_datetime(t, zone)": f"CASE WHEN strlen(t) <= 10 THEN {midnight.format(day='fhir_last_day(t)')} "
        "ELSE fhir_time(t, zone) END",
        "fhir_precision(t)": f"""CASE
        WHEN strlen(t) > 10 THEN CASE WHEN coalesce(fhir_moment(t) IS NOT NULL, false) OR {bare} IS NOT NULL THEN 'time' END
        WHEN fhir_first_day(t) IS NULL THEN NULL
        WHEN strlen(t) = 10 THEN 'day'
        WHEN strlen(t) = 7 THEN 'month'
        ELSE 'year'
    END""",
        "fhir_imputed(t)": "fhir_precision(t) IN ('year', 'month')",
    }
    return "\n".join(f"CREATE OR REPLACE MACRO {head} AS ({body});" for head, body in definitions.items())


MACROS: str = macros(date_rules())
