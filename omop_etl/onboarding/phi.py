"""phi_check(): search every file of some folders for a hospital's known identifiers, and for what looks like one.

Read are Parquet (each column of text, lists and structures too), CSV (by column), DuckDB files (each table), archives and compressed files
(what they hold, whatever it is), and everything else as text in the encodings that a hospital writes. Names of files, columns and tables
are searched as well. A finding says file, table, column, kind and how often, never the value; a name that itself holds an identifier is not
shown.
"""

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fhir_adapters.errors import PalmaresError
from fhir_adapters.processes import in_order, processors
from fhir_adapters.shown_names import shown_name
from omop_etl.onboarding.known import Known, read_known
from omop_etl.onboarding.searching import Identifiers

_BLOCK = 4 * 2**20  # characters searched at a time
_OVERLAP = 4096  # characters that two blocks share, so that nothing is cut in two
_DEEPEST = 4  # archives in archives
_LARGEST_MEMBER = 2 * 2**30  # bytes of one member of an archive; a larger one is told as unread
_LARGEST_WHOLE = 256 * 2**20  # bytes of a file that is read at once
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")
_WORTH_A_POOL = 32 * 2**20  # bytes
HIDDEN = "(hidden: the name holds an identifier)"


class Finding(NamedTuple):
    """Something of a kind stands in a file so many times. `table` and `column` where the file has such."""

    file: str
    table: str
    column: str
    kind: str
    times: int


@dataclass(frozen=True)
class PhiCheck:
    """What was searched and what was found. `unread`: files that could not be opened, which is a finding too."""

    files: int
    bytes: int
    identifiers: int
    too_short: int
    findings: tuple[Finding, ...]
    unread: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.findings and not self.unread


class _Text(NamedTuple):
    """A text of a file, and where in it it stands. `all`: the same with what stands in it more than once, for counting."""

    table: str
    column: str
    text: str
    all: Callable[[], str] | None = None


def phi_check(
    folders: Sequence[Path], known: Iterable[Known], *, patterns: bool = True, jobs: int | None = None
) -> PhiCheck:
    """Search all files of the folders (or files). Raises E-PHI-03 for one that does not exist."""
    identifiers = Identifiers(known, patterns=patterns)
    tasks: list[tuple[str, str, int]] = []
    for folder in map(Path, folders):
        if not folder.exists():
            raise PalmaresError("E-PHI-03", shown_name(folder.name))
        paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
        tasks += [
            (str(path), path.relative_to(folder).as_posix() if folder.is_dir() else path.name, path.stat().st_size)
            for path in paths
        ]
    size = sum(task[2] for task in tasks)
    workers = min(jobs or processors(), len(tasks)) if size > _WORTH_A_POOL else 1
    findings: list[Finding] = []
    unread: list[str] = []
    start = partial(_set_up, identifiers)
    for found in in_order(_search, tasks, jobs=workers, subject="phi-check", initializer=start):
        if isinstance(found, str):
            unread.append(found)
        else:
            findings += found
    return PhiCheck(len(tasks), size, identifiers.known, identifiers.too_short, tuple(findings), tuple(unread))


def hold_back(slice_: Path, gate: Path, known: Path, site: str) -> None:
    """Search what `submit` would pack for the identifiers of the list `known`. Raises E-PHI-01 when one is found, E-PHI-02."""
    leaving = [path for path in slice_.glob("*") if path.is_file()]
    leaving += [slice_ / "side" / "person_link.parquet", gate / "verdict.json", gate / "checks.parquet"]
    hold_back_files([path for path in leaving if path.is_file()], known, site)


def hold_back_files(files: Sequence[Path], known: Path, site: str) -> None:
    """Search files that are about to leave. Raises as `hold_back`."""
    found = phi_check(files, read_known(known), patterns=False)
    if not found.clean:
        where = [" ".join(filter(None, (one.file, one.column, one.kind))) for one in found.findings[:5]]
        count = sum(one.times for one in found.findings) + len(found.unread)
        raise PalmaresError("E-PHI-01", site, count=count, detail="; ".join([*where, *found.unread]))


_work: dict[str, Identifiers] = {}


