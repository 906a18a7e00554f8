"""Numbers at risk, as they may be shown. What hides every other number is in `omop_etl.cohorts.small_cells`."""

from collections.abc import Sequence


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
