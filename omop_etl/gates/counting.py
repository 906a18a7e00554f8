"""Counts the violations of every check, in few scans, and fetches the rejected rows of those that are broken.

Each check has a numerator (violations) and a denominator (what was looked at). Row checks of one table share one scan, with one
more per table that is joined to it (births, deaths, visits), and an expression that several checks need is counted once. Concept
checks share one count per concept column, checks of single concepts one query per kind; the others are a query each.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import duckdb_columns
from omop_etl.gates.definitions import Check, Definitions, key_of, quoted
from omop_etl.gates.relations import BESIDE, Relations
from omop_etl.gates.slices import quoted_path

_REJECT_COLUMNS = "CAST(cdm_table AS VARCHAR) AS cdm_table, CAST(cdm_id AS BIGINT) AS cdm_id"
_WHOLE = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT")


@dataclass(frozen=True)
class Count:
    """What a check found: `numerator` violations among `denominator`."""

    check: Check
    numerator: int
    denominator: int

    @property
    def verdict(self) -> str:
        """What the two numbers say, before anybody lets anything through."""
        return self.check.verdict(self.numerator, self.denominator)


_NULL = re.compile(r'\(?(t\."\w+") IS (NOT )?NULL\)?')

_Way = Callable[[str, list[Check]], dict[str, Count]]


def _counted(condition: str) -> str:
    """How many rows fulfil a condition, as an aggregate; of a column that is empty or filled, the one that costs least."""
    null = _NULL.fullmatch(condition)
    if null:
        return f"count({null[1]})" if null[2] else f"count(*) - count({null[1]})"
    return "count(*)" if condition == "true" else f"count(*) FILTER ({condition})"


class Counter:
    """The counts of the checks on one set of relations."""

    def __init__(self, relations: Relations, definitions: Definitions, place: str = "site") -> None:
        self._relations = relations
        self._definitions = definitions
        self._checks = definitions.at(place)
        self._numbers: dict[str, int] = {}

    def count(
        self, progress: Callable[[str], None] = lambda _: None, checks: Iterable[Check] | None = None
    ) -> list[Count]:
        """Every check that has something to look at: those of tables that hold rows, and those that are of the whole."""
        wanted = [check for check in (self._checks if checks is None else checks) if self._applies(check)]
        found = {check.code: self._by_file(check) for check in wanted if check.structural}
        by_table: dict[str, list[Check]] = {}
        for check in wanted:
            by_table.setdefault(check.table, []).append(check)
        for table, own in by_table.items():
            progress(table)
            found |= self._together(self._by_row, table, [check for check in own if check.where])
            found |= self._together(self._by_concept, table, [check for check in own if check.concept])
            found |= self._together(self._by_single_concept, table, [check for check in own if check.grouped])
            queries = [check for check in own if check.violated and not check.grouped]
            found |= self._together(self._by_query, table, queries)
        return [found[check.code] for check in wanted if check.code in found]

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
        at, table = self._relations, check.table
        match check.structural:
            case "table":  # one that need not be there says nothing by its absence
                return table in at.found or table in self._definitions.required_tables
            case "field":
                return table in at.found
            case "datatype":
                return check.column in at.found.get(table, {}) and self._raw_rows(table) > 0
            case "columns":
                return table in at.wrong
            case "rows":
                return not at.wrong.get(table, ["missing"]) and table in at.named
        if check.grouped and "concept_ancestor" in check.grouped and not at.has_ancestors:
            return False
        if check.column:
            return at.rows.get(table, 0) > 0
        # of OHDSI's checks of a whole table: where there is such a table at all
        return not check.dqd or table in at.found

    def _raw_rows(self, table: str) -> int:
        at = self._relations
        return (
            1 if at.rows.get(table) else self._one(f"SELECT count(*) FROM {at.raw[table]}")[0] if at.wrong[table] else 0
        )

    # -------------------------------------------------------------- ways of counting

    def _by_file(self, check: Check) -> Count:
        at, table = self._relations, check.table
        match check.structural:
            case "table":
                return Count(check, int(table not in at.found), 1)
            case "field":
                return Count(check, int(check.column not in at.found[table]), 1)
            case "datatype":
                return self._whole_numbers(check)
            case "columns":
                return Count(check, len(at.wrong[table]), len(BESIDE.get(table) or duckdb_columns(table)))
        named, rows = int(at.named[table]), at.rows[table]
        return Count(check, abs(named - rows), max(named, rows))

    def _whole_numbers(self, check: Check) -> Count:
        """Values that are no whole number: none in a column of that type, to be counted in any other."""
        at, table = self._relations, check.table
        if at.found[table][check.column] in _WHOLE:
            rows = at.rows[table] or self._one(f"SELECT count(*) FROM {at.raw[table]}")[0]
            return Count(check, 0, rows)
        number = f'TRY_CAST(CAST("{check.column}" AS VARCHAR) AS DOUBLE)'
        wrong = f'"{check.column}" IS NOT NULL AND ({number} IS NULL OR NOT isfinite({number}) OR {number} <> floor({number}))'
        numerator, rows = self._one(f"SELECT count(*) FILTER ({wrong}), count(*) FROM {at.raw[table]}")
        return Count(check, numerator, rows)

    def _by_row(self, table: str, checks: list[Check]) -> dict[str, Count]:
        wanted: dict[str, dict[str, int]] = {}  # join → condition → its place in that scan

        def place(join: str, condition: str) -> tuple[str, int]:
            scan = wanted.setdefault(join, {})
            return join, scan.setdefault(condition, len(scan))

        places = {}
        for check in checks:
            of = check.of or "true"
            numerator = f"({of}) AND ({check.where})" if check.of else check.where
            places[check.code] = place(check.join, numerator), place(check.of_join, of)
        values = {join: self._scan(table, join, list(conditions)) for join, conditions in wanted.items()}
        return {check.code: Count(check, *(values[join][at] for join, at in places[check.code])) for check in checks}

    def _scan(self, table: str, join: str, conditions: list[str]) -> tuple[int, ...]:
        return self._one(f"SELECT {', '.join(map(_counted, conditions))} FROM {table} t {self._joined(join)}")

    def _joined(self, join: str) -> str:
        return self._definitions.joins[join] if join else ""

    def _by_concept(self, table: str, checks: list[Check]) -> dict[str, Count]:
        sums = []
        for check in checks:
            of = f"used.of_column = '{check.column}' AND ({check.of or 'true'})"
            sums.append(f"sum(used.records) FILTER ({of} AND ({check.concept})), sum(used.records) FILTER ({of})")
        used = self._used(table, list(dict.fromkeys(check.column for check in checks)))
        values = [int(value or 0) for value in self._one(f"SELECT {', '.join(sums)} FROM {used}")]
        # without a condition of its own a check looks at every row, also those without a concept
        return {
            check.code: Count(check, numerator, looked_at if check.of else self._relations.rows[table])
            for check, numerator, looked_at in zip(checks, values[0::2], values[1::2], strict=True)
        }

    def _used(self, table: str, columns: list[str]) -> str:
        """The concept ids of some columns, how many rows use each, and what the vocabulary says of them."""
        counts = " UNION ALL ".join(
            f"SELECT '{column}' AS of_column, {column} AS concept_id, count(*) AS records "
            f"FROM {table} WHERE {column} IS NOT NULL GROUP BY {column}"
            for column in columns
        )
        return f"({counts}) AS used LEFT JOIN concept ON concept.concept_id = used.concept_id"

    def _by_single_concept(self, table: str, checks: list[Check]) -> dict[str, Count]:
        """Checks of one concept each, those of one kind at once; a concept that nobody has is left out."""
        by_code = {check.code: check for check in checks}
        return {
            code: Count(by_code[code], int(numerator), int(denominator))
            for sql in dict.fromkeys(check.grouped for check in checks)
            for code, numerator, denominator in self._relations.run(sql).fetchall()
            if code in by_code
        }

    def _by_query(self, table: str, checks: list[Check]) -> dict[str, Count]:
        """Two numbers per check, a query each; many checks look at the same persons, who are counted once."""
        found = {}
        for check in checks:
            numerator = check.numerator or f"SELECT count(*) FROM ({check.violated})"
            numbers = [self._number(sql) for sql in (numerator, check.denominator)]
            found[check.code] = Count(check, *numbers)
        return found

    def _number(self, sql: str) -> int:
        if sql not in self._numbers:
            self._numbers[sql] = int(self._one(sql)[0] or 0)
        return self._numbers[sql]

    # -------------------------------------------------------------- rejected rows

    def rows_of(self, check: Check) -> str:
        """A SELECT of the rows that break a check: cdm_table and cdm_id."""
        if check.violated:
            return f"SELECT {_REJECT_COLUMNS} FROM ({check.violated})"
        key = quoted(key_of(check.table))
        key = key if key == "NULL" else f"t.{key}"
        source, condition = f"{check.table} t {self._joined(check.join)}", self._condition(check)
        return f"SELECT '{check.table}' AS cdm_table, CAST({key} AS BIGINT) AS cdm_id FROM {source} WHERE {condition}"

    def reject(self, count: Count, path: Path) -> None:
        """Write which rows break a check: cdm_table and cdm_id, in order, at most as many as thresholds.toml says."""
        self._relations.run(
            f"COPY (SELECT DISTINCT * FROM ({self.rows_of(count.check)}) ORDER BY ALL LIMIT {self._definitions.rejects}) "
            f"TO {quoted_path(path)} (FORMAT parquet)"
        )

    def _condition(self, check: Check) -> str:
        of = f"({check.of}) AND " if check.of else ""
        if check.where:
            return f"{of}({check.where})"
        used = self._used(check.table, [check.column])
        return f"t.{check.column} IN (SELECT used.concept_id FROM {used} WHERE {of}({check.concept}))"

    def _one(self, sql: str) -> tuple[int, ...]:
        row = self._relations.run(sql).fetchone()
        return row if row is not None else (0,)
