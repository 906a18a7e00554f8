"""k-anonymity: how many patients share what a stranger may know of them, counted and enforced as the study declares.

Declared in `[k_anonymity]` of datasets.toml: the quasi-identifiers, k, and what is done about patients whose values fewer than
k share: "report" counts them, "suppress" empties values for them in every dataset of the release, "refuse" releases nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError

# quasi-identifier: how it follows from `released`, and the column there whose emptying hides it (None: it cannot be hidden)
_KNOWN: dict[str, tuple[str, str | None]] = {
    "site": ("site", "site"),
    "index_year": ("year(index_date)", None),
    "age": (
        "least(year(index_date) - year_of_birth - CAST(month(index_date) < coalesce(month_of_birth, 1) AS INTEGER), age_top_code())",
        "year_of_birth",
    ),
    "sex": ("sex", "sex"),
    "index_drug": ("index_drug", None),
}
ENFORCE = ("report", "suppress", "refuse")


@dataclass(frozen=True)
class Anonymity:
    """What was found: patients, those in classes below k before and after, the smallest class after, values emptied by column."""

    quasi_identifiers: tuple[str, ...]
    k: int
    enforce: str
    patients: int
    below_before: int
    below: int
    smallest: int | None
    emptied: Mapping[str, int]

    def shown(self, *, threshold: int) -> dict[str, Any]:
        """As it may be shown: a number of patients that is small, or whose rest is small, is hidden."""

        def say(count: int) -> int | str:
            return "*" if 0 < count < threshold or 0 < self.patients - count < threshold else count

        return {
            "quasi_identifiers": list(self.quasi_identifiers),
            "k": self.k,
            "enforce": self.enforce,
            "reached": self.below == 0,
            "patients": say(self.patients) if self.patients >= threshold or not self.patients else "*",
            "patients_below_k_before": say(self.below_before),
            "patients_below_k": say(self.below),
            "values_emptied": {name: say(count) for name, count in self.emptied.items()},
        }


def enforce(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any]) -> Anonymity:
    """Count the classes of the table `released` and do what is declared; later tables follow from what is left there.

    Raises E-STUDY-03 when the declaration does not fit, E-PUBLISH-04 when it says "refuse" and a class is below k, or when it
    says "suppress" and emptying all that may be emptied is not enough.
    """
    about = settings.get("k_anonymity", {})
    names, k, how = tuple(about.get("quasi_identifiers", ())), about.get("k"), about.get("enforce")
    order = tuple(about.get("suppress", ()))
    unknown = [name for name in (*names, *order) if name not in _KNOWN]
    if unknown or not names or not isinstance(k, int) or k < 1 or how not in ENFORCE or not set(order) <= set(names):
        detail = "[k_anonymity] " + (", ".join(unknown) or "needs quasi_identifiers, k, enforce, suppress")
        raise PalmaresError("E-STUDY-03", "datasets/datasets.toml", detail=detail)
    patients = _count(connection, "SELECT count(*) FROM released")
    before = below = _below(connection, names, k)
    emptied: dict[str, int] = {}
    if how == "suppress":
        for name in order:
            column = _KNOWN[name][1]
            if column is None:
                raise PalmaresError("E-STUDY-03", "datasets/datasets.toml", detail=f"{name} cannot be emptied")
            if not below:
                break
            emptied[name] = _empty(connection, names, column, k)
            below = _below(connection, names, k)
    if below and how in ("suppress", "refuse"):
        raise PalmaresError("E-PUBLISH-04", ", ".join(names), detail=f"k is {k}")
    smallest = connection.execute(f"SELECT min(people) FROM ({_classes(names)})").fetchall()[0][0]
    return Anonymity(names, k, how, patients, before, below, smallest, emptied)


def _classes(names: tuple[str, ...]) -> str:
    return f"SELECT {', '.join(_KNOWN[name][0] for name in names)}, count(*) AS people FROM released GROUP BY ALL"


def _below(connection: duckdb.DuckDBPyConnection, names: tuple[str, ...], k: int) -> int:
    return _count(connection, f"SELECT coalesce(sum(people), 0) FROM ({_classes(names)}) WHERE people < {k}")


def _empty(connection: duckdb.DuckDBPyConnection, names: tuple[str, ...], column: str, k: int) -> int:
    """Empty a column for everyone in a class below k; how many values that were."""
    values = ", ".join(_KNOWN[name][0] for name in names)
    small = (
        f"SELECT person_id FROM (SELECT person_id, count(*) OVER (PARTITION BY {values}) AS people FROM released) "
        f"WHERE people < {k}"
    )
    found = connection.execute(
        f"UPDATE released SET {column} = NULL WHERE {column} IS NOT NULL AND person_id IN ({small})"
    ).fetchone()
    return int(found[0]) if found else 0


def _count(connection: duckdb.DuckDBPyConnection, select: str) -> int:
    return int(connection.execute(select).fetchall()[0][0])
