"""No small count is shown, and none can be computed from what is shown."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from omop_etl.cohorts.small_cells import Shown, attack, suppress

FLOWS = st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=6)


def test_large_counts_are_shown() -> None:
    assert suppress(100, [[10, 20], [30]], threshold=5) == Shown(100, [[10, 20], [30]], [70, 40])


def test_a_small_count_takes_a_neighbour_with_it() -> None:
    assert suppress(100, [[3, 20, 12]], threshold=5) == Shown(100, [[None, 20, None]], [65])


def test_a_small_count_alone_in_its_step_hides_the_number_left() -> None:
    assert suppress(100, [[3], [20]], threshold=5) == Shown(100, [[None], [None]], [None, 77])


def test_the_last_step_looks_back_so_that_the_number_that_stays_is_seen() -> None:
    assert suppress(100, [[20], [3]], threshold=5) == Shown(100, [[None], [None]], [None, 77])


def test_where_nothing_else_helps_the_number_at_the_beginning_is_hidden() -> None:
    # 200 stay, and stand in every other table: 203 at the beginning would say that 3 were counted out
    assert suppress(203, [[0], [3]], threshold=5) == Shown(None, [[0], [None]], [None, 200])
    assert suppress(203, [[3], []], threshold=5) == Shown(None, [[None], []], [None, 200])


def test_zeros_are_shown() -> None:
    assert suppress(50, [[0], [10]], threshold=10) == Shown(50, [[0], [10]], [50, 40])


def test_a_small_whole_is_hidden_whole() -> None:
    assert suppress(4, [[2], [0]], threshold=5) == Shown(None, [[None], [None]], [None, None])


def test_two_small_counts_whose_sum_is_small_need_a_third() -> None:
    assert suppress(100, [[1, 2, 30]], threshold=5) == Shown(100, [[None, None, None]], [67])


@settings(max_examples=40, deadline=None)
@given(steps=FLOWS, stay=st.integers(0, 60), threshold=st.sampled_from([2, 5, 10]))
@example(steps=[[3], [0], [4]], stay=7, threshold=10)
@example(steps=[[], [1], []], stay=200, threshold=5)
def test_nothing_small_is_shown_and_nothing_can_be_told(steps: list[list[int]], stay: int, threshold: int) -> None:
    total = stay + sum(map(sum, steps))
    shown = suppress(total, steps, threshold=threshold)
    for number in (shown.total, *shown.left, *(cell for step in shown.cells for cell in step)):
        assert number is None or number == 0 or number >= threshold
    # who stays is what every other table is made of: it is shown
    if steps and (stay == 0 or stay >= threshold):
        assert shown.left[-1] == stay
    # whoever subtracts knows what is shown, that nothing is negative, and that a hidden number is at least one
    leaves = [*(n for step in steps for n in step), stay]
    places = iter(range(len(leaves)))
    parts = [[next(places) for _ in step] for step in steps]
    known: list[tuple[list[int], int | None]] = [(list(range(len(leaves))), shown.total)]
    for number, (own, cells) in enumerate(zip(parts, shown.cells, strict=True)):
        known += [([leaf], cell) for leaf, cell in zip(own, cells, strict=True)]
        known.append(
            ([leaf for later in parts[number + 1 :] for leaf in later] + [len(leaves) - 1], shown.left[number])
        )
    if shown.total is None and not any(shown.left):
        return
    secret = [value is None and sum(leaves[leaf] for leaf in members) > 0 for members, value in known]
    sums = [
        members for (members, value), is_hidden in zip(known, secret, strict=True) if is_hidden or value is not None
    ]
    hidden = [is_hidden for (_, value), is_hidden in zip(known, secret, strict=True) if is_hidden or value is not None]
    for leaf, count in enumerate(leaves):
        if 0 < count < threshold and threshold > 2:
            low, high, _ = attack(leaves, sums, hidden, [leaf])
            assert low <= 1 + 1e-6
            assert high >= threshold - 1 - 1e-6


@given(steps=FLOWS, stay=st.integers(0, 60), threshold=st.sampled_from([5, 10]))
def test_what_is_shown_is_true(steps: list[list[int]], stay: int, threshold: int) -> None:
    rest = total = stay + sum(map(sum, steps))
    shown = suppress(total, steps, threshold=threshold)
    for step, cells, left in zip(steps, shown.cells, shown.left, strict=True):
        rest -= sum(step)
        assert left in (None, rest)
        assert all(cell in (None, n) for n, cell in zip(step, cells, strict=True))
