"""One worker's share of a delivery: pieces of files in, one file per resource type out.

A piece is a whole file, or a byte range of a plain NDJSON file; a line belongs to the piece in which it begins. What a worker
writes is a pure function of its pieces, so the shards do not depend on how many workers there are.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from fhir_adapters.landing.bundles import Deleted, Landed, Misfit, land_resource, parse_document, unpack
from fhir_adapters.landing.lines import BLOCK, blocks, ranged, whole_lines
from fhir_adapters.landing.rules import (
    LARGEST_LINE,
    QUICK,
    UNKNOWN,
    Refusal,
    identify,
    resource_types,
    too_long,
    why_not_json,
)
from fhir_adapters.landing.sources import DamagedStream, SourceFile, open_bytes
from fhir_adapters.processes import uncollected

LARGEST_SHARD = 256 * 2**20  # bytes, after which a worker begins another file for the type
_BUFFER = 8 * 2**20  # bytes of lines kept before they are written

_BOM = b"\xef\xbb\xbf"
_UPDATED = re.compile(rb'"lastUpdated"\s*:\s*"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}(?:Z|[+-][0-9]{2}:[0-9]{2}))"')


class Piece(NamedTuple):
    """Bytes `start` ≤ … < `end` of a plain NDJSON file; `end` None: the whole file, of any kind."""

    file: SourceFile
    start: int = 0
    end: int | None = None


class Task(NamedTuple):
    """What one worker does at a time; `folder` takes its files and is its own."""

    pieces: tuple[Piece, ...]
    folder: str


class Part(NamedTuple):
    """A file that a worker wrote: lines of one resource type."""

    resource_type: str
    path: str
    resources: int
    bytes: int


@dataclass
class PieceResult:
    """What came of one piece. Rejects carry the line in the piece (0: no line) and what stands after it."""

    lines: int = 0
    objects: int = 0  # lines or entries that are JSON objects
    blank: bool = True  # nothing but white space
    rejects: list[tuple[int, str, Refusal]] = field(default_factory=list)
    deleted: list[Deleted] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    newest: str | None = None  # ISO instant
    failure: str | None = None  # a reason code that concerns the whole file

    def see_updated(self, block: bytes) -> None:
        """Note the newest `lastUpdated` of a block."""
        self.newest = later(self.newest, _newest(block))


@dataclass
class TaskResult:
    parts: list[Part]
    pieces: list[PieceResult]


def later(one: str | None, other: str | None) -> str | None:
    """The later of two ISO instants."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=datetime.fromisoformat)


def _newest(block: bytes) -> str | None:
    texts = {text.decode("ascii") for text in _UPDATED.findall(block)}
    if not texts:
        return None
    top = max(texts)
    try:
        # offsets reach 14 hours: only texts of the last days can be the newest
        since = str(date.fromisoformat(top[:10]) - timedelta(days=2))
    except (ValueError, OverflowError):
        since = ""
    best: tuple[datetime, str] | None = None
    for text in texts:
        if text[:10] >= since:
            try:
                instant = datetime.fromisoformat(text)
            except ValueError:
                continue
            if best is None or (instant, text) > best:
                best = (instant, text)
    return best[1] if best else None


