"""An Athena download → Parquet with a lock: files with SHA-256, rows, and the release they belong to.

Athena writes tab-separated files without quoting: a quotation mark is a character like any other. Any subset of the
files will do, as long as CONCEPT and CONCEPT_RELATIONSHIP are there. Concepts are sorted by vocabulary and code, so that
a lookup reads few row groups; the other files keep their order.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.folders import restore, whole_folder
from fhir_adapters.knowledge import mappings_folder
from omop_etl.cdm import Table, duckdb_columns, tables

LOCK = "vocabulary.lock"
REQUIRED = ("concept", "concept_relationship")
# the relationships that resolving reads, a fifth of a full download, stand once more in a file of their own
RESOLVING = "concept_relationship_resolving"
_RESOLVING = "('Maps to', 'Maps to value', 'Is a', 'Subsumes')"
_ROW_GROUP = 122_880
# a full download has 7 million concepts, 50 million relationships, 80 million ancestors
_MEMORY = "800MB"

# raw folders that this process has converted, by their files' sizes and times
_CONVERTED: "dict[tuple[Any, ...], tuple[Vocabulary, tempfile.TemporaryDirectory[str]]]" = {}


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as Parquet, one file per table, and its lock."""

    folder: Path
    lock: dict[str, Any]

    @property
    def release(self) -> str | None:
        """What VOCABULARY.csv calls the release, e.g. 'v20240229'; None when that file was not there."""
        return self.lock["release"]

    def has(self, table: str) -> bool:
        """Whether the download held this table."""
        return table in self.lock["tables"]

    def relation(self, table: str) -> str:
        """A table of the vocabulary as something to write behind FROM."""
        return f"read_parquet('{_quoted(self.folder / f'{table}.parquet')}')"


def vocabulary_tables() -> list[str]:
    """The tables that an Athena download may hold."""
    others = ("source_to_concept_map",)  # a site's own, never in a download
    return [table.name for table in tables().values() if table.schema == "vocab" and table.name not in others]


def open_vocabulary(path: Path | None) -> Vocabulary:
    """The vocabulary at `path`: what `load` wrote, a raw Athena folder, or for None the starter slice.

    A raw folder is converted once per process, into a temporary folder that goes when the process ends. Raises E-VOC-01
    when there is none.
    """
    path = mappings_folder() / "vocabulary" if path is None else Path(path)
    restore(path)
    if (path / LOCK).is_file():
        return _opened(path)
    files = _files(path)
    state = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files.values())
    if state not in _CONVERTED:
        keep = tempfile.TemporaryDirectory(prefix="palmares-vocabulary-")
        lock = _convert(path, files, Path(keep.name), lambda _: None)
        _CONVERTED[state] = (Vocabulary(Path(keep.name), lock), keep)
    return _CONVERTED[state][0]


def load(athena: Path, out: Path, *, progress: Callable[[str], None] = lambda _: None) -> Vocabulary:
    """Convert the Athena folder `athena` into Parquet in `out`, whole or not at all.

    `progress` is told the name of each file as it begins. Raises E-VOC-01 when CONCEPT.csv or
    CONCEPT_RELATIONSHIP.csv is missing, E-VOC-02 when a file's rows do not fit (wrong number of columns, no integer,
    no date), with their number.
    """
    athena, out = Path(athena), Path(out)
    files = _files(athena)
    with whole_folder(out) as folder:
        lock = _convert(athena, files, folder, progress)
        (folder / LOCK).write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Vocabulary(out, lock)


def _opened(path: Path) -> Vocabulary:
    try:
        lock = json.loads((path / LOCK).read_text(encoding="utf-8"))
        missing = [name for name in (*lock["tables"], RESOLVING) if not (path / f"{name}.parquet").is_file()]
    except (ValueError, KeyError, TypeError):
        raise PalmaresError("E-VOC-01", str(path), detail=f"{LOCK} is damaged") from None
    if missing or any(name not in lock["tables"] for name in REQUIRED):
        raise PalmaresError("E-VOC-01", str(path), detail=f"not every file that {LOCK} names is there")
    return Vocabulary(path, lock)


