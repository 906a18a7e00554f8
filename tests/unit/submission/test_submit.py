"""What leaves a hospital: the allowed files and nothing else, and nothing after a BLOCK."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.cdm import tables
from omop_etl.gates import Verdict, gate
from omop_etl.gates.slices import file_hash, slice_tables
from omop_etl.submission import submit, verify
from omop_etl.submission.contents import withheld
from tests.slices import FILLED, clean_rows, write_slice

Gated = tuple[Path, Path, Verdict]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.requirement("f2o-024")
def test_exactly_the_allowed_files_leave(gated: Gated, tmp_path: Path) -> None:
    done = submit(gated[0], gated[1], tmp_path / "submission")
    expected = {f"slice/{name}.parquet" for name in FILLED}
    expected |= {"slice/ledger.parquet", "slice/manifest.json", "slice/unmapped.csv", "slice/side/person_link.parquet"}
    assert files(tmp_path / "submission") == expected | {"verdict.json", "checks.parquet", "submission.json"}
    assert (gated[0] / "side" / "trace.parquet").is_file(), "it is in the slice, and it stays there"
    assert done.files == len(expected) + 2


def test_the_document_names_each_file_with_its_hash(gated: Gated, tmp_path: Path) -> None:
    done = submit(gated[0], gated[1], tmp_path / "submission")
    document = json.loads((tmp_path / "submission" / "submission.json").read_text())
    assert (document["site"], document["number"], document["verdict"]) == ("prova", done.number, "PASS")
    assert datetime.fromisoformat(document["made_at"]).tzinfo is not None
    for entry in document["files"]:
        path = tmp_path / "submission" / entry["path"]
        assert (path.stat().st_size, file_hash(path)) == (entry["bytes"], entry["sha256"])
    assert document["slice"]["tables"]["person"] == 4
    assert "run" not in document["slice"]
    assert verify(tmp_path / "submission").number == done.number


def test_the_number_depends_on_what_is_said(gated: Gated, vocabulary: Path, tmp_path: Path) -> None:
    first = submit(gated[0], gated[1], tmp_path / "one")
    later = Path(shutil.copytree(gated[0], tmp_path / "slice"))
    manifest = json.loads((later / "manifest.json").read_text())
    (later / "manifest.json").write_text(json.dumps(manifest | {"run": {"seconds": 77}}))
    assert submit(later, gated[1], tmp_path / "two").number == first.number
    rows = clean_rows()
    rows["person"][0]["year_of_birth"] += 1
    write_slice(tmp_path / "other", rows)
    gate(tmp_path / "other", tmp_path / "other-gate", site="prova", vocabulary=vocabulary)
    assert submit(tmp_path / "other", tmp_path / "other-gate", tmp_path / "three").number != first.number


def test_after_a_block_the_previous_submission_stays(gated: Gated, vocabulary: Path, tmp_path: Path) -> None:
    submit(gated[0], gated[1], tmp_path / "submission")
    before = (tmp_path / "submission" / "submission.json").read_bytes()
    rows = clean_rows()
    rows["person"][0]["gender_concept_id"] = None
    write_slice(tmp_path / "slice", rows)
    assert gate(tmp_path / "slice", tmp_path / "gate", site="prova", vocabulary=vocabulary).verdict == "BLOCK"
    with pytest.raises(PalmaresError, match=r"G-REQUIRED-person.gender_concept_id") as raised:
        submit(tmp_path / "slice", tmp_path / "gate", tmp_path / "submission")
    assert (raised.value.code, raised.value.exit_code, raised.value.count) == ("E-GATE-01", Exit.BLOCKED, 1)
    assert (tmp_path / "submission" / "submission.json").read_bytes() == before


def test_a_slice_that_changed_after_the_gate(gated: Gated, tmp_path: Path) -> None:
    slice_ = Path(shutil.copytree(gated[0], tmp_path / "slice"))
    with (slice_ / "unmapped.csv").open("a") as lines:
        lines.write("prova,LOINC,,1-1,,x,1,\n")
    with pytest.raises(PalmaresError, match="E-GATE-02"):
        submit(slice_, gated[1], tmp_path / "submission")
    assert not (tmp_path / "submission").exists()


@pytest.mark.parametrize(
    "name", ["Rossi_Maria.csv", "side/ids.parquet", "person.csv", ".hidden", "cohort.parquet", "a/b/c.txt"]
)
def test_a_file_that_may_not_leave_stops_everything(name: str, gated: Gated, tmp_path: Path) -> None:
    slice_ = Path(shutil.copytree(gated[0], tmp_path / "slice"))
    (slice_ / name).parent.mkdir(parents=True, exist_ok=True)
    (slice_ / name).write_text("x")
    with pytest.raises(PalmaresError, match="E-SUBMIT-01") as raised:
        submit(slice_, gated[1], tmp_path / "submission")
    assert "Rossi" not in str(raised.value), "a file's name may be a patient's"
    assert not (tmp_path / "submission").exists()


def test_withheld_columns_leave_empty(vocabulary: Path, tmp_path: Path) -> None:
    rows = clean_rows()
    rows["location"] = [{"location_id": 5, "address_1": "Via Plantedstreet 7", "zip": "20133", "state": "MI"}]
    rows["person"][0] |= {"day_of_birth": 17, "location_id": 5}
    write_slice(tmp_path / "slice", rows)
    gate(tmp_path / "slice", tmp_path / "gate", site="prova", vocabulary=vocabulary)
    done = submit(tmp_path / "slice", tmp_path / "gate", tmp_path / "submission")
    assert done.withheld == {
        "care_site.care_site_name": 1,
        "location.address_1": 1,
        "location.zip": 1,
        "person.day_of_birth": 1,
    }
    for path in (tmp_path / "submission").rglob("*"):
        assert not path.is_file() or b"Plantedstreet" not in path.read_bytes()
    left = tmp_path / "submission" / "slice"
    assert duckdb.sql(f"SELECT address_1, zip, state FROM '{left}/location.parquet'").fetchall() == [(None, None, "MI")]
    kept, sent = (
        duckdb.sql(f"SELECT * EXCLUDE day_of_birth FROM '{folder}/person.parquet'").fetchall()
        for folder in (tmp_path / "slice", left)
    )
    assert kept == sent
    assert verify(tmp_path / "submission").verdict["verdict"] == "PASS", (
        "the centre can still tell that this is the gated slice"
    )


def test_withheld_columns_are_of_the_cdm() -> None:
    for table, columns in withheld().items():
        assert table in slice_tables()
        for column in columns:
            assert not tables()[table][column].primary_key


@pytest.mark.parametrize("missing", ["verdict.json", "checks.parquet"])
def test_half_a_gate(missing: str, gated: Gated, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gated[1], tmp_path / "gate"))
    (folder / missing).unlink()
    with pytest.raises(PalmaresError, match="E-GATE-02"):
        submit(gated[0], folder, tmp_path / "submission")
