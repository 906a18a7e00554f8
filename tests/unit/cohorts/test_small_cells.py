"""No small count is shown, and none can be computed from what is shown."""

from hypothesis import example, given
from hypothesis import strategies as st

from omop_etl.cohorts.small_cells import Shown, suppress

FLOWS = st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=6)


def test_large_counts_are_shown() -> None:
    assert suppress(100, [[10, 20], [30]], threshold=5) == Shown(100, [[10, 20], [30]], [70, 40])


def test_a_small_count_takes_a_neighbour_with_it() -> None:
    assert suppress(100, [[3, 20, 12]], threshold=5) == Shown(100, [[None, 20, None]], [65])


def test_a_small_count_alone_in_its_step_hides_the_number_left() -> None:
    assert suppress(100, [[3], [20]], threshold=5) == Shown(100, [[None], [None]], [None, 77])


def test_the_last_step_looks_back_so_that_the_number_that_stays_is_seen() -> None:
    assert suppress(100, [[20], [3]], threshold=5) == Shown(100, [[None], [None]], [None, 77])


def test_zeros_are_shown() -> None:
    assert suppress(50, [[0], [10]], threshold=10) == Shown(50, [[0], [10]], [50, 40])


def test_a_small_whole_is_hidden_whole() -> None:
    assert suppress(4, [[2], [0]], threshold=5) == Shown(None, [[None], [None]], [None, None])


def test_two_small_counts_whose_sum_is_small_need_a_third() -> None:
    assert suppress(100, [[1, 2, 30]], threshold=5) == Shown(100, [[None, None, None]], [67])


@given(steps=FLOWS, stay=st.integers(0, 60), threshold=st.sampled_from([2, 5, 10]))
@example(steps=[[3], [0], [4]], stay=7, threshold=10)
@example(steps=[[], [1], []], stay=200, threshold=5)
def test_nothing_small_is_shown_and_nothing_can_be_told(steps: list[list[int]], stay: int, threshold: int) -> None:
    total = stay + sum(map(sum, steps))
    shown = suppress(total, steps, threshold=threshold)
    for number in (shown.total, *shown.left, *(cell for step in shown.cells for cell in step)):
        assert number is None or number == 0 or number >= threshold
    # whoever subtracts can do it between two totals that are shown, and only there
    known, hidden = shown.total, []
    if known is None:
        assert all(cell is None for step in shown.cells for cell in step)
        assert all(left is None for left in shown.left)
        return
    for step, cells, left in zip(steps, shown.cells, shown.left, strict=True):
        hidden += [n for n, cell in zip(step, cells, strict=True) if cell is None]
        if left is not None:
            assert not hidden or (len(hidden) > 1 and sum(hidden) >= threshold)
            hidden = []
    if hidden:  # then the number that stays is hidden with them
        assert sum(hidden) + stay >= threshold
        assert len(hidden) + (stay > 0) > 1


@given(steps=FLOWS, stay=st.integers(0, 60), threshold=st.sampled_from([5, 10]))
def test_what_is_shown_is_true(steps: list[list[int]], stay: int, threshold: int) -> None:
    rest = total = stay + sum(map(sum, steps))
    shown = suppress(total, steps, threshold=threshold)
    for step, cells, left in zip(steps, shown.cells, shown.left, strict=True):
        rest -= sum(step)
        assert left in (None, rest)
        assert all(cell in (None, n) for n, cell in zip(step, cells, strict=True))
