"""Table one against its formulas, and what it must not show."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omop_etl.cohorts.small_cells import HIDDEN, attack
from omop_etl.publish.dictionary import Variable
from omop_etl.publish.table_one import ALL, smd_means, smd_shares, table_one, write

GROUPS = ["a", "b", "c"]


def variable(name: str, kind: str) -> Variable:
    return Variable(name, name.capitalize(), kind, "", (), "", "", "")


def frame(**columns: object) -> pd.DataFrame:
    made = pd.DataFrame(columns)
    made["drug"] = pd.Categorical(made["drug"], GROUPS)
    if "stage" in made:
        made["stage"] = pd.Categorical(made["stage"], ["low", "high"])
    return made


def test_smd_of_numbers_is_the_formula() -> None:
    one, other = np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 6])
    expected = abs(2.5 - 4) / math.sqrt((np.var([1, 2, 3, 4], ddof=1) + np.var([2, 4, 6], ddof=1)) / 2)
    assert smd_means(one, other) == pytest.approx(expected)
    assert smd_means(one, one) == 0
    assert smd_means(np.array([1.0, 1]), np.array([1.0, 1])) == 0
    assert smd_means(np.array([1.0, 1]), np.array([2.0, 2])) == math.inf
    assert math.isnan(smd_means(np.array([1.0]), other))


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_smd_of_a_yes_and_no_is_the_formula(p: float, q: float) -> None:
    expected = abs(p - q) / math.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert smd_shares([p, 1 - p], [q, 1 - q]) == pytest.approx(expected, abs=1e-9)


def test_smd_of_three_categories_is_the_mahalanobis_distance() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.4, 0.2])
    spread = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    difference = (p - q)[:2]
    expected = math.sqrt(difference @ np.linalg.inv(spread[:2, :2]) @ difference)
    assert smd_shares(list(p), list(q)) == pytest.approx(expected)
    # the order of the categories, and one that nobody has, change nothing
    assert smd_shares([0.5, 0.2, 0.3], [0.2, 0.4, 0.4]) == pytest.approx(expected)
    assert smd_shares([0.2, 0.3, 0.5, 0], [0.4, 0.4, 0.2, 0]) == pytest.approx(expected)
    assert smd_shares([1, 0], [0, 1]) == math.inf
    assert smd_shares([1], [1]) == 0


def test_what_is_large_is_shown() -> None:
    rows = frame(
        drug=["a"] * 40 + ["b"] * 40 + ["c"] * 20,
        age=[50.0] * 20 + [60.0] * 20 + [55.0] * 20 + [65.0] * 20 + [70.0] * 10 + [80.0] * 10,
        stage=(["low"] * 20 + ["high"] * 20) * 2 + ["low"] * 10 + ["high"] * 10,
    )
    table = table_one(rows, [variable("age", "number"), variable("stage", "category")], "drug", threshold=10)
    assert table["patients"] == {"a": 40, "b": 40, "c": 20, ALL: 100}
    age, stage = table["variables"]
    assert age["rows"][0]["a"] == {"n": 40, "mean": 55.0, "sd": 5.064, "median": 55.0, "quartiles": [50.0, 60.0]}
    assert age["smd"] == round(20 / math.sqrt((np.var([50, 60] * 20, ddof=1) + np.var([70, 80] * 10, ddof=1)) / 2), 3)
    assert stage["rows"][0][ALL] == {"n": 50, "share": 0.5}
    assert stage["smd"] == 0


def test_a_number_known_of_few_is_not_described() -> None:
    rows = frame(drug=["a"] * 40 + ["b"] * 40 + ["c"] * 40, age=[None] * 35 + [60.0] * 85)
    table = table_one(rows, [variable("age", "number")], "drug", threshold=10)
    stats, missing = table["variables"][0]["rows"]
    assert stats["a"] == HIDDEN
    assert missing["a"] == HIDDEN
    assert table["variables"][0]["smd"] == HIDDEN
    # all 120 less those of b and c would give a's away
    assert HIDDEN in (stats["b"], stats["c"], stats[ALL])


def test_a_small_group_has_no_column() -> None:
    rows = frame(drug=["a"] * 40 + ["b"] * 40 + ["c"] * 4, stage=["low", "high"] * 42)
    table = table_one(rows, [variable("stage", "category")], "drug", threshold=10)
    assert table["patients"]["c"] == HIDDEN
    assert list(table["patients"].values()).count(HIDDEN) >= 2
    assert all(row["c"] == HIDDEN for row in table["variables"][0]["rows"] if row["value"] != "missing")


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.integers(0, 14), st.integers(0, 60)), min_size=3, max_size=3), min_size=3, max_size=3
    )
)
def test_no_small_number_follows_from_the_table(counts: list[list[int]]) -> None:
    # rows: low, high, missing; columns: the groups
    drug, stage = [], []
    for value, line in zip(["low", "high", None], counts, strict=True):
        for name, count in zip(GROUPS, line, strict=True):
            drug += [name] * count
            stage += [value] * count
    table = table_one(frame(drug=drug, stage=stage), [variable("stage", "category")], "drug", threshold=10)
    leaves = [count for line in counts for count in line]
    sums, hidden = [], []

    def printed(number: object, members: list[int]) -> None:
        sums.append(members)
        hidden.append(number == HIDDEN)

    for row, line in enumerate(table["variables"][0]["rows"]):
        for column, name in enumerate(GROUPS):
            printed(line[name], [row * 3 + column])
        printed(line[ALL], [row * 3, row * 3 + 1, row * 3 + 2])
    for column, name in enumerate(GROUPS):
        printed(table["patients"][name], [column, 3 + column, 6 + column])
    printed(table["patients"][ALL], list(range(9)))
    for members, is_hidden in zip(sums, hidden, strict=True):
        total = sum(leaves[leaf] for leaf in members)
        assert is_hidden or total == 0 or total >= 10
    # a hidden number of a group without a column may be zero: the attacker does not know that it is not
    unknown = [one and sum(leaves[leaf] for leaf in members) > 0 for one, members in zip(hidden, sums, strict=True)]
    for leaf, count in enumerate(leaves):
        if 0 < count < 10:
            low, high, _ = attack(leaves, sums, unknown, [leaf])
            assert high - low > 0.5


def test_the_files(tmp_path: Path) -> None:
    rows = frame(drug=["a"] * 40 + ["b"] * 40 + ["c"] * 20, stage=["low", "high"] * 48 + [None] * 4)
    table = table_one(rows, [variable("stage", "category")], "drug", threshold=10)
    assert table["variables"][0]["rows"][-1][ALL] == HIDDEN
    write(table, "A <title>", tmp_path)
    assert json.loads((tmp_path / "table_one.json").read_text()) == table
    text = (tmp_path / "table_one.csv").read_text().splitlines()
    assert text[0] == "variable,unit,value,a,b,c,all,largest_smd"
    assert text[1].startswith("patients,,,40,40,20,100")
    page = (tmp_path / "table_one.html").read_text()
    assert "A &lt;title&gt;" in page
    assert all(f'scope="{what}"' in page for what in ("col", "row"))


def test_nothing_is_shown_of_nobody() -> None:
    rows = frame(drug=pd.Series([], dtype="str"), stage=pd.Series([], dtype="str"), age=pd.Series([], dtype="float64"))
    table = table_one(rows, [variable("stage", "category"), variable("age", "number")], "drug", threshold=10)
    assert set(table["patients"].values()) == {0}
    assert table["variables"][0]["rows"][0][ALL] == {"n": 0, "share": None}
