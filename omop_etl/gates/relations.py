"""What the checks look at, as views of one DuckDB connection: the tables of a slice, or those of a warehouse.

A table that is not there, or whose columns are not the CDM's, is a view without rows: its own check says so, and no other trips over it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import duckdb_columns, tables
from omop_etl.gates.definitions import Definitions, key_of
from omop_etl.gates.slices import (
    LEDGER,
    LEDGER_COLUMNS,
    PERSON_LINK,
    PERSON_LINK_COLUMNS,
    Slice,
    columns_of,
    compare_columns,
    first_unreadable,
    quoted_path,
    slice_tables,
    unreadable,
    wrong_columns,
)
from omop_etl.vocabulary import Vocabulary, open_vocabulary

# beside the CDM tables
BESIDE = {"ledger": LEDGER_COLUMNS, "person_link": PERSON_LINK_COLUMNS}
_FILES = {"ledger": LEDGER, "person_link": PERSON_LINK}
_SMALL = 8 * 1024 * 1024  # bytes of Parquet
_ANCESTORS = {"ancestor_concept_id": "INTEGER", "descendant_concept_id": "INTEGER"}
_NAMES = {"domain": ("domain_id",), "vocabulary": ("vocabulary_id",)}


@dataclass
class Relations:
    """The tables as views, and what is known of them before any row is looked at.

    `found` holds the columns with their types of each table that is there, `raw` how to read it as it is; `wrong` what does not
    fit; `rows` the rows of each that fits (0 for the others); `named` the rows that the manifest states.
    """

    connection: duckdb.DuckDBPyConnection
    tables: list[str]
    found: dict[str, dict[str, str]] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    has_ancestors: bool = False

    def run(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Run SQL of a check. Raises E-SLICE-02 for a file whose pages cannot be read."""
        try:
            return self.connection.execute(sql)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # the words of a check, not the data; see counting.py
        except duckdb.Error as error:
            # a footer that reads well does not say that the pages do
            broken = first_unreadable(self.connection, self.files)
            if broken is None:
                raise
            raise unreadable(broken, error) from None

    def view(self, name: str, source: str | None, columns: dict[str, str], file: Path | None = None) -> None:
        """A view of this name: over `source`, or without rows. A small `file` is read once, since every check would open it again."""
        if source is None:
            nothing = ", ".join(f'CAST(NULL AS {type_}) AS "{column}"' for column, type_ in columns.items())
            source = f"SELECT {nothing} WHERE false"
            file = None
        small = file is not None and file.stat().st_size < _SMALL
        self.run(f"CREATE {'TABLE' if small else 'VIEW'} {name} AS {source}")

    def table(self, name: str, sql: str) -> None:
        """A small table that several checks look at."""
        self.run(f"CREATE TEMP TABLE {name} AS {sql}")


def of_slice(
    connection: duckdb.DuckDBPyConnection, slice_: Slice, vocabulary: Vocabulary, definitions: Definitions
) -> Relations:
    """The files of a slice, the vocabulary, and what is made from them."""
    made = files_of(connection, slice_, vocabulary)
    return completed(made, definitions, slice_)


def files_of(connection: duckdb.DuckDBPyConnection, slice_: Slice, vocabulary: Vocabulary) -> Relations:
    """The files of a slice and the vocabulary."""
    made = Relations(connection, slice_tables(), named=dict(slice_.manifest.get("tables", {})))
    made.files = [slice_.folder / name for name in slice_.files if name.endswith(".parquet")]
    for name in made.tables:
        path = slice_.tables.get(name)
        if path is not None:
            made.found[name] = columns_of(connection, path)
            made.raw[name] = f"read_parquet({quoted_path(path)})"
            made.wrong[name] = wrong_columns(made.found[name], name)
        usable = path is not None and not made.wrong[name]
        made.view(name, f"SELECT * FROM {made.raw[name]}" if usable else None, duckdb_columns(name), path)
    for name, columns in BESIDE.items():
        path = slice_.folder / _FILES[name]
        source = None
        if path.is_file():
            made.found[name] = columns_of(connection, path)
            made.wrong[name] = compare_columns(made.found[name], columns)
            source = None if made.wrong[name] else f"SELECT * FROM read_parquet({quoted_path(path)})"
        made.view(name, source, columns, path)
    _vocabulary(made, vocabulary)
    return made


def completed(made: Relations, definitions: Definitions, slice_: Slice) -> Relations:
    """What is made from the files as they are in the connection now: rows, births, deaths, activity, the study's relations."""
    _counted(made, ["ledger"])
    _shared(made, definitions, slice_.manifest.get("derived", []))
    return made


def of_warehouse(connection: duckdb.DuckDBPyConnection, warehouse: Path, definitions: Definitions) -> Relations:
    """The tables of a warehouse, all sites together. Raises E-WAREHOUSE-01 when the file is none."""
    if not Path(warehouse).is_file():
        raise PalmaresError("E-WAREHOUSE-01", Path(warehouse).name)
    try:
        connection.execute(f"ATTACH {quoted_path(Path(warehouse))} AS warehouse (READ_ONLY)")
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = 'warehouse' AND schema_name = 'main' ORDER BY table_name, column_index"
        ).fetchall()
    except duckdb.Error:
        raise PalmaresError("E-WAREHOUSE-01", Path(warehouse).name) from None
    names = [name for name in tables() if name not in {"concept", "concept_ancestor", *_NAMES}]
    made = Relations(connection, names)
    for table, column, type_ in columns:
        if table in tables():
            made.found.setdefault(table, {})[column] = type_
    if "person" not in made.found:
        raise PalmaresError("E-WAREHOUSE-01", Path(warehouse).name)
    for name in names:
        usable = False
        if name in made.found:
            made.raw[name] = f'warehouse.main."{name}"'
            made.wrong[name] = wrong_columns(made.found[name], name)
            usable = not made.wrong[name]
        made.view(name, f"SELECT * FROM {made.raw[name]}" if usable else None, duckdb_columns(name))
    for name in BESIDE:
        made.view(name, None, BESIDE[name])
    for name in ("concept", "concept_ancestor", *_NAMES):
        here = name in made.found and not wrong_columns(made.found[name], name)
        made.view(name, f'SELECT * FROM warehouse.main."{name}"' if here else None, duckdb_columns(name))
    ancestors = connection.execute("SELECT 1 FROM concept_ancestor LIMIT 1").fetchone()
    made.has_ancestors = ancestors is not None
    _counted(made, [])
    _shared(made, definitions, [])
    return made


