"""Which files a delivery consists of, and how their bytes are read."""

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import orjson

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import must_be_readable
from fhir_adapters.shown_names import shown_name

NDJSON_ENDINGS = (".ndjson", ".jsonl")
DOCUMENT_ENDINGS = (".json",)
COMPRESSED_ENDINGS = (".gz", ".zst")
FHIR_ENDINGS = NDJSON_ENDINGS + DOCUMENT_ENDINGS


class DamagedStream(Exception):
    """A compressed stream that ends early or fails its check."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a delivery. `shown` is the name that may be shown; `size` in bytes as it lies on disk."""

    path: str
    shown: str
    size: int
    compression: str  # "", "gz" or "zst"
    is_ndjson: bool


def _split_ending(name: str) -> tuple[str, str]:
    """The name without its compression, and the compression."""
    lower = name.lower()
    for ending in COMPRESSED_ENDINGS:
        if lower.endswith(ending):
            return lower[: -len(ending)], ending[1:]
    return lower, ""


def is_fhir_name(name: str) -> bool:
    """Whether a file of this name is read: its ending is one of ours and it is not hidden."""
    last = name.rsplit("/", 1)[-1]
    return not last.startswith(".") and _split_ending(last)[0].endswith(FHIR_ENDINGS)


def _of_an_extraction(manifest: Path) -> list[Path]:
    """What a source says of itself in the folder that it wrote: no FHIR of the hospital, and never the same twice."""
    try:
        says = orjson.loads(manifest.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    if not isinstance(says, dict) or "extraction" not in says:
        return []
    return [manifest.with_name(name) for name in ("manifest.json", "known.parquet", "outcomes.parquet")]


def find_files(sources: Iterable[Path], besides: Sequence[Path] = ()) -> tuple[list[SourceFile], list[str]]:
    """Every file to land, sorted by its path below its source, and the shown names of those that are no FHIR.

    `besides` are folders that are never read even when they lie inside a source (the landed folder itself). A file that is
    reached twice is read once. Raises E-LAND-01 for a source that does not exist, E-LAND-04 for one that may not be listed.
    """
    found: dict[str, tuple[str, SourceFile]] = {}
    skipped: set[str] = set()
    left_out = [path.resolve() for path in besides]
    for source in sources:
        source = Path(source)
        if not source.exists():
            raise PalmaresError("E-LAND-01", shown_name(source.name), detail="it does not exist")
        must_be_readable(source, shown_name(source.name))
        paths = sorted(source.rglob("*")) if source.is_dir() else [source]
        own = {one for path in paths if path.name == "manifest.json" for one in _of_an_extraction(path)}
        for path in paths:
            if path in own:
                continue
            relative = path.relative_to(source).as_posix() if source.is_dir() else path.name
            real = path.resolve()
            if not path.is_file() or any(real.is_relative_to(folder) for folder in left_out):
                continue
            if not is_fhir_name(relative):
                skipped.add(shown_name(relative))
                continue
            stem, compression = _split_ending(path.name)
            found.setdefault(
                str(real),
                (
                    relative,
                    SourceFile(
                        path=str(real),
                        shown=shown_name(relative),
                        size=path.stat().st_size,
                        compression=compression,
                        is_ndjson=stem.endswith(NDJSON_ENDINGS),
                    ),
                ),
            )
    return [file for _, file in sorted(found.values(), key=lambda item: (item[0], item[1].path))], sorted(skipped)


class _Gzip(io.RawIOBase):
    """A gzip stream that says DamagedStream where the library has several words for it."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise DamagedStream from None

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Zstd(io.RawIOBase):
    """Frames of zstd one after the other; a frame that is cut off is damage (the library alone would stop silently)."""

    def __init__(self, stream: IO[bytes]) -> None:
        import zstandard

        self._stream = stream
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._error = zstandard.ZstdError
        self._frame = self._decompressor.decompressobj()
        self._fresh = True  # the current frame has met no byte yet
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        total = 0
        while not self._ended and (size < 0 or total < size):
            block = self._stream.read(1 << 14)  # of which a bomb makes 256 MB at most
            if not block:
                if not self._fresh:
                    raise DamagedStream
                self._ended = True
                break
            while block:
                try:
                    part = self._frame.decompress(block)
                except self._error:
                    raise DamagedStream from None
                self._fresh = False
                parts.append(part)
                total += len(part)
                block = b""
                if self._frame.eof:
                    block = self._frame.unused_data
                    self._frame = self._decompressor.decompressobj()
                    self._fresh = True
        return b"".join(parts)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def open_bytes(path: str, compression: str) -> IO[bytes]:
    """The decompressed bytes of a file. `read(n)` may give a little more than n. Raises DamagedStream while reading."""
    if compression == "gz":
        return cast(IO[bytes], _Gzip(gzip.open(path, "rb")))
    if compression == "zst":
        return cast(IO[bytes], _Zstd(Path(path).open("rb")))
    return Path(path).open("rb")
