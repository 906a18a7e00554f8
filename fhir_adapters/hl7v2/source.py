"""The `hl7v2` source: a folder of HL7 v2 messages as FHIR under pseudonyms, every message with one outcome.

A visit is what all its messages say together, so every extraction reads the whole folder; it writes what the files tell that are
new or were changed since the last one, and nothing when none is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import must_be_readable, whole_folder
from fhir_adapters.hl7v2.folding import Folder
from fhir_adapters.hl7v2.framing import NotReadable, Span, is_hl7, plain_copy, spans
from fhir_adapters.hl7v2.reading import Settings
from fhir_adapters.hl7v2.report import Report
from fhir_adapters.hl7v2.site_map import read_site_map
from fhir_adapters.hl7v2.work import Reader, Result, Task, as_text, read_task
from fhir_adapters.outcomes import RESOURCE, OutcomeFile, item_name
from fhir_adapters.processes import in_order, processors
from fhir_adapters.pseudonyms import LinkageKey
from fhir_adapters.seen_files import looked_at, name_hash, of_recipe, recipe

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_BATCH = 1 << 20  # bytes of messages that a worker reads at a time
_FEW = 1 << 23  # bytes for which no worker is started


@adapter
class Hl7v2:
    """HL7 v2 messages in files."""

    kind: ClassVar[str] = "hl7v2"
    yields: ClassVar[frozenset[str]] = frozenset(
        {
            "Patient",
            "Encounter",
            "Condition",
            "Procedure",
            "Observation",
            "DiagnosticReport",
            "Specimen",
            "ServiceRequest",
            "MedicationRequest",
            "MedicationAdministration",
            "MedicationDispense",
        }
    )
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "the folder of messages, one or many in a file", required=True),
        "files": Setting(str, "which files of it, as a glob", "**/*"),
        "map": Setting(Path, "a TOML file with the hospital's coding systems, units and answers in words"),
        "time_zone": Setting(str, "the zone of times without an offset; the site's unless given", "Europe/Rome"),
        "encoding": Setting(str, "character set of messages that name none; else UTF-8 or Windows-1252, by trial", ""),
        "identifiers": Setting(list, "types (PID-3.5) of the record number, the preferred first", ["MR", "PI", "PT"]),
        "authority": Setting(
            str, "assigning authority (PID-3.4) of the record number, where a message has several", ""
        ),
        "record_number_digits": Setting(int, "digits of a record number; 0: every number as it is written", 0),
        "visit_numbers": Setting(
            str, "'hospital': a visit number names one visit; 'patient': one of a patient's", "hospital"
        ),
        "processing": Setting(str, "letters of MSH-11 that are read: P production, T training, D debugging", "P"),
        "linkage": Setting(bool, "read the codice fiscale in PID-3 as a linkage token (PALMARES_LINKAGE_KEY)", False),
        "jobs": Setting(int, "processes; 0: as many as the machine has processors", 0),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        self._settings = settings
        self._key = key

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write `out/fhir/<ResourceType>.ndjson`, `out/outcomes.parquet` and `out/report.csv`.

        Raises E-SRC-02 and E-SRC-04 (settings, folder), E-MSG-01 (the map), E-MSG-02 (no message in any file), E-KEY-01 (no
        linkage key), E-DISK-01, -02.
        """
        reader = self._reader()
        folder: Path = self._settings["path"]
        if not folder.is_dir():
            raise PalmaresError("E-SRC-04", self.kind)
        must_be_readable(folder, self.kind)
        paths = sorted(path for path in folder.glob(self._settings["files"]) if path.is_file())
        if not paths:
            raise PalmaresError("E-SRC-04", self.kind)
        of = recipe({**self._settings, "jobs": 0}, Path(__file__).with_name("tables.csv"), reader.keys())
        seen = {} if full else of_recipe(state, of).get("files", {})
        now = looked_at(paths, folder)
        new = {name for name, look in now.items() if seen.get(name) != look}
        with whole_folder(out) as partial_, ExitStack() as stack:
            spool = partial_ / ".spool"
            for name in (partial_ / "fhir", spool):
                name.mkdir()
            outcomes = stack.enter_context(OutcomeFile(partial_, self.kind))
            report = stack.enter_context(Report(partial_ / "report.csv"))
            writer = Writer(partial_ / "fhir", outcomes, report, stack)
            read_bytes = 0
            if new:
                read_bytes = writer.read(reader, paths, folder, new, spool, self._settings["jobs"], progress)
            if new and not writer.found:
                raise PalmaresError("E-MSG-02", self.kind, count=len(paths))
            writer.close()
            outcomes.balance(sum(writer.written.values()))
            for left in spool.iterdir():
                left.unlink()
            spool.rmdir()
            extraction = Extraction(
                self.kind,
                len(new),
                read_bytes,
                dict(sorted(writer.written.items())),
                skipped=dict(sorted(outcomes.reasons.items())),
                more={
                    "messages": dict(sorted(writer.messages.items())),
                    "outcomes": dict(sorted(outcomes.outcomes.items())),
                    "reported": dict(sorted(report.reasons.items())),
                },
                full=not seen,
                state={"of": of, "files": now},
            )
            extraction.write(partial_)
        return extraction

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the messages say of their patients, as (kind, value): for the hospital's own list, which never leaves."""
        from fhir_adapters.hl7v2.identifying import of_message

        folder: Path = self._settings["path"]
        with TemporaryDirectory() as spool:
            for path in sorted(one for one in folder.glob(self._settings["files"]) if one.is_file()):
                try:
                    copy = plain_copy(path, Path(spool))
                    for span in spans(copy) if is_hl7(copy) else ():
                        with copy.open("rb") as file:
                            file.seek(span.start)
                            yield from of_message(file.read(span.end - span.start), self._settings["encoding"])
                except NotReadable:
                    continue  # an extraction tells of it; here it says nothing

    def _reader(self) -> Reader:
        if self._key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        chosen = self._settings
        for name, fits in (
            ("encoding", not chosen["encoding"] or _is_encoding(chosen["encoding"])),
            ("record_number_digits", 0 <= chosen["record_number_digits"] <= 32),
            ("visit_numbers", chosen["visit_numbers"] in ("hospital", "patient")),
            ("processing", bool(chosen["processing"]) and set(chosen["processing"]) <= set("PTD")),
            ("identifiers", all(isinstance(one, str) for one in chosen["identifiers"])),
        ):
            if not fits:
                raise PalmaresError("E-SRC-02", self.kind, detail=f"{name} is none of what it may be")
        settings = Settings(
            key=self._key,
            linkage=LinkageKey.load(None) if chosen["linkage"] else None,
            zone=chosen["time_zone"],
            site=read_site_map(chosen["map"]),
            identifier_types=tuple(one.upper() for one in chosen["identifiers"]),
            authority=chosen["authority"],
            digits=chosen["record_number_digits"],
            processing=chosen["processing"],
            visits_of_patient=chosen["visit_numbers"] == "patient",
        )
        return Reader(settings, chosen["encoding"])


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except LookupError:
        return False
    return True


