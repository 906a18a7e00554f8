"""Our own expectation, written the way of Great Expectations: a metric that is computed once per batch, and a bound on it.

The metric `table.violations` reads the counts that `counting.py` made (numerator and denominator per check; never a value),
so that 400 expectations on a table cost one query.
"""

from typing import Any, ClassVar

import sqlalchemy as sa

from omop_etl.gates import duckdb_source  # noqa: F401  GX is first imported there, quietly
from omop_etl.gates.definitions import verdict_of

# isort: split
from great_expectations.compatibility import pydantic
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider
from great_expectations.render.renderer_configuration import RendererConfiguration, RendererValueType

COUNTS_TABLE = "check_count"
METRIC = "table.violations"


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


class ExpectViolationsWithinThreshold(BatchExpectation):
    """Expect the share of rows (or persons) that break a rule to be at most what the check bears.

    `warn` and `block` are percentages; the expectation fails above the lower of them. Its result holds the two counts and
    the verdict, and no row and no value.
    """

    code: str
    title: str
    unit: str
    warn: float | None = None
    block: float | None = None

    metric_dependencies: ClassVar[tuple[str, ...]] = (METRIC,)
    success_keys: ClassVar[tuple[str, ...]] = ("code", "title", "unit", "warn", "block")
    args_keys: ClassVar[tuple[str, ...]] = ("code", "title", "unit", "warn", "block")

    @pydantic.root_validator(skip_on_failure=True)
    def _bounds_in_order(cls, values: dict[str, Any]) -> dict[str, Any]:
        warn, block = values.get("warn"), values.get("block")
        if warn is not None and block is not None and warn > block:
            raise ValueError(f"{values['code']}: warn is above block")
        return values

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: Any = None,
    ) -> dict[str, Any]:
        numerator, denominator = metrics[METRIC][self.code]
        verdict = verdict_of(numerator, denominator, self.warn, self.block)
        return {
            "success": verdict == "PASS",
            "result": {
                "observed_value": f"{numerator} of {denominator}",
                "details": {"numerator": numerator, "denominator": denominator, "verdict": verdict},
            },
        }

    @classmethod
    def _prescriptive_template(cls, renderer_configuration: RendererConfiguration) -> RendererConfiguration:
        for name in ("code", "title", "unit"):
            renderer_configuration.add_param(name=name, param_type=RendererValueType.STRING)
        for name in ("warn", "block"):
            renderer_configuration.add_param(name=name, param_type=RendererValueType.NUMBER)
        renderer_configuration.template_str = "$code $title"
        return renderer_configuration
