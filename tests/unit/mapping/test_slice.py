"""What every slice is: CDM columns in order, ids of source identity, the same whatever the order of its shards; rows balance."""

import json
import random
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing import land
from omop_etl.cdm import tables
from omop_etl.config import load_site
from omop_etl.mapping import map_folder
from omop_etl.mapping.identity import MASK
from omop_etl.synthetic import generate

SITE = load_site("bench")


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    root = tmp_path_factory.mktemp("mapping")
    generate(root / "hospitals", sites=1, patients=20, seed=11, dirty=False, jobs=1)
    landed = root / "landed"
    land([root / "hospitals" / "hospitals" / "site01" / "fhir"], landed)
    return [json.loads(line) for path in sorted(landed.rglob("*.ndjson")) for line in path.read_text().splitlines()]


def content(slice_: Path) -> dict[str, list[tuple]]:
    return {str(p.relative_to(slice_)): duckdb.sql(f"FROM '{p}'").fetchall() for p in sorted(slice_.rglob("*.parquet"))}


def write(folder: Path, resources: list[dict], parts: int, seed: int) -> Path:
    shuffled = random.Random(seed).sample(resources, len(resources))
    folder.mkdir(parents=True)
    for number in range(parts):
        lines = [json.dumps(one) for one in shuffled[number::parts]]
        (folder / f"part{number}.ndjson").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.requirement("f2o-103")
def test_shuffled_and_split_otherwise_the_slice_is_identical(resources: list[dict], tmp_path: Path) -> None:
    map_folder(SITE, write(tmp_path / "a", resources, 1, 1), tmp_path / "slice_a")
    map_folder(SITE, write(tmp_path / "b", resources, 5, 2), tmp_path / "slice_b")
    one, other = content(tmp_path / "slice_a"), content(tmp_path / "slice_b")
    assert one == other
    assert len(one["measurement.parquet"]) > 100
    assert (tmp_path / "slice_a" / "unmapped.csv").read_bytes() == (tmp_path / "slice_b" / "unmapped.csv").read_bytes()


@pytest.mark.requirement("f2o-001")
def test_tables_have_the_cdms_columns_and_ids_that_r_can_read(resources: list[dict], tmp_path: Path) -> None:
    map_folder(SITE, write(tmp_path / "a", resources, 1, 1), tmp_path / "slice")
    for name, table in tables().items():
        path = tmp_path / "slice" / f"{name}.parquet"
        if not path.exists():
            continue
        described = duckdb.sql(f"DESCRIBE FROM '{path}'").fetchall()
        assert [row[0] for row in described] == [column.name for column in table.columns]
        if table.columns[0].name == f"{name}_id" and name != "death":
            low, high, rows, ids = (
                duckdb.sql(
                    f"SELECT min({name}_id), max({name}_id), count(*), count(DISTINCT {name}_id) FROM '{path}'"
                ).fetchone()
                or (None,) * 4
            )
            assert rows == ids
            assert rows == 0 or (low > 0 and high <= 2**53 - 1)


def test_every_select_of_mappings_omop_names_a_cdm_table() -> None:
    assert {path.stem for path in (mappings_folder() / "omop").glob("*.sql")} <= set(tables())
    assert MASK == 2**53 - 1


PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1960-05"}


@pytest.mark.requirement("f2o-032", "f2o-033")
def test_an_unmapped_code_is_kept_as_concept_0_and_counted(tmp_path: Path) -> None:
    coding = {"system": "urn:local:unknown", "code": "ZZ-1", "display": "never seen"}
    observation = {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2021-03-05", "code": {"coding": [coding]}, "valueQuantity": {"value": 3.5},
    }  # fmt: skip
    write(tmp_path / "fhir", [PATIENT, observation], 1, 1)
    map_folder(SITE, tmp_path / "fhir", tmp_path / "slice", jobs=1)
    rows = [
        row
        for name in ("measurement", "observation")
        for row in duckdb.sql(
            f"SELECT {name}_concept_id, {name}_source_value, value_as_number FROM '{tmp_path}/slice/{name}.parquet'"
        ).fetchall()
    ]
    assert rows == [(0, "ZZ-1", 3.5)]
    assert "ZZ-1" in (tmp_path / "slice" / "unmapped.csv").read_text()
