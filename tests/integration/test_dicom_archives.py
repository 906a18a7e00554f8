"""Real archives: Orthanc over DICOMweb and C-FIND, dcmtk's dcmqrscp over C-FIND; with faults, increments, limits and a kill.

After each, what landed is what the archive holds.
"""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import FileDataset

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.dicom.studies import EXTENSION
from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing import land
from fhir_adapters.memory import of_extraction
from fhir_adapters.pseudonyms import SiteKey
from tests.dicom_helpers import CT_CLASS, PET_CLASS, code, instance, items, save
from tests.dicom_servers import Gate, Server, dcmqrscp, free_port, needs_dcmqrscp, needs_orthanc, orthanc, store
from tests.shared import SHARED

pytestmark = pytest.mark.long

KEY = SiteKey(bytes(range(32)))
STUDIES = 15
QUICK = {"tries": 3, "timeout_seconds": 20}


def pet(number: int) -> FileDataset:
    """A PET slice with all that SUV takes."""
    told = {
        "RadiopharmaceuticalStartTime": "091000",
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": "6586.2",
        "RadionuclideCodeSequence": code("77004003"),
    }
    more = {"Units": "BQML", "DecayCorrection": "START", "PatientWeight": "70.5"}
    data = instance(number, study=900, SOPClassUID=PET_CLASS, Modality="PT", **more)
    data.file_meta.MediaStorageSOPClassUID = PET_CLASS
    data.RadiopharmaceuticalInformationSequence = items(told)
    return data


def studies(many: int = STUDIES) -> list[FileDataset]:
    """Studies a day apart, each with two series, the first of two instances; a PET; a study without a date; two reports."""
    found = []
    for study in range(1, many + 1):
        day = f"{date(2021, 1, 1) + timedelta(study // 2):%Y%m%d}"
        for series, number in ((1, 1), (1, 2), (2, 1)):
            patient = f"MRN{study % 7:04}"
            found.append(instance(number, study=study, series=series, patient=patient, StudyDate=day))
    found += [pet(1), pet(2), instance(1, study=901, StudyDate="", StudyTime="")]
    shared = SHARED / "data" / "dicom"
    for name in ("ct_image.dcm", "sm_image.dcm", "sr_document.dcm", "sr_document_with_multiple_groups.dcm"):
        if (shared / name).exists():
            found.append(pydicom.dcmread(shared / name))
    return found


def source(kind: str, server: Server, **more: Any) -> Any:
    """A source for a server. The folder is not read: no setting of it is a path."""
    where = {"url": server.url} if kind == "dicomweb" else {"host": "127.0.0.1", "port": server.port}
    called = {} if kind == "dicomweb" else {"called_ae": server.title}
    settings = {"kind": kind, "time_zone": "Europe/Rome", "instances": True, **QUICK, **where, **called, **more}
    return open_source(settings, folder=Path(), key=KEY)


