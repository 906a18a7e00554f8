"""From the warehouse to the derived folder, and the eras and episodes into the warehouse."""

import json
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__, cdm
from omop_etl.derive.rules import Progress, Rules, apply, load_rules
from omop_etl.study.reading import content_sha256, literal, open_warehouse
from omop_etl.study.writing import swap_in

CDM_TABLES = ("drug_era", "condition_era", "episode", "episode_event")
_ORDER = {
    "line": "person_id, line_number",
    "disagreement": "ALL",
    "progression": "person_id, date, source_id",
    "endpoint": "person_id, paramcd",
    "state": "ALL",
}
_FROM = {"progression": "declared_progression", "line": "line_with_episode"}


@dataclass(frozen=True)
class Derived:
    """What a run derived: patients with a day 0, rows per table, lines where the site and the rule disagree."""

    indexed: int
    rows: dict[str, int]
    disagreements: int
    out: str


def derive(
    warehouse: Path,
    out: Path,
    *,
    study: str = "palmares2",
    cut_off: date | None = None,
    into_warehouse: bool = True,
    memory_limit: str = "4GB",
    progress: Progress | None = None,
) -> Derived:
    """Derive everything that the study's rules say, write the folder `out`, and put the CDM tables into the warehouse.

    `cut_off` is the study's own unless given; nothing dated later enters. The warehouse's eras and episodes are replaced
    (copied beside, filled, renamed) unless `into_warehouse` is false, as for a lock at another cut-off. Same input, same
    bytes. `progress` is told each step. Raises E-STUDY-01 and -03, E-WAREHOUSE-01, E-BALANCE-01, E-DISK-01 and -02.
    """
    rules = load_rules(study, cut_off=cut_off)
    warehouse, out = Path(warehouse), Path(out)
    with whole_folder(out) as folder:
        with open_warehouse(warehouse, spill=folder / "spill") as connection:
            connection.execute(f"SET memory_limit = {literal(memory_limit)}")
            apply(connection, rules, progress)
            if progress:
                progress("write the derived tables")
            rows = _write(connection, rules, folder)
            indexed = _count(connection, "SELECT count(*) FROM patient WHERE index_date IS NOT NULL")
            disagreements = rows["disagreement"]
            content = content_sha256(connection)
        shutil.rmtree(folder / "spill", ignore_errors=True)
        manifest = {
            "format": 1,
            "study": rules.study.name,
            "cut_off": rules.study.cut_off.isoformat(),
            "parameters": dict(rules.parameters),
            "study_sha256": rules.study.sha256(),
            "warehouse_content_sha256": content,
            "code_version": __version__,
            "rows": rows,
            "endpoints": [one.paramcd for one in rules.endpoints],
            "files": described(folder),
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if into_warehouse:
        if progress:
            progress("put eras and episodes into the warehouse")
        swap_in(warehouse, out, CDM_TABLES)
    return Derived(indexed=indexed, rows=rows, disagreements=disagreements, out=str(out))


def _write(connection: duckdb.DuckDBPyConnection, rules: Rules, folder: Path) -> dict[str, int]:
    """Write each table in a fixed order, columns and types as derived.csv and the CDM have them."""
    rows = {}
    for table in dict.fromkeys(one.table for one in rules.columns):
        columns = ", ".join(
            f"CAST({_SOURCE.get((table, one.column), one.column)} AS {one.type}) AS {one.column}"
            for one in rules.columns
            if one.table == table
        )
        source = _FROM.get(table, table)
        rows[table] = _copy(connection, f"SELECT {columns} FROM {source} ORDER BY {_ORDER[table]}", folder, table)
    for table in CDM_TABLES:
        columns = ", ".join(f"CAST({name} AS {type_}) AS {name}" for name, type_ in cdm.duckdb_columns(table).items())
        rows[table] = _copy(connection, f"SELECT {columns} FROM cdm_{table} ORDER BY ALL", folder, table)
    return rows


_SOURCE = {("progression", "date"): "day", ("progression", "source_table"): "'measurement'"}


def _copy(connection: duckdb.DuckDBPyConnection, select: str, folder: Path, table: str) -> int:
    path = literal(str(folder / f"{table}.parquet"))
    found = connection.execute(f"COPY ({select}) TO {path} (FORMAT parquet, COMPRESSION zstd)").fetchone()
    return int(found[0]) if found else 0


def _count(connection: duckdb.DuckDBPyConnection, select: str) -> int:
    return int(connection.execute(select).fetchall()[0][0])
