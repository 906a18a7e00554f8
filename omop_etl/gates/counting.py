"""Counts the violations of every check on a slice, in few scans, and fetches the rejected rows of those that are broken.

Each check has a numerator (violations) and a denominator (what was looked at). Row checks of one table share one scan;
concept checks share one count per concept column; the other checks are a query each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import duckdb_columns
from omop_etl.gates.definitions import Check, Definitions, key_of
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
_COLUMNS = {"ledger": LEDGER_COLUMNS, "person_link": PERSON_LINK_COLUMNS}
_FILES = {"ledger": LEDGER, "person_link": PERSON_LINK}
_REJECT_COLUMNS = "CAST(cdm_table AS VARCHAR) AS cdm_table, CAST(cdm_id AS BIGINT) AS cdm_id"


@dataclass(frozen=True)
class Count:
    """What a check found: `numerator` violations among `denominator`."""

    check: Check
    numerator: int
    denominator: int


_Way = Callable[[str, list[Check]], dict[str, Count]]


class Counter:
    """The slice's files as views of one DuckDB connection, and the counts of the checks on them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, slice_: Slice, vocabulary: Vocabulary, definitions: Definitions
    ) -> None:
        self._connection = connection
        self._slice = slice_
        self._definitions = definitions
        self._wrong = self._views()
        self._rows = self._row_counts()
        self._concepts(vocabulary)
        self._relations()

    # -------------------------------------------------------------- what the checks look at

    def _views(self) -> dict[str, list[str]]:
        """A view per CDM table, of its file or empty; what is wrong with the columns of each file that is there."""
        wrong = {}
        for name in slice_tables():
            path = self._slice.tables.get(name)
            if path is not None:
                wrong[name] = wrong_columns(columns_of(self._connection, path), name)
            usable = path is not None and not wrong[name]
            self._view(name, path if usable else None, duckdb_columns(name))
        for name, columns in _COLUMNS.items():
            path = self._slice.folder / _FILES[name]
            found = columns_of(self._connection, path) if path.is_file() else None
            usable = found is not None and not compare_columns(found, columns)
            if found is not None:
                wrong[name] = compare_columns(found, columns)
            self._view(name, path if usable else None, columns)
        return wrong

    def _view(self, name: str, path: Path | None, columns: dict[str, str]) -> None:
        if path is not None:
            self._connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({quoted_path(path)})")
            return
        nothing = ", ".join(f'CAST(NULL AS {type_}) AS "{column}"' for column, type_ in columns.items())
        self._connection.execute(f"CREATE VIEW {name} AS SELECT {nothing} WHERE false")

    def _concepts(self, vocabulary: Vocabulary) -> None:
        """The vocabulary; and from the starter slice what it does not hold at all: a part of Athena often lacks the concepts
        of types, of sex, of the CDM's own fields, which the mapping takes from `mappings/codes`."""
        columns = "concept_id, domain_id, concept_class_id, standard_concept, invalid_reason"
        given, starter = vocabulary.relation("concept"), open_vocabulary(None).relation("concept")
        self._connection.execute(
            f"CREATE TEMP TABLE concept AS SELECT {columns} FROM {given} UNION ALL "
            f"SELECT {columns} FROM {starter} WHERE concept_id NOT IN (SELECT concept_id FROM {given})"
        )

    def _row_counts(self) -> dict[str, int]:
        """Rows per table, from the files' own footers; 0 for a table that has no file that can be used."""
        used = ["ledger", *(name for name in self._slice.tables if not self._wrong[name])]
        counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in used)
        return dict.fromkeys(slice_tables(), 0) | dict(self._run(counts).fetchall())

    def _relations(self) -> None:
        """The relations that several checks look at; those of a table without rows cost nothing."""
        here = {name: date for name, date in self._definitions.events.items() if self._rows[name]}
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
        self._connection.execute("CREATE VIEW event AS " + " UNION ALL ".join(event))
        self._table("activity", " UNION ALL ".join(activity))
        # a derived table has no resources behind it, and one that cannot be read has its own check
        unusable = [name for name, problems in self._wrong.items() if problems]
        named = [*self._slice.manifest.get("derived", []), "cdm_source", *unusable]
        aside = ", ".join("'" + name.replace("'", "''") + "'" for name in named)
        rows = ", ".join(f"('{name}', {self._rows[name]})" for name in self._slice.tables)
        self._table(
            "written",
            "SELECT cdm_table, sum(row_count) AS rows FROM ledger "
            f"WHERE outcome = 'written' AND cdm_table NOT IN ({aside}) GROUP BY cdm_table",
        )
        listed = f"SELECT * FROM (VALUES {rows}) AS t(cdm_table, rows)" if rows else "SELECT '' AS cdm_table, 0 AS rows"
        self._table("table_rows", f"SELECT * FROM ({listed}) WHERE cdm_table NOT IN ('', {aside})")
        for name, sql in self._definitions.relations.items():
            self._table(name, sql)

    def _table(self, name: str, sql: str) -> None:
        self._run(f"CREATE TEMP TABLE {name} AS {sql}")

    # -------------------------------------------------------------- counting

    def count(self, progress: Callable[[str], None] = lambda _: None) -> list[Count]:
        """Every check that has something to look at: those of tables that hold rows, and those that are of the slice."""
        wanted = [check for check in self._definitions.checks if self._applies(check)]
        found = {check.code: self._by_file(check) for check in wanted if check.structural}
        for table in dict.fromkeys(check.table for check in wanted):
            progress(table)
            own = [check for check in wanted if check.table == table]
            found |= self._together(self._by_row, table, [check for check in own if check.where])
            found |= self._together(self._by_concept, table, [check for check in own if check.concept])
            found |= self._together(self._by_query, table, [check for check in own if check.violated])
        return [found[check.code] for check in wanted]

    def _together(self, way: _Way, table: str, checks: list[Check]) -> dict[str, Count]:
        """Count checks of one kind in one go. When the SQL of one does not fit, say which: E-GATE-03."""
        if not checks:
            return {}
        try:
            return way(table, checks)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            if len(checks) == 1:
                raise PalmaresError("E-GATE-03", checks[0].code, detail="its SQL does not fit the tables") from None
            return {code: count for check in checks for code, count in self._together(way, table, [check]).items()}

    def _applies(self, check: Check) -> bool:
        """Generated checks have a column; an empty table has nothing to check there. Study checks always speak."""
        if check.structural == "columns":
            return check.table in self._wrong or check.table in self._definitions.required_tables
        if check.structural == "rows":
            return not self._wrong.get(check.table, ["missing"]) and check.table in self._slice.manifest.get(
                "tables", {}
            )
        return not check.column or self._rows[check.table] > 0

    def _by_file(self, check: Check) -> Count:
        if check.structural == "columns":
            expected = _COLUMNS.get(check.table) or duckdb_columns(check.table)
            problems = self._wrong.get(check.table)
            return Count(check, len(expected) if problems is None else len(problems), len(expected))
        named, rows = int(self._slice.manifest["tables"][check.table]), self._rows[check.table]
        return Count(check, abs(named - rows), max(named, rows))

    def _by_row(self, table: str, checks: list[Check]) -> dict[str, Count]:
        sums = []
        for check in checks:
            of = f"({check.of})" if check.of else "true"
            sums.append(f"count(*) FILTER ({of} AND ({check.where})), count(*) FILTER ({of})")
        values = self._one(f"SELECT {', '.join(sums)} FROM {table}")
        pairs = zip(values[0::2], values[1::2], strict=True)
        return {check.code: Count(check, *pair) for check, pair in zip(checks, pairs, strict=True)}

    def _by_concept(self, table: str, checks: list[Check]) -> dict[str, Count]:
        sums = []
        for check in checks:
            of = f"used.of_column = '{check.column}' AND ({check.of or 'true'})"
            sums.append(f"sum(used.records) FILTER ({of} AND ({check.concept})), sum(used.records) FILTER ({of})")
        used = self._used(table, list(dict.fromkeys(check.column for check in checks)))
        values = [int(value or 0) for value in self._one(f"SELECT {', '.join(sums)} FROM {used}")]
        pairs = zip(values[0::2], values[1::2], strict=True)
        return {check.code: Count(check, *pair) for check, pair in zip(checks, pairs, strict=True)}

    def _used(self, table: str, columns: list[str]) -> str:
        """The concept ids of some columns, how many rows use each, and what the vocabulary says of them."""
        counts = " UNION ALL ".join(
            f"SELECT '{column}' AS of_column, {column} AS concept_id, count(*) AS records "
            f"FROM {table} WHERE {column} IS NOT NULL GROUP BY {column}"
            for column in columns
        )
        return f"({counts}) AS used LEFT JOIN concept ON concept.concept_id = used.concept_id"

    def _by_query(self, table: str, checks: list[Check]) -> dict[str, Count]:
        found = {}
        for check in checks:
            denominator = int(self._one(check.denominator)[0] or 0)
            numerator = self._one(check.numerator or f"SELECT count(*) FROM ({check.violated})")[0]
            found[check.code] = Count(check, int(numerator or 0), denominator)
        return found

    # -------------------------------------------------------------- rejected rows

    def reject(self, count: Count, path: Path) -> None:
        """Write which rows break a check: cdm_table and cdm_id, in order, at most as many as thresholds.toml says."""
        check = count.check
        rows = check.violated
        if not rows:
            key = key_of(check.table)
            condition = self._condition(check)
            rows = f"SELECT '{check.table}' AS cdm_table, {key} AS cdm_id FROM {check.table} WHERE {condition}"
        self._run(
            f"COPY (SELECT DISTINCT {_REJECT_COLUMNS} FROM ({rows}) ORDER BY ALL LIMIT {self._definitions.rejects}) "
            f"TO {quoted_path(path)} (FORMAT parquet)"
        )

    def _condition(self, check: Check) -> str:
        of = f"({check.of}) AND " if check.of else ""
        if check.where:
            return f"{of}({check.where})"
        used = self._used(check.table, [check.column])
        return f"{check.column} IN (SELECT used.concept_id FROM {used} WHERE {of}({check.concept}))"

    # -------------------------------------------------------------- running

    def _one(self, sql: str) -> tuple[int, ...]:
        row = self._run(sql).fetchone()
        return row if row is not None else (0,)

    def _run(self, sql: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(sql)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # the words of a check, not the slice; see `count`
        except duckdb.Error as error:
            # a footer that reads well does not say that the pages do
            files = [self._slice.folder / name for name in self._slice.files if name.endswith(".parquet")]
            broken = first_unreadable(self._connection, files)
            if broken is None:
                raise
            raise unreadable(broken, error) from None
