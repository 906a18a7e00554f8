"""What a slice looks like, as counts: `profile` in verdict.json.

The centre holds it against the site's earlier submissions and the other sites. It holds distributions of the study's variables, events
and the time in which they could happen, and how lately patients were seen: no row, no id, no date of a patient.
"""

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.gates.definitions import Definitions
from omop_etl.gates.relations import Relations

FORMAT = 1
NOT_KNOWN = "not known"
_DAYS_PER_MONTH = 30.4375  # PROTOCOL.md, endpoints
_DAYS_PER_YEAR = 365.25


@cache
def settings() -> dict[str, Any]:
    """profile.toml. Raises E-GATE-03 when it does not read."""
    try:
        return tomllib.loads((mappings_folder() / "quality" / "profile.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-GATE-03", "profile.toml", detail="it is missing or no TOML in UTF-8") from None


def cut_off(study: str) -> date | None:
    """The study's cut-off; None when it has none."""
    path = mappings_folder() / "studies" / study / "study.toml"
    found = tomllib.loads(path.read_text(encoding="utf-8")).get("cut_off") if path.is_file() else None
    return found if isinstance(found, date) else None


def reference(study: str, extracted_to: str | None) -> date | None:
    """The day from which recency is counted back: the study's cut-off, or the extraction where that is earlier."""
    days = [day for day in (cut_off(study), date.fromisoformat(extracted_to) if extracted_to else None) if day]
    return min(days, default=None)


def profile(relations: Relations, defined: Definitions, extracted_to: str | None) -> dict[str, Any]:
    """The profile of what lies in these relations. Raises E-GATE-03 when the SQL of profile.toml does not fit."""
    chosen = settings()
    day = reference(defined.study, extracted_to)
    words = defined.words | {"reference": f"DATE '{day}'" if day else "CAST(NULL AS DATE)"}

    def rows(name: str, sql: str) -> list[tuple[Any, ...]]:
        try:
            return relations.run(sql.format_map(words)).fetchall()
        except (KeyError, duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise PalmaresError("E-GATE-03", "profile.toml", detail=f"{name} does not fit the tables") from None

    variables = {
        one["code"]: dict(
            rows(
                one["code"],
                f"SELECT coalesce(category, '{NOT_KNOWN}') AS category, count(*) FROM ({one['sql']}) GROUP BY 1 ORDER BY 1",
            )
        )
        for one in chosen["variable"]
    }
    follow_up = {}
    for name, sql in chosen["follow_up"].items():
        events, days = rows(name, sql)[0]
        follow_up[name] = {"events": int(events), "person_years": round(float(days) / _DAYS_PER_YEAR, 3)}
    alive = [None if row[0] is None else int(row[0]) for row in rows("alive", chosen["recency"]["alive"])]
    return {
        "format": FORMAT,
        "persons": relations.rows.get("person", 0),
        "analysable": int(rows("index_start", "SELECT count(*) FROM index_start")[0][0]),
        "rows": sum(relations.rows.values()),
        "variables": variables,
        "follow_up": follow_up,
        "recency": _recency(alive, int(rows("dead", chosen["recency"]["dead"])[0][0]), int(chosen["late_months"])),
    }


def _recency(days: list[int | None], dead: int, most: int) -> dict[str, Any]:
    """Months since the living were last seen: a histogram, and where a person has no record before the day, the last bin."""
    months = sorted(most if one is None else one / _DAYS_PER_MONTH for one in days)
    histogram = [0] * (most + 1)
    for month in months:
        histogram[min(int(month), most)] += 1

    def quantile(share: float) -> float | None:
        return round(months[min(int(share * len(months)), len(months) - 1)], 2) if months else None

    return {
        "alive": len(days),
        "dead": dead,
        "histogram": histogram,
        "quartiles": [quantile(0.25), quantile(0.5), quantile(0.75)],
    }


def late(recency: Mapping[str, Any], months: int) -> int:
    """How many of the living were not seen for so many whole months or longer."""
    return sum(recency["histogram"][months:])


def profile_of(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """The profile in a verdict; None when there is none of this format."""
    found = verdict.get("profile")
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None
