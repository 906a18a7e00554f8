"""Small cells of any table: which numbers to hide so that no small one can be told from those that are shown.

A table is what its readers can add and subtract: the finest counts (`leaves`), and every number that is printed, each the sum
of some leaves. A number between 1 and the threshold is hidden; so are others, until an attacker who knows all that is shown,
and that a hidden number is not zero (zeros are shown), learns nothing of a small one: every value from 1 up to the threshold
is still possible. What the attacker can know is asked of a linear program for each small number (Fischetti and Salazar, Math
Program 2000: the attacker's problem of cell suppression). Thresholds: the study protocol, privacy.
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


def protect(
    leaves: Sequence[int], sums: Sequence[Collection[int]], *, threshold: int, fixed: Collection[int] = ()
) -> list[bool]:
    """For each printed number whether it is hidden.

    `leaves` are the finest counts; `sums[i]` the leaves that number i adds up; `fixed` the numbers that are shown elsewhere and
    cannot be hidden here. Leaves that are no printed number are protected as well. Zeros are shown, but where only hiding
    some of them helps; then a reader cannot know that a hidden number is not zero.
    """
    hidden, exposed = _protect(leaves, sums, threshold, fixed, zeros=False)
    return _protect(leaves, sums, threshold, fixed, zeros=True)[0] if exposed else hidden


def _protect(
    leaves: Sequence[int], sums: Sequence[Collection[int]], threshold: int, fixed: Collection[int], *, zeros: bool
) -> tuple[list[bool], bool]:
    """What is hidden, and whether a small number is exposed all the same when nothing is left to hide."""
    values = [sum(leaves[leaf] for leaf in one) for one in sums]
    hidden = [0 < value < threshold and number not in fixed for number, value in enumerate(values)]
    may = [number for number, value in enumerate(values) if (value or zeros) and number not in fixed]
    while True:
        exposure = first_exposed(leaves, sums, hidden, threshold=threshold, zeros=zeros)
        if exposure is None:
            return hidden, False
        candidates = [number for number in exposure.because if number in may and not hidden[number]]
        candidates = candidates or [number for number in may if not hidden[number]]
        if not candidates:
            return hidden, True  # what is known is known from the fixed ones, and from zeros
        # the finest number first, then the smallest: a total says more than a cell
        best = min(candidates, key=lambda number: (len(sums[number]) > 1, len(sums[number]), values[number], number))
        hidden[best] = True


def first_exposed(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    hidden: Sequence[bool],
    *,
    threshold: int,
    zeros: bool = False,
) -> Exposure | None:
    """The first small count of which the shown numbers tell more than that it lies between 1 and the threshold, or None."""
    small = [{leaf} for leaf, count in enumerate(leaves) if 0 < count < threshold]
    small += [
        set(one)
        for one in sums
        if len(one) > 1 and 0 < sum(leaves[leaf] for leaf in one) < threshold and set(one) not in small
    ]
    for target in small:
        low, high, because = attack(leaves, sums, hidden, target, zeros=zeros)
        least = max(1, sum(leaves[leaf] > 0 for leaf in target))  # of hidden cells each is at least one
        if low > least + _LITTLE or high < threshold - 1 - _LITTLE:
            return Exposure(low, high, because)
    return None


def attack(
    leaves: Sequence[int],
    sums: Sequence[Collection[int]],
    hidden: Sequence[bool],
    target: Collection[int],
    *,
    zeros: bool = False,
) -> tuple[float, float, tuple[int, ...]]:
    """What a reader can know of the sum of the `target` leaves: its least and greatest value, and the shown numbers that bind.

    The reader knows every shown number, that counts are not negative, and that a hidden number is at least 1 (unless `zeros`:
    then zeros may be hidden too).
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
    if shown:
        problem |= {"A_eq": matrix(shown), "b_eq": values}
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
            binding |= {number for number, dual in zip(shown, found.eqlin.marginals, strict=True) if abs(dual) > 1e-9}
    return ends[0], ends[1], tuple(sorted(binding))


def cross_table(counts: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Leaves and sums of a table of rows and columns: first its cells, row by row, then the row totals."""
    wide = len(counts[0]) if counts else 0
    leaves = [count for row in counts for count in row]
    sums = [[leaf] for leaf in range(len(leaves))]
    sums += [[row * wide + column for column in range(wide)] for row in range(len(counts))]
    return leaves, sums


def at_risk(counts: Sequence[int], *, threshold: int) -> list[int | None]:
    """Numbers at risk of one group, which never rise, as they may be shown: None where hidden.

    A number is shown when it is zero or at least the threshold, and so is what has left since the last one shown: no
    subtraction gives a small number. A total over groups may be shown where every group's number is.
    """
    shown: list[int | None] = []
    last: int | None = None
    for count in counts:
        left = None if last is None else last - count
        keep = (count == 0 or count >= threshold) and (left is None or left == 0 or left >= threshold)
        shown.append(count if keep else None)
        last = count if keep else last
    return shown
