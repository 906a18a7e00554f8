"""She is planted wherever the formats of a hospital's systems allow, goes the whole way, and is found in nothing that is written or said.

FHIR (every element of every type, broken lines, Bundles, compressed files, an archive), CSV, XLSX, DICOM (text elements, private ones, file
meta) and HL7 v2, and names of files. Searched: landing, accepted shards, slice, ledger, gate, submission, events, errors, logs, output.
"""

import csv
import gzip
import io
import json
import logging
import shutil
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import openpyxl
import orjson
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import LinkageKey, SiteKey
from omop_etl.cli import main
from omop_etl.config import load_site
from omop_etl.onboarding import gather, phi_check, write_known
from omop_etl.onboarding.check import check_site, lines
from omop_etl.reports.quality import report
from omop_etl.stages import SitePlace, extract, gate, land, map_, submit, validate
from omop_etl.submission import receive
from omop_etl.submission import submit as pack
from tests.dicom_helpers import instance, save
from tests.planted import KNOWN, PLANTED, TRACES, every_resource, sound_resources, traces

NAME, CODE, NUMBER = PLANTED["name"], PLANTED["codice-fiscale"], PLANTED["record-number"]
EVERYTHING = " ".join(PLANTED.values())
MAP = """
missing = ["n.d."]
ignore = ["cognome"]
[lists.sex]
F = "female"
[[table]]
file = "*.csv"
{resources}
[[table]]
file = "*.xlsx"
{resources}
"""
RESOURCES = """
[[table.resource]]
type = "Patient"
patient = "cartella"
[[table.resource.fill]]
column = "sesso"
element = "gender"
as = "list"
list = "sex"
[[table.resource.fill]]
column = "nato"
element = "birthDate"
as = "month"
[[table.resource]]
type = "Observation"
patient = "cartella"
id = ["data"]
fixed = {status = "final", code = {coding = [{system = "http://loinc.org", code = "85337-4"}]}}
[[table.resource.fill]]
column = "data"
element = "effectiveDateTime"
as = "date"
required = true
[[table.resource.fill]]
column = "er"
element = "valueQuantity.value"
as = "number"
"""
HEADER = ["cartella", "cognome", "sesso", "nato", "data", "er", NAME, "note"]
ROWS = [
    HEADER,
    [NUMBER, NAME, "F", "01/01/1947", "01/03/2021", "80", CODE, EVERYTHING],
    [NUMBER, NAME, NAME, CODE, NAME, PLANTED["telephone"], CODE, EVERYTHING],
    [NAME, NAME, "F", NAME, "02/03/2021", NAME, CODE, EVERYTHING, NAME],
]
TEXT_OF_VR = {"PN": NAME.replace(" ", "^"), "UI": PLANTED["uid"], "UR": f"https://x.example/{CODE}"}
TEXT_OF_VR |= dict.fromkeys(("LO", "ST", "LT", "UT", "UC"), f"{NAME} {CODE} {NUMBER}")
TEXT_OF_VR |= dict.fromkeys(("SH", "CS", "AE"), "ACC44332211")


def write_fhir(folder: Path) -> None:
    folder.mkdir()
    sound, wild = list(sound_resources()), list(every_resource(1))
    (folder / "export.ndjson").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in sound))
    (folder / "all.ndjson.gz").write_bytes(gzip.compress(b"".join(orjson.dumps(one) + b"\n" for one in wild)))
    broken = [
        b"{" + EVERYTHING.encode(),
        b'{"resourceType":"Observation","id":"MRN88776655","x":"' + NAME.encode(),
        EVERYTHING.encode() + b"\xff",
    ]
    broken += [
        orjson.dumps(EVERYTHING),
        orjson.dumps({NAME: NAME}),
        orjson.dumps({"resourceType": NAME, "id": NAME}),
        orjson.dumps(sound[0])[:-40],
    ]
    (folder / f"{NAME} {CODE}.ndjson").write_bytes(b"\n".join(broken))
    entries = [{"fullUrl": f"https://x.example/{one['resourceType']}/{one['id']}", "resource": one} for one in sound]
    bundle = {
        "resourceType": "Bundle",
        "id": NUMBER,
        "type": "collection",
        "identifier": {"value": NUMBER},
        "entry": [*entries, NAME, {"request": {"method": "DELETE", "url": f"Patient?name={NAME}"}}],
    }
    (folder / "MRN88776655.json").write_bytes(orjson.dumps(bundle))
    (folder / f"{NAME}.pdf").write_text(EVERYTHING)


