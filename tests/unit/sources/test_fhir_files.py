"""Files of FHIR, a folder, one file, an archive, pass without what identifies; whole or not at all."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from unittest import mock

import pytest

from fhir_adapters.base import open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land

FILES = {
    "Patient.ndjson": b'{"resourceType":"Patient","id":"1"}\n',
    "export/batch/bundle.json": b'{"resourceType":"Bundle"}',
}
OTHERS = {"readme.txt": b"x", "export/.hidden.json": b"{}"}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    for name, data in {**FILES, **OTHERS}.items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(data)
    return tmp_path / "export"


def extract(path: Path, out: Path, **settings: object) -> object:
    source = {"kind": "fhir_files", "path": str(path), "pseudonyms": "hospital", **settings}
    return open_source(source, folder=path.parent).extract(out)


def taken(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out / "fhir").as_posix(): p.read_bytes() for p in (out / "fhir").rglob("*") if p.is_file()}


def archive(export: Path, kind: str) -> Path:
    if kind == "folder":
        return export
    if kind == "zip":
        return Path(shutil.make_archive(str(export), "zip", export))
    return Path(shutil.make_archive(str(export), "gztar" if kind == "tar.gz" else "tar", export))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_each_form(export: Path, tmp_path: Path, kind: str) -> None:
    told: list[int] = []
    settings = {"kind": "fhir_files", "path": str(archive(export, kind)), "pseudonyms": "hospital"}
    source = open_source(settings, folder=tmp_path)
    extraction = source.extract(tmp_path / "out", progress=told.append)
    assert taken(tmp_path / "out") == FILES
    assert (extraction.files, extraction.bytes) == (2, sum(map(len, FILES.values())))
    assert extraction.skipped == {"not-fhir": 2}
    assert told == [1, 1]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["extraction"] == "fhir_files"
    assert manifest["files"] == 2
    assert land([tmp_path / "out"], tmp_path / "landed").resources == {"Patient": 1}


def test_one_file(export: Path, tmp_path: Path) -> None:
    extract(export / "Patient.ndjson", tmp_path / "out")
    assert list(taken(tmp_path / "out")) == ["Patient.ndjson"]


def test_without_a_key_only_where_the_hospital_has_replaced_the_ids(export: Path, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as caught:
        extract(export, tmp_path / "out", pseudonyms="toolkit")
    assert caught.value.code == "E-SRC-03"
    with pytest.raises(PalmaresError) as caught:
        extract(export, tmp_path / "out", pseudonyms="none")
    assert caught.value.code == "E-SRC-02"


def test_a_file_that_may_not_be_read(export: Path, tmp_path: Path) -> None:
    def refuse(self: Path, *arguments: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    with mock.patch.object(Path, "open", refuse), pytest.raises(PalmaresError) as caught:
        extract(export, tmp_path / "out")
    assert caught.value.code == "E-LAND-04"
    assert not (tmp_path / "out").exists()


def test_nothing_there_leaves_what_was_there(export: Path, tmp_path: Path) -> None:
    extract(export, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(PalmaresError) as caught:
            extract(path, tmp_path / "out")
        assert caught.value.code == "E-SRC-04"
    assert taken(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_damaged_archive(export: Path, tmp_path: Path, kind: str, kept: float) -> None:
    (export / "large.ndjson").write_bytes(os.urandom(20_000))
    path = archive(export, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(PalmaresError) as caught:
        extract(path, tmp_path / "out")
    assert caught.value.code == "E-SRC-05"
    assert not (tmp_path / "out").exists()


def test_members_that_would_leave_the_folder_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive_:
        for name in ("../evil.json", "/evil.json", "a/../../evil.json", "C:/evil.json", "..\\evil.json", "page.json"):
            archive_.writestr(name, "{}")
    extract(path, tmp_path / "out")
    assert list(taken(tmp_path / "out")) == ["page.json"]

    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../evil.json", "page.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    extract(path, tmp_path / "out")
    assert list(taken(tmp_path / "out")) == ["page.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.tar", "evil.zip", "out"]
