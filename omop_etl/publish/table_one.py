"""Table one: the groups side by side, with standardised mean differences; small cells hidden as for the public.

A standardised mean difference (SMD) of two groups is the difference of their means over the root of the mean of their
variances; of a variable with several categories the same in several dimensions, by the covariance of its indicators
(Yang and Dalton, SAS Global Forum 2012, paper 335). Of more than two groups the largest of their pairs is given. Missing
values are counted as a row of their own and enter no difference.
"""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omop_etl.cohorts.small_cells import HIDDEN, protect
from omop_etl.cohorts.together import Family, Place, hide
from omop_etl.publish.dictionary import STYLE, Variable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ALL = "all"


def smd_means(one: "np.ndarray", other: "np.ndarray") -> float:
    """SMD of a number in two groups: |mean difference| / sqrt((variance + variance) / 2); 0 of two equal constants."""
    import numpy as np

    if len(one) < 2 or len(other) < 2:
        return float("nan")
    difference = abs(float(np.mean(one)) - float(np.mean(other)))
    spread = float(np.sqrt((np.var(one, ddof=1) + np.var(other, ddof=1)) / 2))
    if spread == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / spread


def smd_shares(one: Sequence[float], other: Sequence[float]) -> float:
    """SMD of a category in two groups, from the share of each of its values (they add up to 1 in each group)."""
    import numpy as np

    first, second = np.asarray(one[1:], dtype=float), np.asarray(other[1:], dtype=float)
    difference = first - second
    if not difference.size or not np.any(np.abs(difference) > 1e-12):
        return 0.0

    def covariance(shares: "np.ndarray") -> "np.ndarray":
        return np.diag(shares) - np.outer(shares, shares)

    mean = (covariance(first) + covariance(second)) / 2
    # a value that nobody has makes the matrix singular: the pseudo-inverse leaves it out
    inverse = np.linalg.pinv(mean, rcond=1e-10, hermitian=True)
    if np.linalg.norm(mean @ inverse @ difference - difference) > 1e-9:
        return float("inf")  # the groups share nothing
    return float(np.sqrt(max(0.0, difference @ inverse @ difference)))


def values(one: Variable, column: "pd.Series") -> list[Any]:
    """The values of a variable by which the table counts; of a number only that it is known."""
    if one.type in ("integer", "number"):
        return [True]
    return [True, False] if one.type == "boolean" else list(column.cat.categories)


def family(frame: "pd.DataFrame", one: Variable) -> Family:
    """The rows of a variable as parts of all patients; the last one is missing."""
    import numpy as np

    column = frame[one.variable]
    listed = values(one, column)
    codes = np.full(len(frame), len(listed))
    if one.type in ("integer", "number"):
        codes[column.notna().to_numpy()] = 0
    else:
        for place, value in enumerate(listed):
            codes[(column == value).fillna(False).to_numpy(dtype=bool)] = place
    return Family(one.variable, len(listed) + 1, codes)


def columns(frame: "pd.DataFrame", group: str, *, threshold: int) -> dict[str, bool]:
    """Of each group, and of all, whether its size may be shown.

    A group of fewer patients than the threshold has no column of its own, nor one that would give it away.
    """
    groups = [str(value) for value in frame[group].cat.categories]
    sizes = [int((frame[group] == value).sum()) for value in groups]
    sums = [[n] for n in range(len(groups))] + [list(range(len(groups)))]
    # how many patients there are stands in every table
    fixed = {len(groups)} if sum(sizes) >= threshold else set()
    hidden = protect(sizes, sums, threshold=threshold, fixed=fixed)
    return {name: not is_hidden for name, is_hidden in zip([*groups, ALL], hidden, strict=True)}


def table_one(
    frame: "pd.DataFrame",
    variables: Sequence[Variable],
    group: str,
    *,
    threshold: int,
    hidden: Mapping[str, Mapping[Place, bool]] | None = None,
) -> dict[str, Any]:
    """The table as plain values: per variable its rows, and per row what may be shown for each group and for all.

    `hidden` says of each number whether it is hidden, where other tables have a part in it (`together.hide`).
    """
    shown = columns(frame, group, threshold=threshold)
    groups = [name for name in shown if name != ALL]
    codes = frame[group].cat.codes.to_numpy()
    if hidden is None:
        families = [family(frame, one) for one in variables]
        hidden = hide(families, codes, [shown[name] for name in groups], whole=shown[ALL], threshold=threshold)
    people: dict[str, int | str] = {
        name: (len(frame) if name == ALL else int((frame[group] == name).sum())) if is_shown else HIDDEN
        for name, is_shown in shown.items()
    }
    rows = []
    for one in variables:
        own = family(frame, one)
        cells: list[list[int | None]] = []
        for part in range(own.parts):
            counts = [int(((own.codes == part) & (codes == place)).sum()) for place in range(len(groups))]
            cells.append(
                [
                    None if hidden[one.variable].get((part, place), True) else count
                    for place, count in [*enumerate(counts), (None, sum(counts))]
                ]
            )
        rows.append((_number if one.type in ("integer", "number") else _category)(frame, one, group, groups, cells))
    return {
        "group": group,
        "groups": groups,
        "small_cells": threshold,
        "patients": people,
        "variables": rows,
    }


