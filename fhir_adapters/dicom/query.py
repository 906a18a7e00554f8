"""The `dicom_query` source: C-FIND of the Study Root model at the levels of study, series and image.

A query tells less than a file: which elements an archive answers with is its own affair, and no structured report comes along
(docs/sources-dicom.md lists what is missing). An association that breaks is made again and its question asked again, whole.
"""

import csv
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    stop_before_delay,
    wait_exponential_jitter,
)

from fhir_adapters import allow_list
from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.dicom import archive
from fhir_adapters.dicom.archive import COUNTED, Answer, ArchiveReader, StudyLost, is_plain
from fhir_adapters.dicom.extraction import YIELDS
from fhir_adapters.dicom.headers import Header, Wanted, header_of, key
from fhir_adapters.dicom.windows import Window
from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.association import Association

    from fhir_adapters.pseudonyms import SiteKey

_CHARACTER_SET, _PATIENT = key(0x00080005), key(0x00100020)
_PENDING, _SUCCESS = (0xFF00, 0xFF01), 0x0000
_CUT = (
    0xA700,
    0xFE00,
)  # out of resources; cancelled, which we never ask for: so ends an answer that is longer than the archive gives
_NEVER = 0xA9  # the question does not fit the archive's model: asked again it will not either
_CALLED, _CALLING = 7, 3  # diagnostics of a rejection (PS3.8, 9.3.4)
_TRANSIENT = 2

T = TypeVar("T")


@adapter
class DicomQuery:
    """An archive that answers C-FIND."""

    kind: ClassVar[str] = "dicom_query"
    yields: ClassVar[frozenset[str]] = YIELDS
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "host": Setting(str, "the archive's name or address", required=True),
        "port": Setting(int, "its port", 104),
        "called_ae": Setting(str, "its application entity title", required=True),
        "calling_ae": Setting(str, "ours, as the archive's keeper entered it", "PALMARES"),
        "tls": Setting(bool, "over TLS", False),
        "ca_file": Setting(Path, "the hospital's certificate authority, a PEM file"),
        "cert_file": Setting(Path, "our certificate, where the archive asks for one, a PEM file"),
        "key_file": Setting(Path, "the certificate's key, a PEM file"),
        "tries": Setting(int, "times that a question is tried", 8),
        "patience_minutes": Setting(int, "how long one question is tried again", 30),
        "timeout_seconds": Setting(int, "how long the archive may be silent", 120),
        **archive.SETTINGS,
        "parallel": Setting(int, "associations at a time", 2),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        """Raises E-SRC-02, E-SRC-03."""
        self._settings = settings
        self._reader = ArchiveReader(self.kind, settings, key)
        for name, most in (
            ("port", 65535),
            ("tries", 100),
            ("patience_minutes", 1440),
            ("timeout_seconds", 3600),
        ):
            if not 1 <= settings[name] <= most:
                raise PalmaresError("E-SRC-02", name, detail=f"it is none of 1 to {most}")
        for name in ("called_ae", "calling_ae"):
            title: str = settings[name]
            if not title.isascii() or not title.isprintable() or not 1 <= len(title.strip()) <= 16 or "\\" in title:
                raise PalmaresError("E-SRC-02", name, detail="an application entity title has 1 to 16 ASCII characters")
        if settings["tls"]:
            _trust(settings)

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        known: Path | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write what changed since `state` (or all). Raises E-PACS-01 … -06, E-SRC-07, E-DISK-…."""
        where = f"{self._settings['called_ae']}@{self._settings['host']}:{self._settings['port']}"
        return self._reader.extract(
            partial(_Archive, self._settings),
            out,
            where=where,
            full=full,
            state=state,
            known_file=known,
            progress=progress,
        )

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the archive says of its patients, as (kind, value): for the hospital's own list, which never leaves."""
        return self._reader.identifiers(partial(_Archive, self._settings))