def write_archive(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for number, one in enumerate(sound_resources()):
            archive.writestr(f"{NAME}/{CODE}-{number}.json", orjson.dumps(one))
        archive.writestr(f"{NAME}.txt", EVERYTHING)


def write_tables(folder: Path) -> None:
    folder.mkdir()
    (folder / "map.toml").write_text(MAP.format(resources=RESOURCES))
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows(ROWS)
    (folder / f"{NAME}.csv").write_bytes(out.getvalue().encode("cp1252"))
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = "Zuccarelli"
    for row in ROWS:
        book.active.append(row)
    book.save(folder / f"{CODE}.xlsx")


def write_dicom(folder: Path) -> None:
    folder.mkdir()
    planted = {}
    for tag, (vr, _, _, _, _) in DicomDictionary.items():
        group = tag >> 16
        if vr in TEXT_OF_VR and 0x0008 <= group < 0x7FE0 and group != 0x0002:
            planted[keyword_for_tag(tag)] = TEXT_OF_VR[vr]
    kept = ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality")
    for number in (1, 2):
        data = instance(number, **{key: value for key, value in planted.items() if key and key not in kept})
        data.PatientID = NUMBER
        data.StudyInstanceUID = PLANTED["uid"]
        data.add_new(0x00091001, "LO", NAME)
        data.add_new(0x00091002, "UN", EVERYTHING.encode())
        inner = Dataset()
        inner.PatientName = NAME
        data.OtherPatientIDsSequence = [inner]
        data.file_meta.SourceApplicationEntityTitle = "ZUCCARELLI"
        data.file_meta.PrivateInformationCreatorUID = PLANTED["uid"]
        data.file_meta.PrivateInformation = EVERYTHING.encode()
        data.preamble = NAME.encode().ljust(128, b"\0")
        save(folder / NAME / f"{CODE}-{number}.dcm", data)
    (folder / "broken.dcm").write_bytes((folder / NAME / f"{CODE}-1.dcm").read_bytes()[:700])
    (folder / f"{NAME}.txt").write_text(EVERYTHING)


def write_messages(folder: Path) -> None:
    folder.mkdir()
    head = f"MSH|^~\\&|{NAME}|{NAME}|ETL|OSP|20230105103000||{{kind}}|{NUMBER}|P|2.5"
    address, telephone, order = PLANTED["address"], PLANTED["telephone"], PLANTED["accession-number"]
    person = f"PID|1|{NUMBER}|{NUMBER}^^^OSP^MR~{CODE}^^^MEF^NNITA|{NUMBER}|ZUCCARELLI^ANTONIETTA||19470101|F|{NAME}||"
    person += f"{address}^^ZUCCARELLI||{telephone}|{PLANTED['e-mail']}|||||{CODE}|{CODE}"
    rest = {
        "ADT^A01": [
            f"NK1|1|{NAME}|MTH|{address}|{telephone}",
            f"PV1|1|I|{NAME}|||||ZUCCARELLI^ANTONIETTA||||||||||{order}" + "|" * 25 + "20230105",
        ],
        "ORU^R01": [
            f"OBR|1|{order}|{order}|718-7^{NAME}^LN|||20230105|||{NAME}||||{NAME}",
            f"OBX|1|NM|718-7^{NAME}^LN||12.5|{NAME}|{NAME}|||{NAME}|F|||20230105||{NAME}",
            f"OBX|2|TX|718-7^{NAME}^LN||{EVERYTHING}||||||F|||20230105",
            f"NTE|1||{EVERYTHING}",
            f"ZZZ|{EVERYTHING}",
        ],
        f"XXX^{NAME}": [EVERYTHING],
    }  # fmt: skip
    for number, (kind, segments) in enumerate(rest.items()):
        (folder / f"{NAME}-{number}.hl7").write_text(
            "\r".join([head.format(kind=kind), person, *segments]) + "\r", encoding="latin-1"
        )
    (folder / f"{CODE}.hl7").write_text(EVERYTHING)


SOURCES = {
    "fhir_files": (
        write_fhir,
        'path = "fhir_files"\nwatch = true\nstable_seconds = 0\npatient_identifier = "http://ospedale.example/mrn"',
    ),
    "fhir_files ": (write_archive, 'path = "fhir_files /export.zip"'),
    "tables": (write_tables, 'path = "tables"\nmap = "tables/map.toml"'),
    "dicom_folder": (write_dicom, 'path = "dicom_folder"'),
    "hl7v2": (write_messages, 'path = "hl7v2"\nlinkage = true'),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SitePlace, str]]:
    """A hospital with all of these, run from its sources to its submission, and what was said on the way."""
    hospital, home = tmp_path_factory.mktemp("hospital"), tmp_path_factory.mktemp("workspace")
    SiteKey.create(hospital / "keys" / "prova.key")
    toml = 'name = "Prova"\nkey_file = "keys/prova.key"\n'
    for kind, (write, settings) in SOURCES.items():
        write(hospital / kind)
        toml += f'[[source]]\nkind = "{kind.strip()}"\n{settings}\n'
    (hospital / "prova.toml").write_text(toml)
    site = load_site("prova", hospital)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LinkageKey.variable, "ab" * 32)
        where = SitePlace(home, site)
        outs = [extract(where, number)["out"] for number in range(len(site.sources))]
        said = [land(where, outs), validate(where), map_(where), gate(where)]
        try:
            said.append(submit(where))
        except PalmaresError as error:  # a gate of so few patients may block; it says so without a value
            log.write(str(error))
        checked = check_site(site)
        assert checked.ok, [one.error for one in checked.sources]
        assert [bool(one.resources) for one in checked.sources] == [True] * len(SOURCES)
        log.write("\n".join(lines(checked)) + repr(checked))
    logging.getLogger().removeHandler(handler)
    yield where, log.getvalue() + json.dumps(said, default=str)


