"""Warehouses and rows for tests of datasets and locks: the tables of `tests/derive_helpers.py`, and those of images."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pandas as pd

from omop_etl import cdm
from omop_etl.cohorts import run
from omop_etl.cohorts.eligibility import evaluate
from omop_etl.derive.rules import Rules, apply
from omop_etl.publish import release
from omop_etl.publish.datasets import lay_out, load_datasets, stage, write_dataset
from tests import derive_helpers
from tests.cohort_helpers import registry
from tests.warehouses import Event

# the derived tables as deriving leaves them on its own connection
FRESH = {
    "line": "line_with_episode",
    "endpoint": "endpoint",
    "progression": "(SELECT *, day AS date FROM declared_progression)",
    "state": "state",
}


def connect(what: Iterable[Event] = (), path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A warehouse with these events and all that datasets read."""
    connection = derive_helpers.connect(what, path)
    for statement in cdm.ddl("duckdb", ("image_occurrence", "image_feature"), keys=False):
        connection.execute(statement)
    return connection


def write(what: Iterable[Event], path: Path) -> Path:
    """A warehouse file with these events."""
    connect(what, path).close()
    return path


def released(what: Iterable[Event], folder: Path) -> Path:
    """Warehouse, cohort and release of these events below `folder`; the release's folder."""
    write(what, folder / "warehouse.duckdb")
    run(folder / "warehouse.duckdb", folder / "cohort")
    release(folder / "warehouse.duckdb", folder / "cohort", folder / "release")
    return folder / "release"


def registry_released(folder: Path) -> Path:
    """The small registry of `tests/cohort_helpers.py`, released."""
    return released(registry(), folder)


def laid_out(connection: duckdb.DuckDBPyConnection, what: Iterable[Event], rules: Rules) -> None:
    """Fill the warehouse with these events, derive, answer eligibility and lay the datasets' tables out."""
    derive_helpers.fill(connection, what)
    apply(connection, rules)
    evaluate(connection, rules.study)
    lay_out(connection, rules, FRESH, salt="salt")


def frame(connection: duckdb.DuckDBPyConnection, rules: Rules, name: str) -> pd.DataFrame:
    """A dataset's rows as its user reads them."""
    dataset = next(one for one in load_datasets(rules) if one.name == name)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(connection, dataset, Path(folder), Path(folder) / "spill")
        return pd.read_parquet(Path(folder) / f"{name}.parquet")


__all__ = ["FRESH", "connect", "frame", "laid_out", "registry_released", "released", "stage", "write"]