class _Again(Exception):
    """Something that may heal; `code` is the error that it becomes when it does not, `why` has no values."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class _Archive:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        from pynetdicom import AE

        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # it tells questions and answers
        self._settings = settings
        self._ae = AE(ae_title=settings["calling_ae"])
        self._ae.add_requested_context(_find_model())
        self._ae.connection_timeout = min(20, settings["timeout_seconds"])
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = settings["timeout_seconds"]
        self._own = threading.local()
        self._all: list[Association] = []

    def studies(self, window: Window, patient: str | None, keywords: Iterable[str]) -> tuple[list[Header], bool]:
        asked = dict.fromkeys(keywords, "") | {"StudyDate": window.dates, "StudyTime": window.times}
        answers, more = self._ask(_question("STUDY", **asked | {"PatientID": patient or ""}))
        wanted = archive.wanted_of(keywords)
        headers = [header_of(one, wanted) for one in answers]
        return [one if isinstance(one, dict) else {} for one in headers], more  # a damaged answer is one without a UID

    def fetch(self, study: str) -> Callable[[Wanted], Iterator[Answer]]:
        try:
            return self._fetch(study)
        except PalmaresError as error:
            if error.code != "E-PACS-03":  # any other: the archive cannot be asked at all
                raise
            raise StudyLost("Q-PACS-REFUSED") from None

    def _fetch(self, study: str) -> Callable[[Wanted], Iterator[Answer]]:
        of_study, _ = self._ask(_question("STUDY", StudyInstanceUID=study))
        if not of_study:
            raise StudyLost("X-PACS-GONE")
        of_series, cut = self._ask(_question("SERIES", StudyInstanceUID=study))
        series = {str(one.get("SeriesInstanceUID", "")): one for one in of_series}
        told = of_study[0].get("NumberOfStudyRelatedSeries")
        if cut or (told is not None and str(told).isdecimal() and len(series) < int(told)):
            raise StudyLost("Q-PACS-INCOMPLETE")
        images = {}
        for uid, one in series.items():
            if not is_plain(uid):
                raise StudyLost("Q-PACS-REFUSED")
            images[uid], cut = self._ask(_question("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=uid))
            count = str(one.get("NumberOfSeriesRelatedInstances", ""))
            if (not images[uid] and count != "0") or (cut and not count.isdecimal()):
                raise StudyLost("Q-PACS-INCOMPLETE")
        return partial(_answers, of_study[0], series, images)

    # -- associations ----------------------------------------------------------------------------------------------------

    def _ask(self, question: "Dataset") -> "tuple[list[Dataset], bool]":
        """The answers to a question, and whether the archive says that it has more. Raises E-PACS-01 … -03."""
        return self._patiently(lambda: self._once(question))

    def _once(self, question: "Dataset") -> "tuple[list[Dataset], bool]":
        association = self._associated()
        found = []
        try:
            for status, identifier in association.send_c_find(question, _find_model()):
                code = status.get("Status")
                if code in _PENDING:
                    if identifier is None:
                        raise self._broken("an answer cannot be decoded")
                    found.append(identifier)
                elif code == _SUCCESS or code in _CUT:
                    return found, code in _CUT
                elif code is None:
                    raise self._broken("the association broke")
                elif code >> 8 == _NEVER:
                    raise PalmaresError("E-PACS-03", "archive", detail=f"status 0x{code:04X}")
                else:
                    raise _Again("E-PACS-03", f"status 0x{code:04X}")
        except RuntimeError:  # pynetdicom's, when the archive ended the association between two questions
            raise self._broken("the association ended") from None
        raise self._broken("the answer has no end")

    def _associated(self) -> "Association":
        """This thread's association. Raises _Again, or E-PACS-02 when the archive will never take it."""
        held: Association | None = getattr(self._own, "association", None)
        if held is not None and held.is_established:
            return held
        from pynetdicom import evt

        settings = self._settings
        tls = (_trust(settings), settings["host"]) if settings["tls"] else None
        made = self._ae.associate(
            settings["host"],
            settings["port"],
            ae_title=settings["called_ae"],
            tls_args=tls,
            evt_handlers=[(evt.EVT_CONN_OPEN, _at_once)],
        )
        if made.is_established:
            _leave_answers(made)
            self._own.association = made
            self._all.append(made)
            return made
        if made.is_rejected:
            said = made.acceptor.primitive
            if said is None or said.result == _TRANSIENT:
                raise _Again("E-PACS-01", "it takes no more associations just now")
            which = {_CALLED: "it is not called so (called_ae)", _CALLING: "it does not know us (calling_ae)"}
            raise PalmaresError("E-PACS-02", "archive", detail=which.get(said.diagnostic or 0, "it gives no reason"))
        if made.rejected_contexts and not made.accepted_contexts:
            raise PalmaresError("E-PACS-02", "archive", detail="it offers no C-FIND of the Study Root model")
        raise _Again("E-PACS-01", "no association")

    def _broken(self, why: str) -> _Again:
        held: Association | None = getattr(self._own, "association", None)
        if held is not None and held.is_established:
            held.abort()
        self._own.association = None
        return _Again("E-PACS-01", why)

    def _patiently(self, work: Callable[[], T]) -> T:
        stop = stop_any(
            stop_after_attempt(self._settings["tries"]), stop_before_delay(60.0 * self._settings["patience_minutes"])
        )
        wait = wait_exponential_jitter(initial=0.5, max=60)
        try:
            return Retrying(retry=retry_if_exception_type(_Again), wait=wait, stop=stop, reraise=True)(work)
        except _Again as error:
            raise PalmaresError(error.code, "archive", detail=error.why) from None

    def close(self) -> None:
        for one in self._all:
            if one.is_established:
                one.release()
        self._all.clear()


