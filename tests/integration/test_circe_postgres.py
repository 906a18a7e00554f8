"""The same Circe definitions on DuckDB and on the PostgreSQL that `palmares serve` filled: the same cohorts."""

from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts.circe import run
from omop_etl.cohorts.circe.engines import on_postgresql
from omop_etl.warehouse import serve
from tests.circe_helpers import EXPECTED, warehouse
from tests.postgres import Cluster, needs_postgresql, postgresql

__all__ = ["postgresql"]
psycopg = pytest.importorskip("psycopg")
pytestmark = [pytest.mark.long, needs_postgresql]
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples" / "circe").glob("*.json"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, postgresql: Cluster) -> Path:
    path = warehouse(tmp_path_factory.mktemp("circe") / "warehouse.duckdb")
    serve(path, postgresql.dsn)
    return path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_postgresql_selects_what_the_plain_sql_selects_as_duckdb_does(
    example: Path, database: Path, postgresql: Cluster, tmp_path: Path
) -> None:
    """DuckDB is held against the same plain SQL in tests/unit/cohorts/test_circe.py; here one example byte for byte too."""
    found = run(example, tmp_path / "postgresql", postgresql=postgresql.dsn, schema="omop")
    with duckdb.connect(str(database), read_only=True) as connection:
        expected = sorted(connection.execute(EXPECTED[example.stem]).fetchall())
    rows = duckdb.sql(f"FROM '{tmp_path}/postgresql/cohort.parquet' ORDER BY ALL").fetchall()
    assert found.engine == "postgresql"
    assert [row[1:] for row in rows] == expected
    assert expected
    if example == EXAMPLES[-1]:
        run(example, tmp_path / "duckdb", warehouse=database)
        for name in ("cohort.parquet", "inclusion.csv", "definition.md"):
            assert (tmp_path / "duckdb" / name).read_bytes() == (tmp_path / "postgresql" / name).read_bytes(), name


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
