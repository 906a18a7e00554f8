"""What the sources share that ask an archive (PACS): all studies are listed, those that changed are read, the rest stands.

listing    by windows of study date (see `windows`), or patient by patient
change     an archive tells of a study its numbers of series and instances, its date, modalities and patient; when one of
           these differs from the last run that landed, the study is read again, whole
spool      each study that was read stands beside the folder to be, de-identified; a run that was killed goes on there
deletes    a study that the archive names no more is told as deleted, unless too many are gone at once
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fhir_adapters import allow_list
from fhir_adapters.base import Extraction, Progress, Setting
from fhir_adapters.dicom import known
from fhir_adapters.dicom.extraction import DIGITS, Increment, Read, digits_of, write, zone_of
from fhir_adapters.dicom.headers import Header, Outcome, Wanted, key, silent_pydicom
from fhir_adapters.dicom.packing import StudyRead, packed, unpacked
from fhir_adapters.dicom.scan import instance_of
from fhir_adapters.dicom.values import Instance, Reader, iso_date, iso_time
from fhir_adapters.dicom.windows import Listing, Told, Unsplittable, Window, all_studies
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.spool import Spool, opened
from fhir_adapters.known_identifiers import ADDRESS, FISCAL_CODE, NAME, NUMBER, ORDER, UID
from fhir_adapters.pseudonyms import codice_fiscale_error

if TYPE_CHECKING:
    from pydicom import Dataset

    from fhir_adapters.pseudonyms import SiteKey

SETTINGS: Mapping[str, Setting] = {
    "time_zone": Setting(str, "the zone of the scanners' clocks; without it studies carry dates and no times"),
    "issuer": Setting(str, "the hospital's IssuerOfPatientID: what has another issuer is left out"),
    "record_number_digits": DIGITS,
    "instances": Setting(bool, "list every instance of a series, not only their number", False),
    "since": Setting(date, "studies from this day on; default: all"),
    "modalities": Setting(list, 'only studies that hold one of these, e.g. ["CT", "PT", "SM", "SR"]', ()),
    "patients": Setting(Path, "only these patients: a file with one PatientID a line; it stays in the hospital"),
    "limit": Setting(int, "the most answers that the archive gives to one question; 0: found out", 0),
    "most_deleted": Setting(float, "share of the known studies that may be gone at once; more is an error", 0.2),
    "parallel": Setting(int, "studies read at a time", 4),
}
_STUDY, _DATE, _TIME, _PATIENT = key(0x0020000D), key(0x00080020), key(0x00080030), key(0x00100020)
_MODALITIES, _SERIES_COUNT, _INSTANCE_COUNT = key(0x00080061), key(0x00201206), key(0x00201208)
_OF_STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "PatientID",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
# what a study says that identifies its patient → kind; read for the hospital's own list alone
_IDENTIFYING = {
    "PatientName": NAME,
    "OtherPatientNames": NAME,
    "ReferringPhysicianName": NAME,
    "PatientID": NUMBER,
    "OtherPatientIDs": NUMBER,
    "AccessionNumber": ORDER,
    "StudyID": ORDER,
    "StudyInstanceUID": UID,
    "PatientAddress": ADDRESS,
    "PatientTelephoneNumbers": "telephone",
}
_SHORTEST = 5  # characters of a number that is one of its own
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)


def is_plain(uid: str) -> bool:
    """Whether a UID may stand in an address or a question: real ones break the standard's rules, but not these."""
    return _UID.fullmatch(uid) is not None


def wanted_of(keywords: Iterable[str]) -> Wanted:
    """The elements of these keywords, as a header is read for."""
    from pydicom.datadict import tag_for_keyword

    return Wanted({key(tag): None for keyword in keywords if (tag := tag_for_keyword(keyword))})


class Answer(NamedTuple):
    """One instance as an archive gives it; `whole` gives all of it where it is a structured report."""

    header: "Header | Outcome"
    whole: "Callable[[], Dataset | None] | None"
    more: tuple[tuple[str, tuple[int, ...]], ...] = ()  # values that only a query tells


