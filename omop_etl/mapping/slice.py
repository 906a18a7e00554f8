"""Rows → the slice: Parquet per CDM table, ledger, worklist of unmapped codes, what stays in the hospital, manifest."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from omop_etl.cdm import duckdb_columns, tables
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.recipes import cdm_selects
from omop_etl.mapping.workers import side_by_side

# CDM table → relation that its SELECT reads, and which of its rows: where each row of the slice comes from
_FROM = {
    "person": ("row_person", "true"),
    "location": ("row_location", "true"),
    "care_site": ("row_care_site", "true"),
    "provider": ("row_provider", "true"),
    "visit_occurrence": ("row_visit", "visit_occurrence_id IS NULL"),
    "visit_detail": ("row_visit", "visit_occurrence_id IS NOT NULL"),
    "note": ("row_note", "true"),
    "payer_plan_period": ("row_payer_plan_period", "true"),
    "image_occurrence": ("row_image", "true"),
    "image_feature": ("row_feature", "true"),
    "death": ("row_death", "true"),
}
DERIVED = ("observation_period",)
# ids are hashes, which no level makes smaller
_PARQUET = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"


def tell_origins(connection: duckdb.DuckDBPyConnection) -> None:
    """Create views of where the rows of the slice come from.

    `written`        cdm_table, cdm_id, resource_type, resource_id, own: whether the resource has one row there, with its own id
    `written_lines`  resource_type, resource_id, cdm_table, row_count, place, reason: the same per resource and table; place is the
                     resource's key, reason V-BY-DATE where the visit was found by the date
    `written_keys`   resource_type, key: each resource once that gave clinical records
    `written_once`   resource_type, place: each resource once that gave any row
    """
    rows = []
    for name, (relation, which) in _FROM.items():
        key = "person_id" if name == "death" else "row_id"
        rows.append(
            f"SELECT '{name}' AS cdm_table, {key} AS cdm_id, resource_type, resource_id, "
            f"resource_key(resource_type, resource_id) AS place FROM {relation} WHERE {which}"
        )
    others = " UNION ALL ".join(rows)
    by_date = "CASE WHEN {} THEN 'V-BY-DATE' END"
    notes = f"SELECT resource_type, resource_id, {by_date.format('visit_by_date')} AS reason FROM row_note WHERE visit_by_date"
    # nearly every resource gives one row: only those that give more are counted together
    connection.execute(
        "CREATE TABLE several AS SELECT DISTINCT key FROM event WHERE hash <> key AND cdm_table IS NOT NULL"
    )
    one = "event e ANTI JOIN several s ON s.key = e.key WHERE cdm_table IS NOT NULL"
    more = "event e SEMI JOIN several s ON s.key = e.key WHERE cdm_table IS NOT NULL"
    connection.execute(
        "CREATE OR REPLACE VIEW written AS "
        f"SELECT cdm_table, row_id AS cdm_id, resource_type, resource_id, row_id = id_of(key) AS own FROM {one} UNION ALL "
        f"SELECT cdm_table, row_id, resource_type, resource_id, false FROM {more} UNION ALL "
        "SELECT cdm_table, cdm_id, resource_type, resource_id, bool_and(cdm_id = id_of(place)) OVER (PARTITION BY cdm_table, place) "
        f"FROM ({others})"
    )
    connection.execute(
        "CREATE OR REPLACE VIEW written_lines AS "
        f"SELECT resource_type, resource_id, cdm_table, 1 AS row_count, key AS place, {by_date.format('visit_by_date')} AS reason "
        f"FROM {one} UNION ALL "
        f"SELECT any_value(resource_type), any_value(resource_id), cdm_table, count(*), key, {by_date.format('bool_or(visit_by_date)')} "
        f"FROM {more} GROUP BY key, cdm_table UNION ALL "
        "SELECT o.resource_type, o.resource_id, o.cdm_table, count(*), o.place, CASE WHEN o.cdm_table = 'note' THEN any_value(n.reason) END "
        f"FROM ({others}) o LEFT JOIN ({notes}) n ON n.resource_type = o.resource_type AND n.resource_id = o.resource_id "
        "GROUP BY o.resource_type, o.resource_id, o.cdm_table, o.place"
    )
    connection.execute(
        "CREATE OR REPLACE VIEW written_keys AS "
        f"SELECT resource_type, key FROM {one} UNION ALL SELECT DISTINCT resource_type, key FROM {more}"
    )
    # only of the types that also give rows of other kinds have the keys of all to be told apart
    kinds = connection.execute(f"SELECT DISTINCT resource_type FROM ({others}) ORDER BY 1").fetchall()
    also = ", ".join(literal(kind) for (kind,) in kinds) or "''"
    connection.execute(
        "CREATE OR REPLACE VIEW written_once AS "
        f"SELECT resource_type, key AS place FROM written_keys WHERE resource_type NOT IN ({also}) UNION ALL "
        f"SELECT DISTINCT resource_type, place FROM (SELECT resource_type, key AS place FROM written_keys WHERE resource_type IN ({also}) "
        f"UNION ALL SELECT resource_type, place FROM ({others}))"
    )


def write(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    has_patients: bool,
    beside: Mapping[str, Callable[[duckdb.DuckDBPyConnection], Any]],
) -> dict[str, Any]:
    """Write the slice but for its manifest, and do what is to be done `beside`; the answers by name.

    A CDM table answers with its rows. Every CDM table has all columns in CDM order and is sorted by its key. A sorted file keeps
    one core busy at its end, so several are written at a time.
    """
    copies = {}
    for name, select in cdm_selects().items():
        typed = ", ".join(
            f'CAST("{column}" AS {type_}) AS "{column}"' for column, type_ in duckdb_columns(name).items()
        )
        copies[name] = (f"SELECT {typed} FROM ({select}) ORDER BY {key_of(name)}", folder / f"{name}.parquet")
    # what leads from a row back to its resource is read by the one who runs the mapping, and by no other account (f2o-024)
    (folder / "side").mkdir(mode=0o700)
    lines = "SELECT * EXCLUDE (place) FROM ledger ORDER BY place, resource_type, resource_id, cdm_table, reason"
    copies["ledger"] = (lines, folder / "ledger.parquet")
    others = "SELECT * EXCLUDE (own) FROM written WHERE NOT own ORDER BY cdm_table, cdm_id, resource_type, resource_id"
    copies["trace"] = (others, folder / "side" / "trace.parquet")
    tasks: dict[str, Callable[[duckdb.DuckDBPyConnection], Any]] = {
        name: partial(copy, select=select, path=path) for name, (select, path) in copies.items()
    }
    tasks["side"] = partial(_write_side, folder=folder, has_patients=has_patients)
    tasks.update(beside)
    # the largest first
    names = sorted(tasks, key=lambda name: name not in ("ledger", "measurement", *beside))
    done = side_by_side(connection, lambda cursor, name: tasks[name](cursor), names)
    (folder / "ledger.parquet").chmod(0o600)
    return dict(zip(names, done, strict=True))


def _write_side(connection: duckdb.DuckDBPyConnection, folder: Path, has_patients: bool) -> None:
    """What else goes beside the CDM: the linkage token of each person, imputed dates, visits found by date."""
    side = folder / "side"
    token = (
        "SELECT p.person_id, min(s.linkage_token) AS linkage_token FROM stage_patient s JOIN person_of p ON p.key = s.key "
        "WHERE s.reason IS NULL AND s.linkage_token IS NOT NULL GROUP BY p.person_id"
        if has_patients
        else "SELECT NULL::BIGINT AS person_id, NULL::VARCHAR AS linkage_token WHERE false"
    )
    copy(connection, f"{token} ORDER BY person_id", side / "person_link.parquet")
    imputed = (
        "SELECT cdm_table, row_id AS cdm_id, coalesce(start_imputed, false) AS start_imputed, coalesce(end_imputed, false) AS end_imputed "
        "FROM event WHERE cdm_table IS NOT NULL AND (start_imputed OR end_imputed) "
        "UNION ALL SELECT CASE WHEN visit_occurrence_id IS NULL THEN 'visit_occurrence' ELSE 'visit_detail' END, row_id, "
        "coalesce(start_imputed, false), coalesce(end_imputed, false) FROM row_visit WHERE start_imputed OR end_imputed "
        "UNION ALL SELECT 'note', row_id, true, false FROM row_note WHERE start_imputed "
        "UNION ALL SELECT 'death', person_id, true, false FROM row_death WHERE start_imputed "
        "UNION ALL SELECT 'payer_plan_period', row_id, true, false FROM row_payer_plan_period WHERE start_imputed"
    )
    copy(connection, f"SELECT * FROM ({imputed}) ORDER BY cdm_table, cdm_id", side / "imputed.parquet")
    by_date = (
        "SELECT cdm_table, row_id AS cdm_id, visit_occurrence_id FROM event WHERE cdm_table IS NOT NULL AND visit_by_date "
        "UNION ALL SELECT 'note', row_id, visit_occurrence_id FROM row_note WHERE visit_by_date"
    )
    copy(connection, f"SELECT * FROM ({by_date}) ORDER BY cdm_table, cdm_id", side / "visit_by_date.parquet")


def key_of(name: str) -> str:
    """The column that a CDM table is sorted by."""
    return tables()[name].primary_key or next(iter(duckdb_columns(name)))


def copy(connection: duckdb.DuckDBPyConnection, select: str, path: Path) -> int:
    """Write what is selected as Parquet; rows."""
    row = connection.execute(f"COPY ({select}) TO {literal(str(path))} {_PARQUET}").fetchone()
    return row[0] if row else 0
