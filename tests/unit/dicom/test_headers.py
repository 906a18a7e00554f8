"""The walk over a file's bytes gives what pydicom gives, on every file there is; and no file makes it raise."""

import io
import os
import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from fhir_adapters import allow_list
from fhir_adapters.dicom import headers
from fhir_adapters.dicom.headers import Header, Wanted, key, read_header, read_stream
from fhir_adapters.dicom.values import Reader
from fhir_adapters.outcomes import outcome_of
from fhir_adapters.pseudonyms import SiteKey
from tests.dicom_helpers import code, instance, items, save
from tests.shared import SHARED

WANTED = Reader(allow_list.dicom(), SiteKey(bytes(32))).wanted
OF_PYDICOM = Path(pydicom.__file__).parent / "data"
FILES = sorted(
    path for folder in (OF_PYDICOM, SHARED / "data" / "dicom") for path in folder.rglob("*") if path.is_file()
)
PATIENT_ID, STOP = key(0x00100020), key(0x7FE00010)


def plain(header: Header) -> Header:
    """Without padding and without the character set (pydicom has decoded the texts)."""
    return {
        tag: [plain(item) for item in value] if isinstance(value, list) else value.rstrip(b"\0 ").replace(b" \\", b"\\")
        for tag, value in header.items()
        if tag != key(0x00080005)
    }


def by_pydicom(path: Path, wanted: Wanted = WANTED) -> Header | str:
    with path.open("rb") as file:
        return headers._by_pydicom(file, wanted)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_walk_and_pydicom_agree(path: Path) -> None:
    found = read_header(path, WANTED)
    if isinstance(found, str):
        assert outcome_of(found)
        return
    other = by_pydicom(path)
    assert isinstance(other, dict)
    assert plain(found) == plain(other)


def test_what_becomes_of_the_odd_ones() -> None:
    outcomes = {path.name: read_header(path, WANTED) for path in OF_PYDICOM.rglob("*") if path.is_file()}
    assert {name for name, found in outcomes.items() if found == "Q-DICOM-DAMAGED"} == {"rtplan_truncated.dcm"}
    assert {name for name, found in outcomes.items() if found == "X-DICOMDIR"} >= {"DICOMDIR", "DICOMDIR-bigEnd"}
    assert {name for name, found in outcomes.items() if found == "X-NOT-DICOM"} >= {
        "crayons.icc",
        "zipMR.gz",
        "test1.json",
    }
    # no preamble, broken meta groups, big endian, truncated pixels: read all the same
    for name in (
        "rtstruct.dcm",
        "ExplVR_LitEndNoMeta.dcm",
        "no_meta_group_length.dcm",
        "ExplVR_BigEnd.dcm",
        "MR_truncated.dcm",
    ):
        assert isinstance(outcomes[name], dict), name


@pytest.mark.parametrize("first", [0, 131, 140, 300, 1000, 5000])
def test_a_header_longer_than_the_first_read(monkeypatch, first) -> None:
    whole = {path: read_header(path, WANTED) for path in FILES[::5]}
    monkeypatch.setattr(headers, "FIRST_READ", max(first, 132))
    for path, found in whole.items():
        assert read_header(path, WANTED) == found, path.name


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding(tmp_path, syntax) -> None:
    data = instance(
        AnatomicRegionSequence=code("76752008"),
        RadiopharmaceuticalInformationSequence=items(
            {"RadionuclideTotalDose": "3.5e8", "RadionuclideCodeSequence": code("77004003")}
        ),
    )
    plainly = read_header(save(tmp_path / "one", data), WANTED)
    data.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "other"
    pydicom.dcmwrite(path, data, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    other = read_header(path, WANTED)
    assert isinstance(plainly, dict) and isinstance(other, dict)
    assert plain(other) == plain(plainly)


def undefined_lengths(data: pydicom.Dataset) -> None:
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                undefined_lengths(item)


@pytest.mark.parametrize("implicit", [False, True])
def test_sequences_of_undefined_length_and_pixels_inside_them(tmp_path, implicit) -> None:
    data = instance(
        IconImageSequence=items({"Rows": 1, "Columns": 1, "PixelData": b"\0\0"}, {"PixelData": b"\0\0", "KVP": "1"}),
        SharedFunctionalGroupsSequence=items({"PixelMeasuresSequence": items({"PixelSpacing": ["0.1", "0.2"]})}),
    )
    data["IconImageSequence"].value[0]["PixelData"].VR = "OB"
    data["IconImageSequence"].value[1]["PixelData"].VR = "OB"
    undefined_lengths(data)
    path = tmp_path / "one"
    if implicit:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=True)
    found = read_header(path, WANTED)
    assert isinstance(found, dict)
    assert found[key(0x52009229)] == [{key(0x00289110): [{key(0x00280030): b"0.1\\0.2 "}]}]
    assert found[PATIENT_ID] == b"MRN0001 "


