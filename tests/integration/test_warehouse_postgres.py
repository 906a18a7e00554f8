"""The warehouse in a real PostgreSQL: loaded bare, keyed, swapped in by rename; readers keep what they read."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.cdm import tables
from omop_etl.warehouse import build, serve
from tests.gate_helpers import vocabulary
from tests.postgres import Cluster, needs_postgresql, postgresql
from tests.slices import FILLED, clean_rows, write_slice

__all__ = ["postgresql", "vocabulary"]
psycopg = pytest.importorskip("psycopg")
pytestmark = needs_postgresql


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> tuple[Path, Path]:
    """One of one site, one of two."""
    home = tmp_path_factory.mktemp("warehouses")
    slices = [write_slice(home / site, clean_rows(site, persons=2), site=site) for site in ("altra", "prova")]
    build(slices[:1], home / "one.duckdb", vocabulary=vocabulary)
    build(slices, home / "two.duckdb", vocabulary=vocabulary)
    return home / "one.duckdb", home / "two.duckdb"


@pytest.fixture
def reader(postgresql: Cluster) -> Iterator["psycopg.Connection"]:
    with psycopg.connect(postgresql.dsn) as connection:
        yield connection


def schemas(connection: "psycopg.Connection") -> set[str]:
    found = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public)'"
    ).fetchall()
    connection.commit()
    return {row[0] for row in found}


def test_every_table_with_every_row(
    postgresql: Cluster, warehouses: tuple[Path, Path], reader: "psycopg.Connection"
) -> None:
    served = serve(warehouses[1], postgresql.dsn)
    assert served.schema == "omop"
    with duckdb.connect(str(warehouses[1]), read_only=True) as source:
        for name in FILLED:
            expected = source.execute(f'FROM main."{name}" ORDER BY ALL').fetchall()
            order = ", ".join(f'"{column}"' for column in tables()[name].names)
            found = reader.execute(f'SELECT {order} FROM omop."{name}" ORDER BY {order}').fetchall()
            assert sorted(map(repr, found)) == sorted(map(repr, expected)), name
            assert served.tables.get(name, 0) == len(expected)
    found = reader.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'omop'").fetchone()
    assert found == (len(tables()),)
    assert schemas(reader) == {"omop"}


def test_keys_and_indexes_stand(
    postgresql: Cluster, warehouses: tuple[Path, Path], reader: "psycopg.Connection"
) -> None:
    served = serve(warehouses[1], postgresql.dsn)
    kinds = dict(
        reader.execute(
            "SELECT contype::text, count(*) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace "
            "WHERE n.nspname = 'omop' GROUP BY 1"
        ).fetchall()
    )
    assert kinds["p"] == sum(table.primary_key is not None for table in tables().values())
    references = sum(bool(column.references) for table in tables().values() for column in table.columns)
    assert kinds["f"] + len(served.broken_references) == references
    assert "measurement.person_id" not in served.broken_references
    assert "measurement.measurement_concept_id" not in served.broken_references
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        reader.execute("UPDATE omop.measurement SET person_id = 1")
    reader.rollback()
    with pytest.raises(psycopg.errors.NotNullViolation):
        reader.execute("UPDATE omop.measurement SET person_id = NULL")


def test_a_reference_that_the_data_break_is_left_out_and_named(
    postgresql: Cluster, vocabulary: Path, tmp_path: Path
) -> None:
    rows = clean_rows()
    rows["measurement"][0]["visit_occurrence_id"] = 4711
    build([write_slice(tmp_path / "slice", rows)], tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    served = serve(tmp_path / "warehouse.duckdb", postgresql.dsn, "broken")
    assert "measurement.visit_occurrence_id" in served.broken_references


def test_readers_keep_what_they_read_until_they_finish(
    postgresql: Cluster, warehouses: tuple[Path, Path], reader: "psycopg.Connection"
) -> None:
    serve(warehouses[0], postgresql.dsn)
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("DECLARE slow CURSOR FOR SELECT person_id FROM omop.measurement")
    there = len(reader.execute("SELECT 1 FROM omop.measurement").fetchall())
    reader.execute("FETCH 1 FROM slow").fetchall()
    serve(warehouses[1], postgresql.dsn)
    with psycopg.connect(postgresql.dsn) as other:
        assert other.execute("SELECT count(*) FROM omop.person").fetchone() == (4,)
        other.commit()
        assert schemas(other) >= {"omop", "omop_old"}, "the old tables wait for their reader"
    assert len(reader.execute("FETCH ALL FROM slow").fetchall()) == there - 1
    reader.rollback()
    serve(warehouses[0], postgresql.dsn)
    assert "omop_old" not in schemas(reader)
    assert reader.execute("SELECT count(*) FROM omop.person").fetchone() == (2,)


def test_who_might_read_may_still_read(
    postgresql: Cluster, warehouses: tuple[Path, Path], reader: "psycopg.Connection"
) -> None:
    serve(warehouses[0], postgresql.dsn)
    reader.execute("CREATE ROLE analyst LOGIN")
    reader.execute("GRANT USAGE ON SCHEMA omop TO analyst")
    reader.execute("GRANT SELECT ON ALL TABLES IN SCHEMA omop TO analyst")
    reader.commit()
    serve(warehouses[1], postgresql.dsn)
    as_analyst = postgresql.dsn.replace("palmares@", "analyst@")
    with psycopg.connect(as_analyst) as analyst:
        assert analyst.execute("SELECT count(*) FROM omop.person").fetchone() == (4,)
    with pytest.raises(PalmaresError, match="E-SERVE-01") as raised:
        serve(warehouses[1], as_analyst)
    assert "analyst" not in str(raised.value)


def test_what_postgresql_refuses_leaves_what_was_served(
    postgresql: Cluster, warehouses: tuple[Path, Path], vocabulary: Path, tmp_path: Path, reader: "psycopg.Connection"
) -> None:
    serve(warehouses[0], postgresql.dsn)
    rows = clean_rows()
    rows["person"][0]["gender_source_value"] = (
        "Plantedvalue" * 9
    )  # longer than varchar(50): the gate would have said so
    build([write_slice(tmp_path / "slice", rows)], tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    with pytest.raises(PalmaresError, match="E-SERVE-02") as raised:
        serve(tmp_path / "warehouse.duckdb", postgresql.dsn)
    assert raised.value.exit_code == Exit.BALANCE
    assert "Plantedvalue" not in str(raised.value)
    assert reader.execute("SELECT count(*) FROM omop.person").fetchone() == (2,)
    reader.commit()
    serve(warehouses[1], postgresql.dsn)
    assert reader.execute("SELECT count(*) FROM omop.person").fetchone() == (4,)


def test_nobody_answers(warehouses: tuple[Path, Path]) -> None:
    with pytest.raises(PalmaresError, match="E-SERVE-01") as raised:
        serve(warehouses[0], "postgresql://palmares:secretword@127.0.0.1:1/none?connect_timeout=2")
    assert "secretword" not in str(raised.value)
    assert raised.value.exit_code == Exit.MACHINE


def test_no_warehouse(postgresql: Cluster, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-WAREHOUSE-01"):
        serve(tmp_path / "none.duckdb", postgresql.dsn)
