"""Small cells: whatever is added, subtracted or solved, nothing shown narrows a small count."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omop_etl.cohorts.small_cells import attack, first_exposed, protect
from omop_etl.publish.small_cells import at_risk

COUNTS = st.one_of(st.integers(0, 12), st.integers(0, 120))


def table(rows: int, columns: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(COUNTS, min_size=columns, max_size=columns), min_size=rows, max_size=rows)


def with_margins(counts: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Cells, row totals, column totals and the grand total."""
    wide = len(counts[0])
    leaves = [count for row in counts for count in row]
    sums = [[leaf] for leaf in range(len(leaves))]
    sums += [[row * wide + column for column in range(wide)] for row in range(len(counts))]
    sums += [[row * wide + column for row in range(len(counts))] for column in range(wide)]
    return leaves, [*sums, list(range(len(leaves)))]


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 4).flatmap(lambda rows: st.integers(2, 4).flatmap(lambda columns: table(rows, columns))))
def test_no_small_cell_can_be_told_from_margins_and_other_cells(counts: list[list[int]]) -> None:
    leaves, sums = with_margins(counts)
    hidden = protect(leaves, sums, threshold=10)
    values = [sum(leaves[leaf] for leaf in one) for one in sums]
    for value, is_hidden in zip(values, hidden, strict=True):
        assert is_hidden or value == 0 or value >= 10
    zeros = any(is_hidden and value == 0 for value, is_hidden in zip(values, hidden, strict=True))
    # the attack: for each small count every value from 1 (of several hidden cells: one each) to 9 is still possible
    for number, value in enumerate(values):
        if 0 < value < 10:
            low, high, _ = attack(leaves, sums, hidden, sums[number], zeros=zeros)
            assert low <= max(1, sum(leaves[leaf] > 0 for leaf in sums[number])) + 1e-6
            assert high >= 9 - 1e-6


def test_a_zero_is_hidden_where_only_that_helps() -> None:
    # 35 patients then, 44 now, both shown elsewhere: that none went would say that 9 came
    stayed, went, came = 35, 0, 9
    leaves, sums = [stayed, went, came], [[0], [1], [2], [0, 1], [0, 2]]
    assert protect(leaves, sums, threshold=10, fixed={3, 4}) == [True, True, True, False, False]


@settings(max_examples=8, deadline=None)
@given(table(3, 3))
def test_with_fixed_column_totals_a_small_cell_is_never_exact(counts: list[list[int]]) -> None:
    leaves, sums = with_margins(counts)
    totals = set(range(12, 15))
    if any(0 < sum(row[column] for row in counts) < 10 for column in range(3)):
        return  # such a group has no column: see table one
    hidden = protect(leaves, sums, threshold=10, fixed=totals)
    assert not any(hidden[number] for number in totals)
    for leaf, count in enumerate(leaves):
        if 0 < count < 10:
            low, high, _ = attack(leaves, sums, hidden, [leaf])
            assert high - low > 0.5


def test_a_hidden_cell_that_a_neighbour_gives_away_hides_the_neighbour() -> None:
    leaves, sums = with_margins([[3, 50], [60, 70]])
    hidden = protect(leaves, sums, threshold=10)
    assert hidden[:4] == [True, True, True, True]
    assert not any(hidden[4:])


def test_two_small_cells_with_a_small_total_need_a_third() -> None:
    # 1 + 2 = 3: each of them would be 1 or 2
    leaves, sums = [1, 2, 100, 200], [[0], [1], [2], [3], [0, 1, 2, 3]]
    assert protect(leaves, sums, threshold=10) == [True, True, True, False, False]


def test_a_large_table_hides_nothing() -> None:
    leaves, sums = with_margins([[100, 200], [300, 0]])
    assert not any(protect(leaves, sums, threshold=10))


def test_leaves_that_are_not_printed_are_protected_too() -> None:
    # printed are 50 and 53 of the same persons: the difference is 3
    leaves, sums = [50, 3], [[0], [0, 1]]
    hidden = protect(leaves, sums, threshold=10)
    assert any(hidden)
    assert first_exposed(leaves, sums, hidden, threshold=10) is None


def test_what_cannot_be_protected_is_all_hidden() -> None:
    leaves, sums = [4, 0, 3], [[0], [1], [2], [0, 1, 2]]
    assert protect(leaves, sums, threshold=10) == [True, False, True, True]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_numbers_at_risk_give_no_small_number_by_subtraction(left: list[int]) -> None:
    counts = [sum(left[at:]) for at in range(len(left))]
    shown = at_risk(counts, threshold=10)
    numbers = [number for number in shown if number is not None]
    assert all(number == 0 or number >= 10 for number in numbers)
    assert all(first == then or first - then >= 10 for first, then in pairwise(numbers))
    assert all(here is None or here == count for here, count in zip(shown, counts, strict=True))
    # and an attacker with a linear program learns nothing of those who left between two times
    sums = [list(range(at, len(left))) for at in range(len(left))]
    assert first_exposed(left, sums, [number is None for number in shown], threshold=10) is None or not numbers


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([100, 80, 40, 12, 0], [100, 80, 40, 12, 0]),
        ([100, 95, 80], [100, None, 80]),
        ([100, 40, 6, 0], [100, 40, None, 0]),
        ([6, 3, 0], [None, None, 0]),
        ([12, 11, 10], [12, None, None]),
        ([12, 12, 2], [12, 12, None]),
    ],
)
def test_numbers_at_risk(counts: list[int], shown: list[int | None]) -> None:
    assert at_risk(counts, threshold=10) == shown