class Sink:
    """Lines per resource type, gathered in memory and appended to files of at most about LARGEST_SHARD bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: dict[str, list[bytes]] = {}
        self._size = 0
        self._parts: dict[str, list[list[int]]] = {}  # type → [resources, bytes] of each file

    def lines(self, resource_type: str) -> list[bytes]:
        """The list to append lines of a type to; call `grown` when done."""
        return self._lines.setdefault(resource_type, [])

    def grown(self, size: int) -> None:
        self._size += size
        if self._size >= _BUFFER:
            self.flush()

    def _path(self, resource_type: str, number: int) -> Path:
        return self._folder / f"{resource_type}-{number:04d}"

    def flush(self) -> None:
        for resource_type, lines in self._lines.items():
            if not lines:
                continue
            parts = self._parts.setdefault(resource_type, [])
            if not parts or parts[-1][1] >= LARGEST_SHARD:
                parts.append([0, 0])
            text = b"\n".join(lines) + b"\n"
            with self._path(resource_type, len(parts)).open("ab") as file:
                file.write(text)
            parts[-1][0] += len(lines)
            parts[-1][1] += len(text)
            lines.clear()
        self._size = 0

    def mark(self) -> dict[str, list[list[int]]]:
        """A state to go back to when the file now read turns out to be damaged."""
        self.flush()
        return {kind: [list(part) for part in parts] for kind, parts in self._parts.items()}

    def go_back(self, mark: dict[str, list[list[int]]]) -> None:
        self._lines.clear()
        self._size = 0
        for kind, parts in self._parts.items():
            kept = mark.get(kind, [])
            for number in range(1, len(parts) + 1):
                path = self._path(kind, number)
                if number > len(kept):
                    path.unlink()
                else:
                    with path.open("r+b") as file:
                        file.truncate(kept[number - 1][1])
        self._parts = mark

    def parts(self) -> list[Part]:
        self.flush()
        return [
            Part(kind, str(self._path(kind, number)), resources, size)
            for kind, parts in sorted(self._parts.items())
            for number, (resources, size) in enumerate(parts, 1)
        ]


def run(task: Task) -> TaskResult:
    """Land the pieces of one task. OSError of the disk that is written to goes up; a source's faults are in the result."""
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    sink = Sink(folder)
    results = []
    with uncollected():
        for piece in task.pieces:
            result = PieceResult()
            # only a stream can turn out to be damaged after lines of it went to the sink
            mark = sink.mark() if piece.file.compression and piece.file.is_ndjson else None
            try:
                _land_piece(piece, sink, result)
            except DamagedStream:
                result = PieceResult(failure="Q-FILE-DAMAGED")
            except _Unreadable:
                result = PieceResult(failure="Q-FILE-UNREADABLE")
            if result.failure is not None and mark is not None:
                sink.go_back(mark)
            results.append(result)
    return TaskResult(sink.parts(), results)


class _Unreadable(Exception):
    """The source file cannot be opened."""


def _open(path: str, compression: str) -> IO[bytes]:
    try:
        return open_bytes(path, compression)
    except OSError:
        raise _Unreadable from None


def _land_piece(piece: Piece, sink: Sink, result: PieceResult) -> None:
    file = piece.file
    if file.compression and not file.size:
        raise DamagedStream
    if not file.is_ndjson:
        data = _whole(file, result)
        _land_document(data, sink, result)
        return
    if file.compression:
        _hash(file, result)
        with _open(file.path, file.compression) as stream:
            _land_lines(blocks(stream), sink, result)
    else:
        with _open(file.path, "") as stream:
            _land_lines(ranged(stream, piece.start, piece.end, result.digests), sink, result)
    if piece.end is None and not result.objects and not result.blank and file.size <= LARGEST_SHARD:
        # not one line is an object: perhaps the file is one document over many lines
        again = PieceResult()
        data = _whole(file, again)
        _land_document(data, sink, again)
        if again.failure is None:
            result.__dict__.update(again.__dict__)
    if piece.end is None and not result.objects and not result.blank:
        result.failure = "Q-FILE-JSON"


def _hash(file: SourceFile, result: PieceResult) -> None:
    with _open(file.path, "") as stream:
        while block := stream.read(BLOCK):
            result.digests.append(hashlib.sha256(block).digest())


def _whole(file: SourceFile, result: PieceResult) -> bytes:
    _hash(file, result)
    with _open(file.path, file.compression) as stream:
        return stream.read()


