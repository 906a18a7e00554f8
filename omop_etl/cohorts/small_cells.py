"""Small cells: which numbers of a table to hide so that no small one can be told from those that are shown.

A table is what its readers can add and subtract: the finest counts (`leaves`), and every number that is printed, each the sum
of some leaves. A number between 1 and the threshold is hidden; so are others, until an attacker who knows all that is shown,
and that a hidden number is not zero (zeros are shown), learns nothing of a small one: every value from 1 up to the threshold
is still possible. What the attacker can know is asked of a linear program for each small number (Fischetti and Salazar, Math
Program 2000: the attacker's problem of cell suppression). `suppress` does the same for a flow, in which it is plain what can be
subtracted. Thresholds: the study protocol, privacy.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

HIDDEN = "*"  # one sign for all: to tell small ones from those that protect them would give them away
_LITTLE = 1e-6


@dataclass(frozen=True)
class Exposure:
    """A small count that the shown numbers narrow: the attacker's interval, and the shown numbers that narrow it."""

    low: float
    high: float
    because: tuple[int, ...]


Ties = Sequence[tuple[Collection[int], Collection[int]]]  # two sets of leaves that count the same units


def protect(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    *,
    threshold: int,
    fixed: Collection[int] = (),
    ties: Ties = (),
) -> list[bool]:
    """For each printed number whether it is hidden.

    `leaves` are the finest counts; `sums[i]` the leaves that number i adds up; `fixed` the numbers that are shown elsewhere and
    cannot be hidden here; `ties` the sets of leaves that every reader knows to be equal. Leaves that are no printed number
    are protected as well. Zeros are shown, but where only hiding some of them helps; then a reader cannot know that a
    hidden number is not zero.
    """
    hidden, exposed = _protect(leaves, sums, threshold, fixed, ties, zeros=False)
    return _protect(leaves, sums, threshold, fixed, ties, zeros=True)[0] if exposed else hidden


def _protect(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    threshold: int,
    fixed: Collection[int],
    ties: Ties,
    *,
    zeros: bool,
) -> tuple[list[bool], bool]:
    """What is hidden, and whether a small number is exposed all the same when nothing is left to hide."""
    values = [sum(leaves[leaf] for leaf in one) for one in sums]
    hidden = [0 < value < threshold and number not in fixed for number, value in enumerate(values)]
    may = [number for number, value in enumerate(values) if (value or zeros) and number not in fixed]
    # one small number after the other: to hide more never tells more, so that those before stay as they are
    for target in _small(leaves, sums, threshold):
        while (found := _exposed(leaves, sums, hidden, target, ties, threshold=threshold, zeros=zeros)) is not None:
            candidates = [number for number in found.because if number in may and not hidden[number]]
            candidates = candidates or [number for number in may if not hidden[number]]
            if not candidates:
                return hidden, True  # what is known is known from the fixed ones, and from zeros
            # the finest number first, then the smallest: a total says more than a cell
            best = min(
                candidates, key=lambda number: (len(sums[number]) > 1, len(sums[number]), values[number], number)
            )
            hidden[best] = True
    return hidden, False


def _small(leaves: Sequence[int], sums: Sequence[Collection[int]], threshold: int) -> list[frozenset[int]]:
    """The sets of leaves whose count is small: each leaf, then each sum."""
    small = [frozenset({leaf}) for leaf, count in enumerate(leaves) if 0 < count < threshold]
    several = [frozenset(one) for one in sums if len(one) > 1 and 0 < sum(leaves[leaf] for leaf in one) < threshold]
    return list(dict.fromkeys([*small, *several]))


def _exposed(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    hidden: Sequence[bool],
    target: Collection[int],
    ties: Ties,
    *,
    threshold: int,
    zeros: bool,
) -> Exposure | None:
    low, high, because = attack(leaves, sums, hidden, target, zeros=zeros, ties=ties)
    least = max(1, sum(leaves[leaf] > 0 for leaf in target))  # of hidden cells each is at least one
    return Exposure(low, high, because) if low > least + _LITTLE or high < threshold - 1 - _LITTLE else None


def first_exposed(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    hidden: Sequence[bool],
    *,
    threshold: int,
    zeros: bool = False,
    ties: Ties = (),
) -> Exposure | None:
    """The first small count of which the shown numbers tell more than that it lies between 1 and the threshold, or None."""
    found = (
        _exposed(leaves, sums, hidden, target, ties, threshold=threshold, zeros=zeros)
        for target in _small(leaves, sums, threshold)
    )
    return next((one for one in found if one is not None), None)


