"""The counts of a slice, validated by Great Expectations: one suite per table, and Data Docs beside the verdict.

GX is imported here and takes seconds, so this module is imported by those who gate, when they gate.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from omop_etl.gates.counting import Count
from omop_etl.gates.definitions import Check
from omop_etl.gates.duckdb_source import gx
from omop_etl.gates.expectations import COUNTS_TABLE, ExpectViolationsWithinThresholds, details_of
from omop_etl.gates.overrides import Override, applied

# isort: split
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.metadata_types import FailureSeverity

_SEVERITY = {
    "BLOCK": FailureSeverity.CRITICAL,
    "WARN": FailureSeverity.WARNING,
    "REPORT": FailureSeverity.INFO,
}
_TOLD = ("code", "title", "unit", "warn", "block", "least")
_WORST = ("REPORT", "WARN", "BLOCK")
_PAGES = "omop_etl.gates.data_docs"
SITE_NAME = "gate"
_WHOLE = "whole"


def write_counts(connection: duckdb.DuckDBPyConnection, counts: Sequence[Count]) -> None:
    """Put the counts where the metric of our expectation reads them."""
    connection.execute(f"CREATE TABLE {COUNTS_TABLE} (code VARCHAR, numerator BIGINT, denominator BIGINT)")
    if counts:
        rows = ", ".join(f"('{one.check.code}', {one.numerator}, {one.denominator})" for one in counts)
        connection.execute(f"INSERT INTO {COUNTS_TABLE} VALUES {rows}")


def validate(
    database: Path, counts: Sequence[Count], docs: Path, *, site: str, overrides: Sequence[Override] = ()
) -> dict[str, str]:
    """Run every check in an expectation on its table in the DuckDB file `database`; code → PASS, WARN or BLOCK.

    A BLOCK that one of the overrides lets through is a WARN. Builds the Data Docs into `docs`. They hold counts and the words of
    checks.toml, nothing of the slice.
    """
    context = _context(docs)
    tables = list(dict.fromkeys(count.check.table for count in counts))
    # all assets at once: each one added by itself would write the whole configuration anew
    assets = [
        {"name": table, "type": "table", "table_name": table, "batch_definitions": [{"name": _WHOLE}]}
        for table in tables
    ]
    source = context.data_sources.add_or_update_duckdb(
        name=site, connection_string=f"duckdb:///{database}", assets=assets
    )
    run = RunIdentifier(run_name=SITE_NAME)
    verdicts: dict[str, str] = {}
    try:
        for table in tables:
            suite = gx.ExpectationSuite(name=table)
            kinds: dict[str, list[Check]] = {}
            for count in counts:
                if count.check.table == table:
                    kinds.setdefault(count.check.family, []).append(count.check)
            suite.expectations = [_expectation(kind, checks, overrides) for kind, checks in kinds.items()]
            whole = source.get_asset(table).get_batch_definition(_WHOLE)
            definition = gx.ValidationDefinition(name=table, data=whole, suite=context.suites.add(suite))
            validated = context.validation_definitions.add(definition).run(result_format="BASIC", run_id=run)
            verdicts |= _verdicts(validated)
    finally:
        source.close()
    context.build_data_docs(site_names=[SITE_NAME])
    return verdicts


def _expectation(kind: str, checks: list[Check], overrides: Sequence[Override]) -> ExpectViolationsWithinThresholds:
    """One expectation for the checks of one kind on one table: a suite of a dozen is read and run, one of a thousand is not."""
    first = checks[0]
    return ExpectViolationsWithinThresholds(
        kind=kind,
        title=first.title if len(checks) == 1 else f"{first.category}: {len(checks)} checks of {first.table}",
        checks=json.dumps([_told(check, overrides) for check in checks]),
        severity=_SEVERITY[max((check.severity for check in checks), key=_WORST.index)],
        meta={
            "category": first.category,
            "dqd": first.dqd,
            "explanation": first.explanation,
            "remedy": first.remedy,
        },
    )


def _told(check: Check, overrides: Sequence[Override]) -> dict[str, Any]:
    """What the expectation knows of a check."""
    override = applied(overrides, check.code)
    said = {name: getattr(check, name) for name in _TOLD}
    return said | ({"let_through": f"{override.by}, until {override.until}: {override.reason}"} if override else {})


def _verdicts(validated: Any) -> dict[str, str]:
    """Code → verdict, of one suite's results."""
    verdicts: dict[str, str] = {}
    for result in validated.results:
        if result.exception_info and result.exception_info.get("raised_exception"):
            raise RuntimeError(f"Great Expectations could not validate {validated.suite_name}")
        verdicts |= {code: one["verdict"] for code, one in details_of(result).items()}
    return verdicts


def _context(docs: Path) -> Any:
    """A GX context that keeps nothing, phones nobody, and whose only Data Docs are ours."""
    own = {"module_name": _PAGES, "class_name": "OfflineView"}

    def section(store: str, renderer: str) -> dict[str, Any]:
        return {
            "class_name": "DefaultSiteSectionBuilder",
            "source_store_name": store,
            "renderer": {"module_name": _PAGES, "class_name": renderer},
            "view": own,
        }

    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    return gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
            data_docs_sites={
                SITE_NAME: {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": backend,
                    "site_section_builders": {
                        "expectations": section("expectations_store", "SuitePage"),
                        "validations": section("validation_results_store", "ResultPage"),
                        "profiling": "None",
                    },
                    "site_index_builder": {
                        "class_name": "DefaultSiteIndexBuilder",
                        "renderer": {"module_name": _PAGES, "class_name": "IndexPage"},
                        "view": own,
                    },
                }
            },
        ),
    )
