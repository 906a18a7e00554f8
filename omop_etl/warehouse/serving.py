"""Finished tables → PostgreSQL: bare tables by ADBC, then keys and indexes, then the swap, by renaming schemas.

Loading into a table that has its keys is eight times slower than building them afterwards. Readers see the old schema until
one transaction renames both, and whoever reads the old tables then may finish.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import ddl, key_ddl, tables
from omop_etl.warehouse.reading import open_read_only

if TYPE_CHECKING:
    import psycopg

_BATCH_ROWS = 122_880
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """What PostgreSQL serves now: rows per table, and the foreign keys that were left out since the data break them."""

    schema: str
    tables: dict[str, int]
    broken_references: list[str]


def serve(warehouse: Path, url: str, schema: str = "omop", *, progress: Progress = lambda _: None) -> Served:
    """Load every CDM table of `warehouse` into the PostgreSQL at `url` as `schema`, replacing what was served.

    Roles that may read the old schema may read the new one. Raises E-WAREHOUSE-01, E-SERVE-01 (no connection or no right),
    E-SERVE-02 (a key or type does not hold); what was served before stays.
    """
    import psycopg

    fresh, spent = f"{schema}_new", f"{schema}_old"
    with open_read_only(warehouse) as source, _refusals(schema), psycopg.connect(url, autocommit=True) as target:
        target.execute(
            "SET lock_timeout = '60s'"
        )  # a reader that holds on to the tables before last is reported, not waited for
        _drop(target, fresh, spent)
        target.execute(_sql("CREATE SCHEMA {}", fresh))
        for statement in ddl("postgresql", keys=False, schema=fresh):
            target.execute(_text(statement))
        rows = _load(source, url, fresh, progress)
        progress("keys and indexes")
        broken = _broken_references(source)
        for statement in key_ddl(foreign=False, schema=fresh):
            target.execute(_text(statement))
        for statement in _references(fresh, broken):
            target.execute(_text(statement))
        target.execute("ANALYZE")
        with target.transaction():
            readers = _readers(target, schema)
            if _exists(target, schema):
                target.execute(_sql("ALTER SCHEMA {} RENAME TO {}", schema, spent))
            target.execute(_sql("ALTER SCHEMA {} RENAME TO {}", fresh, schema))
            for role in readers:
                target.execute(_sql("GRANT USAGE ON SCHEMA {} TO {}", schema, role))
                target.execute(_sql("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}", schema, role))
        _retire(target, spent)
    return Served(schema, rows, broken)


@contextmanager
def _refusals(schema: str) -> Iterator[None]:
    """PostgreSQL's refusals as numbered errors. Its own texts may hold values and addresses, so they are not shown."""
    import adbc_driver_manager
    import psycopg

    try:
        yield
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege) as error:
        raise PalmaresError(
            "E-SERVE-01", schema, detail=f"SQLSTATE {error.sqlstate}" if error.sqlstate else ""
        ) from None
    except psycopg.Error as error:
        raise PalmaresError(
            "E-SERVE-02", schema, detail=f"SQLSTATE {error.sqlstate}" if error.sqlstate else ""
        ) from None
    except adbc_driver_manager.Error as error:
        code = "E-SERVE-01" if isinstance(error, adbc_driver_manager.OperationalError) else "E-SERVE-02"
        raise PalmaresError(code, schema, detail=f"SQLSTATE {error.sqlstate}" if error.sqlstate else "") from None


def _load(source: duckdb.DuckDBPyConnection, url: str, schema: str, progress: Progress) -> dict[str, int]:
    import adbc_driver_postgresql.dbapi as adbc

    rows = {}
    with adbc.connect(url) as connection, connection.cursor() as cursor:
        for name, table in tables().items():
            count = source.execute(f'SELECT count(*) FROM main."{name}"').fetchall()[0][0]
            if count:
                progress(name)
                columns = ", ".join(f'"{column}"' for column in table.names)
                reader = source.execute(f'SELECT {columns} FROM main."{name}"').to_arrow_reader(_BATCH_ROWS)
                cursor.adbc_ingest(name, reader, mode="append", db_schema_name=schema)
                rows[name] = count
        connection.commit()
    return rows


def _broken_references(source: duckdb.DuckDBPyConnection) -> list[str]:
    """table.column of each foreign key that the data break, e.g. to concepts that the warehouse's vocabulary does not hold."""
    broken = []
    for table in tables().values():
        for column in table.columns:
            if column.references:
                other, key = column.references
                found = source.execute(
                    f'SELECT 1 FROM main."{table.name}" WHERE "{column.name}" IS NOT NULL AND "{column.name}" NOT IN '
                    f'(SELECT "{key}" FROM main."{other}" WHERE "{key}" IS NOT NULL) LIMIT 1'
                ).fetchall()
                if found:
                    broken.append(f"{table.name}.{column.name}")
    return broken


def _references(schema: str, broken: list[str]) -> list[str]:
    """ALTER TABLE per foreign key that holds."""
    return [
        f'ALTER TABLE "{schema}"."{table.name}" ADD CONSTRAINT "fk_{table.name}_{column.name}" '
        f'FOREIGN KEY ("{column.name}") REFERENCES "{schema}"."{column.references[0]}" ("{column.references[1]}")'
        for table in tables().values()
        for column in table.columns
        if column.references and f"{table.name}.{column.name}" not in broken
    ]


def _readers(target: "psycopg.Connection[Any]", schema: str) -> list[str]:
    """Roles other than its owner that may use the schema now."""
    found = target.execute(
        """SELECT DISTINCT r.rolname FROM pg_namespace n, aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
           WHERE n.nspname = %s AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner ORDER BY 1""",
        [schema],
    )
    return [row[0] for row in found.fetchall()]


def _exists(target: "psycopg.Connection[Any]", schema: str) -> bool:
    return target.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is not None


def _retire(target: "psycopg.Connection[Any]", spent: str) -> None:
    """Drop the old tables, unless someone still reads them; then the next run does."""
    import psycopg

    try:
        with target.transaction():
            target.execute("SET LOCAL lock_timeout = '2s'")
            target.execute(_sql("DROP SCHEMA IF EXISTS {} CASCADE", spent))
    except psycopg.errors.LockNotAvailable:
        return


def _drop(target: "psycopg.Connection[Any]", *schemas: str) -> None:
    for name in schemas:
        target.execute(_sql("DROP SCHEMA IF EXISTS {} CASCADE", name))


def _sql(text: str, *names: str) -> Any:
    from psycopg import sql

    return sql.SQL(text).format(*map(sql.Identifier, names))


def _text(statement: str) -> Any:
    from psycopg import sql

    return sql.SQL(statement)