def test_every_source_gave_something(place: tuple[SitePlace, str]) -> None:
    where, _ = place
    for number, kind in enumerate(SOURCES, 1):
        manifest = json.loads((where.extracted / f"{number}-{kind.strip()}" / "manifest.json").read_text())
        assert sum(manifest["resources"].values()) > 0, kind
    counts = json.loads((where.slice / "manifest.json").read_text())["tables"]
    for table in ("person", "measurement", "condition_occurrence", "visit_occurrence", "note"):
        assert counts[table] > 0, table


def test_she_is_one_person_whichever_way_she_came_in(place: tuple[SitePlace, str]) -> None:
    """Her record number makes the pseudonym in every source that knows it."""
    where, _ = place
    key = SiteKey.load(where.site.key_file)
    expected = key.pseudonym("patient", NUMBER)
    for number, kind in enumerate(SOURCES, 1):
        texts = b"".join(path.read_bytes() for path in (where.extracted / f"{number}-{kind.strip()}").rglob("*.ndjson"))
        texts += b"".join(path.read_bytes() for path in (where.extracted / f"{number}-{kind.strip()}").rglob("*.json"))
        assert expected.encode() in texts, kind


def test_nothing_that_was_written_names_her(place: tuple[SitePlace, str]) -> None:
    where, _ = place
    found = phi_check([where.home], KNOWN)
    assert found.files > 50
    assert found.findings == () and found.unread == ()
    for path in where.home.rglob("*"):
        assert traces(path.relative_to(where.home).as_posix()) == []
        if path.is_file():  # a second look that shares no code with the first
            assert [trace for trace in TRACES if trace.encode() in path.read_bytes().lower()] == [], path.name


