"""The `fhir_files` source: FHIR that already lies in files, as a folder, one file, or an archive (.zip, .tar, .tar.gz), read once
or watched: then only files that are whole and were not read before, each run a delivery of its own (deliveries.py).

Each file is read block by block and written under the same name with the same compression, but without what identifies
(`deidentify.py`): no byte of the hospital's reaches the extraction folder as it was. Landing sorts and checks what is written. A file
whose name ends in nothing that landing reads is left out and counted.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from fhir_adapters import deidentified, deliveries
from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.deidentify import SETTINGS, Deidentifier
from fhir_adapters.deliveries import Found, damaged
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_elements import rules_hash
from fhir_adapters.folders import whole_folder
from fhir_adapters.known_identifiers import of_resource
from fhir_adapters.landing.sources import (
    COMPRESSED_ENDINGS,
    FHIR_ENDINGS,
    NDJSON_ENDINGS,
    DamagedStream,
    is_fhir_name,
)
from fhir_adapters.memory import IDS, ids_made_by
from fhir_adapters.outcomes import EXCLUDED, RESOURCE, OutcomeFile
from fhir_adapters.processes import processors
from fhir_adapters.pseudonyms import LinkageKey
from fhir_adapters.shown_names import hidden_name, shown_name

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_NUMBER = re.compile(r"[0-9]{5,}")  # in a file's name: may be a record number
_WORTH_A_POOL = 4 * 2**20  # bytes; below, one process is done before others have started


@adapter
class FhirFiles:
    """Files of FHIR, de-identified as they are read."""

    kind: ClassVar[str] = "fhir_files"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False  # a hospital whose gateway has replaced the ids needs none
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "a folder, a file or an archive of FHIR", required=True),
        "watch": Setting(
            bool, "read only files that are whole and were not read before; full reads them all again", False
        ),
        "marker": Setting(str, "what says that a file (.done beside it) or a folder (_SUCCESS in it) is whole", ""),
        "stable_seconds": Setting(int, "without a marker: how long a file must not have changed", 120),
        "time_zone": Setting(str, "zone of the hospital's clock"),
        **SETTINGS,
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        """Raises E-SRC-02 and E-SRC-03 when settings and key do not fit each other, E-KEY-03 for a linkage key that is none."""
        self._path: Path = settings["path"]
        self._settings = settings
        self._recipe = deidentified.Recipe(
            key, LinkageKey.of_environment(), settings.get("time_zone") or "", {n: settings[n] for n in SETTINGS}, {}
        )
        self.undeclared: Counter[str] = Counter()  # code systems of the last extraction that nobody declared
        Deidentifier(key, settings=settings)  # says now what does not fit

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write every FHIR file (watched: every new one), without what identifies, to `out/fhir`.

        Raises E-SRC-04 (nothing there), E-SRC-05 (damaged archive), E-LAND-03 (a damaged file), E-LAND-04 (a file that may not be
        read), E-LAND-06 (a process was killed), E-DISK-01, -02.
        """
        self.undeclared.clear()
        everything = self._found()
        chosen, left, remembered = everything, True, None
        if self._settings["watch"]:
            chosen, left, remembered = self._new(everything, full, state)
        with whole_folder(out) as partial, damaged(self._path.name):
            recipe = self._recipe
            jobs = processors() if sum(one.look()[0] for one in chosen) >= _WORTH_A_POOL else 1
            if self._settings["patient_identifier"] and chosen:
                # of files that were read before too: what is new refers to their patients
                known = _Run(self, everything, partial, progress)
                patients = deidentified.learn_blocks(known.blocks(), recipe, jobs=jobs, subject=str(out))
                recipe = recipe._replace(patients=patients)
            run = _Run(self, chosen, partial, progress)
            (partial / "fhir").mkdir()
            for passed in deidentified.pass_blocks(run.blocks(), recipe, jobs=jobs, subject=str(out)):
                run.take(passed)
                self.undeclared += passed.undeclared
            if not run.files and not self._settings["watch"]:
                raise PalmaresError("E-SRC-04", self.kind, detail=f"no file ends in {', '.join(FHIR_ENDINGS)}")
            return run.extraction(full=left, state=remembered)

    def _found(self) -> list[Found]:
        """Every file that lies there. Raises E-SRC-04."""
        if not self._path.exists():
            raise PalmaresError("E-SRC-04", self.kind, detail="the path in its settings does not exist")
        return deliveries.files(self._path)

    def _new(
        self, everything: list[Found], full: bool, state: Mapping[str, Any] | None
    ) -> tuple[list[Found], bool, dict[str, Any]]:
        """Of a watched folder: what to read now, whether that is all that is there, and what to remember then."""
        ids = ids_made_by(self._recipe.key, self._recipe.settings)
        how = [rules_hash(), ids, self._recipe.settings]
        of = hashlib.sha256(json.dumps([str(self._path), how], sort_keys=True, default=str).encode()).hexdigest()[:16]
        seen: Mapping[str, Any] = {}
        if state is not None and not full and state.get("of") == of:
            seen = state["seen"]
        there = deliveries.whole(self._path, everything, self._settings["marker"], self._settings["stable_seconds"])
        chosen = deliveries.unseen(there, seen)
        # one that was read and is being touched just now stays known as it was
        kept = {one.key: seen[one.key] for one in everything if one.key in seen}
        return chosen, not seen, {"of": of, IDS: ids, "seen": kept | {one.key: one.look() for one in there}}

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the files say of their patients, as (kind, value): for the hospital's own list, which never leaves."""
        run = _Run(self, self._found(), self._path, None)
        with damaged(self._path.name):
            for block in run.blocks():
                for resource in deidentified.resources_of(block):
                    yield from of_resource(resource)

    @property
    def replaces_ids(self) -> bool:
        """Whether the hospital's own numbers may still stand in its files and in their names."""
        return self._settings["pseudonyms"] != "hospital"

    def members(self, found: list[Found]) -> "Iterator[tuple[str, Path | IO[bytes] | None]]":
        """Every file, archives unpacked: its name below the folder or archive, and where its bytes are."""
        return deliveries.members(found, alone=not self._path.is_dir())