def fhir(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Resource type → id → resource, of an extraction."""
    found = {}
    for path in sorted((out / "fhir").glob("*.ndjson")):
        if path.stem != "deleted":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.stem] = {one["id"]: one for one in lines}
    return found


def landed(folder: Path) -> dict[tuple[str, str], str]:
    """What stands after landing: the newest version of each resource, deletes taken away."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for shard in sorted(manifest["shards"], key=lambda one: one["delivery"]):
        for line in (folder / shard["path"]).read_text().splitlines():
            one = json.loads(line)
            found[one["resourceType"], one["id"]] = (shard["delivery"], line)
    for row in pq.read_table(folder / "deleted.parquet").to_pylist():
        held = found.get((row["resource_type"], row["resource_id"]))
        if held and held[0] <= row["delivery"]:
            del found[row["resource_type"], row["resource_id"]]
    return {name: json.dumps(json.loads(line), sort_keys=True) for name, (_, line) in found.items()}


def everything(out: Path) -> dict[tuple[str, str], str]:
    """An extraction in the form of `landed`."""
    return {
        (kind, name): json.dumps(one, sort_keys=True)
        for kind, these in fhir(out).items()
        for name, one in these.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the folder source makes of the same files: the other ways are held against it."""
    place = tmp_path_factory.mktemp("folder")
    for number, one in enumerate(studies()):
        save(place / "in" / str(number), one)
    settings = {"kind": "dicom_folder", "path": "in", "time_zone": "Europe/Rome", "instances": True, "jobs": 1}
    open_source(settings, folder=place, key=KEY).extract(place / "out")
    return place / "out"


@pytest.fixture(scope="module")
def orthanc_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        assert store(server, studies()) == len(studies())
        yield server


@needs_orthanc
def test_dicomweb_gives_what_the_folder_gives(orthanc_: Server, folder: Path, tmp_path: Path) -> None:
    extraction = source("dicomweb", orthanc_).extract(tmp_path / "out")
    assert everything(tmp_path / "out") == everything(folder)
    assert extraction.full and extraction.more["outcomes"] == {"resource": len(studies())}
    assert extraction.more["studies"]["undated_may_be_missing"] is False


# what a query does not bring; docs/sources-dicom.md says so
NEVER = {"feature"}
NOT_OF_DCMTK = {
    *NEVER,
    *[
        "acquisition-date",
        "acquisition-time",
        "series-date",
        "series-time",
        "rows",
        "columns",
        "contrast",
        "kvp",
        "manufacturer",
        "model",
    ],
    *[
        "slice-thickness",
        "pixel-spacing-row",
        "pixel-spacing-column",
        "convolution-kernel",
        "image-type",
        "burned-in-annotation",
    ],
    *[
        "exposure",
        "exposure-time",
        "tube-current",
        "reconstruction-diameter",
        "spacing-between-slices",
        "lossy-compression",
        "stain",
    ],
    *[
        "imaged-volume-height",
        "imaged-volume-width",
        "total-pixel-matrix-rows",
        "total-pixel-matrix-columns",
        "specimen-uid",
    ],
    *[
        "injected-dose",
        "injection-time",
        "injection-to-series",
        "half-life",
        "radionuclide",
        "pixel-units",
        "decay-correction",
    ],
    "patient-weight",
}


def lacking(told: dict[str, Any], whole: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Of a study: the extensions and the elements that the query did not bring; asserts that it brought nothing else."""
    elements = {name for name in whole if name != "series" and told.get(name) != whole[name]}
    assert told.keys() <= whole.keys()
    extensions: set[str] = set()
    beside = {series["uid"]: series for series in told["series"]}
    assert beside.keys() == {series["uid"] for series in whole["series"]}
    for series in whole["series"]:
        other = beside[series["uid"]]
        ours = {json.dumps(one) for one in other.pop("extension", [])}
        theirs = {json.dumps(one) for one in series.get("extension", [])}
        assert ours <= theirs
        extensions |= {json.loads(one)["url"].removeprefix(EXTENSION) for one in theirs - ours}
        elements |= {f"series.{name}" for name in series if name != "extension" and other.get(name) != series[name]}
    return extensions, elements


@needs_orthanc
def test_c_find_of_orthanc_gives_the_same_study_save_what_a_query_cannot_carry(
    orthanc_: Server, folder: Path, tmp_path: Path
) -> None:
    extraction = source("dicom_query", orthanc_).extract(tmp_path / "out")
    told, whole = fhir(tmp_path / "out"), fhir(folder)
    assert told["ImagingStudy"].keys() == whole["ImagingStudy"].keys()
    assert told.get("Specimen", {}) == whole.get("Specimen", {})
    for name, study in whole["ImagingStudy"].items():
        extensions, elements = lacking(told["ImagingStudy"][name], study)
        assert extensions <= NEVER and not elements
    if "Observation" in whole:
        assert "Observation" not in told and extraction.more["left_out"]["report.not-in-a-query"] == 2


@needs_dcmqrscp
def test_c_find_of_dcmtk_gives_the_same_study_save_what_it_does_not_answer(folder: Path, tmp_path: Path) -> None:
    with dcmqrscp(tmp_path / "dcmtk") as server:
        held = [
            one for one in studies() if one.SOPClassUID in (CT_CLASS, PET_CLASS) and one.PatientName == "ROSSI^MARIA"
        ]
        assert store(server, held) == len(held)
        extraction = source("dicom_query", server).extract(tmp_path / "out")
    told, whole = fhir(tmp_path / "out"), fhir(folder)
    assert len(told["ImagingStudy"]) == STUDIES + 2
    assert extraction.more["outcomes"] == {"resource": len(held)}
    for name, study in told["ImagingStudy"].items():
        extensions, elements = lacking(study, whole["ImagingStudy"][name])
        assert extensions <= NOT_OF_DCMTK
        # it answers with no date or time of a series, no offset, no class of an instance
        assert elements <= {"started", *(f"series.{one}" for one in ("started", "specimen", "bodySite", "instance"))}


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_a_limit_of_answers_loses_no_study(kind: str, tmp_path: Path) -> None:
    held = [one for one in studies(40)[::3] if one.StudyDate]
    with orthanc(tmp_path / "orthanc", limit=12) as server:
        store(server, held)
        extraction = source(kind, server).extract(tmp_path / "out")
        source(kind, server, limit=12).extract(tmp_path / "told")
    assert extraction.resources["ImagingStudy"] == len({one.StudyInstanceUID for one in held})
    assert everything(tmp_path / "told") == everything(tmp_path / "out")
    assert extraction.more["studies"]["undated_may_be_missing"] is True


@needs_orthanc
@pytest.mark.parametrize(
    ("kind", "wrong", "number"),
    [
        ("dicom_query", {"called_ae": "NOBODY"}, "E-PACS-02"),
        (
            "dicom_query",
            {"calling_ae": "STRANGER"},
            "E-PACS-01",
        ),  # Orthanc lets a stranger in and breaks off at the question
        ("dicom_query", {"port": 0}, "E-PACS-01"),
        ("dicomweb", {"port": 0}, "E-FHIR-01"),
        ("dicomweb", {"path": "/nowhere"}, "E-FHIR-07"),
    ],
)
def test_what_cannot_be_asked_is_a_numbered_error(
    kind: str, wrong: dict[str, Any], number: str, orthanc_: Server, tmp_path: Path
) -> None:
    port = free_port()
    server = orthanc_
    if "port" in wrong:
        wrong, server = {}, replace(orthanc_, port=port, url=f"http://127.0.0.1:{port}/dicom-web")
    if "path" in wrong:
        wrong, server = {}, replace(orthanc_, url=orthanc_.url + wrong["path"])
    with pytest.raises(PalmaresError) as error:
        source(kind, server, **{"tries": 2, **wrong}).extract(tmp_path / "out")
    assert error.value.code == number
    assert not (tmp_path / "out").exists()
    assert not any(secret in str(error.value) for secret in ("MRN", "1.2.826", "ROSSI"))


BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@needs_orthanc
@pytest.mark.parametrize(
    ("kind", "after", "answer"),
    [
        ("dicomweb", 3000, b""),  # a body that is cut off
        ("dicomweb", 0, b""),  # no answer at all
        ("dicomweb", 3000, BUSY),
        ("dicom_query", 0, b""),  # no answer to the association
        ("dicom_query", 3000, b""),  # the association breaks among the answers
    ],
)
def test_a_line_that_breaks_loses_nothing(
    kind: str, after: int, answer: bytes, orthanc_: Server, tmp_path: Path
) -> None:
    source(kind, orthanc_).extract(tmp_path / "whole")
    port = int(orthanc_.url.split(":")[2].split("/")[0]) if kind == "dicomweb" else orthanc_.port
    with Gate(port, after=0 if answer else after, times=3, answer=answer) as gate:
        server = replace(orthanc_, port=gate.port, url=f"http://127.0.0.1:{gate.port}/dicom-web")
        source(kind, server, tries=8).extract(tmp_path / "out")
        assert gate.left == 0
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.integration.test_dicom_archives import Server, source

seen = 0
def progress(many):
    global seen
    seen += many
    if seen >= 5:
        os.kill(os.getpid(), signal.SIGKILL)

source(sys.argv[1], Server(int(sys.argv[5]), "ORTHANC", sys.argv[2]), parallel=1).extract(Path(sys.argv[3]), progress=progress)
"""


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_a_run_that_is_killed_goes_on_where_it_stood(kind: str, orthanc_: Server, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", KILLED, kind, orthanc_.url, str(tmp_path / "out"), root, str(orthanc_.port)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    told: list[int] = []
    source(kind, orthanc_, parallel=1).extract(tmp_path / "out", progress=told.append)
    source(kind, orthanc_).extract(tmp_path / "whole")
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
    assert sum(told) == len(fhir(tmp_path / "whole")["ImagingStudy"]) - 5  # the rest, and no study twice
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".spool")]


def run(one: Any, out: Path, before: Path | None = None, *, full: bool = False) -> Extraction:
    """Extract with the memory of an earlier extraction."""
    held = of_extraction(before, one.kind) if before else None
    return extract_from(one, out, full=full, state=held.state if held else None, known=held.known if held else None)


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_an_increment_lands_as_the_whole_does(kind: str, tmp_path: Path) -> None:
    held = studies(6)
    with orthanc(tmp_path / "orthanc") as server:
        store(server, held)
        first = run(source(kind, server), tmp_path / "1")
        assert first.full and first.state
        land([tmp_path / "1"], tmp_path / "landed")
        nothing = run(source(kind, server), tmp_path / "2", tmp_path / "1")
        assert nothing.resources == {"ImagingStudy": 0} and not nothing.full and nothing.more["deleted"] == 0
        # a new study, an instance more in an old one, a study that goes
        store(server, [instance(1, study=77), instance(3, study=2, patient="MRN0002")])
        delete(server, "1.2.826.3")
        third = run(source(kind, server), tmp_path / "3", tmp_path / "2")
        assert third.resources["ImagingStudy"] == 2 and third.more["deleted"] == 1
        land([tmp_path / "3"], tmp_path / "landed", previous=tmp_path / "landed")
        whole = run(source(kind, server), tmp_path / "4", tmp_path / "3", full=True)
    assert whole.full
    assert landed(tmp_path / "landed") == everything(tmp_path / "4")


def delete(server: Server, study: str) -> None:
    base = server.url.removesuffix("/dicom-web")
    find = {"Level": "Study", "Query": {"StudyInstanceUID": study}}
    [identity] = httpx.post(f"{base}/tools/find", json=find).json()
    assert httpx.delete(f"{base}/studies/{identity}").status_code == 200


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_only_these_patients_days_and_modalities(kind: str, orthanc_: Server, tmp_path: Path) -> None:
    patients = tmp_path / "patients.txt"
    patients.write_text("MRN0003\nMRN0005\nNOBODY\n")
    source(kind, orthanc_, patients=str(patients)).extract(tmp_path / "patients")
    found = fhir(tmp_path / "patients")["ImagingStudy"].values()
    wanted = {f"Patient/{KEY.pseudonym('patient', one)}" for one in ("MRN0003", "MRN0005")}
    assert {one["subject"]["reference"] for one in found} == wanted and len(found) == 4
    source(kind, orthanc_, modalities=["PT"]).extract(tmp_path / "modalities")
    [study] = fhir(tmp_path / "modalities")["ImagingStudy"].values()
    assert study["modality"][0]["code"] == "PT"
    source(kind, orthanc_, since=date(2021, 1, 5)).extract(tmp_path / "since")
    starts = {one["started"][:10] for one in fhir(tmp_path / "since")["ImagingStudy"].values()}
    assert min(starts) == "2021-01-05"
    patients.write_text("MRN*\n")
    with pytest.raises(PalmaresError, match="E-PACS-05"):
        source(kind, orthanc_, patients=str(patients)).extract(tmp_path / "wildcard")


PLANTED = [
    "ZUCCHINI",
    "MRN88776655",
    "88776655",
    "ACC44332211",
    "SEGRETA",
    "3331234567",
    "ZCCMRA47A41F205J",
    "19470101",
    "1947-01-01",
]


def planted(number: int) -> FileDataset:
    """An instance whose identifying elements are all filled, its UIDs and a private block too."""
    texts = {
        "PatientName": "ZUCCHINI^MARIA",
        "PatientBirthDate": "19470101",
        "OtherPatientIDs": "MRN88776655",
        "PatientAddress": "VIA SEGRETA 3",
        "PatientTelephoneNumbers": "3331234567",
        "PatientComments": "ZUCCHINI ZCCMRA47A41F205J",
        "AccessionNumber": "ACC44332211",
        "StudyID": "ACC44332211",
        "StudyDescription": "TORACE ZUCCHINI",
        "SeriesDescription": "ZUCCHINI",
        "ReferringPhysicianName": "ZUCCHINI^ANNA",
        "InstitutionName": "OSPEDALE SEGRETA",
        "StationName": "SEGRETA",
        "ImageComments": "ZUCCHINI",
        "ManufacturerModelName": "ZUCCHINI 3000",
        "ConvolutionKernel": "ZUCCHINI",
        "BodyPartExamined": "ZUCCHINI",
        "PatientWeight": "88776655",
        "StudyInstanceUID": "1.2.76.88776655.1",
        "SeriesInstanceUID": "1.2.76.88776655.1.1",
        "SOPInstanceUID": f"1.2.76.88776655.1.1.{number}",
    }
    data = instance(number, patient="MRN88776655", **texts)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.private_block(0x0009, "ZUCCHINI", create=True).add_new(1, "LO", "ZUCCHINI MRN88776655")
    return data


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_nothing_that_identifies_comes_out(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = []
    with orthanc(tmp_path / "orthanc") as server:
        assert store(server, [planted(1), planted(2)]) == 2
        patients = tmp_path / "patients.txt"
        patients.write_text("MRN88776655\n")
        caplog.clear()
        out = tmp_path / "out"
        assert source(kind, server, patients=str(patients)).extract(out / "1").resources == {"ImagingStudy": 1}

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):  # the spool stays
            source(kind, server).extract(out / "2", progress=stop)
    assert any(path.name.endswith(".spool") for path in out.iterdir())
    for name, more in (("3", {}), ("4", {"patients": str(patients)})):
        with pytest.raises(PalmaresError) as error:
            source(kind, server, **{"tries": 1, **more}).extract(out / name)
        errors.append(str(error.value))
    texts = [str(path.relative_to(out)) for path in out.rglob("*")]
    texts += [path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()]
    for path in out.rglob("*.parquet"):
        texts.append(str(pq.read_table(path).to_pylist()))
    said = capfd.readouterr()
    texts += [caplog.text, said.out, said.err, *errors]
    for text in texts:
        assert not [one for one in PLANTED if one.lower() in text.lower()]


@needs_orthanc
@pytest.mark.parametrize("kind", ["dicomweb", "dicom_query"])
def test_the_hospitals_own_list_of_what_identifies(kind: str, tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as server:
        store(server, [planted(1)])
        found = set(source(kind, server).identifiers())
    assert found >= {
        ("name", "ZUCCHINI MARIA"),
        ("name", "ZUCCHINI ANNA"),
        ("record-number", "MRN88776655"),
        ("accession-number", "ACC44332211"),
        ("uid", "1.2.76.88776655.1"),
    }
