"""The same Circe definitions on DuckDB and on the PostgreSQL that `palmares serve` filled: the same cohorts."""

from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts.circe import run
from omop_etl.cohorts.circe.engines import on_postgresql
from omop_etl.warehouse import serve
from tests.circe_helpers import warehouse
from tests.postgres import Cluster, needs_postgresql, postgresql

__all__ = ["postgresql"]
psycopg = pytest.importorskip("psycopg")
pytestmark = needs_postgresql
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples" / "circe").glob("*.json"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, postgresql: Cluster) -> Path:
    path = warehouse(tmp_path_factory.mktemp("circe") / "warehouse.duckdb")
    serve(path, postgresql.dsn)
    return path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_both_engines_select_the_same_periods(
    example: Path, database: Path, postgresql: Cluster, tmp_path: Path
) -> None:
    one = run(example, tmp_path / "duckdb", warehouse=database)
    other = run(example, tmp_path / "postgresql", postgresql=postgresql.dsn, schema="omop")
    assert (one.engine, other.engine) == ("duckdb", "postgresql")
    assert one.periods == other.periods > 0
    for name in ("cohort.parquet", "inclusion.csv", "definition.md"):
        assert (tmp_path / "duckdb" / name).read_bytes() == (tmp_path / "postgresql" / name).read_bytes(), name
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/postgresql/cohort.parquet'").fetchall() == [(one.periods,)]


def test_nothing_stays_in_postgresql(database: Path, postgresql: Cluster, tmp_path: Path) -> None:
    def tables() -> list[tuple]:
        with psycopg.connect(postgresql.dsn) as connection:
            return connection.execute(
                "SELECT schemaname, relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname <> 'pg_temp' ORDER BY 1, 2"
            ).fetchall()

    before = {row[:2] for row in tables()}
    run(EXAMPLES[0], tmp_path / "out", postgresql=postgresql.dsn)
    assert {row[:2] for row in tables()} == before


def test_a_schema_that_is_not_there_and_a_server_that_does_not_answer(postgresql: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-CIRCE-04"):
        run(EXAMPLES[0], tmp_path / "out", postgresql=postgresql.dsn, schema="elsewhere")
    with pytest.raises(PalmaresError, match="E-CIRCE-04"), on_postgresql(postgresql.dsn, 'x"; DROP SCHEMA omop'):
        pass
    with pytest.raises(PalmaresError, match="E-SERVE-01"):
        run(EXAMPLES[0], tmp_path / "out", postgresql="postgresql://nobody@127.0.0.1:1/postgres")
    assert not (tmp_path / "out").exists()
