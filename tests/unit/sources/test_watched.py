"""A watched folder: what is whole and new is read, once; what is half there waits; nothing is lost between two runs."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.memory import of_extraction
from omop_etl import stages
from omop_etl.config import Site


def patient(number: int) -> bytes:
    return json.dumps({"resourceType": "Patient", "id": f"p{number}"}).encode() + b"\n"


def put(folder: Path, name: str, *numbers: int) -> Path:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"".join(map(patient, numbers)))
    return place


def read(folder: Path, out: Path, previous: Path | None = None, full: bool = False, **more: Any) -> Extraction:
    given = {"kind": "fhir_files", "path": str(folder), "watch": True, "stable_seconds": 0, "pseudonyms": "hospital"}
    source = open_source(given | more, folder=folder.parent)
    state = of_extraction(previous, "fhir_files").state if previous else None
    return extract_from(source, out, full=full, state=state)


def came(out: Path) -> list[str]:
    lines = [line for path in (out / "fhir").rglob("*") if path.is_file() for line in path.read_bytes().split()]
    return sorted(json.loads(line)["id"] for line in lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "in", "a.ndjson", 1, 2)
    put(tmp_path / "in", "monday/b.ndjson", 3)
    return tmp_path / "in"


def test_only_what_is_new(folder: Path, tmp_path: Path) -> None:
    first = read(folder, tmp_path / "1")
    assert first.full and came(tmp_path / "1") == ["p1", "p2", "p3"]
    put(folder, "tuesday/c.ndjson", 4)
    second = read(folder, tmp_path / "2", tmp_path / "1")
    assert not second.full and came(tmp_path / "2") == ["p4"]
    third = read(folder, tmp_path / "3", tmp_path / "2")
    assert third.files == 0 and came(tmp_path / "3") == []
    put(folder, "a.ndjson", 1, 2, 5)
    read(folder, tmp_path / "4", tmp_path / "3")
    assert came(tmp_path / "4") == ["p1", "p2", "p5"], "a file that was written anew is a new delivery"
    assert read(folder, tmp_path / "5", tmp_path / "4", full=True).full
    assert came(tmp_path / "5") == ["p1", "p2", "p3", "p4", "p5"]


def test_a_file_that_is_still_written_waits(folder: Path, tmp_path: Path) -> None:
    assert came_of(folder, tmp_path / "1", stable_seconds=3600) == []
    old = folder / "a.ndjson"
    os.utime(old, (1, 1))  # a copy that keeps times: the moment of the copy shows in ctime
    assert came_of(folder, tmp_path / "2", stable_seconds=3600) == []


def came_of(folder: Path, out: Path, **more: Any) -> list[str]:
    read(folder, out, **more)
    return came(out)


def test_markers(folder: Path, tmp_path: Path) -> None:
    assert came_of(folder, tmp_path / "1", marker=".done") == []
    (folder / "a.ndjson.done").touch()
    assert came_of(folder, tmp_path / "2", marker=".done") == ["p1", "p2"]
    put(folder, "monday/deep/er.ndjson", 9)
    (folder / "monday" / "_SUCCESS").touch()
    assert came_of(folder, tmp_path / "3", marker="_SUCCESS") == ["p3", "p9"]
    (folder / "_SUCCESS").touch()
    assert came_of(folder, tmp_path / "4", marker="_SUCCESS") == ["p1", "p2", "p3", "p9"]


def test_archives_in_a_folder(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "wednesday.zip", "w") as archive:
        archive.writestr("Patient.ndjson", patient(6))
        archive.writestr("../out.ndjson", patient(7))
    with tarfile.open(folder / "thursday.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("Patient.ndjson")
        entry.size = len(patient(8))
        tar.addfile(entry, io.BytesIO(patient(8)))
    assert came_of(folder, tmp_path / "1") == ["p1", "p2", "p3", "p6", "p8"]
    read(folder, tmp_path / "2", tmp_path / "1")
    assert came(tmp_path / "2") == []


def test_a_damaged_or_encrypted_archive_says_so_and_is_not_known(folder: Path, tmp_path: Path) -> None:
    (folder / "Maria Bianchi.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(PalmaresError) as caught:
        read(folder, tmp_path / "1")
    assert caught.value.code == "E-SRC-05" and "Bianchi" not in str(caught.value)
    with zipfile.ZipFile(folder / "Maria Bianchi.zip", "w") as archive:
        archive.writestr("Patient.ndjson", patient(6))
    data = bytearray((folder / "Maria Bianchi.zip").read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flag] |= 1  # the bit that says: encrypted
    (folder / "Maria Bianchi.zip").write_bytes(data)
    with pytest.raises(PalmaresError) as caught:
        read(folder, tmp_path / "1")
    assert caught.value.code == "E-SRC-05" and "encrypted" in str(caught.value) and "Bianchi" not in str(caught.value)


def test_no_name_in_the_memory(folder: Path, tmp_path: Path) -> None:
    put(folder, "Maria Bianchi.ndjson", 9)
    read(folder, tmp_path / "1")
    assert "Bianchi" not in (tmp_path / "1" / "manifest.json").read_text()


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 20), max_size=3), st.booleans()), max_size=6)
)
@hypothesis(max_examples=25, deadline=None)
def test_nothing_is_lost_between_runs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, list[int], bool]]
) -> None:
    """Files come, are written anew, runs fail before landing: what landed in the end is all that ever lay there."""
    root = tmp_path_factory.mktemp("watched")
    (root / "in").mkdir()
    landed: set[str] = set()
    ever: set[str] = set()
    last: Path | None = None
    for turn, (name, numbers, lands) in enumerate([*steps, (0, [1], True)]):
        put(root / "in", f"{name}.ndjson", *numbers)
        os.utime(root / "in" / f"{name}.ndjson", ns=(turn, turn))
        out = root / str(turn)
        read(root / "in", out, last)
        if lands:  # memory moves on only then
            landed |= set(came(out))
            last = out
            ever |= {
                json.loads(line)["id"] for path in (root / "in").iterdir() for line in path.read_bytes().splitlines()
            }
    assert landed >= ever


def test_through_the_stages(folder: Path, tmp_path: Path) -> None:
    source = {"kind": "fhir_files", "path": str(folder), "watch": True, "stable_seconds": 0, "pseudonyms": "hospital"}
    place = stages.SitePlace(tmp_path / "home", Site("prova", "Prova", "Europe/Rome", tmp_path, sources=(source,)))
    stages.land(place, [stages.extract(place, 0)["out"]])
    put(folder, "new.ndjson", 7)
    assert stages.land(place, [stages.extract(place, 0)["out"]])["delivery"] == 2
    assert stages.land(place, [stages.extract(place, 0)["out"]]) == {"added": False}
    assert stages.land(place, [stages.extract(place, 0, full=True)["out"]], full=True)["resources"] == {"Patient": 4}
