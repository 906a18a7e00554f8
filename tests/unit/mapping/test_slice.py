"""What every slice is: CDM columns in order, ids of source identity, the same whatever the order of its shards; rows balance."""

import json
import random
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing import land
from omop_etl.cdm import tables
from omop_etl.config import load_site
from omop_etl.mapping import map_folder, map_site
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


@pytest.mark.requirement("f2o-001", "f2o-021")
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


@pytest.mark.requirement("f2o-060", "f2o-062", "f2o-063")
@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ({"resourceType": "Condition", "verificationStatus": {"coding": [{"code": "refuted"}]}}, "X-REFUTED"),
        ({"resourceType": "Condition", "verificationStatus": {"coding": [{"code": "entered-in-error"}]}}, "X-ERROR"),
        ({"resourceType": "Procedure", "status": "not-done", "performedDateTime": "2020-01-01"}, "X-NOT-DONE"),
        ({"resourceType": "Observation", "status": "cancelled", "effectiveDateTime": "2020-01-01"}, "X-CANCELLED"),
        ({"resourceType": "Observation", "status": "final", "effectiveDateTime": "2020-02-30"}, "Q-DATE"),
        ({"resourceType": "Observation", "status": "final"}, "X-NO-DATE"),
        ({"resourceType": "MedicationStatement", "status": "intended", "effectiveDateTime": "2020-01-01"}, "X-PLANNED"),
        ({"resourceType": "Claim", "status": "active"}, "X-NO-TARGET"),
    ],
)
def test_what_did_not_happen_is_no_event_and_has_its_reason(resource: dict, reason: str, tmp_path: Path) -> None:
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "254837009"}]}
    whole = {"id": "r1", "subject": {"reference": "Patient/p1"}, "recordedDate": "2020-01-01"} | resource
    whole["medicationCodeableConcept" if resource["resourceType"] == "MedicationStatement" else "code"] = code
    write(tmp_path / "fhir", [PATIENT, whole], 1, 1)
    map_folder(SITE, tmp_path / "fhir", tmp_path / "slice", jobs=1)
    ledger = duckdb.sql(f"SELECT resource_type, reason, row_count FROM '{tmp_path}/slice/ledger.parquet'").fetchall()
    assert (resource["resourceType"], reason, 0) in ledger
    assert ("Patient", None, 1) in ledger


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


@pytest.mark.requirement("f2o-072", "f2o-073")
@pytest.mark.parametrize(
    ("text", "zone", "day", "moment"),
    [
        ("2021-03-27T23:30:00Z", "Europe/Rome", "2021-03-28", "2021-03-28 00:30:00"),  # across midnight
        ("2021-03-28T01:30:00Z", "Europe/Rome", "2021-03-28", "2021-03-28 03:30:00"),  # clocks go forward
        ("2021-10-31T00:30:00Z", "Europe/Rome", "2021-10-31", "2021-10-31 02:30:00"),  # clocks go back, first pass
        ("2021-10-31T01:30:00Z", "Europe/Rome", "2021-10-31", "2021-10-31 02:30:00"),  # second pass
        ("2017-11-02T03:30:00+05:00", "UTC", "2017-11-01", "2017-11-01 22:30:00"),
        ("2021-03-05", "Europe/Rome", "2021-03-05", None),
    ],
)
def test_date_and_datetime_are_those_of_the_sites_zone(
    text: str, zone: str, day: str, moment: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALMARES_TIME_ZONE", zone)
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    observation = {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": text, "code": code, "valueQuantity": {"value": 12},
    }  # fmt: skip
    write(tmp_path / "fhir", [PATIENT, observation], 1, 1)
    map_folder(load_site("bench"), tmp_path / "fhir", tmp_path / "slice", jobs=1)
    found = duckdb.sql(
        f"SELECT measurement_date::VARCHAR, measurement_datetime::VARCHAR FROM '{tmp_path}/slice/measurement.parquet'"
    ).fetchall()
    assert found[0][0] == day
    assert moment is None or found[0][1] == moment


@settings(deadline=None, max_examples=8, derandomize=True)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5), max_size=3))
def test_landing_in_steps_equals_one_load_of_the_last_state(order: list[int], cuts: set[int]) -> None:
    import tempfile

    versions = [
        PATIENT | {"meta": {"lastUpdated": f"2024-0{n + 1}-01T00:00:00Z"}, "gender": "male" if n % 2 else "female"}
        for n in range(5)
    ]
    versions.append(PATIENT | {"id": "p2", "meta": {"lastUpdated": "2024-01-01T00:00:00Z"}})
    with tempfile.TemporaryDirectory() as name:
        root, landed = Path(name), Path(name) / "landed"
        bounds = [0, *sorted(cuts), len(order)]
        for step, (first, last) in enumerate(pairwise(bounds)):
            write(root / f"d{step}", [versions[i] for i in order[first:last]], 1, step)
            land([root / f"d{step}"], landed, previous=landed if step else None)
        map_site(SITE, landed, root / "steps", jobs=1)
        map_folder(SITE, write(root / "last", [versions[4], versions[5]], 1, 0), root / "full", jobs=1)
        steps, full = content(root / "steps"), content(root / "full")
        assert steps == full