class StudyLost(Exception):
    """A study that the archive names and does not give; `reason` of reasons.csv."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Archive(Protocol):
    """What an archive can be asked; for threads. Raises PalmaresError when it cannot be asked at all."""

    def studies(self, window: Window, patient: str | None, keywords: Iterable[str]) -> tuple[list[Header], bool]:
        """What these elements say of the studies of a window of dates, and whether the archive says that it holds more."""
        ...

    def fetch(self, study: str) -> Callable[[Wanted], Iterator[Answer]]:
        """Ask for all instances of a study, and give what makes answers of what came. Raises StudyLost."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Archived:
    """A study that the archive names: its UID there, its id here, and a hash of what the archive says of it."""

    uid: str
    id: str
    print: str
    instances: int | None
    dated: bool = True


class ArchiveReader:
    """Reads an archive for one site. Settings as in `SETTINGS`."""

    def __init__(self, kind: str, settings: Mapping[str, Any], key: "SiteKey | None") -> None:
        """Raises E-SRC-02, E-SRC-03."""
        if key is None:
            raise PalmaresError("E-SRC-03", kind)
        self.kind = kind
        self._settings = settings
        self._key = key
        self._zone = zone_of(settings, kind)
        # one for all studies, used by one thread: what it met before is not read, and not held, again
        self._values = Reader(allow_list.dicom(), key, settings["issuer"], digits_of(settings, kind))
        if not 1 <= settings["parallel"] <= 64 or settings["limit"] < 0 or not 0 <= settings["most_deleted"] <= 1:
            raise PalmaresError("E-SRC-02", kind, detail="parallel, limit or most_deleted is out of range")
        if isinstance(settings["since"], datetime):
            raise PalmaresError("E-SRC-02", kind, detail="since is a day, without a time")

    def extract(
        self,
        connect: Callable[[], Archive],
        out: Path,
        *,
        where: str,
        full: bool,
        state: Mapping[str, Any] | None,
        known_file: Path | None,
        progress: Progress | None,
    ) -> Extraction:
        """Read what changed since `state` (or all) of the archive that `connect` gives; `where` names it.

        Raises E-PACS-…, E-SRC-07, E-DISK-….
        """
        identity = self._identity(where)
        comparable = state is not None and state.get("of") == identity
        before = known.read(known_file) if comparable else []
        with opened(out, {"of": identity, "full": full}) as spool, silent_pydicom():
            archive = connect()
            try:
                listing, studies, no_uid = self._list(archive)
                prints = {} if full else {row.study: row.print for row in before if row.print}
                todo = [one for one in studies.values() if not one.print or prints.get(one.id) != one.print]
                done = self._read(archive, spool, todo, progress)
                also = self._sharing(done, before, studies)
                done |= self._read(archive, spool, also, progress)
            finally:
                archive.close()
            return self._write(out, spool, identity, before, studies, done, listing, no_uid)

    def _identity(self, where: str) -> dict[str, str]:
        """What makes two runs comparable; nothing secret, no value of a patient."""
        names = ("time_zone", "issuer", "record_number_digits", "instances", "since", "modalities")
        settings = {name: self._settings[name] for name in names}
        patients = self._settings["patients"]
        told = repr([where, settings, patients is not None, allow_list.fingerprint()])
        return {"archive": self._key.pseudonym("archive", told), "key": self._key.fingerprint}

    # -- which studies -------------------------------------------------------------------------------------------------

    def identifiers(self, connect: Callable[[], Archive]) -> Iterator[tuple[str, str]]:
        """What the archive's studies say of their patients, as (kind, value): for the hospital's own list, which never leaves."""
        from pydicom.datadict import tag_for_keyword

        archive = connect()
        try:
            with silent_pydicom():
                _, headers, _ = self._asked(archive, (*_OF_STUDY, *_IDENTIFYING))
        finally:
            archive.close()
        for header in headers.values():
            for keyword, kind in _IDENTIFYING.items():
                for text in _text(header, key(tag_for_keyword(keyword) or 0)).split("\\"):
                    plain = " ".join(text.replace("^", " ").replace("=", " ").split()) if kind == NAME else text.strip()
                    if codice_fiscale_error(plain) is None:
                        yield FISCAL_CODE, plain
                    elif plain and (kind == NAME or len(plain) >= _SHORTEST):
                        yield kind, plain

    def _list(self, archive: Archive) -> tuple[Listing, dict[str, Archived], int]:
        """The studies that the settings want, by their ids."""
        listing, headers, no_uid = self._asked(archive, _OF_STUDY)
        wanted = {str(one).upper() for one in self._settings["modalities"]}
        found: dict[str, Archived] = {}
        for uid in sorted(listing.studies):
            modalities = set(_text(headers[uid], _MODALITIES).upper().split("\\")) - {""}
            if not wanted or not modalities or wanted & modalities:
                one = self._archived(uid, headers[uid])
                found[one.id] = one
        return listing, found, no_uid

    def _asked(self, archive: Archive, keywords: Sequence[str]) -> tuple[Listing, dict[str, Header], int]:
        """All studies, what the elements say of each by its UID, and how many have no UID. Raises E-PACS-04, E-PACS-05."""
        headers: dict[str, Header] = {}
        no_uid = 0

        def ask(window: Window, patient: str | None = None) -> tuple[list[Told], bool]:
            nonlocal no_uid
            answers, more = archive.studies(window, patient, keywords)
            told = []
            for header in answers:
                uid = _text(header, _STUDY)
                if not is_plain(uid):
                    no_uid += 1
                    uid = ""
                elif patient is not None and _text(header, _PATIENT) != patient:
                    uid = ""
                else:
                    headers[uid] = header
                told.append(_told(uid, header))  # what is not taken counts too: an archive counts it as an answer
            return told, more

        studies: dict[str, Told] = {}
        questions, limited = 0, False
        try:
            for patient in self._patients():
                part = all_studies(
                    partial(ask, patient=patient), since=self._settings["since"], limit=self._settings["limit"]
                )
                studies.update(part.studies)
                questions, limited = questions + part.questions, limited or part.limited
        except Unsplittable:
            raise PalmaresError("E-PACS-04", self.kind) from None
        return Listing(studies, questions, limited), headers, no_uid

    def _patients(self) -> Sequence[str | None]:
        """The patients to ask for; None: all at once. Raises E-PACS-05."""
        path: Path | None = self._settings["patients"]
        if path is None:
            return [None]
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise PalmaresError("E-PACS-05", "patients", detail=type(error).__name__) from None
        numbers = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        wrong = sum(not one.isascii() or not one.isprintable() or bool(set(one) & set("*?\\")) for one in numbers)
        if wrong or not numbers:
            raise PalmaresError("E-PACS-05", "patients", count=wrong)
        return numbers

    def _archived(self, uid: str, header: Header) -> Archived:
        count = _text(header, _INSTANCE_COUNT)
        said = [_text(header, tag) for tag in (_DATE, _TIME, _PATIENT, _SERIES_COUNT, _INSTANCE_COUNT)]
        said += sorted(_text(header, _MODALITIES).split("\\"))
        # without a count, a file more in the archive would not be seen
        mark = self._key.pseudonym("archived-study", "\0".join(said)) if count.isdecimal() else ""
        dated = iso_date(_text(header, _DATE)) is not None
        return Archived(uid, self._key.uid(uid), mark, int(count) if count.isdecimal() else None, dated)

    # -- what is in them -------------------------------------------------------------------------------------------------

    def _read(
        self, archive: Archive, spool: Spool, todo: Sequence[Archived], progress: Progress | None
    ) -> dict[str, StudyRead]:
        """Read studies, several at a time, each into the spool; those that stand there already are not read again."""
        strand = spool.strand("studies")
        asked = {one.id: one for one in todo}
        done: dict[str, StudyRead] = {}
        if strand.data.exists():
            with strand.data.open("rb") as lines:
                for line in lines:
                    one = unpacked(line)
                    if one.study in asked and one.print and one.print == asked[one.study].print:
                        done[one.study] = one
        waiting = iter([one for one in todo if one.id not in done])
        try:
            with ThreadPoolExecutor(self._settings["parallel"], "study") as workers:
                running: dict[Future[Any], Archived] = {}
                try:
                    while True:
                        # a few ahead of the reading, so that the archive is kept busy and memory is not
                        for study in islice(waiting, 2 * self._settings["parallel"] - len(running)):
                            running[workers.submit(archive.fetch, study.uid)] = study
                        if not running:
                            return done
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            study = running.pop(future)
                            result = self._study(study, future)
                            strand.append(packed(result), b"", study=study.id)
                            done[study.id] = result
                            if progress:
                                progress(1)
                finally:
                    for future in running:
                        future.cancel()
        finally:
            strand.close()

    def _study(self, study: Archived, future: Future[Callable[[Wanted], Iterator[Answer]]]) -> StudyRead:
        """What a study holds. Raises PalmaresError when the archive cannot be asked any more."""
        reader = self._values
        reader.left_out = Counter()
        found: list[Instance | str] = []
        items: list[str] = []
        try:
            for number, (header, whole, more) in enumerate(future.result()(reader.wanted), start=1):
                one = header if isinstance(header, str) else instance_of(header, reader, whole)
                if isinstance(one, Instance):
                    one = one._replace(values=(*one.values, *more))
                found.append(one)
                items.append(one.uid if isinstance(one, Instance) else f"{study.id}:{number}")
            if not found:
                raise StudyLost("X-PACS-GONE")
            if study.instances is not None and _counted(found) < study.instances:
                raise StudyLost("Q-PACS-INCOMPLETE")
        except StudyLost as lost:
            return StudyRead(study.id, "", [study.id], [lost.reason], Counter())
        return StudyRead(study.id, study.print, items, found, reader.left_out)

    def _sharing(
        self, done: Mapping[str, StudyRead], before: Sequence[known.Row], studies: Mapping[str, Archived]
    ) -> list[Archived]:
        """Studies that did not change and show a sample of one that did: what is said of the sample comes from all of them."""
        samples = {
            str(value[0])
            for read in done.values()
            for one in read.found
            if isinstance(one, Instance)
            for name, value in one.values
            if name == "specimen-uid"
        }
        sharing = {row.study for row in before if row.resource_type == "Specimen" and row.resource_id in samples}
        return [studies[one] for one in sorted(sharing - done.keys()) if one in studies]

    def _write(
        self,
        out: Path,
        spool: Spool,
        identity: Mapping[str, str],
        before: Sequence[known.Row],
        studies: Mapping[str, Archived],
        done: Mapping[str, StudyRead],
        listing: Listing,
        no_uid: int,
    ) -> Extraction:
        order = [done[one] for one in sorted(done)]
        items = [item for one in order for item in one.items] + [f"answer:{n}" for n in range(1, no_uid + 1)]
        found = [each for one in order for each in one.found] + ["Q-DICOM-NO-UID"] * no_uid
        left_out = sum((one.left_out for one in order), Counter[str]())
        prints = {one.study: one.print for one in order}
        # a study that was lost this time stands as it stood, and is asked for again
        lost = {one.study for one in order if one.found == ["Q-PACS-INCOMPLETE"] or one.found == ["Q-PACS-REFUSED"]}
        kept = [row._replace(print="") if row.study in lost else row for row in before]
        # an archive that cuts its answers off names only some of the studies without a date
        named, undated = set(studies), {one.id for one in studies.values() if not one.dated}
        unnamed = {row.study for row in before if not row.dated} - named if listing.limited else set()

        def settle(good: Sequence[Instance]) -> known.Settled:
            return known.settle(
                kept,
                known.told_by(good, prints, undated),
                read_anew=set(done) - lost,
                named=named | unnamed,
                most=self._settings["most_deleted"],
            )

        extraction = write(
            self.kind,
            Read(items, found, left_out),
            out,
            zone=self._zone,
            instances=self._settings["instances"],
            # what was lost this time stands as it was landed before: landing must not begin anew
            increment=Increment(len(done) == len(studies) and not lost and not unnamed, {"of": identity}, settle),
            more={
                "studies": {
                    "named": len(listing.studies),
                    "wanted": len(studies),
                    "read": len(done),
                    "questions": listing.questions,
                    # an archive that cuts its answers off cannot be asked for studies without a date
                    "undated_may_be_missing": listing.limited,
                }
            },
        )
        spool.remove()
        return extraction


def _counted(found: Sequence[Instance | str]) -> int:
    """How many instances a study has: those that the archive listed, or more of a series of which it tells more."""
    listed: Counter[str] = Counter(one.series if isinstance(one, Instance) else "" for one in found)
    told = {
        one.series: count
        for one in found
        if isinstance(one, Instance)
        for name, (count, *_) in one.values
        if name == COUNTED and isinstance(count, int)
    }
    return sum(max(count, told.get(series, 0)) for series, count in listed.items())


COUNTED = "series.numberOfInstances"  # in the values of an instance: how many its series has, as the archive says


def _told(uid: str, header: Header) -> Told:
    day = iso_date(_text(header, _DATE))
    time = iso_time(_text(header, _TIME)) or ""
    return Told(uid, date.fromisoformat(day) if day else None, time[:8].replace(":", ""))


def _text(header: Header, tag: int) -> str:
    raw = header.get(tag, b"")
    return raw.decode("utf-8", "replace").strip(" \0") if isinstance(raw, bytes) else ""
