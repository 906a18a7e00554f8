"""A reader who adds and subtracts across all tables of a release, and across those of a cohort folder, can tell no small number.

`PALMARES_EXAMPLES=50` reads so many registries; two by default.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from omop_etl.cohorts.small_cells import protect
from omop_etl.cohorts.together import Family, hide
from omop_etl.publish.counted import _analyses
from tests.publish_helpers import released
from tests.subtraction import recovered, registry


@pytest.mark.long
@pytest.mark.parametrize("seed", range(int(os.environ.get("PALMARES_EXAMPLES", "2"))))
def test_no_small_number_can_be_told_from_all_tables(seed: int, tmp_path: Path) -> None:
    # 3 and 11 were planted: few are counted out, few are treated beyond progression, one death is in doubt
    release = released(registry((3, 11)[seed] if seed < 2 else seed), tmp_path)
    assert recovered(release) == {}
    assert recovered(tmp_path / "cohort") == {}


def test_what_two_families_count_of_the_same_patients_is_hidden_in_both() -> None:
    # a histology, by drug and for all, and the analysis of those who have it: 12 are lobular, of 3 it is not known
    histology = Family("histology", 3, np.array([0] * 12 + [1] * 45 + [2] * 3))
    lobular = Family("lobular", 3, np.array([0] * 12 + [1] * 45 + [2] * 3), grouped=False)
    other = Family("other", 2, np.array([0, 1] * 30))
    drug = np.array([0, 1] * 30)
    found = hide([histology, lobular, other], drug, [True, True], whole=True, threshold=10)
    for part in range(3):
        assert found["histology"][part, None] == found["lobular"][part, None]
    assert found["lobular"][2, None]
    assert sum(found["lobular"].values()) >= 2
    assert not any(found["other"].values())


def test_two_numbers_that_every_reader_knows_to_be_equal() -> None:
    # two tables of the same 20 patients: 3 + 17, and 17 + 3
    leaves = [3, 17, 17, 3]
    sums = [[0], [1], [2], [3], [0, 1], [2, 3]]
    ties = [([0], [3]), ([1], [2])]
    assert protect(leaves, sums, threshold=10, fixed={4, 5}, ties=ties) == [True] * 4 + [False] * 2
    # the complement of the one is no complement of the other: three parts each
    leaves, sums = [3, 12, 40, 3, 12, 40], [[0], [1], [2], [3], [4], [5], [0, 1, 2], [3, 4, 5]]
    ties = [([0], [3]), ([1], [4]), ([2], [5])]
    hidden = protect(leaves, sums, threshold=10, fixed={6, 7}, ties=ties)
    assert hidden[:3] == hidden[3:6] == [True, True, False]


@pytest.mark.long
def test_the_patients_of_a_small_group_are_not_counted_below_its_curve(tmp_path: Path) -> None:
    import json

    release = released(registry(3), tmp_path)
    sizes = json.loads((release / "table_one.json").read_text())["patients"]
    silent = {name for name, size in sizes.items() if size == "*"}
    assert silent
    rows = json.loads((release / "at_risk.json").read_text())["rows"]
    assert {number for row in rows if row["group"] in silent for number in row["at_risk"].values()} <= {"*"}


@pytest.mark.parametrize("members", [[None, None], [True, None], [True, False], [False, False], []])
def test_who_belongs_to_an_analysis_in_its_three_answers(members: list[bool | None]) -> None:
    patients = [f"p{number}" for number in range(len(members))]
    rows = pd.DataFrame({"patient": patients, "analysis": "some", "member": pd.array(members, dtype="boolean")})
    found = [one.codes.tolist() for one in _analyses(pd.DataFrame({"patient": patients}), rows)]
    assert found == ([[{True: 0, False: 1, None: 2}[one] for one in members]] if members else [])
