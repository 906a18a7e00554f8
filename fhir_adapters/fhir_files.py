"""The `fhir_files` source: FHIR that already lies in files, as a folder, one file, or an archive (.zip, .tar, .tar.gz).

Each file is read block by block and written under the same name with the same compression, but without what identifies
(`deidentify.py`): no byte of the hospital's reaches the extraction folder as it was. Landing sorts and checks what is written. A file
whose name ends in nothing that landing reads is left out and counted.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar

from fhir_adapters import deidentified
from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.deidentify import SETTINGS, Deidentifier
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.known_identifiers import of_resource
from fhir_adapters.landing.sources import (
    COMPRESSED_ENDINGS,
    FHIR_ENDINGS,
    NDJSON_ENDINGS,
    DamagedStream,
    is_fhir_name,
)
from fhir_adapters.outcomes import EXCLUDED, RESOURCE, OutcomeFile, item_name
from fhir_adapters.processes import processors
from fhir_adapters.pseudonyms import LinkageKey
from fhir_adapters.shown_names import shown_name

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_WORTH_A_POOL = 4 * 2**20  # bytes; below, one process is done before others have started
_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@adapter
class FhirFiles:
    """Files of FHIR, de-identified as they are read."""

    kind: ClassVar[str] = "fhir_files"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False  # a hospital whose gateway has replaced the ids needs none
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "a folder, a file or an archive of FHIR", required=True),
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

    def extract(self, out: Path, *, progress: Progress | None = None) -> Extraction:
        """Write every FHIR file, without what identifies, to `out/fhir`.

        Raises E-SRC-04 (nothing there), E-SRC-05 (damaged archive), E-LAND-03 (a damaged file), E-LAND-04 (a file that may not be
        read), E-LAND-06 (a process was killed), E-DISK-01, -02.
        """
        if not self._path.exists():
            raise PalmaresError("E-SRC-04", self.kind, detail="the path in its settings does not exist")
        self.undeclared.clear()
        with whole_folder(out) as partial, _damaged(self._path):
            run = _Run(self, partial, progress)
            recipe = self._recipe
            jobs = processors() if self._size() >= _WORTH_A_POOL else 1
            if self._settings["patient_identifier"]:
                patients = deidentified.learn_blocks(run.blocks(), recipe, jobs=jobs, subject=str(out))
                recipe = recipe._replace(patients=patients)
                run = _Run(self, partial, progress)
            (partial / "fhir").mkdir()
            for passed in deidentified.pass_blocks(run.blocks(), recipe, jobs=jobs, subject=str(out)):
                run.take(passed)
                self.undeclared += passed.undeclared
            if not run.files:
                raise PalmaresError("E-SRC-04", self.kind, detail=f"no file ends in {', '.join(FHIR_ENDINGS)}")
            return run.extraction()

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the files say of their patients, as (kind, value): for the hospital's own list, which never leaves."""
        run = _Run(self, self._path, None)
        with _damaged(self._path):
            for block in run.blocks():
                for resource in deidentified.resources_of(block):
                    yield from of_resource(resource)

    def _size(self) -> int:
        if self._path.is_dir():
            return sum(path.stat().st_size for path in self._path.rglob("*") if path.is_file())
        return self._path.stat().st_size

    def members(self) -> "Iterator[tuple[str, Path | IO[bytes]]]":
        """Every file: its name below the folder or archive, and where its bytes are."""
        name = self._path.name.lower()
        if self._path.is_dir():
            for path in sorted(self._path.rglob("*")):
                if path.is_file():
                    yield path.relative_to(self._path).as_posix(), path
        elif name.endswith(_ZIP):
            with zipfile.ZipFile(self._path) as archive:
                for info in sorted(archive.infolist(), key=lambda info: info.filename):
                    if not info.is_dir() and (inside := _inside(info.filename)):
                        with archive.open(info) as stream:
                            yield inside, stream
        elif name.endswith(_TAR):
            with tarfile.open(self._path) as archive:
                for entry in archive:
                    if entry.isfile() and (inside := _inside(entry.name)):
                        member = archive.extractfile(entry)
                        if member is not None:
                            with member:
                                yield inside, member
        else:
            yield self._path.name, self._path


class _Run:
    """One way through the files: blocks out, what passed of them in."""

    def __init__(self, source: FhirFiles, partial: Path, progress: Progress | None) -> None:
        self._source = source
        self._partial = partial
        self._progress = progress
        self._names: list[str] = []  # of the files, in the order of their numbers
        self._sizes: list[int] = []
        self._skipped: Counter[str] = Counter()
        self._left: list[str] = []
        self._sink: Any = None
        self._raw: IO[bytes] | None = None
        self._begun = False
        self.resources: Counter[str] = Counter()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._per_file: list[int] = []

    @property
    def files(self) -> int:
        return len(self._per_file)

    def blocks(self) -> Iterator[deidentified.Block]:
        """Every block of every file that is FHIR by its name."""
        for name, member in self._source.members():
            if not is_fhir_name(name):
                self._skipped["not-fhir"] += 1
                self._left.append(name)
                continue
            number = len(self._names)
            self._names.append(name)
            stem, compression = _endings(name)
            try:
                with _opened(member, name) as stream:
                    counted = _Counted(stream)
                    content = deidentified.open_stream(counted, compression)  # type: ignore[arg-type]
                    size = member.stat().st_size if isinstance(member, Path) else 0
                    yield from deidentified.file_blocks(
                        number, content, is_lines=stem.endswith(NDJSON_ENDINGS), size=size
                    )
                    self._sizes.append(counted.bytes)
            except DamagedStream:
                raise PalmaresError("E-LAND-03", shown_name(name)) from None

    def take(self, passed: deidentified.Passed) -> None:
        """Write what passed of a block; blocks come in their order."""
        name = self._names[passed.file]
        if self._sink is None:
            place = self._partial / "fhir" / shown_name(name)
            if place.name.startswith("file-") and not place.suffix:
                place = place.with_name(place.name + _ending(name))
            place.parent.mkdir(parents=True, exist_ok=True)
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

    def extraction(self) -> Extraction:
        """Write the manifest and the outcomes."""
        kind = self._source.kind
        with OutcomeFile(self._partial, kind) as items:
            for name, resources in zip(self._names, self._per_file, strict=True):
                if resources:
                    items.add(item_name(name), RESOURCE, resources=resources)
                else:
                    items.add(item_name(name), EXCLUDED, "X-NOTHING-PASSED")
            for name in self._left:
                items.add(item_name(name), EXCLUDED, "X-NOT-FHIR")
            items.balance(sum(self.resources.values()))
        left_out = {":".join(place): count for place, count in sorted(self.counts.items())}
        done = Extraction(
            kind,
            self.files,
            sum(self._sizes),
            dict(sorted(self.resources.items())),
            dict(self._skipped),
            {"left_out": left_out},
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
def _opened(member: "Path | IO[bytes]", name: str) -> "Iterator[IO[bytes]]":
    """The bytes of a file as it lies. Raises E-LAND-04."""
    if not isinstance(member, Path):
        yield member
        return
    try:
        stream = member.open("rb")
    except OSError:
        raise PalmaresError("E-LAND-04", shown_name(name)) from None
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


def _inside(name: str) -> str:
    """A member's path when it stays inside the folder it is unpacked to, else empty: it is passed over."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    return "" if path.is_absolute() or ".." in parts or ":" in name.split("/")[0] else "/".join(parts)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """What the libraries say of a damaged archive, as a numbered error."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PalmaresError("E-SRC-05", shown_name(path.name), detail=type(error).__name__) from None
