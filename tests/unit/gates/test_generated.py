"""Every check that is generated from the CDM facts counts exactly the violations planted for it, in every table and column.

All tables hold a few sound rows, and one more per violation; the numbers expected are computed here from the facts.
"""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omop_etl.cdm import Column, Table, tables
from omop_etl.gates.slices import slice_tables
from tests.gate_helpers import broken, counted
from tests.slices import CONCEPTS, EHR, EXTRACTED_TO, Rows, ledger_of, write_slice

DAY = date(2020, 5, 4)
# a concept of each domain that the tiny vocabulary knows; 0 elsewhere
BY_DOMAIN = {domain: concept for concept, (_, domain, _, _, standard) in CONCEPTS.items() if standard == "S"}
WITH_KEY = [name for name in slice_tables() if tables()[name].primary_key]


def sound(table: Table, at: int) -> dict[str, Any]:
    """A row that breaks nothing, every required column filled; `at` makes its key."""
    return {column.name: _value(table, column, at) for column in table.columns if column.required or column.primary_key}


def _value(table: Table, column: Column, at: int) -> Any:
    if column.primary_key:
        return at
    if column.references and column.length is None:
        if column.references == ("concept", "concept_id"):
            return EHR if column.domain == "Type Concept" else 0
        return 1
    if column.name == "cost_domain_id":
        return "Drug"
    return {
        "date": DAY,
        "timestamp": datetime(2020, 5, 4, 12),
        "double": 1.0,
        "bigint": 1,
        "integer": 1970 if column.name == "year_of_birth" else 1,
    }.get(column.type, "word")


def world() -> Rows:
    """Two sound rows in every table that a slice may hold."""
    return {name: [sound(tables()[name], at) for at in (1, 2)] for name in slice_tables()}


def write(folder: Path, rows: Rows) -> Path:
    links = [{"person_id": row["person_id"], "linkage_token": str(row["person_id"])} for row in rows["person"]]
    return write_slice(folder, rows, ledger=ledger_of(rows), links=links)