def _files(athena: Path) -> dict[str, Path]:
    """Table → file of the download, by name in any case."""
    if not athena.is_dir():
        raise PalmaresError("E-VOC-01", str(athena))
    by_stem = {path.stem.lower(): path for path in sorted(athena.iterdir()) if path.suffix.lower() == ".csv"}
    missing = [f"{name.upper()}.csv" for name in REQUIRED if name not in by_stem]
    if missing:
        raise PalmaresError("E-VOC-01", str(athena), detail=f"{' and '.join(missing)} missing")
    return {name: by_stem[name] for name in vocabulary_tables() if name in by_stem}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _convert(athena: Path, files: dict[str, Path], folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Write one Parquet file per table into `folder` and give the lock."""
    spill = folder / ".spill"
    config: dict[str, Any] = {"memory_limit": _MEMORY, "temp_directory": str(spill)}
    rows = {}
    with ThreadPoolExecutor(1) as pool, machine_errors(str(folder)), duckdb.connect(config=config) as connection:
        connection.execute("SET enable_progress_bar = false")  # the caller is told which file is read
        hashes = pool.map(_sha256, files.values())
        for name, path in files.items():
            progress(path.name)
            rows[name] = _write(connection, tables()[name], path, folder / f"{name}.parquet")
        _copy(
            connection,
            f"SELECT * FROM read_parquet('{_quoted(folder / 'concept_relationship.parquet')}') "
            f"WHERE relationship_id IN {_RESOLVING} ORDER BY relationship_id, concept_id_1, concept_id_2",
            folder / f"{RESOLVING}.parquet",
        )
        digests = dict(zip(files, hashes, strict=True))
        release = _release(connection, folder) if "vocabulary" in files else None
    shutil.rmtree(spill, ignore_errors=True)
    return {
        "format": 1,
        "kind": "athena",
        "release": release,
        "tables": rows,
        "files": {
            path.name: {"sha256": digests[name], "bytes": path.stat().st_size, "rows": rows[name]}
            for name, path in files.items()
        },
    }


def _release(connection: duckdb.DuckDBPyConnection, folder: Path) -> str | None:
    place = _quoted(folder / "vocabulary.parquet")
    found = connection.execute(
        f"SELECT vocabulary_version FROM read_parquet('{place}') WHERE vocabulary_id = 'None'"
    ).fetchone()
    return found[0] if found else None


def _header(path: Path, table: Table) -> tuple[list[str], str]:
    """The file's own column order, and how it writes dates (Athena: 20991231)."""
    with path.open("rb") as lines:
        first, second = lines.readline(), lines.readline()
    try:
        names = first.decode("utf-8-sig").rstrip("\r\n").lower().split("\t")
        values = second.decode("utf-8").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise PalmaresError("E-VOC-02", path.name, detail="its bytes are no UTF-8") from None
    missing = [column.name for column in table.columns if column.name not in names]
    unknown = [name for name in names if name not in table]
    if missing or unknown or len(names) != len(set(names)):
        detail = f"columns missing from the header: {', '.join(missing) or 'none'}; not known: {len(unknown)}"
        raise PalmaresError("E-VOC-02", path.name, detail=detail)
    dates = [value for name, value in zip(names, values, strict=False) if table[name].type == "date"]
    return names, "%Y-%m-%d" if any("-" in value for value in dates) else "%Y%m%d"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _copy(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    options = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})"
    connection.execute(f"COPY ({query}) TO '{_quoted(target)}' {options}")


def _reader(path: Path, columns: dict[str, str], options: str) -> str:
    typed = ", ".join(f"'{name}': '{type_}'" for name, type_ in columns.items())
    return (
        f"read_csv('{_quoted(path)}', delim='\t', quote='', escape='', comment='', header=true, skip=0, auto_detect=false, "
        f"nullstr='', null_padding=false, columns={{{typed}}}{options})"
    )


def _write(connection: duckdb.DuckDBPyConnection, table: Table, path: Path, target: Path) -> int:
    names, date_format = _header(path, table)
    types = duckdb_columns(table.name)
    columns = {name: types[name] for name in names}
    reader = _reader(path, columns, f", dateformat='{date_format}'")
    order = " ORDER BY vocabulary_id, concept_code, concept_id" if table.name == "concept" else ""
    try:
        _copy(connection, f"SELECT {', '.join(table.names)} FROM {reader}{order}", target)
    except (duckdb.ConversionException, duckdb.InvalidInputException):
        # the fast reader stops at the first bad row; now count them
        raise _bad_rows(connection, table, path, names, date_format) from None
    needed = [column.name for column in table.columns if column.required and not column.type.startswith("varchar")]
    counts = " + ".join(f"count(*) FILTER ({name} IS NULL)" for name in needed) or "0"
    rows, empty = connection.execute(f"SELECT count(*), {counts} FROM read_parquet('{_quoted(target)}')").fetchall()[0]
    if empty:
        raise _bad_rows(connection, table, path, names, date_format)
    return rows


def _bad_rows(
    connection: duckdb.DuckDBPyConnection, table: Table, path: Path, names: list[str], date_format: str
) -> PalmaresError:
    """Count the rows that do not fit, by rule; nothing of what they hold."""
    reader = _reader(
        path,
        dict.fromkeys(names, "VARCHAR"),
        ", store_rejects=true, rejects_table='bad_line', rejects_scan='bad_scan', rejects_limit=0",
    )
    tests = []
    for column in table.columns:
        cast = {
            "integer": f"TRY_CAST({column.name} AS INTEGER)",
            "double": f"TRY_CAST({column.name} AS DOUBLE)",
            "date": f"TRY_STRPTIME({column.name}, '{date_format}')",
        }.get(column.type)
        if cast:
            present = "" if column.required else f"{column.name} IS NOT NULL AND "
            tests.append((column.name, column.type, f"count(*) FILTER ({present}{cast} IS NULL)"))
    counts = connection.execute(f"SELECT count(*), {', '.join(sql for *_, sql in tests)} FROM {reader}").fetchall()[0]
    lines = connection.execute("SELECT count(DISTINCT line) FROM bad_line").fetchall()[0][0]
    connection.execute("DROP TABLE bad_line; DROP TABLE bad_scan")
    found = [f"no {kind} in {name}: {count}" for (name, kind, _), count in zip(tests, counts[1:], strict=True) if count]
    if lines:
        found.insert(0, f"wrong number of columns or no UTF-8: {lines}")
    return PalmaresError("E-VOC-02", path.name, count=lines + sum(counts[1:]), detail="; ".join(found))
