"""What a hospital gets when its input or its machine is at fault: a number, the next command, and nothing half-written."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PALMARES = str(Path(sys.executable).parent / "palmares")
PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1960-05"}
SECRET = "Bergamaschi"


def map_(fhir: Path, out: Path, *more: str, site: str = "golden") -> subprocess.CompletedProcess[str]:
    words = [PALMARES, "map", "--site", site, "--fhir", str(fhir), "--out", str(out), *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.fixture
def fhir(tmp_path: Path) -> Path:
    folder = tmp_path / "fhir"
    folder.mkdir()
    (folder / "Patient.ndjson").write_text(json.dumps(PATIENT) + "\n")
    return folder


def refused(answer: subprocess.CompletedProcess[str], code: str, exit_code: int, out: Path) -> None:
    assert answer.returncode == exit_code, answer.stderr
    assert re.match(rf"{code} \S+", answer.stderr), answer.stderr
    assert "Traceback" not in answer.stderr
    assert SECRET not in answer.stderr + answer.stdout
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*")), "nothing half-written"


def test_sound_input_is_mapped(fhir: Path, tmp_path: Path) -> None:
    answer = map_(fhir, tmp_path / "slice", "--json")
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "slice" / "person.parquet").is_file()


def test_a_file_that_is_no_json(fhir: Path, tmp_path: Path) -> None:
    (fhir / "Condition.ndjson").write_text(f"Dear Dr {SECRET},\nthe export failed.\n")
    refused(map_(fhir, tmp_path / "slice"), "E-LAND-02", 3, tmp_path / "slice")
    (fhir / "Condition.ndjson").unlink()
    (fhir / "bundle.json").write_text('{"resourceType": "Bundle", "entry": [')
    refused(map_(fhir, tmp_path / "slice"), "E-LAND-02", 3, tmp_path / "slice")


def test_a_truncated_gzip(fhir: Path, tmp_path: Path) -> None:
    lines = b"".join(json.dumps(PATIENT | {"id": f"q{i}"}).encode() + b"\n" for i in range(5000))
    (fhir / "Patient2.ndjson.gz").write_bytes(gzip.compress(lines)[:-2000])
    refused(map_(fhir, tmp_path / "slice"), "E-LAND-03", 3, tmp_path / "slice")


def test_an_unreadable_file_can_be_quarantined_whole(fhir: Path, tmp_path: Path) -> None:
    import duckdb

    (fhir / "Condition.ndjson").write_text(f"Dear Dr {SECRET}\n")
    answer = map_(fhir, tmp_path / "slice", "--skip-unreadable")
    assert answer.returncode == 0, answer.stderr
    ledger = tmp_path / "slice" / "ledger.parquet"
    outcomes = duckdb.sql(f"SELECT resource_type, outcome FROM '{ledger}' ORDER BY ALL").fetchall()
    assert outcomes == [("?", "quarantined"), ("Patient", "written")]


def test_a_wrong_type_is_quarantined_and_the_rest_goes_on(fhir: Path, tmp_path: Path) -> None:
    import duckdb

    wrong = {"resourceType": "Observation", "id": "o1", "status": "final", "code": [SECRET], "subject": "Patient/p1"}
    (fhir / "Observation.ndjson").write_text(json.dumps(wrong) + "\n{broken\n")
    answer = map_(fhir, tmp_path / "slice")
    assert answer.returncode == 0, answer.stderr
    ledger = tmp_path / "slice" / "ledger.parquet"
    rows = duckdb.sql(f"SELECT resource_type, outcome, reason FROM '{ledger}' ORDER BY ALL").fetchall()
    assert [row[:2] for row in rows] == [("?", "quarantined"), ("Observation", "quarantined"), ("Patient", "written")]
    assert all(row[2] for row in rows if row[1] == "quarantined")
    assert not any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "slice").rglob("*") if path.is_file())


def test_an_unknown_site(fhir: Path, tmp_path: Path) -> None:
    refused(map_(fhir, tmp_path / "slice", site="nosuch"), "E-SITE-01", 2, tmp_path / "slice")


def test_a_missing_vocabulary(fhir: Path, tmp_path: Path) -> None:
    answer = map_(fhir, tmp_path / "slice", "--vocabulary", str(tmp_path / "nowhere"))
    refused(answer, "E-VOC-01", 2, tmp_path / "slice")


def test_a_missing_or_empty_folder(tmp_path: Path) -> None:
    refused(map_(tmp_path / "nowhere", tmp_path / "slice"), "E-LAND-01", 3, tmp_path / "slice")
    (tmp_path / "empty").mkdir()
    refused(map_(tmp_path / "empty", tmp_path / "slice"), "E-LAND-01", 3, tmp_path / "slice")


def test_a_folder_that_cannot_be_written(fhir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = map_(fhir, tmp_path / "file" / "slice")
    assert (answer.returncode, answer.stderr[:10]) == (4, "E-DISK-02 "), answer.stderr
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(fhir: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a tmpfs")
    try:
        previous = disk / "slice"
        previous.mkdir()
        (previous / "manifest.json").write_text("{}")
        lines = (json.dumps(PATIENT | {"id": f"q{i}"}) for i in range(20_000))
        (fhir / "Patient.ndjson").write_text("\n".join(lines))
        answer = map_(fhir, previous)
        assert (answer.returncode, answer.stderr[:10]) == (4, "E-DISK-01 "), answer.stderr
        assert [path.name for path in disk.iterdir()] == ["slice"]
        assert (previous / "manifest.json").read_text() == "{}"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
