"""Files of FHIR, a folder, one file, an archive, pass without what identifies; whole or not at all."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land
from fhir_adapters.pseudonyms import SiteKey

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


def extract(path: Path, out: Path, **settings: object) -> Extraction:
    source = {"kind": "fhir_files", "path": str(path), "pseudonyms": "hospital", **settings}
    return extract_from(open_source(source, folder=path.parent), out)


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


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_is_not_read_has_an_outcome(tmp_path: Path, kind: str) -> None:
    """`tar -P` writes absolute names: what is passed over must not be missed in silence."""
    path = tmp_path / f"export.{kind}"
    names = ("/data/export/Rossi.json", "../a.json", "page.json")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive_:
            for name in names:
                archive_.writestr(name, '{"resourceType": "Patient", "id": "p"}')
    else:
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for name in names:
                info, content = tarfile.TarInfo(name), b'{"resourceType": "Patient", "id": "p"}'
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    done = extract(path, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert sorted(row["reason"] or "" for row in rows) == ["", "Q-ARCHIVE-NAME", "Q-ARCHIVE-NAME"]
    assert done.skipped == {"outside-the-archive": 2}
    assert not any("Rossi" in row["item"] for row in rows)


def test_two_members_of_one_name_are_both_read(tmp_path: Path) -> None:
    """`tar -r` appends a file of the same name."""
    path = tmp_path / "export.tar"
    with tarfile.open(path, "w") as tar:
        for number in (1, 2):
            info, content = tarfile.TarInfo("page.json"), b'{"resourceType": "Patient", "id": "p%d"}' % number
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert extract(path, tmp_path / "out").resources == {"Patient": 2}
    assert len(list((tmp_path / "out" / "fhir").iterdir())) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "fhir_files"},
        {"kind": "dicom_folder"},
        {"kind": "hl7v2"},
        {"kind": "tables", "map": "map.toml"},
    ],
)
def test_a_folder_that_may_not_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    """A glob passes it by; what it holds would be missing."""
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "a.csv").write_text("cartella;sesso\n1;F\n")
    fill = '[[table.resource.fill]]\ncolumn = "sesso"\nelement = "gender"\nas = "list"\nlist = "sex"\n'
    resource = '[[table.resource]]\ntype = "Patient"\npatient = "cartella"\n'
    (tmp_path / "map.toml").write_text(f'[lists.sex]\nF = "female"\n[[table]]\nfile = "**/*.csv"\n{resource}{fill}')
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = open_source({**settings, "path": "in"}, folder=tmp_path, key=SiteKey(b"k" * 32))
    with pytest.raises(PalmaresError, match="E-LAND-04"):
        extract_from(source, tmp_path / "out")
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