def _at_once(event: Any) -> None:
    """Questions are small: not to be held back until the last answer is acknowledged, which doubles the time."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _leave_answers(association: "Association") -> None:
    """Keep the association's own thread from taking an answer, and with it a study, from the queue.

    It looks for requests to serve, never blocking; on a busy machine it does so once after a question was sent
    (pynetdicom 3.0, issue 875). An archive makes no requests of us: only who waits for an answer gets a message.
    """
    take = association.dimse.get_msg
    association.dimse.get_msg = lambda block=False: take(block=True) if block else (None, None)  # type: ignore[method-assign]


def _answers(
    of_study: "Dataset", of_series: "Mapping[str, Dataset]", images: "Mapping[str, list[Dataset]]", wanted: Wanted
) -> Iterator[Answer]:
    """One answer per image; what the levels above it tell goes before what it tells itself."""
    above = header_of(of_study, wanted)
    for uid, series in of_series.items():
        beside = header_of(series, wanted)
        count = str(series.get("NumberOfSeriesRelatedInstances", ""))
        more = ((COUNTED, (int(count),)),) if count.isdecimal() else ()
        for image in images[uid]:
            own = header_of(image, wanted)
            if isinstance(above, str) or isinstance(beside, str) or isinstance(own, str):
                yield Answer("Q-DICOM-DAMAGED", None)
                continue
            merged = {tag: value for header in (own, beside, above) for tag, value in header.items() if value}
            # the character set of the answer that the record number comes from
            merged[_CHARACTER_SET] = (above if above.get(_PATIENT) else own).get(_CHARACTER_SET, b"")
            yield Answer(merged, None, more)


@cache
def _find_model() -> str:
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StudyRootQueryRetrieveInformationModelFind,
    )

    return str(StudyRootQueryRetrieveInformationModelFind)


@cache
def _levels() -> dict[str, str]:
    """Keyword → the level at which an archive is asked for it, where that is not the image."""
    with Path(__file__).with_name("query_levels.csv").open(encoding="utf-8", newline="") as lines:
        return {row["keyword"]: row["level"] for row in csv.DictReader(lines)}


def _question(level: str, **asked: str) -> "Dataset":
    """A C-FIND identifier: what is asked for, and every permitted element of the level to be told."""
    import pydicom
    from pydicom.datadict import dictionary_VR

    question = pydicom.Dataset()
    question.QueryRetrieveLevel = level
    names = [name for name, of in _levels().items() if of == level]
    tags = [pydicom.tag.Tag(name) for name in names]
    if level == "IMAGE":
        kept = allow_list.dicom().keep.values()
        tags += [pydicom.tag.Tag(one.path[0]) for one in kept if one.keyword not in _levels()]
    for tag in tags:
        if tag not in question and tag.group > 0x0002 and tag.element:
            question.add_new(tag, dictionary_VR(tag), None)
    for keyword, value in asked.items():
        if value or keyword not in question:
            setattr(question, keyword, value)
    return question


def _trust(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """Raises E-SRC-02 when a file of the TLS settings cannot be used."""
    context = ssl.create_default_context()
    try:
        if settings["ca_file"]:
            context.load_verify_locations(settings["ca_file"])
        if settings["cert_file"]:
            context.load_cert_chain(settings["cert_file"], settings["key_file"])
    except (OSError, ssl.SSLError):
        raise PalmaresError(
            "E-SRC-02", "tls", detail="ca_file, cert_file or key_file is no PEM file of its kind"
        ) from None
    return context
