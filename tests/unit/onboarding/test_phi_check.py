"""phi-check finds a known identifier wherever it stands and however it is written, and never says it."""

import base64
import csv
import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from omop_etl.onboarding import Known, hold_back, phi_check, read_known, write_known
from omop_etl.onboarding.searching import Identifiers

KNOWN = [
    Known("name", "Zuccarà Maria Antonietta"),
    Known("codice-fiscale", "ZCCMRA47A41F205J"),
    Known("record-number", "0088776655"),
    Known("address", "Via Segreta 33"),
    Known("accession-number", "ACC-44332211"),
    Known("uid", "1.2.840.113619.2.88776655.1"),
    Known("telephone", "+39 333 1234567"),
    Known("e-mail", "maria.zuccara@example.it"),
]
PLAIN = "Zuccarà Maria Antonietta"


def kinds(text: str, **more: bool) -> set[str]:
    return set(Identifiers(KNOWN, **more).scan(text))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ZUCCARÀ^MARIA ANTONIETTA", "name"),
        ("zuccara, maria antonietta", "name"),
        ("la sig.ra Zuccara'", "name"),
        ("file_zuccara_2024.json", "name"),
        ("zuccaramariaantonietta.dcm", "name"),
        (r'{"x":"Zuccar\u00e0"}', "name"),
        ("Zuccar%C3%A0", "name"),
        ("Zuccar&agrave;", "name"),
        (base64.b64encode("Zuccarà Maria Antonietta".encode()).decode(), "name"),
        ("zccmra47a41f205j", "codice-fiscale"),
        ("CF:ZCCMRA47A41F205J;", "codice-fiscale"),
        ("idZCCMRA47A41F205Jx", "codice-fiscale"),
        ("MRN0088776655", "record-number"),
        ("0088776655", "record-number"),
        ("via segreta, 33", "address"),
        ("ACC44332211", "accession-number"),
        ("acc 44332211", "accession-number"),
        ("urn:oid:1.2.840.113619.2.88776655.1", "uid"),
        ("333-1234567", "telephone"),
        ("3331234567", "telephone"),
        ("Maria.Zuccara@Example.it", "e-mail"),
    ],
)
def test_however_it_is_written(text: str, kind: str) -> None:
    assert kind in kinds(text, patterns=False)


@pytest.mark.parametrize(
    "text",
    [
        "a pseudonym such as 3f0088776655ab00c1d2e3f405060708",
        "1230088776655123",
        "Antonio",
        "zuccarello",
        "1.2.840.113619.2",
        "via 33",
        "withheld",
        "",
    ],
)
def test_what_is_none(text: str) -> None:
    assert kinds(text, patterns=False) == set()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RSSMRA71E01F205E", "looks like a codice fiscale"),
        ("rssmra71e01f205e", "looks like a codice fiscale"),
        ("mario@ospedale.it", "looks like an e-mail"),
        ("+39 02 2390 1234", "looks like a telephone number"),
        ("347 1234567", "looks like a telephone number"),
    ],
)
def test_patterns(text: str, kind: str) -> None:
    assert kinds(text) == {kind}
    assert kinds("RSSMRA71E01F205X 3471234567 a@b") == set()


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_text_is_searched_without_a_crash(text: str) -> None:
    Identifiers([*KNOWN, Known("other", text)]).scan(text * 2)


@given(
    st.text(alphabet=st.characters(categories=("L", "N")), min_size=6, max_size=20),
    st.sampled_from([" ", ";", "^", "\n"]),
)
def test_what_is_planted_whole_is_found(value: str, sign: str) -> None:
    searched = Identifiers([Known("other", value)], patterns=False)
    if searched.known:
        assert searched.scan(f"aaa{sign}{value.upper()}{sign}bbb") or searched.scan(f"aaa{sign}{value}{sign}bbb")


def csv_bytes(delimiter: str = ",") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([["id", "note"], ["1", PLAIN], ["2", "x"]])
    return out.getvalue().encode()


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sheet() -> bytes:
    book, out = openpyxl.Workbook(), io.BytesIO()
    book.active["A1"] = PLAIN
    book.save(out)
    return out.getvalue()


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


TEXTS = pa.array([None, "x", PLAIN])
FILES: dict[str, bytes] = {
    "plain.txt": PLAIN.encode(),
    "windows.txt": PLAIN.encode("cp1252"),
    "utf16.txt": PLAIN.encode("utf-16"),
    "semicolons.csv": csv_bytes(";"),
    "log.ndjson": b'{"x":1}\n{"note":"Zuccar\\u00e0 Maria"}\n',
    "packed.csv.gz": gzip.compress(csv_bytes()),
    "packed.json.zst": zstandard.compress(PLAIN.encode()),
    "archive.zip": zipped("a.csv", csv_bytes()),
    "nested.zip": zipped("b.tar", tarred("c.gz", gzip.compress(PLAIN.encode()))),
    "named.zip": zipped("zuccara.txt", b"x"),
    "sheet.xlsx": sheet(),
    "plain.parquet": parquet(pa.table({"note": TEXTS})),
    "coded.parquet": parquet(pa.table({"note": TEXTS.dictionary_encode()})),
    "lists.parquet": parquet(pa.table({"note": pa.array([[PLAIN], None, []])})),
    "nested.parquet": parquet(pa.table({"note": pa.array([[{"a": {"b": PLAIN}}]])})),
    "bytes.parquet": parquet(pa.table({"note": pa.array([PLAIN.encode(), None])})),
    "titled.parquet": parquet(pa.table({"zuccara": pa.array([1])})),
    "said.parquet": parquet(pa.table({"x": pa.array([1])}).replace_schema_metadata({"who": PLAIN})),
    "cut.parquet": parquet(pa.table({"note": pa.array([PLAIN])}))[:-9],
    "picture.dcm": b"\0" * 128 + b"DICM" + b"\x10\x00\x10\x00PN\x08\x00" + "Zuccarà".encode("latin-1"),
}


