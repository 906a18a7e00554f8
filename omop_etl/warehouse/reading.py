"""What a warehouse holds, site by site."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError


@dataclass(frozen=True)
class SiteSummary:
    """One site in a warehouse. `verdict` and `number` are None for a slice that came without a submission."""

    site: str
    number: str | None
    verdict: str | None
    persons: int
    rows: int
    tables: dict[str, int]
    unmapped_records: int
    quarantined: int


def open_read_only(warehouse: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection. Raises E-WAREHOUSE-01 when the file is missing or no warehouse."""
    warehouse = Path(warehouse)
    if not warehouse.is_file():
        raise PalmaresError("E-WAREHOUSE-01", warehouse.name)
    try:
        connection = duckdb.connect(str(warehouse), read_only=True)
        connection.execute("SELECT 1 FROM palmares.table_rows LIMIT 1")
    except duckdb.Error:
        raise PalmaresError("E-WAREHOUSE-01", warehouse.name) from None
    return connection


def summary(warehouse: Path) -> list[SiteSummary]:
    """A line per site, by the site's id."""
    with open_read_only(warehouse) as connection:
        lines = connection.execute("""
            SELECT site, number, verdict,
                   coalesce(sum(row_count) FILTER (cdm_table = 'person'), 0)::BIGINT, sum(row_count)::BIGINT,
                   coalesce((SELECT sum(records) FROM palmares.unmapped u WHERE u.site = t.site), 0)::BIGINT,
                   coalesce((SELECT sum(resources) FROM palmares.ledger_summary l
                             WHERE l.site = t.site AND outcome = 'quarantined'), 0)::BIGINT,
                   list({'name': cdm_table, 'rows': row_count} ORDER BY cdm_table)
            FROM palmares.table_rows t LEFT JOIN palmares.submission s USING (site)
            GROUP BY site, number, verdict ORDER BY site
        """).fetchall()
    return [
        SiteSummary(
            site=site,
            number=number,
            verdict=verdict,
            persons=persons,
            rows=rows,
            tables={one["name"]: one["rows"] for one in tables},
            unmapped_records=unmapped,
            quarantined=quarantined,
        )
        for site, number, verdict, persons, rows, unmapped, quarantined, tables in lines
    ]
