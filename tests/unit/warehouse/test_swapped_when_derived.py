"""The centre's readers keep the old warehouse until the new one has its eras and episodes."""

from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl import derive, stages
from tests.lock_helpers import deliver


def count(warehouse: Path, table: str) -> int:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def test_no_reader_sees_a_warehouse_without_eras_and_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    centre = stages.CentrePlace(tmp_path)
    deliver(tmp_path, "prova", 3, tmp_path / "first")
    stages.build(centre)
    assert not centre.warehouse.exists()
    stages.derive(centre, "palmares2")
    assert not centre.built.parent.exists()
    assert (count(centre.warehouse, "person"), count(centre.warehouse, "episode") > 0) == (3, True)
    deliver(tmp_path, "prova", 5, tmp_path / "second")
    stages.build(centre)
    assert (count(centre.warehouse, "person"), count(centre.warehouse, "drug_era") > 0) == (3, True)

    def fail(*_: object, **__: object) -> None:
        raise PalmaresError("E-STUDY-03", "planted")

    with monkeypatch.context() as broken:
        broken.setattr(derive, "derive", fail)
        with pytest.raises(PalmaresError):
            stages.derive(centre, "palmares2")
    assert (count(centre.warehouse, "person"), count(centre.warehouse, "episode") > 0) == (3, True)
    stages.derive(centre, "palmares2")
    assert (count(centre.warehouse, "person"), count(centre.warehouse, "episode") > 0) == (5, True)
    stages.derive(centre, "palmares2")  # again, where it stands
    assert count(centre.warehouse, "person") == 5
