"""C-FIND against an archive that answers as a test wants: statuses, limits that it tells, strangers, TLS."""

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from fhir_adapters.base import Extraction, open_source
from fhir_adapters.dicom.headers import header_of
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(bytes(range(32)))
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
Answers = Callable[[Dataset], Iterator[tuple[int, Dataset | None]]]


class Archive:
    """A pynetdicom server; `answers` gives status and identifier for each question."""

    def __init__(self, answers: Answers, **settings: Any) -> None:
        self.questions: list[Dataset] = []
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(FIND)
        ae.require_called_aet = True
        ae.require_calling_aet = settings.pop("callers", [])

        def handle(event: Any) -> Iterator[tuple[int, Dataset | None]]:
            self.questions.append(event.identifier)
            yield from answers(event.identifier)

        handlers = [(evt.EVT_C_FIND, handle)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, **settings)
        self.port = self.server.server_address[1]

    def extract(self, out: Path, **more: Any) -> Extraction:
        settings = {"host": "127.0.0.1", "port": self.port, "called_ae": "ARCHIVE", "tries": 2, "timeout_seconds": 20}
        extraction: Extraction = open_source(
            {"kind": "dicom_query", "parallel": 1, **settings, **more}, folder=out.parent, key=KEY
        ).extract(out)
        return extraction


@pytest.fixture
def archive() -> Iterator[Callable[..., Archive]]:
    made: list[Archive] = []

    def make(answers: Answers, **settings: Any) -> Archive:
        made.append(Archive(answers, **settings))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()


