"""The fluent data source: Great Expectations' own expectations run on a DuckDB file, and the file is let go of."""

import json
from pathlib import Path

import duckdb
import pytest

from omop_etl.gates.duckdb_source import DuckDBDatasource, gx
from omop_etl.gates.expectations import ExpectViolationsWithinThresholds, details_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE person AS SELECT i AS person_id, 1950 + i AS year_of_birth FROM range(10) t(i)"
        )
        connection.execute("CREATE VIEW born_late AS SELECT * FROM person WHERE year_of_birth > 1955")
        connection.execute("CREATE TABLE check_count AS SELECT 'G-X' AS code, 3 AS numerator, 100 AS denominator")
    return path


@pytest.mark.parametrize("table", ["person", "born_late"])
def test_stock_expectations_on_tables_and_views(file: Path, table: str) -> None:
    context = gx.get_context(mode="ephemeral")
    source = context.data_sources.add_or_update_duckdb(name="small", connection_string=f"duckdb:///{file}")
    assert isinstance(source, DuckDBDatasource)
    batch = source.add_table_asset(name=table, table_name=table).add_batch_definition_whole_table("whole").get_batch()
    expected = {
        gx.expectations.ExpectColumnValuesToNotBeNull(column="person_id"): True,
        gx.expectations.ExpectColumnValuesToBeUnique(column="person_id"): True,
        gx.expectations.ExpectColumnValuesToBeBetween(column="year_of_birth", min_value=1958): False,
        gx.expectations.UnexpectedRowsExpectation(
            unexpected_rows_query="SELECT * FROM {batch} WHERE year_of_birth < 1900"
        ): True,
    }
    for expectation, success in expected.items():
        assert batch.validate(expectation).success is success
    source.close()
    with duckdb.connect(str(file), config={"threads": 1}) as connection:
        connection.execute("DROP VIEW born_late")  # nobody holds the file any more


@pytest.mark.parametrize(
    ("warn", "block", "verdict"),
    [(None, None, "PASS"), (3, 4, "PASS"), (2.9, 4, "WARN"), (1, 2, "BLOCK"), (None, 2, "BLOCK")],
)
def test_our_own_expectation(file: Path, warn: float | None, block: float | None, verdict: str) -> None:
    context = gx.get_context(mode="ephemeral")
    source = context.data_sources.add_or_update_duckdb(name="small", connection_string=f"duckdb:///{file}")
    batch = (
        source.add_table_asset(name="person", table_name="person").add_batch_definition_whole_table("whole").get_batch()
    )
    check = {"code": "G-X", "title": "t", "unit": "records", "warn": warn, "block": block, "least": 1}
    result = batch.validate(ExpectViolationsWithinThresholds(kind="G-X", title="t", checks=json.dumps([check])))
    assert result.success is (verdict == "PASS")
    assert details_of(result) == {"G-X": {"numerator": 3, "denominator": 100, "verdict": verdict}}
    source.close()


def test_bounds_in_the_wrong_order() -> None:
    check = {"code": "G-X", "title": "t", "unit": "records", "warn": 5, "block": 1, "least": 1}
    with pytest.raises(ValueError, match="warn is above block"):
        ExpectViolationsWithinThresholds(kind="G-X", title="t", checks=json.dumps([check]))