class _Known(dict[bytes, list[bytes]]):
    """Type as bytes → the sink's list; only types that need no further look."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def __missing__(self, kind: bytes) -> list[bytes]:
        name = kind.decode("ascii")
        if name == "Bundle" or name not in resource_types():
            raise KeyError(kind)
        self[kind] = self._sink.lines(name)
        return self[kind]


def _land_lines(source: Iterator[bytes], sink: Sink, result: PieceResult) -> None:
    quick = QUICK.match
    known = _Known(sink)
    for text, is_head in whole_lines(source):
        if is_head:
            result.lines += 1
            result.objects += 1
            result.blank = False
            result.rejects.append((result.lines, "", too_long(text)))
            continue
        result.see_updated(text)
        may_be_long = len(text) > LARGEST_LINE
        if not result.lines and text.startswith(_BOM):
            text = text[len(_BOM) :]
        lines = text.split(b"\n")
        quickly = 0
        for number, line in enumerate(lines, result.lines + 1):
            match = quick(line)
            if match and line.endswith(b"}") and not (may_be_long and len(line) > LARGEST_LINE):
                try:
                    known[match[1]].append(line)
                    quickly += 1
                    continue
                except KeyError:
                    pass
            _land_line(line, number, sink, result)
        result.lines += len(lines)
        if quickly:
            result.objects += quickly
            result.blank = False
        sink.grown(len(text))


def _land_line(line: bytes, number: int, sink: Sink, result: PieceResult) -> None:
    """A line that needs a full look."""
    line = line.strip()
    if not line:
        return
    result.blank = False
    if len(line) > LARGEST_LINE:
        result.objects += 1
        result.rejects.append((number, "", too_long(line)))
        return
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError:
        result.rejects.append((number, "", Refusal(UNKNOWN, None, why_not_json(line))))
        return
    if isinstance(resource, dict):
        result.objects += 1
        if resource.get("resourceType") == "Bundle":
            _land_bundle(line, number, sink, result)
            return
    identity = identify(resource)
    if isinstance(identity, Refusal):
        result.rejects.append((number, "", identity))
    else:
        sink.lines(identity.resource_type).append(line)


def _land_bundle(line: bytes, number: int, sink: Sink, result: PieceResult) -> None:
    _land_parsed(*parse_document(line), number, " ", sink, result)


def _land_document(data: bytes, sink: Sink, result: PieceResult) -> None:
    """A Bundle, a resource, an array of both, or (under a wrong ending) NDJSON."""
    result.blank = not data.strip()
    try:
        document, marked = parse_document(data)
    except ValueError:
        if b"\n" in data.strip() and QUICK.match(data.removeprefix(_BOM)):
            _land_lines(iter([data]), sink, result)
        if not result.objects:
            result.failure = "Q-FILE-JSON"
        return
    result.see_updated(data)
    if isinstance(document, list):
        for number, item in enumerate(document, 1):
            _land_parsed(item, marked, 0, f"item {number} ", sink, result)
    elif isinstance(document, dict) and isinstance(document.get("resourceType"), str):
        _land_parsed(document, marked, 0, "", sink, result)
    else:
        result.objects += 1
        if not _is_manifest_of_ours(document):
            result.rejects.append((0, "", Refusal(UNKNOWN, None, "Q-NO-FHIR")))
    sink.grown(len(data))


def _is_manifest_of_ours(document: Any) -> bool:
    """An extraction's or a shards folder's manifest: passed by."""
    return isinstance(document, dict) and (
        isinstance(document.get("extraction"), str) or {"format", "deliveries", "shards"} <= document.keys()
    )


def _land_parsed(document: Any, marked: bool, number: int, suffix: str, sink: Sink, result: PieceResult) -> None:
    result.objects += 1
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        landed = land_resource(document, marked)
        if isinstance(landed, Refusal):
            result.rejects.append((number, suffix.strip(), landed))
        else:
            sink.lines(landed.identity.resource_type).append(landed.line)
        return
    for thing in unpack(document, marked):
        if isinstance(thing, Landed):
            sink.lines(thing.identity.resource_type).append(thing.line)
        elif isinstance(thing, Misfit):
            result.rejects.append((number, f"{suffix}entry {thing.entry}".strip(), thing.refusal))
        else:
            result.deleted.append(thing)