def _set_up(identifiers: Identifiers) -> None:
    _work["identifiers"] = identifiers


def _search(task: tuple[str, str, int]) -> list[Finding] | str:
    path, relative, _ = task
    identifiers = _work["identifiers"]
    shown = shown_name(relative) if identifiers.scan(relative) else relative
    found: Counter[tuple[str, str, str]] = Counter()
    for kind, count in identifiers.scan(relative).items():
        found["", "(name of the file)", kind] += count
    try:
        for piece in _texts(Path(path)):
            counts = identifiers.scan(piece.text)
            if counts and piece.all is not None:
                counts = identifiers.scan(piece.all())
            for kind, count in counts.items():
                found[_shown(identifiers, piece.table), _shown(identifiers, piece.column), kind] += count
    except OSError:
        return shown
    return [Finding(shown, table, column, kind, count) for (table, column, kind), count in sorted(found.items())]


def _shown(identifiers: Identifiers, name: str) -> str:
    return HIDDEN if identifiers.scan(name) else name


def _texts(path: Path) -> Iterator[_Text]:
    """All that a file says. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PAR1":
        yield from _parquet(path)
    elif head[8:12] == b"DUCK":
        yield from _duckdb(path)
    elif path.stat().st_size > _LARGEST_WHOLE and not head.startswith(_PACKED):
        yield from _streamed(path)
    else:
        yield from _content(path.name, path.read_bytes(), 0)


def _streamed(path: Path) -> Iterator[_Text]:
    """A file too large to hold, in overlapping blocks: as UTF-8, and as Windows-1252 where it is none."""
    last = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            data = last + block
            last = data[-_OVERLAP:]
            yield from (_Text("", "", text) for text in _decoded(data))


def _content(name: str, data: bytes, depth: int) -> Iterator[_Text]:
    """What bytes say: unpacked, as columns, or as text."""
    if depth < _DEEPEST:
        inner = list(_members(name, data))
        if inner:
            for member, content in inner:
                yield _Text("", "(name of a file in an archive)", member)
                yield from _content(member, content, depth + 1)
            return
    if data[:4] == b"PAR1":
        yield from _parquet(io.BytesIO(data))
        return
    for text in _decoded(data):
        if PurePosixPath(name).suffix.lower() in (".csv", ".tsv"):
            yield from _columns(text)
        else:
            yield from (_Text("", "", part) for part in _blocks(text))


def _members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What an archive or a compressed file holds; nothing when it is none. One that is damaged is searched as far as it goes."""
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                yield PurePosixPath(name).stem, _whole(stream)
        elif data[:4] == b"\x28\xb5\x2f\xfd":
            import zstandard

            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
            yield PurePosixPath(name).stem, _whole(reader)
        elif data[:3] == b"BZh":
            with bz2.BZ2File(io.BytesIO(data)) as stream:
                yield PurePosixPath(name).stem, _whole(stream)
        elif data[:6] == b"\xfd7zXZ\x00":
            with lzma.LZMAFile(io.BytesIO(data)) as packed:
                yield PurePosixPath(name).stem, _whole(packed)
        elif data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        with archive.open(info) as member:
                            yield info.filename, _whole(member)
        elif data[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for entry in tar:
                    content = tar.extractfile(entry) if entry.isfile() else None
                    if content is not None:
                        yield entry.name, _whole(content)
    except _TooLarge:
        raise
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, RuntimeError):
        return  # its bytes are then searched as they lie
    except Exception as error:  # zstandard's own error has no name without importing it
        if type(error).__name__ != "ZstdError":
            raise


class _TooLarge(OSError):
    """What is packed is larger than can be searched."""