def told(level: str, number: int = 1, **more: Any) -> Dataset:
    """What an archive says of one study, series or image."""
    answer = Dataset()
    answer.QueryRetrieveLevel = level
    answer.StudyInstanceUID = f"1.2.{number}"
    values: dict[str, Any] = {
        "STUDY": {"StudyDate": "20210301", "PatientID": f"MRN{number}", "NumberOfStudyRelatedInstances": "1"},
        "SERIES": {"SeriesInstanceUID": f"1.2.{number}.1", "Modality": "CT"},
        "IMAGE": {"SOPInstanceUID": f"1.2.{number}.1.1", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
    }[level]
    if level == "IMAGE":
        answer.SeriesInstanceUID = f"1.2.{number}.1"
    for keyword, value in {**values, **more}.items():
        setattr(answer, keyword, value)
    return answer


def one_study(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xFF00, told(question.QueryRetrieveLevel)


def test_each_level_is_asked_for_its_own_elements(archive, tmp_path) -> None:
    server = archive(one_study)
    assert server.extract(tmp_path / "out").resources == {"ImagingStudy": 1}
    by_level = {one.QueryRetrieveLevel: one for one in server.questions}
    assert "PatientID" in by_level["STUDY"] and "Modality" not in by_level["STUDY"]
    assert "Modality" in by_level["SERIES"] and "PatientID" not in by_level["SERIES"]
    assert "KVP" in by_level["IMAGE"] and "Modality" not in by_level["IMAGE"]
    # only what the allow-list reads is asked for
    assert not any("PatientName" in one or "StudyDescription" in one for one in server.questions)


class _WokenLate(threading.Event):
    """An event after which the asking side's own thread gets its turn late, as on a busy machine."""

    def wait(self, timeout: float | None = None) -> bool:
        done = super().wait(timeout)
        if getattr(threading.current_thread(), "is_requestor", False):
            time.sleep(0.05)
        return done


def test_every_answer_comes_on_a_busy_machine(archive, tmp_path, monkeypatch) -> None:
    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        number = str(question.StudyInstanceUID).removeprefix("1.2.")
        for one in [int(number)] if number else range(1, 6):
            yield 0xFF00, told(question.QueryRetrieveLevel, one)

    server = archive(answers)
    late = SimpleNamespace(**vars(threading) | {"Event": _WokenLate})
    monkeypatch.setattr("pynetdicom.association.threading", late)
    assert server.extract(tmp_path / "out", timeout_seconds=3).resources == {"ImagingStudy": 5}


@pytest.mark.parametrize(("status", "asked"), [(0xA900, 1), (0xC001, 2), (0x0122, 2)])
def test_a_failure_of_the_archive(archive, tmp_path, status, asked) -> None:
    server = archive(lambda _: iter([(status, None)]))
    with pytest.raises(PalmaresError, match=f"E-PACS-03.*0x{status:04X}"):
        server.extract(tmp_path / "out")
    assert len(server.questions) == asked


def test_a_limit_that_the_archive_tells(archive, tmp_path) -> None:
    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if question.QueryRetrieveLevel != "STUDY" or question.StudyInstanceUID:
            number = int(question.StudyInstanceUID.removeprefix("1.2."))
            yield 0xFF00, told(question.QueryRetrieveLevel, number, **day(number, question))
            return
        first, _, last = str(question.StudyDate or "").partition("-")
        low, high = first or "0", (last or "9") if "-" in str(question.StudyDate) else (first or "9")
        found = [number for number in range(1, 10) if low <= f"202103{number:02}" <= high]
        for number in found[:3]:
            yield 0xFF00, told("STUDY", number, StudyDate=f"202103{number:02}")
        if len(found) > 3:
            yield 0xA700, None

    def day(number: int, question: Dataset) -> dict[str, str]:
        return {"StudyDate": f"202103{number:02}"} if question.QueryRetrieveLevel == "STUDY" else {}

    assert archive(answers).extract(tmp_path / "out").resources == {"ImagingStudy": 9}


def test_more_than_it_gives_in_one_second(archive, tmp_path) -> None:
    def answers(_: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, told("STUDY", 1, StudyTime="101010")
        yield 0xA700, None

    with pytest.raises(PalmaresError, match="E-PACS-04"):
        archive(answers).extract(tmp_path / "out")


def test_a_stranger_is_told_so(archive, tmp_path) -> None:
    server = archive(one_study, callers=["SOMEBODY"])
    with pytest.raises(PalmaresError, match=r"E-PACS-02.*calling_ae"):
        server.extract(tmp_path / "out")
    with pytest.raises(PalmaresError, match=r"E-PACS-02.*called_ae"):
        server.extract(tmp_path / "out", calling_ae="SOMEBODY", called_ae="OTHER")
    assert server.extract(tmp_path / "out", calling_ae="SOMEBODY").resources == {"ImagingStudy": 1}


def test_series_and_images_that_do_not_come(archive, tmp_path) -> None:
    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        level, uid = question.QueryRetrieveLevel, str(question.get("StudyInstanceUID", ""))
        if level == "STUDY":
            for number in (1, 2, 3):
                if uid in ("", f"1.2.{number}"):
                    yield 0xFF00, told("STUDY", number, NumberOfStudyRelatedSeries="2" if number == 2 else "1")
        elif uid != "1.2.3" or level == "SERIES":
            number = int(uid.removeprefix("1.2."))
            more = {"NumberOfSeriesRelatedInstances": "7"} if level == "SERIES" else {}
            yield 0xFF00, told(level, number, **more)

    extraction = archive(answers).extract(tmp_path / "out")
    assert extraction.skipped == {"Q-PACS-INCOMPLETE": 2}
    study = json.loads((tmp_path / "out" / "fhir" / "ImagingStudy.ndjson").read_text())
    assert study["series"][0]["numberOfInstances"] == study["numberOfInstances"] == 7  # as the archive counts


def test_series_that_an_archive_cuts_off_and_does_not_say_so(archive, tmp_path) -> None:
    """The study counts 9 instances, the series that came count 7."""

    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        level = question.QueryRetrieveLevel
        study = {"NumberOfStudyRelatedInstances": "9"}
        yield 0xFF00, told(level, **{"STUDY": study, "SERIES": {"NumberOfSeriesRelatedInstances": "7"}}.get(level, {}))

    assert archive(answers).extract(tmp_path / "out").skipped == {"Q-PACS-INCOMPLETE": 1}


def test_images_that_an_archive_cuts_off(archive, tmp_path) -> None:
    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, told(question.QueryRetrieveLevel)
        if question.QueryRetrieveLevel == "IMAGE":
            yield 0xA700, None

    assert archive(answers).extract(tmp_path / "out").skipped == {"Q-PACS-INCOMPLETE": 1}


def test_an_answer_that_cannot_be_read_has_an_outcome(archive, tmp_path, monkeypatch) -> None:
    def answers(question: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        number = str(question.StudyInstanceUID).removeprefix("1.2.")
        for one in [int(number)] if number else (1, 2):
            yield 0xFF00, told(question.QueryRetrieveLevel, one)

    def damaged(one: Dataset, wanted: Any) -> Any:
        return (
            "Q-DICOM-DAMAGED" if one.QueryRetrieveLevel == "STUDY" and "1.2.2" in str(one) else header_of(one, wanted)
        )

    monkeypatch.setattr("fhir_adapters.dicom.query.header_of", damaged)
    extraction = archive(answers).extract(tmp_path / "out")
    assert extraction.skipped == {"Q-DICOM-NO-UID": 1}
    assert extraction.resources == {"ImagingStudy": 1}


@pytest.mark.parametrize("title", ["", "A" * 17, "A\\B", "Ä", "A\n"])
def test_a_title_that_is_none(title, tmp_path) -> None:
    with pytest.raises(PalmaresError, match="E-SRC-02"):
        open_source({"kind": "dicom_query", "host": "x", "called_ae": title}, folder=tmp_path, key=KEY)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "archive")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_over_tls(archive, tmp_path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    server = archive(one_study, ssl_context=context)
    assert server.extract(tmp_path / "out", tls=True, ca_file=str(cert)).resources == {"ImagingStudy": 1}
    with pytest.raises(PalmaresError, match="E-PACS-01"):  # an archive that nobody vouches for
        server.extract(tmp_path / "other", tls=True, tries=1)
    with pytest.raises(PalmaresError, match="E-SRC-02"):
        server.extract(tmp_path / "none", tls=True, ca_file=str(tmp_path / "key.pem"))
