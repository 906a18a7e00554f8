"""Columns and dictionary must fit each other, or nothing is released."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.derive.rules import load_rules
from omop_etl.publish import dictionary
from omop_etl.publish.datasets import Dataset, Made, settings, write_dataset
from omop_etl.publish.dictionary import Variable, describe, read_dictionary


def variable(name: str, kind: str, *values: str) -> Variable:
    return Variable(name, name, kind, "", values, "", "table", "resource")


def dataset(sql: str, *variables: Variable, key: tuple[str, ...] = ("a",)) -> Dataset:
    return Dataset("some", "Some rows", "one per row", key, variables, sql)


def written(one: Dataset, folder: Path) -> tuple[Made, pd.DataFrame]:
    with duckdb.connect() as connection:
        made = write_dataset(connection, one, folder, folder / "spill")
    return made, pd.read_parquet(folder / "some.parquet")


def test_types(tmp_path: Path) -> None:
    sql = """
        SELECT * FROM (VALUES ('x', 1, 1, true, 0.5, 'p', 'long text', 'k1'), (NULL, NULL, 2, NULL, NULL, 'q', NULL, 'k2'))
            AS t (a, b, c, d, e, f, g, key) ORDER BY f
    """
    variables = (
        variable("a", "category", "x", "y"), variable("b", "integer"), variable("c", "integer"), variable("d", "boolean"),
        variable("e", "number"), variable("f", "ordered", "p", "q"), variable("g", "text"), variable("key", "id"),
    )  # fmt: skip
    made, rows = written(dataset(sql, *variables, key=("key",)), tmp_path)
    assert [str(kind) for kind in rows.dtypes] == [
        "category", "Int64", "int64", "boolean", "float64", "category", "str", "str",
    ]  # fmt: skip
    assert list(rows["a"].cat.categories) == ["x", "y"]
    assert rows["f"].cat.ordered
    assert (made.rows, made.missing["a"], made.missing["c"]) == (2, 1, 0)
    text = pd.read_csv(tmp_path / "some.csv", dtype=str, keep_default_na=False)
    assert text.iloc[0].tolist() == ["x", "1", "1", "true", "0.5", "p", "long text", "k1"]


def test_a_column_without_any_value_keeps_its_type(tmp_path: Path) -> None:
    one = dataset(
        "SELECT 'k' AS a, NULL AS b, NULL AS c",
        variable("a", "id"),
        variable("b", "category"),
        variable("c", "boolean"),
    )
    _, rows = written(one, tmp_path)
    assert [str(kind) for kind in rows.dtypes] == ["str", "category", "boolean"]


@pytest.mark.parametrize(
    ("sql", "detail"),
    [
        ("SELECT 1 AS b, 'x' AS a", "their order"),
        ("SELECT 'x' AS a, 1 AS c", "b, c"),
        ("SELECT 'y' AS a, 1 AS b", "values that it does not list"),
        ("SELECT 'x' AS a, 1 AS b UNION ALL SELECT 'x', 2", "keys are not unique"),
    ],
)
def test_what_does_not_fit_is_not_released(sql: str, detail: str, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as raised:
        written(dataset(sql, variable("a", "category", "x"), variable("b", "integer")), tmp_path)
    assert raised.value.code == "E-PUBLISH-03"
    assert detail in str(raised.value)


@pytest.mark.parametrize("sql", ["SELECT nothing AS a", "SELECT 'secret' AS a WHERE CAST('secret' AS INTEGER) = 1"])
def test_sql_that_does_not_run_is_numbered_and_tells_no_value(sql: str, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as raised:
        written(dataset(sql, variable("a", "id")), tmp_path)
    assert raised.value.code == "E-STUDY-03"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "variable,label,type,unit,values,when,omop,fhir\na,a,date,,,,,\n",
        "variable,label,type,unit,values,when,omop,fhir\na,{unknown_window},integer,,,,,\n",
        "variable,label\na,b\n",
        "variable,label,type,unit,values,when,omop,fhir\na,b\n",
        "variable,label,type,unit,values,when,omop,fhir\na,b,id,,,,,,too many\n",
    ],
    ids=["unknown type", "unknown window", "columns missing", "cells missing", "too many cells"],
)
def test_a_dictionary_that_does_not_fit_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(PalmaresError) as raised:
        read_dictionary(tmp_path / "a.csv", {})
    assert raised.value.code == "E-PUBLISH-03"


@pytest.mark.parametrize(
    ("rows", "missing", "share", "words"),
    [
        (100, 0, 0.0, ""),
        (100, 50, 0.5, ""),
        (100, 100, 1.0, ""),
        (100, 3, None, "hidden"),
        (100, 95, None, "hidden"),
        (8, 0, None, "fewer than 10 patients"),
        (0, 0, None, ""),
    ],
)
def test_a_share_never_stands_for_a_few_rows(
    rows: int, missing: int, share: float | None, words: str, tmp_path: Path
) -> None:
    one = dataset("", variable("a", "id"))
    described = describe(Made(one, rows, {"a": missing}, {}), threshold=10, patients=rows)
    assert (described["variables"][0]["missing_share"], described["variables"][0]["missing"]) == (share, words)
    assert described["rows"] == (None if 0 < rows < 10 else rows)
    dictionary.write("study", "A title", [described], tmp_path)
    assert json.loads((tmp_path / "dictionary.json").read_text())["datasets"][0]["dataset"] == "some"
    assert "<table>" in (tmp_path / "dictionary.html").read_text()


def test_a_number_that_another_table_hides_is_hidden_here_and_rows_that_tell_of_a_few_are_not_counted() -> None:
    made = Made(dataset("", variable("a", "id"), variable("b", "number")), 465, {"a": 0, "b": 123}, {})
    described = describe(made, threshold=10, patients=42, even=False, hidden={"a"})
    assert described["rows"] is None
    assert [(one["missing_share"], one["missing"]) for one in described["variables"]] == [(None, "hidden"), (0.26, "")]
    # 33 rows of 3 patients: eleven analyses of each
    assert describe(replace(made, rows=33), threshold=10, patients=3)["rows"] is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no = toml = at all",
        "[dataset]\n[k_anonymity]\n[meds]\n",
        "[dataset]\n[k_anonymity]\n[meds]\nday_0 = 2000-01-01\n[table_one]\n",
    ],
)
def test_settings_that_do_not_fit_are_refused(text: str, tmp_path: Path) -> None:
    rules = load_rules("palmares2")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "datasets.toml").write_text(text)
    with pytest.raises(PalmaresError) as raised:
        settings(replace(rules, study=replace(rules.study, folder=tmp_path)))
    assert raised.value.code == "E-STUDY-03"