def test_what_is_told_after_a_block_names_her_not(place: tuple[SitePlace, str], tmp_path: Path) -> None:
    """The notice of her hospital, blocked for certain: searched, and looked at with the eyes of the centre."""
    where, _ = place
    verdict = json.loads((where.gate / "verdict.json").read_text())
    verdict["verdict"] = verdict["checks"][0]["verdict"] = "BLOCK"
    shutil.copytree(where.gate, tmp_path / "gate")
    (tmp_path / "gate" / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(PalmaresError, match="E-GATE-01") as caught:
        pack(where.slice, tmp_path / "gate", tmp_path / "sent" / "submission")
    assert traces(str(caught.value)) == []
    assert [path.name for path in (tmp_path / "sent").rglob("*") if path.is_file()] == ["notice.json"]
    found = phi_check([tmp_path / "sent"], KNOWN)
    assert (found.files, found.findings, found.unread) == (1, (), ())
    text = (tmp_path / "sent" / "notice" / "notice.json").read_text()
    assert traces(text) == []
    rows = duckdb.sql(f"SELECT person_id, person_source_value FROM '{where.slice}/person.parquet'").fetchall()
    assert rows
    for person, pseudonym in rows:
        assert str(person) not in text and (pseudonym is None or pseudonym not in text)
    assert receive(tmp_path / "sent" / "notice", tmp_path / "centre" / "intake").verdict == "BLOCK"
    report(tmp_path / "centre" / "intake", tmp_path / "centre" / "quality")
    assert phi_check([tmp_path / "centre"], KNOWN, patterns=False).findings == ()


def test_nothing_that_was_said_names_her(place: tuple[SitePlace, str], capfd: pytest.CaptureFixture[str]) -> None:
    _, said = place
    assert traces(said) == []
    assert traces(capfd.readouterr().out) == []


def test_the_search_would_have_found_her(place: tuple[SitePlace, str], tmp_path: Path) -> None:
    """The hospital's own folder, which never leaves, is full of her; and its list is collected from its sources."""
    where, _ = place
    found = phi_check([where.site.folder], KNOWN)
    assert {one.kind for one in found.findings} >= set(PLANTED)
    collected = set(gather(where.site))
    kinds = {one.kind for one in collected}
    assert kinds >= {"name", "codice-fiscale", "record-number", "address", "accession-number", "uid"}
    write_known(collected, tmp_path / "known.csv")
    leaving = [path for path in where.slice.rglob("*") if path.is_file() and path.name != "trace.parquet"]
    assert phi_check(leaving, collected, patterns=False).findings == ()


@pytest.mark.parametrize("kind", sorted(one.strip() for one in SOURCES))
def test_an_error_names_her_not(tmp_path: Path, kind: str) -> None:
    """Her name in the path of a source that is not there."""
    (tmp_path / "prova.toml").write_text(
        f'name = "x"\nkey_file = "prova.key"\n[[source]]\nkind = "{kind}"\npath = "{NAME}"\n'
        + ('map = "map.toml"\n' if kind == "tables" else "")
    )
    (tmp_path / "map.toml").write_text(MAP.format(resources=RESOURCES))
    SiteKey.create(tmp_path / "prova.key")
    where = SitePlace(tmp_path / "home", load_site("prova", tmp_path))
    with pytest.raises(PalmaresError) as caught:
        extract(where, 0)
    assert traces(str(caught.value)) == []
    assert traces((tmp_path / "home" / "events.ndjson").read_text()) == []


class _Failing:
    """A source whose library fails with her name in its words."""

    def extract(self, out: Path) -> None:
        int(NAME)


@pytest.mark.parametrize("through", ["stage", "command"])
def test_an_error_of_a_library_names_her_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], through: str
) -> None:
    """Airflow logs what a stage raises, and a terminal shows what a command does."""
    (tmp_path / "prova.toml").write_text('name = "x"\n[[source]]\nkind = "fhir_files"\npath = "x"\n')
    monkeypatch.setattr("omop_etl.stages.source_of", lambda *_: _Failing())
    where = SitePlace(tmp_path / "home", load_site("prova", tmp_path))
    if through == "stage":
        with pytest.raises(PalmaresError, match=r"E-UNEXPECTED-01 .* ValueError in ") as caught:
            extract(where, 0)
        said = "".join(traceback.format_exception(caught.value))
        assert "ValueError" in (tmp_path / "home" / "events.ndjson").read_text()
    else:
        monkeypatch.setattr("omop_etl.cli.app", lambda: int(NAME))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert "E-UNEXPECTED-01" in said
    assert traces(said) == []
    assert traces((tmp_path / "home" / "events.ndjson").read_text() if through == "stage" else "") == []
    monkeypatch.setenv("PALMARES_TRACEBACK", "1")
    with pytest.raises(ValueError, match="invalid literal"):
        extract(where, 0) if through == "stage" else main()
