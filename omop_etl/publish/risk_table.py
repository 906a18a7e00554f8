"""Numbers at risk by endpoint and group, as they stand below a survival curve; small numbers hidden as for the public."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from omop_etl.cohorts.small_cells import HIDDEN
from omop_etl.publish.counted import Hidden
from omop_etl.publish.small_cells import at_risk
from omop_etl.study.reading import literal

ALL = "all"


def risk_table(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    about: Mapping[str, Any],
    *,
    days_per_month: float,
    threshold: int,
    hidden: Hidden,
) -> list[dict[str, Any]]:
    """Per main endpoint, group and month the patients whose time is at least that long, from the datasets written in `folder`.

    The total is shown where every group's number is: elsewhere it would give a hidden one away. Of a group whose size is hidden,
    or the number of whose patients have the endpoint, nothing is shown.
    """
    months = [int(month) for month in about["months"]]
    group = str(about["group"])
    # the groups' sizes stand in table one: who has no endpoint must not follow from the difference
    sizes = dict(
        connection.execute(
            f'SELECT CAST("{group}" AS VARCHAR), count(*) FROM read_parquet(?) GROUP BY ALL',
            [str(folder / "baseline.parquet")],
        ).fetchall()
    )
    counts = ", ".join(f"count(*) FILTER (AVAL >= {month} * {days_per_month})" for month in months)
    found = connection.execute(
        f"""
        SELECT PARAMCD, CAST("{group}" AS VARCHAR) AS name, {counts}
        FROM read_parquet({literal(str(folder / "time_to_event.parquet"))})
        JOIN read_parquet({literal(str(folder / "baseline.parquet"))}) USING (patient)
        WHERE main AND "{group}" IS NOT NULL
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    rows = []
    for endpoint in dict.fromkeys(row[0] for row in found):
        groups = {row[1]: row[2:] for row in found if row[0] == endpoint}
        shown = {
            name: [None] * len(months)
            if _silent(hidden, endpoint, name, sizes[name], threshold)
            else at_risk([sizes[name], *numbers], threshold=threshold)[1:]
            for name, numbers in groups.items()
        }
        silent = _silent(hidden, endpoint, None, len(sizes), threshold)
        total = [
            sum(numbers[place] for numbers in groups.values())
            if not silent and all(one[place] is not None for one in shown.values())
            else None
            for place in range(len(months))
        ]
        for name, numbers in {**shown, ALL: total}.items():
            rows.append(
                {
                    "PARAMCD": endpoint,
                    "group": name,
                    "at_risk": {
                        str(month): HIDDEN if number is None else number
                        for month, number in zip(months, numbers, strict=True)
                    },
                }
            )
    return rows


def _silent(hidden: Hidden, endpoint: str, name: str | None, size: int, threshold: int) -> bool:
    """Whether the number of those who have the endpoint is hidden; of all groups without a name."""
    answers = hidden.endpoints[endpoint]
    if name is None:
        return answers.get((0, None), True)
    if any(group is not None for _, group in answers) or name in hidden.groups:
        return answers.get((0, hidden.groups.index(name)), True)
    return 0 < size < threshold


def write(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], folder: Path, *, threshold: int) -> None:
    """Write `at_risk.json` and `at_risk.csv` (one row per endpoint, group and month)."""
    table = {"group": about["group"], "unit": "months", "small_cells": threshold, "rows": list(rows)}
    (folder / "at_risk.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with (folder / "at_risk.csv").open("w", encoding="utf-8", newline="") as lines:
        out = csv.writer(lines, lineterminator="\n")
        out.writerow(["PARAMCD", "group", "month", "at_risk"])
        for row in rows:
            for month, number in row["at_risk"].items():
                out.writerow([row["PARAMCD"], row["group"], month, number])
