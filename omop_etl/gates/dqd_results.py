"""The counts as OHDSI's Data Quality Dashboard writes its results, so that its viewers read them.

Every check of the dashboard that is made for the tables at hand is in it; what has nothing to look at is "not applicable", by the
dashboard's own rules: its table is missing or empty, its column is missing or holds no value, its concept does not occur.
So is what is not counted in a table whose columns are not the CDM's.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from omop_etl.gates.counting import Count, Counter
from omop_etl.gates.definitions import Check, Definitions
from omop_etl.gates.relations import Relations

FILE = "dqd_results.json"
_ALWAYS = ("cdmTable",)
_SECONDS = "counted together with the other checks of its table"


def results(
    counts: Iterable[Count],
    counter: Counter,
    relations: Relations,
    defined: Definitions,
    *,
    started: datetime,
    ended: datetime,
) -> dict[str, Any]:
    """The document: CheckResults, Metadata, Overview and the times of the run."""
    by_code = {count.check.code: count for count in counts}
    checks = [check for check in defined.checks if check.dqd and check.table in relations.tables]
    empty = {
        (count.check.table, count.check.column)
        for count in by_code.values()
        if count.check.dqd == "measureValueCompleteness" and count.numerator == count.denominator
    }
    found = [_result(check, by_code.get(check.code), counter, relations, defined, empty) for check in checks]
    seconds = (ended - started).total_seconds()
    return {
        "startTimestamp": started.strftime("%Y-%m-%d %H:%M:%S"),
        "endTimestamp": ended.strftime("%Y-%m-%d %H:%M:%S"),
        "executionTime": f"{seconds:.0f} secs",
        "CheckResults": found,
        "Metadata": _metadata(relations, defined),
        "Overview": overview(found),
    }


def write(document: dict[str, Any], path: Path) -> None:
    """Write the document."""
    path.write_bytes(orjson.dumps(document) + b"\n")


def _result(
    check: Check,
    count: Count | None,
    counter: Counter,
    relations: Relations,
    defined: Definitions,
    empty: set[tuple[str, str]],
) -> dict[str, Any]:
    numerator, denominator = (count.numerator, count.denominator) if count else (0, 0)
    if check.dqd == "cdmTable" and count is None:
        numerator, denominator = 1, 1  # it is not there, and need not be for us
    share = numerator / denominator if denominator else 0.0
    threshold = check.ohdsi_threshold
    failed = numerator > 0 if not threshold else 100 * share > threshold
    reason = _not_applicable(check, count, relations, empty)
    failed = failed and reason is None
    level = check.level
    parts = (level, check.dqd, check.table, check.column, check.concept_ids)
    return {
        "numViolatedRows": numerator,
        "pctViolatedRows": share,
        "numDenominatorRows": denominator,
        "executionTime": _SECONDS,
        "queryText": "" if check.structural else counter.rows_of(check),
        "checkName": check.dqd,
        "checkLevel": level,
        "checkDescription": check.title,
        "cdmTableName": check.table.upper(),
        "cdmFieldName": check.column.upper() or None,
        "conceptId": check.concept_ids or None,
        "unitConceptId": None,
        "sqlFile": f"{check.family}.sql",
        "category": check.category,
        "subcategory": check.subcategory,
        "context": "Validation" if check.dqd in defined.validation else "Verification",
        "warning": None,
        "error": None,
        "checkId": "_".join(part for part in parts if part).lower(),
        "failed": int(failed),
        "passed": int(not failed and reason is None),
        "isError": 0,
        "notApplicable": int(reason is not None),
        "notApplicableReason": reason,
        "thresholdValue": threshold,
        "notesValue": None,
    }


def _not_applicable(check: Check, count: Count | None, relations: Relations, empty: set[tuple[str, str]]) -> str | None:
    """Why a check says nothing; None when it does."""
    table = check.table.upper()
    if check.dqd in _ALWAYS:
        return None
    if check.table not in relations.found:
        return f"Table {table} does not exist."
    if check.dqd == "cdmField":
        return None
    if check.column and check.column not in relations.found[check.table]:
        return f"Field {table}.{check.column.upper()} does not exist."
    if check.dqd == "measurePersonCompleteness":
        return None
    if check.dqd == "measureConditionEraCompleteness":
        return None if relations.rows.get("condition_occurrence") else "Table CONDITION_OCCURRENCE is empty."
    if relations.wrong.get(check.table):
        # its rows are not looked at (G-COLUMNS says why), but what stands in a column of another type was counted
        return None if check.dqd == "cdmDatatype" and count else f"The columns of table {table} are not the CDM's."
    if not relations.rows.get(check.table):
        return f"Table {table} is empty."
    if check.dqd == "measureValueCompleteness":
        return None
    if (check.table, check.column) in empty:
        return f"Field {table}.{check.column.upper()} is not populated."
    if count is None or (check.concept_ids and not count.denominator):
        return f"{check.column.upper()}={check.concept_ids} is missing from the {table} table."
    return None


def _metadata(relations: Relations, defined: Definitions) -> list[dict[str, Any]]:
    """The rows of cdm_source, as the viewers name their columns."""
    answer = relations.run("SELECT * FROM cdm_source")
    names = [_camel(column[0]) for column in answer.description or ()]
    rows = answer.fetchall() or [tuple(None for _ in names)]
    return [
        dict(zip(names, (str(value) if value is not None else None for value in row), strict=True))
        | {"dqdVersion": defined.ohdsi_release}
        for row in rows
    ]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def overview(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The dashboard's own summary: how many checks there are, passed and failed, in all and per category of Kahn's."""
    failed = sum(one["failed"] for one in found)
    errors = sum(one["isError"] for one in found)
    total = len(found)
    passed = total - failed - errors
    said: dict[str, Any] = {
        "countTotal": total,
        "countPassed": passed,
        "countErrorFailed": errors,
        "countThresholdFailed": failed,
        "countOverallFailed": failed + errors,
        "percentPassed": round(100 * passed / total, 2) if total else 0.0,
        "percentFailed": round(100 * (failed + errors) / total, 2) if total else 0.0,
    }
    for category in ("Plausibility", "Conformance", "Completeness"):
        own = [one for one in found if one["category"] == category]
        said[f"countTotal{category}"] = len(own)
        said[f"countFailed{category}"] = sum(one["failed"] for one in own)
        said[f"countPassed{category}"] = sum(one["passed"] for one in own)
    return said
