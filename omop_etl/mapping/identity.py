"""Ids of rows: from source identity by md5, positive, at most 2^53 - 1, and settled the same way on every run when two collide.

A row's hash is the md5 of `<site>|<resource type>/<logical id>`, read as a little-endian number; where a resource gives several rows of
one table, the md5 of that number in hexadecimal and what tells the row from the others (component, concept, series). Its id is the hash's low 53
bits, at least 1: R and JavaScript read ids as doubles.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError

BITS = 53
MASK = 2**BITS - 1
_TRIES = 64


def resource_hash(site: str, resource_type: str, logical_id: str, discriminator: str = "") -> int:
    """The hash of a row, as the macros of `macros.sql` compute it."""
    key = _md5(f"{site}|{resource_type}/{logical_id}")
    return _md5(f"{key:X}|{discriminator}") if discriminator else key


def row_id(row_hash: int, mask: int = MASK) -> int:
    """The id of a row from its hash, where no other row has it."""
    return max(1, row_hash & mask)


def origins(slice_: Path) -> str:
    """A relation, as SQL, of where each row of a slice comes from: cdm_table, cdm_id, resource_type, resource_id.

    Nearly every row has the id of its resource, which the ledger names; `side/trace.parquet` holds the others.
    """
    site = json.loads((slice_ / "manifest.json").read_text(encoding="utf-8"))["site"].replace("'", "''")
    trace, ledger = (str(slice_ / name).replace("'", "''") for name in ("side/trace.parquet", "ledger.parquet"))
    return (
        f"(SELECT l.cdm_table, greatest(1, (md5_number('{site}|' || l.resource_type || '/' || l.resource_id) & {MASK}::UHUGEINT)::BIGINT) "
        f"AS cdm_id, l.resource_type, l.resource_id FROM read_parquet('{ledger}') l ANTI JOIN read_parquet('{trace}') t "
        "USING (cdm_table, resource_type, resource_id) WHERE l.outcome = 'written' "
        f"UNION ALL SELECT cdm_table, cdm_id, resource_type, resource_id FROM read_parquet('{trace}'))"
    )


def _md5(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest(), "little")


def settle(connection: duckdb.DuckDBPyConnection, tables: Sequence[str], mask: int = MASK, within: str = "") -> bool:
    """Give every row of `tables` (hash, row_id) an id of its own, unique over all of them within each value of the column `within`.

    Of rows with one id the one with the smallest hash keeps it; the others take the id of md5(`<hash>|<try>`), try 1, 2, … That
    depends on which rows there are, never on their order. True when a row took another id. Raises E-BALANCE-01 when two rows are the same.
    """
    if not tables:
        return False
    scope, where = (f"{within}, ", f" WHERE {within} IS NOT NULL") if within else ("", "")
    rows = " UNION ALL ".join(f"SELECT {scope}hash, row_id FROM {table}{where}" for table in tables)
    for tried in range(1, _TRIES):
        found = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM ({rows}) GROUP BY {scope}row_id HAVING count(*) > 1)"
        ).fetchone()
        if found is None or not found[0]:
            return tried > 1
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE moved AS SELECT {scope}hash, "
            f"greatest(1::BIGINT, (md5_number(to_hex(hash) || '|{tried}') & {mask}::UHUGEINT)::BIGINT) AS row_id FROM ("
            f"SELECT *, row_number() OVER (PARTITION BY {scope}row_id ORDER BY hash) AS place FROM ({rows})) WHERE place > 1"
        )
        match = f" AND m.{within} = t.{within}" if within else ""
        for table in tables:
            connection.execute(f"UPDATE {table} t SET row_id = m.row_id FROM moved m WHERE m.hash = t.hash{match}")
    raise PalmaresError("E-BALANCE-01", tables[0], detail="two rows have one identity")
