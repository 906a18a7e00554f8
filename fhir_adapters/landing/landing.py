"""land(): files of FHIR, as they were delivered, become a shards folder."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.folders import restore, whole_folder
from fhir_adapters.landing.lines import BLOCK
from fhir_adapters.landing.rules import LARGEST_LINE, UNKNOWN, Refusal, Reject, identify
from fhir_adapters.landing.shards import (
    Delivery,
    Manifest,
    Shard,
    carry,
    read_manifest,
    write_deleted,
    write_items,
    write_quarantine,
)
from fhir_adapters.landing.sources import SourceFile, find_files
from fhir_adapters.landing.split import Piece, PieceResult, Task, TaskResult, later, run
from fhir_adapters.processes import in_order, processors

_TASK = (16 * 2**20, 256 * 2**20)  # bytes of a worker's task: at least, at most
_TASKS = 16  # that a middling delivery is cut into
_SAMPLES = 64  # lines looked at in a file that is landed by reference
OUTCOMES = "outcomes.parquet"  # of an extraction: what became of each item that the source read
_ERRORS = {"Q-FILE-JSON": "E-LAND-02", "Q-FILE-DAMAGED": "E-LAND-03", "Q-FILE-UNREADABLE": "E-LAND-04"}


@dataclass(frozen=True)
class Landing:
    """What a landed folder holds after the call. `added` is False when the same delivery had been landed before."""

    folder: Path
    added: bool
    delivery: int
    files: int
    bytes: int
    resources: Mapping[str, int | None]  # per type, all deliveries; None where landed by reference
    quarantined: Mapping[str, int]  # rows of quarantine per reason, all deliveries
    deleted: int
    skipped: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)  # shown name → reason, with skip_unreadable


@dataclass
class _File:
    """What came of one file, gathered over its pieces."""

    lines: int = 0
    objects: int = 0
    blank: bool = True
    digests: list[bytes] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    failure: str | None = None


def land(
    sources: Sequence[Path],
    out: Path,
    *,
    previous: Path | None = None,
    by_reference: bool = False,
    skip_unreadable: bool = False,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Landing:
    """Land files and folders of Bundles (.json) and NDJSON (.ndjson, .jsonl), plain, .gz or .zst, as the shards folder `out`.

    `previous` is an earlier landed folder (it may be `out`): its shards stay, and the new delivery gets the next number; a
    delivery that was landed before adds nothing. With `by_reference`, a plain NDJSON file of one type is not copied: its
    shard is the file itself, judged by samples of its lines. With `skip_unreadable`, a file that cannot be read as a whole
    is one row of quarantine instead of an error. `progress` is told the bytes done.

    Raises E-LAND-01 (no FHIR), E-LAND-02 (no JSON), E-LAND-03 (damaged), E-LAND-04 (not readable), E-LAND-05 (`previous`
    is no landed folder), E-LAND-06 (a worker was killed), E-DISK-01, E-DISK-02. `out` is then as it was before.
    """
    out = Path(out)
    for folder in {out, Path(previous)} if previous is not None else {out}:
        with machine_errors(str(folder)):
            restore(folder)
    before = read_manifest(previous) if previous is not None else Manifest((), ())
    beside = [out.parent / f".{out.name}.{word}" for word in ("partial", "previous")]
    files, skipped = find_files([Path(source) for source in sources], [out, *beside])
    if not files:
        raise PalmaresError("E-LAND-01", _named(sources), count=len(skipped) or None)
    number = max((delivery.number for delivery in before.deliveries), default=0) + 1
    with whole_folder(out) as partial:
        work = _Work(number, partial)
        rest = [file for file in files if not (by_reference and work.refer(file))]
        tasks = _tasks(rest, partial / ".parts")
        size = sum(file.size for file in rest)
        wanted = jobs if jobs is not None else processors()
        workers = 1 if size < _TASK[0] else min(wanted, len(tasks))
        for task, result in zip(tasks, in_order(run, tasks, jobs=workers, subject=_named(sources)), strict=True):
            work.take(task, result)
            if progress:
                progress(sum(_piece_bytes(piece) for piece in task.pieces))
        work.finish(files, skip_unreadable)
        if not work.holds_fhir and not before.deliveries:
            raise PalmaresError("E-LAND-01", _named(sources), count=len(files))
        sha256 = work.sha256(files)
        again = any(delivery.sha256 == sha256 for delivery in before.deliveries)
        carry(before.shards, previous, partial) if previous is not None else None
        if again:
            work.drop()
        delivery = Delivery(number, len(files), sum(file.size for file in files), work.resources(), work.newest, sha256)
        manifest = Manifest(
            before.deliveries if again else (*before.deliveries, delivery),
            before.shards if again else (*before.shards, *work.shards),
            tuple(sorted({*before.skipped, *skipped})),
        )
        quarantined = write_quarantine(partial, [] if again else work.rejects, previous)
        deleted = write_deleted(partial, [] if again else work.deleted, previous)
        outcomes = [Path(source) / OUTCOMES for source in sources if (Path(source) / OUTCOMES).is_file()]
        write_items(partial, [] if again else outcomes, number, previous)
        manifest.write(partial)
    return Landing(
        folder=out,
        added=not again,
        delivery=next(d.number for d in manifest.deliveries if d.sha256 == sha256),
        files=delivery.files,
        bytes=delivery.bytes,
        resources=_per_type(manifest.shards),
        quarantined=dict(sorted(quarantined.items())),
        deleted=deleted,
        skipped=manifest.skipped,
        failed=work.failed,
    )


def _named(sources: Sequence[Path]) -> str:
    return ", ".join(str(source) for source in sources) if len(sources) < 4 else f"{len(sources)} sources"


def _per_type(shards: Sequence[Shard]) -> dict[str, int | None]:
    counts: dict[str, int | None] = {}
    for shard in sorted(shards, key=lambda shard: shard.resource_type):
        so_far = counts.get(shard.resource_type, 0)
        unknown = so_far is None or shard.resources is None
        counts[shard.resource_type] = None if unknown else so_far + shard.resources  # type: ignore[operator]
    return counts


def _piece_bytes(piece: Piece) -> int:
    return (piece.file.size if piece.end is None else piece.end) - piece.start


def _tasks(files: Sequence[SourceFile], folder: Path) -> list[Task]:
    """Cut the files into tasks of about one size that depends on the delivery only, never on the machine."""
    target = min(max(sum(file.size for file in files) // _TASKS, _TASK[0]), _TASK[1])
    target = -(-target // BLOCK) * BLOCK
    tasks: list[Task] = []
    gathered: list[Piece] = []
    size = 0

    def close() -> None:
        nonlocal size
        if gathered:
            tasks.append(Task(tuple(gathered), str(folder / f"{len(tasks):06d}")))
            gathered.clear()
            size = 0

    for piece in _pieces(files, target):
        if size and size + _piece_bytes(piece) > target:
            close()
        gathered.append(piece)
        size += _piece_bytes(piece)
    close()
    return tasks


def _pieces(files: Sequence[SourceFile], target: int) -> Iterator[Piece]:
    for file in files:
        if file.is_ndjson and not file.compression and file.size > target:
            for start in range(0, file.size, target):
                yield Piece(file, start, min(start + target, file.size))
        else:
            yield Piece(file)


class _Work:
    """The delivery as it comes in from the workers, in the order of the tasks."""

    def __init__(self, number: int, folder: Path) -> None:
        self._number = number
        self._folder = folder
        self._counts: Counter[str] = Counter()
        self._files: dict[str, _File] = {}
        self.shards: list[Shard] = []
        self.rejects: list[Reject] = []
        self.deleted: list[tuple[str, str, str | None, int]] = []
        self.newest: str | None = None
        self.failed: dict[str, str] = {}

    def refer(self, file: SourceFile) -> bool:
        """Land a file by reference when its samples say that all its lines are of one type."""
        if not file.is_ndjson or file.compression or not file.size:
            return False
        seen = _sampled(file)
        if seen is None:
            return False
        kind, digest = seen
        self.shards.append(Shard(kind, file.path, self._number, None, file.size))
        self._files[file.path] = _File(blank=False, objects=1, digests=[digest])
        return True

    def take(self, task: Task, result: TaskResult) -> None:
        for part in result.parts:
            self._counts[part.resource_type] += 1
            path = f"{part.resource_type}/{self._number}-{self._counts[part.resource_type]:04d}.ndjson"
            (self._folder / part.resource_type).mkdir(exist_ok=True)
            Path(part.path).rename(self._folder / path)
            self.shards.append(Shard(part.resource_type, path, self._number, part.resources, part.bytes))
        Path(task.folder).rmdir()
        for piece, came in zip(task.pieces, result.pieces, strict=True):
            self._take_piece(piece, came)

    def _take_piece(self, piece: Piece, came: PieceResult) -> None:
        file = self._files.setdefault(piece.file.path, _File())
        for line, suffix, refusal in came.rejects:
            number = str(file.lines + line) if line else ""
            file.rejects.append(refusal.at(f"{piece.file.shown}:{number} {suffix}".strip(" :").replace(": ", ":")))
        file.lines += came.lines
        file.objects += came.objects
        file.blank = file.blank and came.blank
        file.digests += came.digests
        file.failure = file.failure or came.failure
        self.deleted += [(*delete, self._number) for delete in came.deleted]
        self.newest = later(self.newest, came.newest)

    def finish(self, files: Sequence[SourceFile], skip_unreadable: bool) -> None:
        """Judge each file as a whole, in order. Raises E-LAND-02, -03, -04 unless they are to be skipped."""
        parts = self._folder / ".parts"
        if parts.exists():
            parts.rmdir()
        for file in files:
            came = self._files[file.path]
            if came.failure is None and not came.objects and not came.blank:
                came.failure = "Q-FILE-JSON"  # a file of several pieces, in none of which a line is an object
            if came.failure is None:
                self.rejects += came.rejects
                continue
            if not skip_unreadable:
                raise PalmaresError(_ERRORS[came.failure], file.shown)
            self.failed[file.shown] = came.failure
            self.rejects.append(Refusal(UNKNOWN, None, came.failure).at(file.shown))

    @property
    def holds_fhir(self) -> bool:
        typed = any(reject.resource_type != UNKNOWN for reject in self.rejects)
        return bool(self.shards or self.deleted or self.failed or typed)

    def resources(self) -> int | None:
        counts = [shard.resources for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)

    def sha256(self, files: Sequence[SourceFile]) -> str:
        """Of the delivery's content: the digests of its files, sorted, so that names and order do not matter."""
        digests = sorted(hashlib.sha256(b"".join(self._files[file.path].digests)).digest() for file in files)
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def drop(self) -> None:
        """Remove what this delivery wrote: it had been landed before."""
        for shard in self.shards:
            if not Path(shard.path).is_absolute():
                (self._folder / shard.path).unlink()
                folder = (self._folder / shard.path).parent
                if not any(folder.iterdir()):
                    folder.rmdir()


def _sampled(file: SourceFile) -> tuple[str, bytes] | None:
    """The one type that samples of a file's lines have, and a digest of size, time and samples; None when they differ."""
    digest = hashlib.sha256()
    kinds: set[str] = set()
    try:
        with Path(file.path).open("rb") as stream:
            digest.update(repr((file.size, os.fstat(stream.fileno()).st_mtime_ns)).encode())
            for sample in range(_SAMPLES):
                start = file.size * sample // _SAMPLES
                stream.seek(start)
                if start:
                    stream.readline(LARGEST_LINE)
                line = stream.readline(LARGEST_LINE + 1).rstrip(b"\r\n")
                if not line and start:  # the last line is over
                    continue
                digest.update(line)
                identity = identify(orjson.loads(line))
                if isinstance(identity, Refusal):
                    return None
                kinds.add(identity.resource_type)
    except (OSError, orjson.JSONDecodeError):
        return None  # the worker that reads it whole says what is wrong
    return (kinds.pop(), digest.digest()) if len(kinds) == 1 and "Bundle" not in kinds else None