def test_a_private_sequence_of_unknown_vr_is_stepped_over(tmp_path) -> None:
    data = instance()
    path = save(tmp_path / "one", data)
    raw = path.read_bytes()
    # (0009,1010) UN, undefined length, implicit inside: one item with one element
    inside = struct.pack("<HHI", 0x0010, 0x0010, 6) + b"HIDDEN"
    private = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF)
    private += struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    place = raw.index(struct.pack("<HH", 0x0010, 0x0010))
    path.write_bytes(raw[:place] + private + raw[place:])
    found = read_header(path, WANTED)
    assert isinstance(found, dict) and found[PATIENT_ID] == b"MRN0001 "
    assert "HIDDEN" not in str(found)


def test_sequences_nested_without_end(tmp_path) -> None:
    raw = save(tmp_path / "one", instance()).read_bytes()
    place = raw.index(struct.pack("<HH", 0x0010, 0x0010))
    deep = (
        struct.pack("<HH2sHI", 0x0009, 0x1010, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ) * 5000
    (tmp_path / "deep").write_bytes(raw[:place] + deep + raw[place:])
    assert read_header(tmp_path / "deep", WANTED) == "Q-DICOM-DAMAGED"


def test_truncated_anywhere(tmp_path) -> None:
    raw = save(tmp_path / "one", instance(AnatomicRegionSequence=code("76752008"))).read_bytes()
    pixels = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path = tmp_path / "cut"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        found = read_header(path, WANTED)
        if length < 132:
            assert found == "X-NOT-DICOM"
        elif length >= pixels + 12:  # the head of the pixels is there
            assert isinstance(found, dict) and found[PATIENT_ID] == b"MRN0001 "
        else:
            # cut between two elements it looks whole: what is missing then is found missing by the reader of values
            assert found == "Q-DICOM-DAMAGED" or isinstance(found, dict)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([path for path in FILES if path.stat().st_size < 40_000][::3]), st.data())
def test_no_file_makes_it_raise(tmp_path_factory, path: Path, data) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        raw[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    target = tmp_path_factory.getbasetemp() / "mutated.dcm"
    target.write_bytes(raw)
    found = read_header(target, WANTED)
    assert isinstance(found, dict) or outcome_of(found)


def test_what_cannot_be_opened(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    assert read_header(tmp_path / "pipe", WANTED) == "Q-DICOM-UNREADABLE"
    assert read_header(tmp_path / "link", WANTED) == "Q-DICOM-UNREADABLE"
    assert read_header(tmp_path, WANTED) == "Q-DICOM-UNREADABLE"
    assert read_header(tmp_path / "empty", WANTED) == "X-NOT-DICOM"


@pytest.mark.parametrize("start", [b"\x08\x00\x05\x00", b"\x02\x00\x00\x00", b"\x08\x00", b"PK\x05\x06", b"{"])
def test_what_only_looks_like_dicom(tmp_path, start) -> None:
    path = tmp_path / "one"
    path.write_bytes(start + b"\0" * 500)
    assert read_header(path, WANTED) == "X-NOT-DICOM"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_stream_gives_what_the_file_gives(path: Path) -> None:
    with path.open("rb") as file:
        assert read_stream(file, path.stat().st_size, WANTED) == read_header(path, WANTED)


def test_a_stream_that_is_shorter_than_it_says(tmp_path) -> None:
    raw = save(tmp_path / "1", instance(1, ImageComments="x" * 1000)).read_bytes()
    cut = raw[: raw.index(b"x" * 1000) + 10]
    assert read_stream(io.BytesIO(cut), 1 << 40, WANTED) == "Q-DICOM-DAMAGED"
    assert read_stream(io.BytesIO(b""), 1 << 40, WANTED) == "X-NOT-DICOM"


def test_a_huge_element_is_jumped_over(tmp_path) -> None:
    raw = save(tmp_path / "1", instance(1)).read_bytes()
    at = raw.index(struct.pack("<HH2s", 0x0010, 0x0020, b"LO"))
    huge = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 3_000_000_000)
    path = tmp_path / "huge"
    with path.open("wb") as file:  # a file with a hole: it takes no room on disk
        file.write(raw[:at] + huge)
        file.seek(3_000_000_000, os.SEEK_CUR)
        file.write(raw[at:])
    assert read_header(path, WANTED) == read_header(tmp_path / "1", WANTED)
