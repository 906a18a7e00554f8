"""The ledger: what became of each resource, and whether what came in went out.

`resource_type, resource_id, outcome, reason, cdm_table, row_count`: one line per table that a resource filled (`written`), or one that says
why it has no row of its own (`merged`, `excluded`, `quarantined`). The outcome of a reason stands in `mappings/explanations/reasons.csv`.
"""

from collections import Counter
from collections.abc import Mapping

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table

OUTCOMES = ("written", "merged", "excluded", "quarantined")


def outcomes() -> dict[str, str]:
    """Reason code → outcome, for the reasons that leave a resource without a row."""
    return {row["code"]: row["outcome"] for row in table("explanations", "reasons.csv") if row["outcome"] in OUTCOMES}


def write_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `ledger` from `written` (cdm_table, resource_type, resource_id), `no_row` and `quarantine` (resource_type, resource_id, reason)."""
    known = outcomes()
    outcome = "CASE reason " + " ".join(f"WHEN '{code}' THEN '{word}'" for code, word in known.items()) + " END"
    connection.execute(
        "CREATE TABLE ledger AS "
        "SELECT resource_type, resource_id, 'written' AS outcome, NULL::VARCHAR AS reason, cdm_table, count(*)::INTEGER AS row_count "
        "FROM written GROUP BY resource_type, resource_id, cdm_table "
        f"UNION ALL SELECT resource_type, resource_id, {outcome}, reason, NULL, 0 FROM no_row "
        f"UNION ALL SELECT DISTINCT resource_type, resource_id, {outcome}, reason, NULL, 0 FROM quarantine"
    )
    unknown = connection.execute("SELECT DISTINCT reason FROM ledger WHERE outcome IS NULL ORDER BY 1").fetchall()
    if unknown:
        names = ", ".join(str(reason) for (reason,) in unknown)
        raise PalmaresError("E-BALANCE-01", "ledger", count=len(unknown), detail=f"reasons without an outcome: {names}")


def check(connection: duckdb.DuckDBPyConnection, read: Mapping[str, int], rows: Mapping[str, int]) -> None:
    """Hold the ledger against what was read (per resource type, without quarantine) and what was written (per table).

    Raises E-BALANCE-01, which says what differs and by how much.
    """
    settled = dict(
        connection.execute(
            "SELECT resource_type, count(DISTINCT resource_id) FROM (SELECT resource_type, resource_id FROM written "
            "UNION ALL SELECT resource_type, resource_id FROM no_row) GROUP BY resource_type"
        ).fetchall()
    )
    for resource_type in sorted({*read, *settled}):
        if read.get(resource_type, 0) != settled.get(resource_type, 0):
            missing = read.get(resource_type, 0) - settled.get(resource_type, 0)
            raise PalmaresError("E-BALANCE-01", resource_type, count=missing, detail="resources read less resources settled")
    written: Counter[str] = Counter(
        dict(connection.execute("SELECT cdm_table, count(*) FROM written GROUP BY cdm_table").fetchall())
    )
    for name in sorted({*rows, *written}):
        if rows.get(name, 0) != written[name]:
            raise PalmaresError("E-BALANCE-01", name, count=rows.get(name, 0) - written[name], detail="rows less rows in the ledger")
    both = connection.execute(
        "SELECT count(*) FROM (SELECT resource_type, resource_id FROM no_row INTERSECT SELECT resource_type, resource_id FROM written)"
    ).fetchone()
    if both is None or both[0]:
        raise PalmaresError("E-BALANCE-01", "ledger", count=both[0] if both else None, detail="resources both written and not")


def summary(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Resource type → outcome → resources. A resource that filled several tables counts once."""
    found: dict[str, dict[str, int]] = {}
    rows = connection.execute(
        "SELECT resource_type, outcome, count(DISTINCT (resource_id, outcome)) FROM ledger GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for resource_type, outcome, count in rows:
        found.setdefault(resource_type, {})[outcome] = count
    return found


def exclusions(connection: duckdb.DuckDBPyConnection) -> list[dict[str, object]]:
    """What was left out, per resource type and reason (f2o-062)."""
    rows = connection.execute(
        "SELECT resource_type, outcome, reason, count(*) FROM ledger WHERE outcome <> 'written' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [dict(zip(("resource_type", "outcome", "reason", "resources"), row, strict=True)) for row in rows]
