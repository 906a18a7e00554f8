"""Our own expectation, written the way of Great Expectations: a metric that is computed once per batch, and a bound on it.

The metric `table.violations` reads the counts that `counting.py` made (numerator and denominator per check; never a value),
so that 400 expectations on a table cost one query.
"""

import json
from functools import lru_cache
from typing import Any, ClassVar

import sqlalchemy as sa

from omop_etl.gates import duckdb_source  # noqa: F401  GX is first imported there, quietly
from omop_etl.gates.definitions import verdict_of

# isort: split
from great_expectations.compatibility import pydantic
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from great_expectations.render.renderer_configuration import RendererConfiguration, RendererValueType

COUNTS_TABLE = "check_count"
METRIC = "table.violations"
_TYPE = "expect_violations_within_thresholds"


@lru_cache(maxsize=4096)
def checks_of(text: str) -> list[dict[str, Any]]:
    """The checks of an expectation, from its argument."""
    return list(json.loads(text))


def details_of(result: Any) -> dict[str, dict[str, Any]]:
    """Code → numerator, denominator and verdict, from an expectation's result."""
    return dict(json.loads(result.result["details"]["checks"]))


class TableViolations(TableMetricProvider):
    """Code → (numerator, denominator), for all checks of the slice."""

    metric_name = METRIC

    @metric_value(engine=SqlAlchemyExecutionEngine)
    def _sqlalchemy(
        cls,
        execution_engine: SqlAlchemyExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> dict[str, tuple[int, int]]:
        rows = execution_engine.execute_query(sa.text(f"SELECT code, numerator, denominator FROM {COUNTS_TABLE}"))
        return {code: (numerator, denominator) for code, numerator, denominator in rows.fetchall()}


class ExpectViolationsWithinThresholds(BatchExpectation):
    """Expect, for each check of one kind on this table, the share of rows (or persons) that break it to be at most what it bears.

    A kind is one of OHDSI's check types (`G-REQUIRED`) or one check of the study. `checks` is a JSON list of its checks, each with code,
    title, unit, `warn` and `block` in percent, the fewest violations (`least`) that may block, and who lets it through, if anyone
    does: as text, since GX copies and serializes every argument some thirty times per run. The expectation fails when one of them is
    above the lower of its two. Its result holds per check the two counts and the verdict (`details["checks"]`, JSON too), and no
    row and no value.
    """

    kind: str
    title: str
    checks: str

    metric_dependencies: ClassVar[tuple[str, ...]] = (METRIC,)
    success_keys: ClassVar[tuple[str, ...]] = ("kind", "title", "checks")
    args_keys: ClassVar[tuple[str, ...]] = ("kind", "title", "checks")

    @pydantic.validator("checks")
    def _bounds_in_order(cls, checks: str) -> str:
        for check in checks_of(checks):
            warn, block = check.get("warn"), check.get("block")
            if warn is not None and block is not None and warn > block:
                raise ValueError(f"{check['code']}: warn is above block")
        return checks

    @property
    def configuration(self) -> ExpectationConfiguration:
        """As GX makes it, without copying every field first: it asks for it some thirty times per run."""
        return ExpectationConfiguration(
            type=_TYPE,
            kwargs={key: getattr(self, key) for key in self.success_keys},
            meta=self.meta,
            notes=self.notes,
            description=self.description,
            severity=self.severity,
            id=self.id,
            rendered_content=self.rendered_content,
        )

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: Any = None,
    ) -> dict[str, Any]:
        counted = metrics[METRIC]
        details = {}
        for check in checks_of(self.checks):
            numerator, denominator = counted[check["code"]]
            verdict = verdict_of(numerator, denominator, check["warn"], check["block"], check["least"])
            if verdict == "BLOCK" and check.get("let_through"):
                verdict = "WARN"
            details[check["code"]] = {"numerator": numerator, "denominator": denominator, "verdict": verdict}
        broken = sum(one["verdict"] != "PASS" for one in details.values())
        return {
            "success": not broken,
            "result": {
                "observed_value": f"{broken} of {len(details)} checks broken",
                "details": {"checks": json.dumps(details)},
            },
        }

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: RendererConfiguration) -> RendererConfiguration:
        for name in ("kind", "title"):
            renderer_configuration.add_param(name=name, param_type=RendererValueType.STRING)
        renderer_configuration.template_str = "$kind $title"
        return renderer_configuration
