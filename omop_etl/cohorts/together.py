"""What is counted of the same patients, hidden together: the tables of a release say things of each other.

A named analysis is a row of table one, a share of missing values is a count, the patients with an endpoint are those that the
table of numbers at risk begins with. A reader who subtracts does not stop at the end of a table, so neither does what is hidden:
every number here is a part of a family (a variable by its values, an analysis by its answers), and where parts of two families
are the same patients, the linear program of `small_cells` knows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from omop_etl.cohorts.small_cells import protect

if TYPE_CHECKING:
    import numpy as np

Place = tuple[int, int | None]  # a part, and a group; None: all groups


@dataclass(frozen=True)
class Family:
    """Parts that everyone is in exactly one of: `codes` has the part of each patient. `printed` are the parts whose number is
    shown somewhere; `grouped`: by group as well as for all."""

    name: str
    parts: int
    codes: "np.ndarray"
    grouped: bool = True
    printed: frozenset[int] | None = None


def hide(
    families: Sequence[Family], groups: "np.ndarray", columns: Sequence[bool], *, whole: bool, threshold: int
) -> dict[str, dict[Place, bool]]:
    """Of each family whether each of its numbers is hidden, by part and group.

    `groups` has the group of each patient (-1: none); `columns` says of each group whether it has a column (its size is shown),
    `whole` whether the number of all patients is shown. A number that is not printed is not in the answer.
    """
    linked = {
        (one, other): same
        for one, other in combinations(range(len(families)), 2)
        if (same := _same(families[one], families[other]))
    }
    answers: dict[str, dict[Place, bool]] = {family.name: {} for family in families}
    for members in _components(len(families), list(linked)):
        leaves, at = _leaves([(number, families[number]) for number in members], groups, len(columns))
        sums, fixed, places = _numbers([(number, families[number]) for number in members], at, columns, whole)
        ties = [
            tie
            for (one, other), same in linked.items()
            if one in members
            for own, others in same
            for tie in _ties(at, (one, own), (other, others))
        ]
        hidden = protect(leaves, sums, threshold=threshold, fixed=fixed, ties=ties)
        for place, (number, part, group) in enumerate(places):
            answers[families[number].name][part, group] = hidden[place]
    return answers


Leaf = tuple[int, int, int]  # a family, a part, a group; -1: no group
Parts = frozenset[int]


def _same(one: Family, other: Family) -> list[tuple[Parts, Parts]]:
    """The sets of parts of two families that are the same patients, but for everyone: the smallest there are."""
    import numpy as np

    cells = np.bincount(one.codes * other.parts + other.codes, minlength=one.parts * other.parts)
    table = cells.reshape(one.parts, other.parts)
    pairs = [(int(row), one.parts + int(column)) for row, column in zip(*np.nonzero(table), strict=True)]
    found = [
        (frozenset(n for n in part if n < one.parts), frozenset(n - one.parts for n in part if n >= one.parts))
        for part in _components(one.parts + other.parts, pairs)
    ]
    same = [(own, others) for own, others in found if own and others]  # a part that nobody is in stands alone
    return same if len(same) > 1 else []


def _components(size: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The numbers below `size` in groups of those that the pairs connect."""
    of = list(range(size))
    for one, other in pairs:
        old, new = of[one], of[other]
        if old != new:
            of = [new if now == old else now for now in of]
    return [[number for number in range(size) if of[number] == name] for name in dict.fromkeys(of)]


def _leaves(
    members: Sequence[tuple[int, Family]], groups: "np.ndarray", width: int
) -> tuple[list[int], dict[Leaf, int]]:
    """The finest counts of these families, and the place of each; those without a group are a column of their own."""
    import numpy as np

    leaves: list[int] = []
    at: dict[Leaf, int] = {}
    for number, family in members:
        # the last column: without a group
        of = np.where(groups < 0, width, groups) if family.grouped else np.full(len(groups), width)
        cells = np.bincount(family.codes * (width + 1) + of, minlength=family.parts * (width + 1))
        counts = cells.reshape(family.parts, width + 1)
        for part in range(family.parts):
            for group in (*(range(width) if family.grouped else ()), -1):
                at[number, part, group] = len(leaves)
                leaves.append(int(counts[part, group]))
    return leaves, at


def _numbers(
    members: Sequence[tuple[int, Family]], at: Mapping[Leaf, int], columns: Sequence[bool], whole: bool
) -> tuple[list[list[int]], set[int], list[tuple[int, int, int | None]]]:
    """The printed numbers as sums of leaves, those of them that stand elsewhere (the sizes), and whose the others are.

    A group without a column has no number printed, nor its size.
    """
    sums: list[list[int]] = []
    places: list[tuple[int, int, int | None]] = []
    sizes: list[list[int]] = []
    for number, family in members:
        shown = [group for group, is_shown in enumerate(columns) if is_shown and family.grouped]
        own = {(part, group): leaf for (n, part, group), leaf in at.items() if n == number}
        for part in range(family.parts):
            if family.printed is None or part in family.printed:
                for group in shown:
                    places.append((number, part, group))
                    sums.append([own[part, group]])
                if whole:
                    places.append((number, part, None))
                    sums.append([leaf for (p, _), leaf in own.items() if p == part])
        sizes += [[leaf for (_, g), leaf in own.items() if g == group] for group in shown]
        sizes += [list(own.values())] if whole else []
    fixed = set(range(len(sums), len(sums) + len(sizes)))
    return [*sums, *sizes], fixed, places


def _ties(
    at: Mapping[Leaf, int], one: tuple[int, Parts], other: tuple[int, Parts]
) -> list[tuple[list[int], list[int]]]:
    """That these parts of two families are the same patients: in each group where both are counted by group, else in all."""
    sides = [
        [(group, leaf) for (number, part, group), leaf in at.items() if number == side[0] and part in side[1]]
        for side in (one, other)
    ]
    groups = [{group for group, _ in side} for side in sides]
    if groups[0] != groups[1]:
        return [([leaf for _, leaf in sides[0]], [leaf for _, leaf in sides[1]])]
    return [
        ([leaf for g, leaf in sides[0] if g == group], [leaf for g, leaf in sides[1] if g == group])
        for group in sorted(groups[0])
    ]
