"""Small cells: the one function that every count passes before it is shown.

A count between 1 and the threshold is hidden, and with it so many others that no subtraction brings it back
(complementary suppression). Rule and thresholds: the study protocol, privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Cell = tuple[int, int]  # the step, and the cell's place in it


@dataclass(frozen=True)
class Shown:
    """What may be shown of a flow: None stands where a number is hidden. `left[k]` is what remains after step k."""

    total: int | None
    cells: list[list[int | None]]
    left: list[int | None]


def suppress(total: int, steps: Sequence[Sequence[int]], *, threshold: int) -> Shown:
    """Hide the small counts of a flow: from `total` units each step takes out some, by cell; the rest go on.

    A one-way table is a flow of one step. Within a step the hidden cells are at least two and together at least the
    threshold, so that the step's total says nothing of one of them. Where a step cannot reach that, the number left
    after it is hidden too, and the step is read together with a neighbour. Zeros are shown.
    """
    leaves = [*(list(step) for step in steps), [total - sum(map(sum, steps))]]  # who stays to the end is a cell too
    groups = [[k] for k in range(len(leaves))]
    while (
        failing := next((g for g in range(len(groups)) if _hide(groups[g], leaves, threshold) is None), None)
    ) is not None:
        if len(groups) == 1:
            return Shown(None, [[None] * len(step) for step in steps], [None] * len(steps))
        # the number that stays to the end is the last to be given up
        onward = failing + 1 < len(groups) - 1 or failing == 0
        first = failing if onward else failing - 1
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    hidden = set().union(*(_hide(group, leaves, threshold) or set() for group in groups))
    ends = {group[-1] for group in groups}
    cells = [[None if (k, i) in hidden else n for i, n in enumerate(step)] for k, step in enumerate(leaves)]
    left: list[int | None] = []
    rest = total
    for k, step in enumerate(leaves[:-1]):
        rest -= sum(step)
        left.append(rest if k in ends else None)
    if left:
        left[-1] = cells[-1][0]
    return Shown(total, cells[:-1], left)


def _hide(group: list[int], leaves: list[list[int]], threshold: int) -> set[Cell] | None:
    """The cells of a group to hide: the small ones and the next smallest until nothing can be told; None when it can."""
    counts = {(k, i): n for k in group for i, n in enumerate(leaves[k]) if n > 0}
    hidden = {cell for cell, n in counts.items() if n < threshold}
    others = sorted(counts.keys() - hidden, key=lambda cell: (counts[cell], cell))
    while hidden and (len(hidden) < 2 or sum(counts[cell] for cell in hidden) < threshold):
        if not others:
            return None
        hidden.add(others.pop(0))
    return hidden
