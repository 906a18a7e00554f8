"""What an OperationOutcome may say in a message: severity and code, both from FHIR's closed lists; never its text."""

import csv
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

SEVERE = ("fatal", "error")


@cache
def _codes() -> frozenset[str]:
    with Path(__file__).with_name("issue_types.csv").open(encoding="utf-8", newline="") as lines:
        return frozenset(row["code"] for row in csv.DictReader(lines))


def issues(document: Any) -> Counter[tuple[str, str]]:
    """How often each (severity, code) stands in an OperationOutcome; a word that FHIR does not know counts as `unknown`."""
    found: Counter[tuple[str, str]] = Counter()
    listed = document.get("issue") if isinstance(document, dict) else None
    for issue in listed if isinstance(listed, list) else ():
        if isinstance(issue, dict):
            severity, code = issue.get("severity"), issue.get("code")
            found[
                severity if severity in ("fatal", "error", "warning", "information") else "unknown",
                code if isinstance(code, str) and code in _codes() else "unknown",
            ] += 1
    return found


def words(found: Counter[tuple[str, str]]) -> str:
    """The severe ones for a message, e.g. `error not-supported (2)`; the others where none is severe."""
    severe = {key: count for key, count in found.items() if key[0] in SEVERE} or found
    return ", ".join(f"{severity} {code} ({count})" for (severity, code), count in sorted(severe.items()))