class Writer:
    """Writes what the workers hand back, in the order of files and messages."""

    def __init__(self, folder: Path, outcomes: OutcomeFile, report: Report, stack: ExitStack) -> None:
        self._folder, self._outcomes, self._report, self._stack = folder, outcomes, report, stack
        self._sinks: dict[str, TextIO] = {}
        self._folder_of = Folder()
        self._seen: set[bytes] = set()
        self.written: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.found = 0

    def read(
        self,
        reader: Reader,
        paths: list[Path],
        root: Path,
        new: set[str],
        spool: Path,
        jobs: int,
        progress: Progress | None,
    ) -> int:
        """All files through the workers; returns the bytes read."""
        size = sum(path.stat().st_size for path in paths)
        workers = 1 if size < _FEW else jobs or processors()
        place = 0
        for results in in_order(
            partial(read_task, reader), self._tasks(paths, root, new, spool, progress), jobs=workers, subject="hl7v2"
        ):
            for result in results:
                place += 1
                self._take(result, place)
        return size

    def _tasks(
        self, paths: list[Path], root: Path, new: set[str], spool: Path, progress: Progress | None
    ) -> Iterator[Task]:
        for path in paths:
            name = path.relative_to(root).as_posix()
            is_new = name_hash(path, root) in new
            try:
                copy = plain_copy(path, spool)
                if is_hl7(copy):
                    yield from _cut(copy, name, new=is_new)
                elif is_new:
                    self._outcomes.refuse(item_name(name), "X-NOT-HL7")
            except NotReadable:
                if is_new:
                    self._outcomes.refuse(item_name(name), "Q-HL7-FILE")
            if progress:
                progress(1)

    def _take(self, result: Result, place: int) -> None:
        self.found += 1
        if not result.new:
            if not result.reason and result.digest not in self._seen:
                self._seen.add(result.digest)
                self._folder_of.take(result.told, master=result.master, touched=result.touched, place=place, new=False)
            return
        self.messages["read" if not result.reason else "left out"] += 1
        if result.reason:
            self._outcomes.refuse(result.item, result.reason)
            return
        if result.digest in self._seen:
            self._outcomes.refuse(result.item, "M-HL7-REPEATED")
            return
        self._seen.add(result.digest)
        for wrong in result.wrongs:
            self._report.add(result.item, wrong)
        new = self._folder_of.take(result.told, master=result.master, touched=result.touched, place=place, new=True)
        for kind, text in result.made:
            self._write(kind, text)
        self._outcomes.add(result.item, RESOURCE, resources=new + len(result.made))

    def _write(self, kind: str, text: str) -> None:
        if kind not in self._sinks:
            self._sinks[kind] = self._stack.enter_context((self._folder / f"{kind}.ndjson").open("w", encoding="utf-8"))
        self._sinks[kind].write(text + "\n")
        self.written[kind] += 1

    def close(self) -> None:
        """Write the resources that many messages told of."""
        for resource in self._folder_of.resources():
            self._write(resource["resourceType"], as_text(resource))


def _cut(path: Path, name: str, *, new: bool) -> Iterator[Task]:
    """A file's messages in tasks of about a mebibyte."""
    batch: list[Span] = []
    size = 0
    for span in spans(path):
        batch.append(span)
        size += span.end - span.start
        if size >= _BATCH:
            yield Task(path, name, tuple(batch), new)
            batch, size = [], 0
    if batch:
        yield Task(path, name, tuple(batch), new)
