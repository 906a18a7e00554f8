"""The warehouse as a study reads it: attached read-only, the study's own tables beside it in memory."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.study.rules import Study

# what a study reads; a content hash over these says whether two warehouses hold the same patients
TABLES = (
    "main.person",
    "main.visit_occurrence",
    "main.condition_occurrence",
    "main.drug_exposure",
    "main.procedure_occurrence",
    "main.measurement",
    "main.observation",
    "main.death",
    "palmares.person_site",
    "palmares.person_link",
)


@contextmanager
def open_warehouse(path: Path, *, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose default database is the warehouse, read-only; temporary tables are its own.

    `spill` is a folder for what does not fit into memory. Raises E-WAREHOUSE-01 when there is no warehouse, or when it
    lacks a table that a study reads.
    """
    path = Path(path)
    if not path.is_file():
        raise PalmaresError("E-WAREHOUSE-01", path.name, detail="there is no such file")
    connection = duckdb.connect(":memory:")
    try:
        if spill is not None:
            connection.execute(f"SET temp_directory = {literal(str(spill))}")
        connection.execute("SET autoinstall_known_extensions = false")
        try:
            connection.execute(f"ATTACH {literal(str(path))} AS warehouse (READ_ONLY)")
        except duckdb.Error:
            raise PalmaresError("E-WAREHOUSE-01", path.name, detail="DuckDB cannot open it") from None
        connection.execute("USE warehouse")
        there = {f"{schema}.{name}" for schema, name in connection.execute(_LIST).fetchall()}
        missing = [name for name in TABLES if name not in there]
        if missing:
            raise PalmaresError("E-WAREHOUSE-01", path.name, detail="it lacks " + ", ".join(missing))
        yield connection
    finally:
        connection.close()


_LIST = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'warehouse'"


def trouble(error: duckdb.Error) -> str:
    """What is wrong with an SQL text, in a line; of an error that met data only its kind, since its text may hold a value."""
    about_text = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)
    return str(error).partition("\n")[0] if isinstance(error, about_text) else type(error).__name__


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def prepare(connection: duckdb.DuckDBPyConnection, study: Study) -> None:
    """Lay the study beside the warehouse: its parameters as macros, its concept sets, then its history tables in order.

    Where a row of concept_sets.csv says so, and the warehouse carries concept_ancestor, the set also holds the concept's
    descendants that it does not name itself: a site that codes 'palbociclib 125 mg' is understood like one that codes
    'palbociclib'.
    """
    for name, value in study.parameters.items():
        connection.execute(
            f"CREATE OR REPLACE TEMP MACRO {name}() AS {literal(value) if isinstance(value, str) else value}"
        )
    connection.execute(f"CREATE OR REPLACE TEMP MACRO cut_off() AS DATE '{study.cut_off.isoformat()}'")
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE concept_set AS
        SELECT
            row ->> 'concept_set' AS concept_set, row ->> 'value' AS value,
            CAST(row ->> 'concept_id' AS BIGINT) AS concept_id, nullif(row ->> 'source_value', '') AS source_value,
            row ->> 'descendants' = 'yes' AS descendants
        FROM (SELECT unnest(CAST(? AS JSON[])) AS row)
        """,
        [json.dumps(study.concepts)],
    )
    if _there(connection, "main", "concept_ancestor"):
        connection.execute(
            """
            INSERT INTO concept_set
            SELECT DISTINCT listed.concept_set, listed.value, ancestor.descendant_concept_id, listed.source_value, TRUE
            FROM concept_set AS listed
            JOIN concept_ancestor AS ancestor ON ancestor.ancestor_concept_id = listed.concept_id
            WHERE listed.descendants AND NOT EXISTS (
                FROM concept_set AS known
                WHERE known.concept_set = listed.concept_set AND known.concept_id = ancestor.descendant_concept_id
            )
            """
        )
    for name, sql in study.history:
        try:
            connection.execute(sql.replace("CREATE TEMP TABLE", "CREATE OR REPLACE TEMP TABLE"))
        except duckdb.Error as error:
            raise PalmaresError("E-STUDY-03", f"{study.name}/history/{name}", detail=trouble(error)) from None


def content_sha256(connection: duckdb.DuckDBPyConnection) -> str:
    """One hash over what a study reads, whatever the order of rows and the file's layout.

    A warehouse is built from slices and never patched: where each site came as a submission, the hashes of their slices
    say it all. Otherwise every row of the tables is hashed.
    """
    parts = _submitted(connection) or [_rows(connection, name) for name in TABLES]
    if _there(connection, "main", "concept_ancestor"):
        parts.append(_rows(connection, "main.concept_ancestor"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _submitted(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The slice's hash of each site; nothing unless every site that has persons came as a submission."""
    if not _there(connection, "palmares", "submission"):
        return []
    slices = connection.execute(
        "SELECT site, any_value(slice_sha256) FROM (SELECT DISTINCT site FROM palmares.person_site) "
        "LEFT JOIN palmares.submission USING (site) GROUP BY site ORDER BY site"
    ).fetchall()
    return [f"{site} {sha256}" for site, sha256 in slices] if all(sha256 for _, sha256 in slices) else []


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    # md5 is stable between versions of DuckDB, hash() is not; a sum does not depend on the order of rows
    rows, total = connection.execute(
        f"SELECT count(*), sum(CAST(md5_number(CAST(row AS VARCHAR)) % 18446744073709551616 AS HUGEINT)) FROM {table} AS row"
    ).fetchall()[0]
    return f"{table} {rows} {total}"


def _there(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?", [schema, table]
    )
    return found.fetchone() is not None