def _category(
    frame: "pd.DataFrame", one: Variable, group: str, groups: Sequence[str], cells: Sequence[Sequence[int | None]]
) -> dict[str, Any]:
    column = frame[one.variable]
    listed = values(one, column)
    by_group = {name: column[frame[group] == name] for name in groups}
    counts = [[int((by_group[name] == value).sum()) for name in groups] for value in listed]
    labels = ["yes", "no"] if one.type == "boolean" else [str(value) for value in listed]
    sizes = [len(by_group[name]) for name in groups] + [len(frame)]
    rows = [
        {
            "value": label,
            **{
                name: HIDDEN if cell is None else {"n": cell, "share": round(cell / size, 3) if size else None}
                for name, cell, size in zip([*groups, ALL], line, sizes, strict=True)
            },
        }
        for label, line in zip([*labels, "missing"], cells, strict=True)
    ]
    known = [sum(line[place] for line in counts) for place in range(len(groups))]
    all_shown = all(cell is not None for line in cells for cell in line)
    shares = [[line[place] / known[place] for line in counts] if known[place] else None for place in range(len(groups))]
    pairs = [
        smd_shares(first, second)
        for first, second in combinations(shares, 2)
        if first is not None and second is not None
    ]
    return {
        "variable": one.variable,
        "label": one.label,
        "unit": one.unit,
        "kind": "category",
        "rows": rows,
        # from the shares of three groups a hidden count could be computed
        "smd": _largest(pairs) if all_shown else HIDDEN,
    }


def _number(
    frame: "pd.DataFrame", one: Variable, group: str, groups: Sequence[str], cells: Sequence[Sequence[int | None]]
) -> dict[str, Any]:
    import numpy as np

    column = frame[one.variable].astype("Float64")
    parts = [column[frame[group] == name].dropna().to_numpy(dtype=float) for name in groups]
    everyone = column.dropna().to_numpy(dtype=float)
    stats: dict[str, Any] = {"value": "mean (SD); median [quartiles]"}
    for name, part, known in zip([*groups, ALL], [*parts, everyone], cells[0], strict=True):
        # where the number of known values is hidden, so is what was computed from them
        if not known:
            stats[name] = HIDDEN if known is None else None
            continue
        low, middle, high = np.percentile(part, [25, 50, 75])
        stats[name] = {
            "n": known,
            "mean": _rounded(float(np.mean(part))),
            "sd": _rounded(float(np.std(part, ddof=1))),
            "median": _rounded(float(middle)),
            "quartiles": [_rounded(float(low)), _rounded(float(high))],
        }
    counts = {
        "value": "missing",
        **{name: HIDDEN if cell is None else {"n": cell} for name, cell in zip([*groups, ALL], cells[1], strict=True)},
    }
    enough = all(isinstance(stats[name], dict) for name in groups)
    pairs = [smd_means(first, second) for first, second in combinations(parts, 2)]
    return {
        "variable": one.variable,
        "label": one.label,
        "unit": one.unit,
        "kind": "number",
        "rows": [stats, counts],
        "smd": _largest(pairs) if enough else HIDDEN,
    }


def _largest(pairs: Sequence[float]) -> float | str | None:
    known = [pair for pair in pairs if pair == pair]
    if not known:
        return None
    most = max(known)
    return "infinite" if most == float("inf") else round(most, 3)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def write(table: Mapping[str, Any], title: str, folder: Path) -> None:
    """Write `table_one.json`, `.csv` and `.html`."""
    (folder / "table_one.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    names = [*table["groups"], ALL]
    with (folder / "table_one.csv").open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines, lineterminator="\n")
        rows.writerow(["variable", "unit", "value", *names, "largest_smd"])
        rows.writerow(["patients", "", "", *(table["patients"][name] for name in names), ""])
        for one in table["variables"]:
            for number, row in enumerate(one["rows"]):
                cells = [_words(row[name]) for name in names]
                rows.writerow([one["variable"], one["unit"], row["value"], *cells, _smd(one) if number == 0 else ""])
    (folder / "table_one.html").write_text(_page(table, names, title), encoding="utf-8")


def _smd(one: Mapping[str, Any]) -> str:
    return "" if one["smd"] is None else str(one["smd"])


def _words(cell: Any) -> str:
    """A cell as people read it."""
    if cell is None:
        return ""
    if not isinstance(cell, dict):
        return str(cell)
    if "mean" in cell:
        low, high = cell["quartiles"]
        return f"{cell['mean']:g} ({cell['sd']:g}); {cell['median']:g} [{low:g}, {high:g}]"
    share = cell.get("share")
    return f"{cell['n']}" if share is None else f"{cell['n']} ({share:.1%})"


def _page(table: Mapping[str, Any], names: Sequence[str], title: str) -> str:
    head = "".join(
        f'<th scope="col">{html.escape(name)}<br>n = {html.escape(str(table["patients"][name]))}</th>' for name in names
    )
    body = []
    for one in table["variables"]:
        label = html.escape(one["label"] + (f", {one['unit']}" if one["unit"] else ""))
        body.append(
            f'<tr><th scope="row">{label}</th><td></td>{"<td></td>" * len(names)}<td>{html.escape(_smd(one))}</td></tr>'
        )
        body += [
            f"<tr><td></td><td>{html.escape(row['value'])}</td>"
            + "".join(f"<td>{html.escape(_words(row[name]))}</td>" for name in names)
            + "<td></td></tr>"
            for row in one["rows"]
        ]
    rows = "\n".join(body)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Table one</title><style>{STYLE}</style></head><body>
<h1>Table one</h1>
<p>{html.escape(title)}</p>
<p>By {html.escape(table["group"])}. {HIDDEN} is a number below {table["small_cells"]}, or one that would give such a number away.
SMD: the largest standardised mean difference between any two groups; missing values enter none.</p>
<table><thead><tr><th scope="col">variable</th><th scope="col">value</th>{head}<th scope="col">SMD</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""
