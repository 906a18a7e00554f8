"""Great Expectations on DuckDB: the fluent data source that GX lacks, and GX itself, imported without noise or telemetry.

`context.data_sources.add_or_update_duckdb(name=..., connection_string="duckdb:///file")` is there once this module is imported.
GX closes its connection before it has fetched from DuckDB, so the engine keeps one open, as GX does for SQLite. The module
must be imported by its name: GX looks the classes up where they were defined.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # nothing about a hospital's run leaves it
for _name in ("great_expectations", "posthog"):
    logging.getLogger(_name).setLevel(logging.ERROR)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside GX and what it imports are not the reader's business
    import great_expectations as gx
    from great_expectations.datasource.fluent import SQLDatasource
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine

__all__ = ["DuckDBDatasource", "DuckDBExecutionEngine", "gx"]

_EngineClass = type[SqlAlchemyExecutionEngine]  # inside the data source the word `type` is GX's name of it


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """GX's SQL engine with one connection that stays open."""

    @contextmanager
    def get_connection(self) -> Iterator[Any]:
        if not self._connection:
            self._connection = self.engine.connect()
        yield self._connection

    def close(self) -> None:
        """Close the connection and let go of the file."""
        if self._connection:
            self._connection.close()
            self._connection = None
        self.engine.dispose()


class DuckDBDatasource(SQLDatasource):
    """A DuckDB file as a GX data source."""

    type: Literal["duckdb"] = "duckdb"  # type: ignore[assignment]  # GX's own sources do the same

    @property
    def execution_engine_type(self) -> _EngineClass:
        return DuckDBExecutionEngine

    def close(self) -> None:
        """Let go of the file: what GX opened to validate, and what it opened to see that the file is there."""
        self.get_execution_engine().close()
        self.get_engine().dispose()
