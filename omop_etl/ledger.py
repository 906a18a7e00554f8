"""The ledger: what became of each resource, and whether what came in went out.

`resource_type, resource_id, outcome, reason, cdm_table, row_count`: one line per table that a resource filled (`written`), or one that says
why it has no row of its own (`merged`, `excluded`, `quarantined`). The outcome of a reason stands in `mappings/explanations/reasons.csv`.
A line of `written` has a reason only where the rows were tied to a visit by their date (V-BY-DATE).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table

OUTCOMES = ("written", "merged", "excluded", "quarantined")


def outcomes() -> dict[str, str]:
    """Reason code → outcome, for the reasons that leave a resource without a row."""
    return {row["code"]: row["outcome"] for row in table("explanations", "reasons.csv") if row["outcome"] in OUTCOMES}


def write_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the view `ledger` over `written_lines` (resource_type, resource_id, cdm_table, row_count, place, reason), `no_row` and
    `quarantine` (resource_type, resource_id, reason). `place` is the resource's key, which orders the lines."""
    known = outcomes()
    outcome = "CASE reason " + " ".join(f"WHEN '{code}' THEN '{word}'" for code, word in known.items()) + " END"
    left = f"resource_type, resource_id, {outcome} AS outcome, reason, NULL AS cdm_table, 0::BIGINT AS row_count"
    connection.execute(
        "CREATE VIEW ledger AS SELECT resource_type, resource_id, 'written' AS outcome, reason, cdm_table, "
        "row_count::BIGINT AS row_count, place FROM written_lines "
        f"UNION ALL SELECT {left}, resource_key(resource_type, coalesce(resource_id, '')) FROM no_row "
        f"UNION ALL SELECT DISTINCT {left}, resource_key(resource_type, coalesce(resource_id, '')) FROM quarantine "
        # refused in two versions, as they were read and as they were mapped: one line
        "ANTI JOIN no_row USING (resource_type, resource_id, reason)"
    )
    unknown = connection.execute(
        "SELECT DISTINCT reason FROM (SELECT reason FROM no_row UNION ALL SELECT reason FROM quarantine) "
        f"WHERE {outcome} IS NULL ORDER BY 1"
    ).fetchall()
    if unknown:
        names = ", ".join(str(reason) for (reason,) in unknown)
        raise PalmaresError("E-BALANCE-01", "ledger", count=len(unknown), detail=f"reasons without an outcome: {names}")


@dataclass(frozen=True)
class Totals:
    """What the ledger adds up to."""

    found: dict[str, dict[str, int]]  # resource type → outcome → resources; one that filled several tables counts once
    refused: dict[str, int]  # resource type → resources quarantined as they were read
    twice: dict[str, int]  # resource type → resources refused in one version and left out in another
    rows: dict[str, int]  # CDM table → rows
    both: int  # resources that are said to be written and not


def totals(connection: duckdb.DuckDBPyConnection) -> Totals:
    """Add up the ledger; `written_once` has each resource that wrote rows once (resource_type, place)."""
    found: dict[str, dict[str, int]] = {}
    for resource_type, outcome, count in connection.execute(
        "SELECT resource_type, 'written' AS outcome, count(*) FROM written_once GROUP BY 1 UNION ALL "
        "SELECT resource_type, outcome, count(DISTINCT place) FROM ledger WHERE outcome <> 'written' GROUP BY 1, 2 ORDER BY ALL"
    ).fetchall():
        found.setdefault(resource_type, {})[outcome] = count
    refused = dict(
        connection.execute(
            "SELECT resource_type, count(DISTINCT coalesce(resource_id, '')) FROM quarantine GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )
    rows = connection.execute(
        "SELECT cdm_table, sum(row_count)::BIGINT FROM ledger WHERE outcome = 'written' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    both = connection.execute(
        "SELECT count(*) FROM no_row n SEMI JOIN written_lines w ON w.place = resource_key(n.resource_type, n.resource_id)"
    ).fetchone()
    twice = {kind: _both_refused_and_left_out(connection, kind) for kind in refused}
    return Totals(found, refused, twice, dict(rows), both[0] if both else 0)


def check(totals: Totals, read: Mapping[str, int], rows: Mapping[str, int]) -> None:
    """Hold the ledger against what was read (per resource type, without quarantine) and what was written (per table).

    Raises E-BALANCE-01, which says what differs and by how much.
    """
    for resource_type in sorted({*read, *totals.found}):
        settled = sum(totals.found.get(resource_type, {}).values())
        settled += totals.twice.get(resource_type, 0) - totals.refused.get(resource_type, 0)
        if read.get(resource_type, 0) != settled:
            missing = read.get(resource_type, 0) - settled
            raise PalmaresError(
                "E-BALANCE-01", resource_type, count=missing, detail="resources read less resources settled"
            )
    for name in sorted({*rows, *totals.rows}):
        difference = rows.get(name, 0) - totals.rows.get(name, 0)
        if difference:
            raise PalmaresError("E-BALANCE-01", name, count=difference, detail="rows less rows in the ledger")
    if totals.both:
        raise PalmaresError("E-BALANCE-01", "ledger", count=totals.both, detail="resources both written and not")


def _both_refused_and_left_out(connection: duckdb.DuckDBPyConnection, resource_type: str) -> int:
    """Resources of which one version was refused as it was read and another quarantined as it was mapped: one outcome for two."""
    row = connection.execute(
        "SELECT count(DISTINCT q.resource_id) FROM quarantine q JOIN no_row n ON n.resource_type = q.resource_type AND n.resource_id = q.resource_id "
        f"JOIN ledger l ON l.resource_type = n.resource_type AND l.resource_id = n.resource_id AND l.reason = n.reason "
        f"WHERE q.resource_type = '{resource_type.replace(chr(39), chr(39) * 2)}' AND l.outcome = 'quarantined'"
    ).fetchone()
    return row[0] if row else 0


def exclusions(connection: duckdb.DuckDBPyConnection) -> list[dict[str, object]]:
    """What was left out, per resource type and reason (f2o-062)."""
    rows = connection.execute(
        "SELECT resource_type, outcome, reason, count(*) FROM ledger WHERE outcome <> 'written' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [dict(zip(("resource_type", "outcome", "reason", "resources"), row, strict=True)) for row in rows]