@pytest.mark.parametrize("name", FILES)
def test_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(FILES[name])
    found = phi_check([tmp_path / "out"], KNOWN)
    if name == "cut.parquet":  # what is compressed and damaged cannot be read by anybody
        return
    assert {one.kind for one in found.findings} == {"name"}
    assert not found.clean
    assert "zucc" not in repr(found).lower().replace("zuccara.txt", "")
    if name.endswith("csv"):
        assert [(one.file, one.column) for one in found.findings] == [(name, "note")]
    if name == "plain.parquet":
        assert [(one.file, one.column) for one in found.findings] == [(name, "note")]
        assert found.findings[0].times >= 1


def test_in_a_database(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute(
            "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS id, ? AS note, [?] AS more", [PLAIN, PLAIN]
        )
    found = phi_check([tmp_path], KNOWN)
    assert {(one.table, one.column) for one in found.findings} == {("t", "note"), ("t", "more")}


def test_names_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "Zuccara Maria").mkdir()
    (tmp_path / "Zuccara Maria" / "x.txt").write_text("")
    (finding,) = phi_check([tmp_path], KNOWN).findings
    assert finding.column == "(name of the file)" and finding.file.startswith("file-")


def test_a_clean_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("person_id,value\n1,2\n")
    found = phi_check([tmp_path], KNOWN)
    assert found.clean and (found.files, found.identifiers) == (1, len(KNOWN))


def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    alone = phi_check([tmp_path], KNOWN, jobs=1)
    monkeypatch.setattr("omop_etl.onboarding.phi._WORTH_A_POOL", 0)
    assert phi_check([tmp_path], KNOWN, jobs=2) == alone


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.duckdb").write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 100)
    found = phi_check([tmp_path], KNOWN)
    assert found.unread == ("broken.duckdb",) or found.unread[0].startswith("file-")
    assert not found.clean
    with pytest.raises(PalmaresError) as caught:
        phi_check([tmp_path / "absent"], KNOWN)
    assert caught.value.code == "E-PHI-03"


def test_the_list_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    assert write_known([*KNOWN, *KNOWN, Known("name", " ")], path) == len(KNOWN)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(read_known(path)) == sorted(KNOWN)
    path.chmod(0o640)
    with pytest.raises(PalmaresError) as caught:
        read_known(path)
    assert caught.value.code == "E-PHI-02"


@pytest.mark.parametrize(
    "text", ["", "kind\nname\n", "kind,value\nwho,Rossi\n", "kind,value\nname,\n", "kind,value\n", "\xff"]
)
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "known.csv"
    path.write_bytes(text.encode("latin-1"))
    os.chmod(path, 0o600)  # noqa: PTH101
    with pytest.raises(PalmaresError) as caught:
        read_known(path)
    assert caught.value.code == "E-PHI-02"
    assert "Rossi" not in str(caught.value)


def test_submit_holds_back_what_identifies(tmp_path: Path) -> None:
    slice_, gate = tmp_path / "slice", tmp_path / "gate"
    (slice_ / "side").mkdir(parents=True)
    gate.mkdir()
    known = tmp_path / "known.csv"
    write_known(KNOWN, known)
    (slice_ / "unmapped.csv").write_text("site,source_code\nprova,718-7\n")
    (slice_ / "side" / "trace.parquet").write_bytes(parquet(pa.table({"resource_id": [PLAIN]})))  # it does not leave
    hold_back(slice_, gate, known, "prova")
    (slice_ / "unmapped.csv").write_text(f"site,source_code\nprova,{PLAIN}\n")
    (slice_ / "side" / "person_link.parquet").write_bytes(parquet(pa.table({"linkage_token": ["ZCCMRA47A41F205J"]})))
    with pytest.raises(PalmaresError) as caught:
        hold_back(slice_, gate, known, "prova")
    assert caught.value.code == "E-PHI-01" and caught.value.exit_code == 5
    assert "unmapped.csv source_code name" in str(caught.value) and "codice-fiscale" in str(caught.value)
    assert "zucc" not in str(caught.value).lower() and "zccmra" not in str(caught.value).lower()


def test_a_file_too_large_to_hold_is_searched_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omop_etl.onboarding.phi._LARGEST_WHOLE", 1000)
    monkeypatch.setattr("omop_etl.onboarding.phi._BLOCK", 500)
    monkeypatch.setattr("omop_etl.onboarding.phi._OVERLAP", 100)
    for before in range(470, 520, 7):  # across the border of two blocks
        (tmp_path / "large.ndjson").write_bytes(b"x " * (before // 2) + PLAIN.encode() + b" y" * 600)
        assert {one.kind for one in phi_check([tmp_path], KNOWN).findings} == {"name"}


def test_what_is_packed_too_large_is_not_taken_for_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omop_etl.onboarding.phi._LARGEST_MEMBER", 10_000)
    for name, data in (
        ("a.gz", gzip.compress(b"x" * 20_000)),
        ("a.zip", zipped("b.txt", b"x" * 20_000)),
        ("a.zst", zstandard.compress(b"x" * 20_000)),
    ):
        (tmp_path / name).write_bytes(data)
    found = phi_check([tmp_path], KNOWN)
    assert len(found.unread) == 3 and not found.clean
