"""The two engines on which a definition runs: a warehouse file in DuckDB, and the schema that PostgreSQL serves.

Both give a definition temporary tables of its own and nothing else: every statement is looked at before it runs, DuckDB reads
the warehouse only and cannot touch files, and PostgreSQL's transaction is rolled back at the end.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.study.reading import open_warehouse

TARGET = "circe_cohort"
# what Circe's SQL writes into beside its own temporary tables; columns as OHDSI's WebAPI has them
RESULTS = {
    TARGET: "cohort_definition_id BIGINT, subject_id BIGINT, cohort_start_date DATE, cohort_end_date DATE",
    "cohort_inclusion": "cohort_definition_id BIGINT, rule_sequence INT, name VARCHAR(255), description VARCHAR(1000)",
    "cohort_inclusion_result": "cohort_definition_id BIGINT, mode_id INT, inclusion_rule_mask BIGINT, person_count BIGINT",
    "cohort_inclusion_stats": "cohort_definition_id BIGINT, rule_sequence INT, mode_id INT, person_count BIGINT, "
    "gain_count BIGINT, person_total BIGINT",
    "cohort_summary_stats": "cohort_definition_id BIGINT, mode_id INT, base_count BIGINT, final_count BIGINT",
    "cohort_censor_stats": "cohort_definition_id BIGINT, lost_count BIGINT",
}


class Engine(Protocol):
    """A dialect of circepy's translator, where the CDM and the temporary tables stand, and the two ways to ask."""

    dialect: str
    cdm: str
    temporary: str

    def execute(self, statement: str) -> None: ...

    def rows(self, statement: str) -> list[tuple[Any, ...]]: ...


class _DuckDB:
    dialect, cdm, temporary = "duckdb", "main", "temp"

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def execute(self, statement: str) -> None:
        self.connection.execute(statement)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement).fetchall()


class _PostgreSQL:
    dialect, temporary = "postgresql", "pg_temp"

    def __init__(self, connection: Any, schema: str) -> None:
        self.connection, self.cdm = connection, schema

    def execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.connection.execute(statement.encode()).fetchall()
        return found


@contextmanager
def on_duckdb(warehouse: Path) -> Iterator[Engine]:
    """A warehouse file, read-only, by a connection that can reach no other file. Raises E-WAREHOUSE-01, E-CIRCE-04."""
    with open_warehouse(warehouse) as connection:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            yield _DuckDB(connection)
        except duckdb.Error as error:
            # of an error that met data only the kind is shown
            raise PalmaresError("E-CIRCE-04", "duckdb", detail=type(error).__name__) from None


@contextmanager
def on_postgresql(url: str, schema: str) -> Iterator[Engine]:
    """A served schema, in one transaction that is rolled back. Raises E-SERVE-01 (no connection), E-CIRCE-04."""
    import psycopg

    if not schema.replace("_", "").isalnum() or schema != schema.lower():
        raise PalmaresError("E-CIRCE-04", "postgresql", detail="a schema's name is of small letters, digits and _")
    try:
        connection = psycopg.connect(url)
    except psycopg.Error as error:
        raise PalmaresError(
            "E-SERVE-01", schema, detail=f"SQLSTATE {error.sqlstate}" if error.sqlstate else ""
        ) from None
    with connection:
        try:
            yield _PostgreSQL(connection, schema)
        except psycopg.Error as error:
            raise PalmaresError("E-CIRCE-04", "postgresql", detail=f"SQLSTATE {error.sqlstate}") from None
        finally:
            connection.rollback()


def harmless(statements: Sequence[str], engine: Engine, file: str) -> None:
    """Raise E-CIRCE-05 unless every statement only asks, or writes into temporary tables.

    A definition comes from outside: a text in it must not become a statement of its own.
    """
    import sqlglot
    from sqlglot import expressions as e

    dialect = {"postgresql": "postgres"}.get(engine.dialect, engine.dialect)
    for statement in statements:
        try:
            parsed = [one for one in sqlglot.parse(statement, dialect=dialect) if one is not None]
        except sqlglot.errors.SqlglotError:
            raise PalmaresError("E-CIRCE-05", file, detail="a statement that cannot be read") from None
        for one in parsed:
            if not (isinstance(one, e.Query | e.Analyze) or _writes_its_own(one, engine.temporary)):
                raise PalmaresError("E-CIRCE-05", file, detail=f"a statement of kind {one.key.upper()}")


def _writes_its_own(statement: Any, temporary: str) -> bool:
    """It makes, fills, empties or drops temporary tables. One without a schema is temporary: no other can be made here."""
    from sqlglot import expressions as e

    if isinstance(statement, e.TruncateTable):
        targets = list(statement.expressions)
    elif isinstance(statement, e.Create | e.Insert | e.Delete | e.Drop | e.Update):
        targets = [statement.find(e.Table)]
    else:
        return False
    if isinstance(statement, e.Create) and not statement.find(e.TemporaryProperty):
        return False
    return all(isinstance(one, e.Table) and one.db in ("", temporary) for one in targets)
