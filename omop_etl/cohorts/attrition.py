"""Attrition: who is counted out at which criterion, in the order of the table; it always adds up."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts.small_cells import HIDDEN, suppress
from omop_etl.study.rules import Study


@dataclass(frozen=True)
class Step:
    """One criterion: how many persons came to it, how many it counted out for which reason, how many are left."""

    number: int
    name: str
    sentence: str
    came: int
    reasons: tuple[tuple[str, int], ...]
    left: int

    @property
    def excluded(self) -> int:
        return self.came - self.left


def attrition(connection: duckdb.DuckDBPyConnection, study: Study) -> list[Step]:
    """The exact steps, from the tables that `evaluate` made. Raises E-COHORT-01 when they do not add up."""
    counts = connection.execute(
        "SELECT failed, failed_reason, count(*) FROM verdict WHERE NOT eligible GROUP BY ALL"
    ).fetchall()
    # in the order of reasons.csv: an order by size would tell of the hidden ones
    order = [(one.criterion, one.code) for one in study.reasons]
    counts.sort(key=lambda row: order.index((row[0], row[1])))
    total, eligible = connection.execute("SELECT count(*), count(*) FILTER (eligible) FROM verdict").fetchone() or (
        0,
        0,
    )
    steps, came = [], total
    for criterion in study.criteria:
        reasons = tuple((reason, n) for failed, reason, n in counts if failed == criterion.number)
        left = came - sum(n for _, n in reasons)
        steps.append(Step(criterion.number, criterion.name, criterion.sentence, came, reasons, left))
        came = left
    if came != eligible:
        raise PalmaresError(
            "E-COHORT-01", study.name, count=abs(came - eligible), detail="the attrition does not add up"
        )
    return steps


def shown(steps: Sequence[Step], study: Study, *, public: bool) -> dict[str, Any]:
    """The attrition as it may be shown inside, or in public: every hidden number reads '*', small itself or hidden to
    protect another. To tell them apart would give some away."""
    threshold = study.thresholds["public" if public else "inside"]
    total = steps[0].came if steps else 0
    hidden = suppress(total, [[n for _, n in step.reasons] for step in steps], threshold=threshold)

    def say(may: int | None) -> int | str:
        return HIDDEN if may is None else may

    lines = []
    came: int | None = hidden.total
    for step, cells, left in zip(steps, hidden.cells, hidden.left, strict=True):
        # the difference of two numbers that are shown, or the sum of some that are
        told = (came is not None and left is not None) or None not in cells
        lines.append(
            {
                "criterion": step.number,
                "name": step.name,
                "sentence": step.sentence,
                "came": say(came),
                "excluded": say(step.excluded if told else None),
                "reasons": [
                    {"reason": reason, "persons": say(cell), "explanation": _explanation(study, step.number, reason)}
                    for (reason, _), cell in zip(step.reasons, cells, strict=True)
                ],
                "left": say(left),
            }
        )
        came = left
    return {
        "study": study.name,
        "title": study.title,
        "registry": study.registry,
        "variant": study.variant,
        "small_cells": threshold,
        "persons": say(hidden.total),
        "eligible": lines[-1]["left"] if lines else 0,
        "steps": lines,
    }


def _explanation(study: Study, criterion: int, code: str) -> str:
    reason = study.reason(criterion, code)
    return reason.explanation if reason else ""


def write_csv(table: dict[str, Any], path: Path) -> None:
    """One row per criterion and reason of exclusion; a criterion that counts no one out has one row without a reason."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines, lineterminator="\n")
        rows.writerow(["criterion", "sentence", "came", "reason", "excluded_for_reason", "excluded", "left"])
        for step in table["steps"]:
            for reason in step["reasons"] or [{"reason": "", "persons": 0}]:
                rows.writerow(
                    [
                        step["criterion"], step["sentence"], step["came"], reason["reason"], reason["persons"],
                        step["excluded"], step["left"],
                    ]
                )  # fmt: skip
