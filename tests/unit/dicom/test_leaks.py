"""Nothing that identifies a patient comes out: planted in every element of DICOM, searched in all that is written or said."""

import json
import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from fhir_adapters import allow_list
from fhir_adapters.base import open_source
from fhir_adapters.dicom.values import Coding, codes
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from tests.dicom_helpers import CT_CLASS, instance, save

KEY = SiteKey(bytes(range(32)))
# a name, a record number, an order number, a UID, an address, a telephone number, a tax code, a date of birth
NAME, NUMBER, ORDER, UID = "ZUCCHINI", "MRN88776655", "ACC44332211", "1.2.76.88776655"
PLANTED = f"{NAME} 88776655 44332211 SEGRETA 3331234567 ZCCMRA47A41F205J 19470101 1947-01-01".split()
TEXTS = {
    "PN": f"{NAME}^MARIA",
    "UI": UID,
    "DA": "19470101",
    "DT": "19470101120000",
    "TM": "120000",
    "AS": "074Y",
    "IS": "88776655",
    "DS": "88776655",
    "UR": f"https://pacs.example/{NUMBER}",
    "AE": NAME,
    "CS": NUMBER,
    "SH": NUMBER,
    "LO": f"{NAME} MARIA {NUMBER} {ORDER}",
    "ST": f"{NAME}, VIA SEGRETA 3, 3331234567, ZCCMRA47A41F205J",
}
TEXTS |= dict.fromkeys(("LT", "UT", "UC"), TEXTS["ST"])
TEXTS |= dict.fromkeys(("OB", "OW", "UN"), f"{NAME} {NUMBER}")
BINARY = dict.fromkeys(("US", "SS"), struct.pack("<H", 8877)) | dict.fromkeys(
    ("UL", "SL", "FL"), struct.pack("<I", 88776655)
)
BINARY |= {"FD": struct.pack("<d", 88776655.0)}
LONG = ("OB", "OW", "UN", "SQ", "UT", "UC", "UR")
# what is planted by `instance` itself, so that the file is read
KEPT = {0x00080005, 0x00080016, 0x00080018, 0x00100020, 0x00100021, 0x0020000D, 0x0020000E}
PATHS = [element.path for element in allow_list.dicom().keep.values()]


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element, explicit little endian."""
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HI", 0, len(value)) if vr in LONG else struct.pack("<H", len(value))) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def plant(inside: tuple[int, ...] = ()) -> bytes:
    """A data set in which every element of the standard, and a private group, holds a value that identifies.

    A sequence that is read holds all of it again, down to the deepest that is read; the others hold what names the patient.
    `inside` is the path of the sequences around it.
    """
    few = b"".join(element(tag, vr, TEXTS[vr].encode()) for tag, vr in ((0x00080104, "LO"), (0x00100010, "PN")))
    found = []
    for tag, (vr, *_) in sorted(DicomDictionary.items()):
        vr = vr.split(" or ")[0]
        if not 0x0008 <= tag >> 16 < 0x7FE0 or (not inside and tag in KEPT):
            continue
        if vr == "SQ":
            here = (*inside, tag)
            read = any(path[: len(here)] == here for path in PATHS)
            found.append(element(tag, vr, item(plant(here) if read else few)))
        elif vr in TEXTS or vr in BINARY:
            found.append(element(tag, vr, BINARY.get(vr) or TEXTS[vr].encode()))
        if tag == 0x00082229:  # the end of group 8, or near it: a private group
            private = [element(0x00090010, "LO", NAME.encode()), element(0x00091001, "LO", TEXTS["LO"].encode())]
            found += [*private, element(0x00091002, "SQ", item(few)), element(0x00091003, "UN", TEXTS["LO"].encode())]
    return b"".join(found)


def planted_instance(path: Path, number: int) -> Path:
    """A file of one instance in which all is planted."""
    uids = {"StudyInstanceUID": UID, "SeriesInstanceUID": f"{UID}.1", "SOPInstanceUID": f"{UID}.1.{number}"}
    raw = save(path, instance(number, patient=NUMBER, **uids)).read_bytes()
    start = raw.index(element(0x00080016, "UI", CT_CLASS.encode()))
    identity = [(0x00080016, CT_CLASS), (0x00080018, f"{UID}.1.{number}"), (0x0020000D, UID), (0x0020000E, f"{UID}.1")]
    own = b"".join(element(tag, "UI", uid.encode()) for tag, uid in identity) + element(
        0x00100020, "LO", NUMBER.encode()
    )
    path.write_bytes(raw[:start] + own + plant() + element(0x7FE00010, "OW", b"\0\0"))
    return path


def everything(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file below a folder, Parquet's texts included."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes().decode("latin-1")


def assert_clean(*texts: str) -> None:
    for text in texts:
        for planted in PLANTED:
            assert planted.lower() not in text.lower(), planted


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A folder whose files and names are full of what identifies: sound, damaged, unreadable and no DICOM at all."""
    folder = tmp_path_factory.mktemp("planted") / f"{NAME} MARIA"
    with pydicom.config.disable_value_validation():
        for number in (1, 2):
            path = planted_instance(folder / f"{NAME}_{NUMBER}" / f"{number}_{NAME}.dcm", number)
        raw = path.read_bytes()
        (folder / f"{NAME}.cut").write_bytes(raw[: len(raw) // 3])
        (folder / f"{ORDER}.txt").write_text(f"{NAME} {NUMBER}")
        save(folder / f"{NUMBER}-none", instance(3, patient="", PatientComments=NAME))
        save(folder / f"{NUMBER}-bytes", instance(4, study=4, patient=NUMBER, SpecificCharacterSet=NAME))
        bad = save(folder / f"{NUMBER}-set", instance(5, study=5, patient="XXXXXXXX", SpecificCharacterSet=NAME))
        bad.write_bytes(bad.read_bytes().replace(b"XXXXXXXX", b"\xffUCCHINI"))
        texts = {"StudyDate": NAME, "StudyDescription": NAME, "Manufacturer": NAME, "ConvolutionKernel": NUMBER}
        big = instance(6, study=6, patient=NUMBER, **texts)
        big.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(folder / f"{NUMBER}-big", big, implicit_vr=False, little_endian=False)
    return folder


@pytest.mark.requirement("f2o-022")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_planted_comes_out(planted, tmp_path, caplog, capfd, recwarn) -> None:
    caplog.set_level(logging.DEBUG)
    source = open_source(
        {"kind": "dicom_folder", "path": str(planted), "instances": True, "jobs": 1}, folder=planted, key=KEY
    )
    extraction = source.extract(tmp_path / "out")
    assert extraction.resources == {"ImagingStudy": 3, "Specimen": 1}
    written = dict(everything(tmp_path / "out"))
    assert {"manifest.json", "outcomes.parquet", "fhir/ImagingStudy.ndjson"} <= written.keys()
    # real dates stay inside the secure environment: the date of the study is the one thing planted that may pass
    study = written.pop("fhir/ImagingStudy.ndjson")
    assert '"1947-01-01"' in study
    assert_clean(study.replace("1947-01-01", ""), *written.keys(), *written.values())
    out, error = capfd.readouterr()
    assert_clean(out, error, caplog.text, *(str(warning.message) for warning in recwarn.list))
    assert_clean(repr(extraction), repr(source))


def test_every_text_that_passes_is_ours(planted, tmp_path) -> None:
    """No text of a file is copied: each comes from a list of the project, or is a number, a date or a hash."""
    open_source({"kind": "dicom_folder", "path": str(planted), "jobs": 1}, folder=planted, key=KEY).extract(
        tmp_path / "out"
    )
    allowed = allow_list.dicom()
    lists = {text for texts in allowed.texts.values() for text in texts.values()}
    words = {word for element in allowed.keep.values() for word in element.words}
    coded = {
        text
        for coding in codes()._codes.values()
        if isinstance(coding, Coding)
        for text in (coding.code, coding.display)
    }
    shapes = re.compile(
        r"2\.25\.\d+|urn:oid:2\.25\.\d+|Patient/[0-9a-f]{32}|Specimen/2\.25\.\d+|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(\.\d+)?|urn:palmares:imaging:[a-z-]+"
        r"|ImagingStudy|available|http://[a-z0-9./]+(/[A-Za-z0-9/-]+)?|urn:dicom:uid"
    )
    units = {element.unit for element in allowed.keep.values()}

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for one in value.values():
                yield from texts(one)
        elif isinstance(value, list):
            for one in value:
                yield from texts(one)
        elif isinstance(value, str):
            yield value

    for line in (tmp_path / "out" / "fhir" / "ImagingStudy.ndjson").read_text().splitlines():
        for text in texts(json.loads(line)):
            known = text in lists | coded | units | {"unknown"} or all(
                part in words | {""} for part in text.split("\\")
            )
            assert known or shapes.fullmatch(text) or allowed.patterns["kernels"].fullmatch(text.upper())


def test_errors_name_no_file(tmp_path) -> None:
    folder = tmp_path / f"{NAME}"
    (folder / NUMBER).mkdir(parents=True)
    (folder / NUMBER / f"{ORDER}.txt").write_text(NAME)
    source = open_source({"kind": "dicom_folder", "path": str(folder)}, folder=folder, key=KEY)
    with pytest.raises(PalmaresError) as raised:
        source.extract(tmp_path / "out")
    assert_clean(str(raised.value))


@pytest.mark.parametrize(
    "keyword",
    [
        one.keyword
        for one in allow_list.dicom().keep.values()
        if len(one.path) == 1 and one.vr in TEXTS and one.kind != "pseudonym"
    ],
)
def test_a_name_in_a_permitted_element_stays_behind(tmp_path, keyword) -> None:
    one = allow_list.dicom().keep[keyword]
    path = save(tmp_path / "in" / "1", instance(1, patient="OTHER"))
    raw = path.read_bytes()
    pixels = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    planted = element(one.path[0], one.vr, f"{NAME}-{NUMBER}".encode())
    path.write_bytes(raw[:pixels] + planted + raw[pixels:])  # the last of two elements with one tag counts
    source = open_source({"kind": "dicom_folder", "path": "in", "instances": True}, folder=tmp_path, key=KEY)
    source.extract(tmp_path / "out")
    assert_clean(*(text for _, text in everything(tmp_path / "out")))
