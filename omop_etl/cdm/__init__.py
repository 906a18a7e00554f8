"""The facts of OMOP CDM 5.4 and of its Medical Imaging extension, from one file: `tables.csv`.

From the same rows come the DDL for DuckDB and PostgreSQL (`ddl`), SQLAlchemy metadata (`metadata`), Arrow schemas and
DuckDB column types, so that they cannot disagree. Names are lower case, also where the extension writes
`image_study_UID`. Keys and references to rows are BIGINT, since an id is at most 2^53 - 1; concept ids stay INTEGER as
OHDSI publishes them. `float` of the specification is a DOUBLE: R and pandas read it as a number, not as text.

>>> tables()["death"].names[:3]
('person_id', 'death_date', 'death_datetime')
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow
    import sqlalchemy

CDM_VERSION = "5.4"
Dialect = Literal["duckdb", "postgresql"]


@dataclass(frozen=True)
class Column:
    """One column.

    `type` is integer, bigint, double, date, timestamp, text or varchar(n). `domain` and `concept_class` say which
    concepts a reference to `concept` may hold; they are empty where the CDM leaves it open.
    """

    name: str
    type: str
    required: bool
    primary_key: bool
    references: tuple[str, str] | None
    domain: str
    concept_class: str

    @property
    def length(self) -> int | None:
        """The most characters that a varchar(n) holds."""
        return int(self.type[8:-1]) if self.type.startswith("varchar(") else None


@dataclass(frozen=True)
class Table:
    """One table, columns in CDM order. `schema` is cdm, vocab or results, as OHDSI groups them."""

    name: str
    schema: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in CDM order."""
        return tuple(column.name for column in self.columns)

    @property
    def primary_key(self) -> str | None:
        """The key column; None for the tables that the CDM defines without one (death, episode_event …)."""
        return next((column.name for column in self.columns if column.primary_key), None)

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def __contains__(self, name: object) -> bool:
        return name in self.names


@cache
def tables() -> dict[str, Table]:
    """Every table by name, in the specification's order: 39 of CDM 5.4, then image_occurrence and image_feature."""
    facts: dict[str, tuple[str, list[Column]]] = {}
    with Path(__file__).with_name("tables.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            table, _, column = row["foreign_key"].partition(".")
            facts.setdefault(row["table"], (row["schema"], []))[1].append(
                Column(
                    name=row["column"],
                    type=row["type"],
                    required=row["required"] == "yes",
                    primary_key=row["primary_key"] == "yes",
                    references=(table, column) if table else None,
                    domain=row["domain"],
                    concept_class=row["concept_class"],
                )
            )
    return {name: Table(name, schema, tuple(columns)) for name, (schema, columns) in facts.items()}


def duckdb_type(type_: str) -> str:
    """The DuckDB type of a CDM type: `varchar(50)` is VARCHAR, since DuckDB holds no lengths."""
    return "VARCHAR" if type_ == "text" or type_.startswith("varchar") else type_.upper()


def duckdb_columns(table: str) -> dict[str, str]:
    """Column name → DuckDB type, in CDM order."""
    return {column.name: duckdb_type(column.type) for column in tables()[table].columns}


def arrow_schema(table: str) -> "pyarrow.Schema":
    """The Arrow schema of a table's Parquet file: timestamps in microseconds, without a zone, as DuckDB writes them."""
    import pyarrow as pa

    types = {
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
    }
    return pa.schema([(column.name, types.get(column.type, pa.string())) for column in tables()[table].columns])


def ddl(dialect: Dialect, names: Iterable[str] | None = None, *, keys: bool = True, schema: str = "") -> list[str]:
    """CREATE TABLE statements of all tables, or of those in `names`, one statement an item, to be run in order.

    `keys` adds primary keys and NOT NULL. On PostgreSQL it also adds foreign keys, at the end, by ALTER TABLE, where
    both tables are among `names`. DuckDB gets none: it cannot add one later, and the CDM's references between
    concept, domain and vocabulary are circular; the gate checks them. Without `keys` the tables are bare, for bulk
    loading: run `key_ddl` after.
    """
    from omop_etl.cdm.statements import create, foreign_keys

    chosen = _chosen(names)
    statements = [create(table, dialect, keys=keys, schema=schema) for table in chosen]
    if keys and dialect == "postgresql":
        statements += foreign_keys(chosen, schema=schema)
    return statements


def key_ddl(names: Iterable[str] | None = None, *, foreign: bool = True, schema: str = "") -> list[str]:
    """PostgreSQL statements that give bare, loaded tables NOT NULL, primary keys, indexes and foreign keys."""
    from omop_etl.cdm.statements import foreign_keys, indexes, primary_keys

    chosen = _chosen(names)
    statements = primary_keys(chosen, schema=schema) + indexes(chosen, schema=schema)
    return statements + (foreign_keys(chosen, schema=schema) if foreign else [])


def metadata(schema: str | None = None) -> "sqlalchemy.MetaData":
    """SQLAlchemy metadata of all tables with types, keys and foreign keys."""
    from omop_etl.cdm.relational import build

    return build(tables().values(), schema)


def _chosen(names: Iterable[str] | None) -> list[Table]:
    return list(tables().values()) if names is None else [tables()[name] for name in names]