def planted(kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Table, column and what a broken row of it holds, for one kind of generated check."""
    for name in slice_tables():
        table = tables()[name]
        for column in table.columns:
            values = dict(_broken(kind, table, column))
            if values:
                yield name, column.name, values


def _broken(kind: str, table: Table, column: Column) -> Iterator[tuple[str, Any]]:
    concept = column.references == ("concept", "concept_id")
    if kind == "REQUIRED" and column.required and not column.primary_key:
        yield column.name, None
    if kind == "LENGTH" and column.length:
        yield column.name, "x" * (column.length + 1)
    if kind == "CONCEPT" and concept:
        yield column.name, 2_000_000_001
    if kind == "STANDARD" and concept and not column.name.endswith("_source_concept_id"):
        yield column.name, 947735  # a classification
    if kind == "DOMAIN" and column.domain:
        yield column.name, next(concept for domain, concept in BY_DOMAIN.items() if domain not in column.domain)
    if kind == "REFERENCE" and column.references and column.references[0] in slice_tables():
        yield column.name, 999
    looked_at = "PLANNED" if column.name.endswith("_end_date") else "FUTURE"
    if kind == looked_at and column.type == "date" and column.name != "observation_period_end_date":
        yield column.name, date(2025, 1, 1)
    if kind == "DATETIME" and column.type == "date" and f"{column.name}time" in table:
        yield f"{column.name}time", datetime(2019, 1, 1)
        yield column.name, DAY


KINDS = {
    "REQUIRED": 113,
    "LENGTH": 85,
    "CONCEPT": 106,
    "STANDARD": 84,
    "DOMAIN": 47,
    "REFERENCE": 57,
    "FUTURE": 22,
    "PLANNED": 12,
    "DATETIME": 21,
}


@pytest.mark.parametrize("kind", KINDS)
def test_exact_counts_in_every_column(kind: str, vocabulary: Path, tmp_path: Path) -> None:
    rows, expected = world(), {}
    for name, column, values in planted(kind):
        at = len(rows[name]) + 1
        rows[name].append(sound(tables()[name], at) | values)
        expected[f"G-{kind}-{name}.{column}"] = 1
    assert len(expected) == KINDS[kind]
    (tmp_path / "rejects").mkdir()
    counts = counted(write(tmp_path / "slice", rows), vocabulary, tmp_path / "rejects", family=f"G-{kind}")
    found = {
        code: count.numerator for code, count in counts.items() if code.startswith(f"G-{kind}-") and count.numerator
    }
    assert found == expected
    assert set(expected) <= set(broken(counts))
    for code in expected:
        table = code.removeprefix(f"G-{kind}-").partition(".")[0]
        rejected = duckdb.sql(f"SELECT * FROM '{tmp_path / 'rejects' / code}.parquet'")
        assert rejected.columns == ["cdm_table", "cdm_id"]
        assert [row[0] for row in rejected.fetchall()] == [table]


def test_denominators_are_what_was_looked_at(vocabulary: Path, tmp_path: Path) -> None:
    rows = world()
    rows["measurement"] += [sound(tables()["measurement"], 3) | {"visit_occurrence_id": 2, "unit_source_value": "mg"}]
    counts = counted(write(tmp_path / "slice", rows), vocabulary)
    looked_at = {code: counts[code].denominator for code in counts if "-measurement." in code}
    assert looked_at["G-REQUIRED-measurement.person_id"] == 3
    assert looked_at["G-REFERENCE-measurement.visit_occurrence_id"] == 3, "as OHDSI counts: of all records"
    assert looked_at["G-LENGTH-measurement.unit_source_value"] == 1
    assert looked_at["G-CONCEPT-measurement.measurement_type_concept_id"] == 3
    assert looked_at["G-CONCEPT-measurement.unit_concept_id"] == 3
    assert looked_at["G-UNMAPPED-measurement.measurement_concept_id"] == 3


def test_a_key_that_is_there_three_times_is_three_violations(vocabulary: Path, tmp_path: Path) -> None:
    rows = world()
    for name in WITH_KEY:
        rows[name] += [dict(rows[name][0]), dict(rows[name][0])]
    counts = counted(write(tmp_path / "slice", rows), vocabulary, family="G-KEY")
    found = {code: count for code, count in counts.items() if code.startswith("G-KEY-")}
    assert set(found) == {f"G-KEY-{name}.{tables()[name].primary_key}" for name in WITH_KEY}
    assert {(count.numerator, count.denominator) for count in found.values()} == {(3, 4)}


def test_empty_tables_have_nothing_to_check(vocabulary: Path, tmp_path: Path) -> None:
    rows = {name: [] for name in world()} | {"cdm_source": world()["cdm_source"]}
    counts = counted(write(tmp_path / "slice", rows), vocabulary)
    files = ("G-FIELD", "G-TYPE")
    assert not [
        code
        for code, count in counts.items()
        if count.check.column and count.check.table != "cdm_source" and count.check.family not in files
    ]
    assert broken(counts) == {}


def test_the_future_begins_after_the_extraction(vocabulary: Path, tmp_path: Path) -> None:
    rows = world()
    rows["visit_occurrence"][0] |= {"visit_start_date": EXTRACTED_TO, "visit_end_date": EXTRACTED_TO}
    slice_ = write(tmp_path / "slice", rows)
    assert "G-FUTURE-visit_occurrence.visit_start_date" not in broken(counted(slice_, vocabulary, family="G-FUTURE"))
    never = write_slice(tmp_path / "never", rows, manifest=lambda said: said.pop("extracted_to"))
    rows["visit_occurrence"][0]["visit_start_date"] = date(2999, 1, 1)
    assert not [code for code in broken(counted(never, vocabulary, family="G-FUTURE")) if code.startswith("G-FUTURE")]