def attack(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    hidden: Sequence[bool],
    target: Collection[int],
    *,
    zeros: bool = False,
    ties: Ties = (),
) -> tuple[float, float, tuple[int, ...]]:
    """What a reader can know of the sum of the `target` leaves: its least and greatest value, and the shown numbers that bind.

    The reader knows every shown number, which sets of leaves are equal (`ties`), that counts are not negative, and that a
    hidden number is at least 1 (unless `zeros`: then zeros may be hidden too).
    """
    import numpy as np
    from scipy.optimize import linprog

    def matrix(numbers: list[int]) -> Any:
        rows = np.zeros((len(numbers), len(leaves)))
        for row, number in enumerate(numbers):
            rows[row, list(sums[number])] = 1
        return rows

    shown = [number for number, is_hidden in enumerate(hidden) if not is_hidden]
    secret = [number for number, is_hidden in enumerate(hidden) if is_hidden]
    values = [sum(leaves[leaf] for leaf in sums[number]) for number in shown]
    objective = np.zeros(len(leaves))
    objective[list(target)] = 1
    problem: dict[str, Any] = {"bounds": (0, None), "method": "highs"}
    if shown or ties:
        equal = np.zeros((len(ties), len(leaves)))
        for row, (one, other) in enumerate(ties):
            equal[row, list(one)] += 1
            equal[row, list(other)] -= 1
        problem |= {"A_eq": np.vstack([matrix(shown), equal]), "b_eq": [*values, *([0] * len(ties))]}
    if secret and not zeros:
        problem |= {"A_ub": -matrix(secret), "b_ub": [-1] * len(secret)}
    ends, binding = [], set()
    for sign in (1, -1):
        found = linprog(sign * objective, **problem)
        if found.status == 3:  # unbounded: nothing limits it
            ends.append(float("inf"))
            continue
        if found.status != 0:  # not solved: what cannot be shown to be safe counts as known
            exact = float(sum(leaves[leaf] for leaf in target))
            return exact, exact, tuple(shown)
        ends.append(sign * found.fun)
        if shown:
            marginals = found.eqlin.marginals[: len(shown)]
            binding |= {number for number, dual in zip(shown, marginals, strict=True) if abs(dual) > 1e-9}
    return ends[0], ends[1], tuple(sorted(binding))


# ---- A flow: so many came, some were taken out at each step
Cell = tuple[int, int]  # the step, and the cell's place in it


@dataclass(frozen=True)
class Shown:
    """What may be shown of a flow: None stands where a number is hidden. `left[k]` is what remains after step k."""

    total: int | None
    cells: list[list[int | None]]
    left: list[int | None]


def suppress(total: int, steps: Sequence[Sequence[int]], *, threshold: int) -> Shown:
    """Hide the small counts of a flow: from `total` units each step takes out some, by cell; the rest go on.

    Within a step the hidden cells are at least two, and so many together that each of them may be anything up to the threshold;
    so the step's total says nothing of one of them. Where a step cannot reach that, the number left after it is hidden too,
    and the step is read together with a neighbour. How many stay to the end is known from elsewhere (it is what every other
    table is made of): where nothing else helps the number at the beginning is hidden. Zeros are shown.
    """
    stay = total - sum(map(sum, steps))
    known = stay == 0 or stay >= threshold
    leaves = [*(list(step) for step in steps), *([] if known else [[stay]])]
    groups = [[k] for k in range(len(leaves))]
    whole = True  # whether the number at the beginning is shown
    while (
        failing := next((g for g in range(len(groups)) if whole and _hide(groups[g], leaves, threshold) is None), None)
    ) is not None:
        if len(groups) == 1:
            if not known:
                return Shown(None, [[None] * len(step) for step in steps], [None] * len(steps))
            whole = False
            break
        # the number that stays to the end is the last to be given up
        onward = failing + 1 < len(groups) - 1 or failing == 0
        first = failing if onward else failing - 1
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    small = {(k, i) for k, step in enumerate(leaves) for i, n in enumerate(step) if 0 < n < threshold}
    hidden = small.union(*(_hide(group, leaves, threshold) or set() for group in groups)) if whole else small
    ends = {group[-1] for group in groups}
    cells = [[None if (k, i) in hidden else n for i, n in enumerate(step)] for k, step in enumerate(leaves)]
    left: list[int | None] = []
    rest = total
    for k, step in enumerate(steps):
        rest -= sum(step)
        left.append(rest if k in ends else None)
    if left:
        left[-1] = stay if known else None
    return Shown(total if whole else None, cells[: len(steps)], left)


def _hide(group: list[int], leaves: list[list[int]], threshold: int) -> set[Cell] | None:
    """The cells of a group to hide: the small ones and the next smallest until nothing can be told; None when it can."""
    counts = {(k, i): n for k in group for i, n in enumerate(leaves[k]) if n > 0}
    hidden = {cell for cell, n in counts.items() if n < threshold}
    others = sorted(counts.keys() - hidden, key=lambda cell: (counts[cell], cell))
    # of n hidden cells each of the others is at least one: one of them may be anything up to the threshold
    while hidden and (len(hidden) < 2 or sum(counts[cell] for cell in hidden) - len(hidden) + 1 < threshold - 1):
        if not others:
            return None
        hidden.add(others.pop(0))
    return hidden
