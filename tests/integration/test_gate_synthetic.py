"""The gate on hospitals that do not exist: what was planted for it is found in the very records, the clean hospital passes."""

import os
from pathlib import Path

import duckdb
import pytest

from omop_etl import stages
from omop_etl.config import load_site, site_ids
from omop_etl.gates.counting import Count
from omop_etl.gates.definitions import definitions, key_of
from omop_etl.gates.slices import slice_tables
from omop_etl.mapping import origins
from omop_etl.synthetic import generate
from tests.gate_helpers import broken, counted

pytestmark = pytest.mark.long

STARTER = Path(__file__).parents[2] / "mappings" / "vocabulary"


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hospitals (clean, ordinary, to be blocked), mapped; every check counted and every violation listed."""
    root = tmp_path_factory.mktemp("hospitals")
    generate(root, sites=3, patients=75, seed=11, jobs=1)
    os.environ["PALMARES_SITES"] = str(root / "sites")
    try:
        for site in site_ids():
            place = stages.SitePlace(root / "home", load_site(site))
            for number in range(len(place.site.sources)):
                stages.extract(place, number)
            stages.land(place, sorted(place.extracted.iterdir()))
            stages.validate(place)
            stages.map_(place)
    finally:
        del os.environ["PALMARES_SITES"]
    return root


@pytest.fixture(scope="module")
def gates(hospitals: Path) -> dict[str, dict[str, Count]]:
    found = {}
    for place in sorted((hospitals / "home" / "sites").iterdir()):
        (place / "rejects").mkdir()
        found[place.name] = counted(place / "slice", STARTER, place / "rejects")
    return found


def test_the_clean_hospital_breaks_nothing(gates: dict[str, dict[str, Count]]) -> None:
    assert broken(gates["site01"]) == {}


def test_the_hospital_that_must_be_blocked_is_blocked_by_what_was_planted(gates: dict[str, dict[str, Count]]) -> None:
    blocked = {code for code, verdict in broken(gates["site03"]).items() if verdict == "BLOCK"}
    assert blocked
    assert blocked <= {"G-BIRTH-01", "G-BIRTH-02", "G-DEATH-02"}
    assert "BLOCK" not in broken(gates["site02"]).values()


def test_each_planted_defect_is_among_the_rejects_of_its_check(
    hospitals: Path, gates: dict[str, dict[str, Count]]
) -> None:
    planted = duckdb.sql(
        f"SELECT site, kind, resource_type, resource_id, patient, expected_reason FROM '{hospitals}/truth/defects.parquet' "
        "WHERE expected_outcome = 'gate' AND kind <> 'heaping' ORDER BY ALL"
    ).fetchall()
    assert len({kind for _, kind, *_ in planted}) >= 8
    missed = []
    for site, kind, resource_type, resource_id, patient, code in planted:
        place = hospitals / "home" / "sites" / site
        trace = origins(place / "slice")
        # the record itself, or for a check that counts persons any record of that person
        of_record = f"resource_type = '{resource_type}' AND resource_id = '{resource_id}'"
        of_person = f"resource_type = 'Patient' AND resource_id = '{patient or resource_id}'"
        mine = set(duckdb.sql(f"SELECT cdm_table, cdm_id FROM {trace} WHERE {of_record}").fetchall())
        people = {
            row[0]
            for row in duckdb.sql(f"SELECT cdm_id FROM {trace} WHERE {of_person} AND cdm_table = 'person'").fetchall()
        }
        assert people, "the truth names a patient who is not in the slice"
        rejected = listed(place, code)
        of_persons = any(check.unit == "persons" for check in definitions().checks if check.code == code)
        if not (rejected & mine or (of_persons and people & owners(place, rejected))):
            missed.append((site, kind, code))
    assert missed == []


def listed(place: Path, code: str) -> set[tuple[str, int]]:
    """Rows in the reject files of a check, or of all checks of its family."""
    paths = [path for path in (place / "rejects").iterdir() if path.stem == code or path.stem.startswith(f"{code}-")]
    return {row for path in paths for row in duckdb.sql(f"SELECT cdm_table, cdm_id FROM '{path}'").fetchall()}


def owners(place: Path, rows: set[tuple[str, int]]) -> set[int]:
    """The persons to whom some rows belong."""
    found = set()
    for table in {table for table, _ in rows}:
        key = key_of(table)
        ids = ", ".join(str(row) for name, row in rows if name == table)
        found |= {
            row[0]
            for row in duckdb.sql(
                f"SELECT person_id FROM '{place}/slice/{table}.parquet' WHERE {key} IN ({ids})"
            ).fetchall()
        }
    return found


def test_heaping_is_counted_where_it_was_planted(hospitals: Path, gates: dict[str, dict[str, Count]]) -> None:
    sites = duckdb.sql(
        f"SELECT site, count(*) FROM '{hospitals}/truth/defects.parquet' WHERE expected_reason = 'G-HEAP-01' GROUP BY site"
    ).fetchall()
    assert sites
    for site, planted in sites:
        assert gates[site]["G-HEAP-01"].numerator >= planted


def test_the_gate_knows_every_table_that_the_mapping_writes(hospitals: Path) -> None:
    written = {path.stem for path in hospitals.glob("home/sites/*/slice/*.parquet")}
    assert written - {"ledger"} <= set(slice_tables())