def _whole(stream: Any) -> bytes:
    """All of a stream. Raises _TooLarge, so that what was not searched is not taken for clean."""
    parts: list[bytes] = []
    size = 0
    while block := stream.read(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > _LARGEST_MEMBER:
            raise _TooLarge
    return b"".join(parts)


def _decoded(data: bytes) -> list[str]:
    """Bytes as text: by their mark, else as UTF-8, and as Windows-1252 where they are not all UTF-8."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return [data.decode("utf-16", "replace")]
    try:
        return [data.decode("utf-8")]
    except UnicodeDecodeError:
        found = [data.decode("utf-8", "ignore"), data.decode("cp1252", "replace")]
    if data.count(0) * 3 > len(data):
        found.append(data.decode("utf-16-le", "ignore"))
    return found


def _blocks(text: str) -> Iterator[str]:
    """A long text in overlapping parts."""
    if len(text) <= _BLOCK:
        yield text
        return
    for begin in range(0, len(text), _BLOCK):
        yield text[max(0, begin - _OVERLAP) : begin + _BLOCK]


def _columns(text: str) -> Iterator[_Text]:
    """A CSV column by column; one that does not read as such as a whole."""
    head = text.partition("\n")[0]
    delimiter = max(",;\t|", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        rows = []
    widest = max((len(row) for row in rows), default=0)
    titles = rows[0] if rows else []
    if widest <= 1 or widest > 4096:
        yield from (_Text("", "", part) for part in _blocks(text))
        return
    yield _Text("", "(header)", "\n".join(titles))
    for place in range(widest):
        title = titles[place] if place < len(titles) else f"#{place + 1}"
        column = "\n".join(row[place] for row in rows[1:] if place < len(row))
        yield from (_Text("", title, part) for part in _blocks(column))


def _parquet(file: Any) -> Iterator[_Text]:
    """Each column's texts once, and what the file says of itself. A damaged file is searched as bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError):
        data = file.read_bytes() if isinstance(file, Path) else file.getvalue()
        yield from (_Text("", "", part) for text in _decoded(data) for part in _blocks(text))
        return
    schema = opened.schema_arrow
    yield _Text("", "(header)", "\n".join(schema.names))
    for key, value in (opened.metadata.metadata or {}).items():
        if key != b"ARROW:schema":
            yield _Text("", "(metadata)", f"{key.decode('utf-8', 'replace')}\n{value.decode('utf-8', 'replace')}")
    for name in schema.names:
        if _holds_text(schema.field(name).type):
            for batch in opened.iter_batches(1 << 16, columns=[name]):
                yield from _values(name, batch.column(0))


def _holds_text(type_: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        return _holds_text(type_.value_type)
    if any(
        test(type_)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    ):
        return True
    return any(_holds_text(type_.field(place).type) for place in range(type_.num_fields))


def _values(name: str, column: Any) -> Iterator[_Text]:
    """Texts of an Arrow column, of its lists and structures too, one line each."""
    import pyarrow as pa

    type_ = column.type
    if pa.types.is_dictionary(type_):
        column = column.dictionary_decode()
        type_ = column.type
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        for value in column:
            if value.is_valid:
                for text in _decoded(value.as_py()):
                    yield _Text("", name, text)
    elif pa.types.is_string(type_) or pa.types.is_large_string(type_):
        for begin in range(0, len(column), 1 << 14):
            part = column.slice(begin, 1 << 14).drop_null()
            yield _Text("", name, _joined(part.unique()), partial(_joined, part))
    elif pa.types.is_map(type_):
        yield from _values(name, column.keys)
        yield from _values(name, column.items)
    elif type_.num_fields and hasattr(column, "flatten"):
        inner = column.flatten()
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _values(name, one)


def _joined(column: Any) -> str:
    return "\n".join(column.to_pylist())


def _duckdb(path: Path) -> Iterator[_Text]:
    """Each table's columns of text."""
    import duckdb

    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise OSError(type(error).__name__) from None
    with connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            " AND NOT regexp_matches(data_type, '^(BIGINT|INTEGER|DOUBLE|FLOAT|DATE|TIMESTAMP|BOOLEAN|HUGEINT|DECIMAL)')"
        ).fetchall()
        for schema, table, column in columns:
            quoted = ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
            title = '"' + column.replace('"', '""') + '"'
            cursor = connection.execute(f"SELECT {title}::VARCHAR FROM {quoted} WHERE {title} IS NOT NULL")
            yield _Text(table, "(header)", f"{table}\n{column}")
            while rows := cursor.fetchmany(1 << 16):
                yield from (_Text(table, column, part) for part in _blocks("\n".join(row[0] for row in rows)))