def _vocabulary(made: Relations, vocabulary: Vocabulary) -> None:
    """The vocabulary; and from the starter slice what it does not hold at all: a part of Athena often lacks the concepts
    of types, of sex, of the CDM's own fields, which the mapping takes from `mappings/codes`."""
    columns = "concept_id, domain_id, vocabulary_id, concept_class_id, standard_concept, invalid_reason"
    given, starter = vocabulary.relation("concept"), open_vocabulary(None).relation("concept")
    made.connection.execute(
        f"CREATE TEMP TABLE concept AS SELECT {columns} FROM {given} UNION ALL "
        f"SELECT {columns} FROM {starter} WHERE concept_id NOT IN (SELECT concept_id FROM {given})"
    )
    for name, (key,) in _NAMES.items():
        listed = f"SELECT DISTINCT {key} FROM concept"
        if vocabulary.has(name):
            listed += f" UNION SELECT {key} FROM {vocabulary.relation(name)}"
        made.view(name, listed, {})
    made.has_ancestors = vocabulary.has("concept_ancestor")
    source = f"SELECT * FROM {vocabulary.relation('concept_ancestor')}" if made.has_ancestors else None
    made.view("concept_ancestor", source, _ANCESTORS)


def _counted(made: Relations, more: list[str]) -> None:
    """Rows per table, from the files' own footers; 0 for a table that cannot be used."""
    used = [*more, *(name for name in made.tables if name in made.found and not made.wrong[name])]
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in used)
    made.rows = dict.fromkeys(made.tables, 0) | (dict(made.run(counts).fetchall()) if used else {})


def _shared(made: Relations, definitions: Definitions, derived: Iterable[str]) -> None:
    """The relations that several checks look at; those of a table without rows cost nothing."""
    here = {name: date for name, date in definitions.events.items() if made.rows.get(name)}
    event = [
        f"SELECT person_id, '{name}' AS cdm_table, {key_of(name)} AS cdm_id, {date} AS event_date FROM {name}"
        for name, date in here.items()
    ]
    activity = [
        f"SELECT person_id, '{name}' AS cdm_table, min({date}) AS first_date, max({date}) AS last_date "
        f"FROM {name} WHERE {date} IS NOT NULL GROUP BY person_id"
        for name, date in here.items()
    ]
    empty = "SELECT NULL::BIGINT AS person_id, '' AS cdm_table"
    event.append(f"{empty}, NULL::BIGINT AS cdm_id, NULL::DATE AS event_date WHERE false")
    activity.append(f"{empty}, NULL::DATE AS first_date, NULL::DATE AS last_date WHERE false")
    made.connection.execute("CREATE VIEW event AS " + " UNION ALL ".join(event))
    made.table("activity", " UNION ALL ".join(activity))
    # the person's birth as OHDSI takes it: one row per row of person, as joins of theirs would give
    made.table(
        "born",
        "SELECT person_id, coalesce(CAST(birth_datetime AS DATE), try(make_date(year_of_birth, coalesce(month_of_birth, 1), "
        "coalesce(day_of_birth, 1)))) AS born, coalesce(CAST(birth_datetime AS DATE), try(make_date(year_of_birth, 6, 1))) "
        "AS born_or_june FROM person",
    )
    # a derived table has no resources behind it, and one that cannot be read has its own check
    unusable = [name for name, problems in made.wrong.items() if problems]
    aside = ", ".join("'" + name.replace("'", "''") + "'" for name in [*derived, "cdm_source", *unusable])
    rows = ", ".join(f"('{name}', {made.rows[name]})" for name in made.found if name in made.rows)
    made.table(
        "written",
        "SELECT cdm_table, sum(row_count) AS rows FROM ledger "
        f"WHERE outcome = 'written' AND cdm_table NOT IN ({aside}) GROUP BY cdm_table",
    )
    listed = f"SELECT * FROM (VALUES {rows}) AS t(cdm_table, rows)" if rows else "SELECT '' AS cdm_table, 0 AS rows"
    made.table("table_rows", f"SELECT * FROM ({listed}) WHERE cdm_table NOT IN ('', 'ledger', {aside})")
    for name, sql in definitions.relations.items():
        made.table(name, sql)
    arguments = ", ".join(
        f"('{check.family}', '{check.table}', '{check.code}', {concept}, '{check.argument}')"
        for check in definitions.checks
        if check.grouped and made.rows.get(check.table)
        for concept in check.concept_ids.split(",")
    )
    made.table(
        "ohdsi_concept",
        f"SELECT * FROM (VALUES {arguments}) AS t(family, cdm_table, code, concept_id, argument)"
        if arguments
        else "SELECT '' AS family, '' AS cdm_table, '' AS code, 0 AS concept_id, '' AS argument WHERE false",
    )