class _Run:
    """One way through the files: blocks out, what passed of them in."""

    def __init__(self, source: FhirFiles, found: list[Found], partial: Path, progress: Progress | None) -> None:
        self._source = source
        self._found = found
        self._partial = partial
        self._progress = progress
        self._names: list[str] = []  # of the files, in the order of their numbers
        self._sizes: list[int] = []
        self._skipped: Counter[str] = Counter()
        self._left: list[str] = []
        self._outside: list[str] = []  # members whose names lead out of their archive
        self._sink: Any = None
        self._raw: IO[bytes] | None = None
        self._begun = False
        self.resources: Counter[str] = Counter()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._per_file: list[int] = []

    def _shown(self, name: str) -> str:
        """How a file is named in what is written: as `shown_name` says, but where ids are replaced here, digits may be a number."""
        shown = shown_name(name)
        return hidden_name(name) if self._source.replaces_ids and _NUMBER.search(shown) and shown == name else shown

    @property
    def files(self) -> int:
        return len(self._per_file)

    def blocks(self) -> Iterator[deidentified.Block]:
        """Every block of every file that is FHIR by its name."""
        for name, member in self._source.members(self._found):
            if member is None:
                self._skipped["outside-the-archive"] += 1
                self._outside.append(name)
                continue
            if not is_fhir_name(name):
                self._skipped["not-fhir"] += 1
                self._left.append(name)
                continue
            number = len(self._names)
            self._names.append(name)
            stem, compression = _endings(name)
            try:
                with _opened(member, self._shown(name)) as stream:
                    counted = _Counted(stream)
                    content = deidentified.open_stream(counted, compression)  # type: ignore[arg-type]
                    size = member.stat().st_size if isinstance(member, Path) else 0
                    yield from deidentified.file_blocks(
                        number, content, is_lines=stem.endswith(NDJSON_ENDINGS), size=size
                    )
                    self._sizes.append(counted.bytes)
            except DamagedStream:
                raise PalmaresError("E-LAND-03", self._shown(name)) from None

    def take(self, passed: deidentified.Passed) -> None:
        """Write what passed of a block; blocks come in their order."""
        name = self._names[passed.file]
        if self._sink is None:
            place = self._partial / "fhir" / self._shown(name)
            if place.name.startswith("file-") and not place.suffix:
                place = place.with_name(place.name + _ending(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():  # an archive may hold two files of one name
                place = place.with_name(f"{passed.file}-{place.name}")
            self._raw = place.open("xb")
            self._sink = deidentified.sink_for(self._raw, _endings(name)[1])
            self._begun = False
            self._per_file.append(0)
        if self._begun:
            self._sink.write(b"\n")
        self._sink.write(passed.data)
        self._begun = True
        self.resources += passed.resources
        self.counts += passed.counts
        self._per_file[-1] += sum(passed.resources.values())
        if passed.last:
            if passed.lines:
                self._sink.write(b"\n")
            if self._sink is not self._raw:
                self._sink.close()
            assert self._raw is not None
            self._raw.close()
            self._sink = None
            if self._progress:
                self._progress(1)

    def extraction(self, *, full: bool, state: Mapping[str, Any] | None) -> Extraction:
        """Write the manifest and the outcomes."""
        kind = self._source.kind
        with OutcomeFile(self._partial, kind) as items:
            for name, resources in zip(self._names, self._per_file, strict=True):
                if resources:
                    items.add(self._shown(name), RESOURCE, resources=resources)
                else:
                    items.add(self._shown(name), EXCLUDED, "X-NOTHING-PASSED")
            for name in self._left:
                items.add(self._shown(name), EXCLUDED, "X-NOT-FHIR")
            for name in self._outside:
                items.refuse(hidden_name(name), "Q-ARCHIVE-NAME")
            items.balance(sum(self.resources.values()))
        left_out = {":".join(place): count for place, count in sorted(self.counts.items())}
        done = Extraction(
            kind,
            self.files,
            sum(self._sizes),
            dict(sorted(self.resources.items())),
            dict(self._skipped),
            {"left_out": left_out},
            full=full,
            state=state,
        )
        done.write(self._partial)
        return done


class _Counted:
    """A stream that knows how much was read of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.bytes += len(data)
        return data


@contextmanager
def _opened(member: "Path | IO[bytes]", shown: str) -> "Iterator[IO[bytes]]":
    """The bytes of a file as it lies. Raises E-LAND-04."""
    if not isinstance(member, Path):
        yield member
        return
    try:
        stream = member.open("rb")
    except OSError:
        raise PalmaresError("E-LAND-04", shown) from None
    with stream:
        yield stream


def _endings(name: str) -> tuple[str, str]:
    """A name in lower case without its compression, and the compression."""
    lower = name.lower()
    for ending in COMPRESSED_ENDINGS:
        if lower.endswith(ending):
            return lower[: -len(ending)], ending[1:]
    return lower, ""


def _ending(name: str) -> str:
    """What a file's name ends in, compression and all."""
    stem, compression = _endings(name)
    ending = next((one for one in FHIR_ENDINGS if stem.endswith(one)), "")
    return f"{ending}.{compression}" if compression else ending
