"""The memory of validation: what was found about a line once holds as long as the line and the rules are the same.

One SQLite file. It is a cache: one that is damaged, or was written under other rules, is begun anew.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing.rules import Refusal

RULES = 2  # to be raised when a rule of model.py changes

_TABLES = """
CREATE TABLE IF NOT EXISTS rules (signature TEXT);
CREATE TABLE IF NOT EXISTS line (digest BLOB PRIMARY KEY, refusal TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shard (mark BLOB PRIMARY KEY, found TEXT) WITHOUT ROWID;
"""


class Found(NamedTuple):
    """What was found in a shard: its lines, those that are resources, and the refused ones by line number."""

    lines: int
    resources: int
    refused: tuple[tuple[int, Refusal], ...]


def signature() -> str:
    """Of everything that a verdict depends on besides the line."""
    digest = hashlib.sha256(f"{RULES} {version('fhir.resources')} {version('fhir-core')}".encode())
    for name in ("required_codes.csv", "resource_types.csv", "unread_elements.csv"):
        digest.update((mappings_folder() / "codes" / "fhir" / name).read_bytes())
    return digest.hexdigest()


def digest(resource_type: str, line: bytes) -> bytes:
    """16 bytes that stand for a line of a shard of this type."""
    return hashlib.blake2b(line, digest_size=16, person=resource_type.encode()[:16]).digest()


def mark(resource_type: str, path: Path) -> bytes:
    """16 bytes that stand for a shard as it lies there: its type, size, time of writing, and first and last bytes."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(1 << 16)
        stream.seek(max(0, size - (1 << 16)))
        text = repr((resource_type, size, path.stat().st_mtime_ns)).encode()
        return hashlib.blake2b(text + head + stream.read(), digest_size=16).digest()


@contextmanager
def _machine_errors(path: Path) -> Iterator[None]:
    """SQLite's words for a full disk and a refused write, as numbered errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise PalmaresError("E-DISK-01", str(path)) from None
        if "readonly" in text or "unable to open" in text:
            raise PalmaresError("E-DISK-02", str(path)) from None
        raise


def prepare(path: Path) -> None:
    """See that the file is there and of these rules. Raises E-DISK-01, E-DISK-02."""
    with machine_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _machine_errors(path), closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(_TABLES)
            known = connection.execute("SELECT signature FROM rules").fetchall()
            if known == [(signature(),)]:
                return
            connection.executescript("DELETE FROM rules; DELETE FROM line; DELETE FROM shard;")
            connection.execute("INSERT INTO rules VALUES (?)", [signature()])
    except sqlite3.OperationalError:  # locked: no damage to the file
        raise
    except sqlite3.DatabaseError:
        path.unlink()
        prepare(path)


class Verdicts:
    """The file open for questions (in a worker) and answers (in the process that gathers them)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def of_line(self, key: bytes) -> tuple[bool, Refusal | None]:
        """Whether the line is known, and its refusal."""
        row = self._connection.execute("SELECT refusal FROM line WHERE digest = ?", [key]).fetchone()
        return row is not None, Refusal(*json.loads(row[0])) if row and row[0] else None

    def of_shard(self, key: bytes) -> Found | None:
        row = self._connection.execute("SELECT found FROM shard WHERE mark = ?", [key]).fetchone()
        if row is None:
            return None
        lines, resources, refused = json.loads(row[0])
        return Found(lines, resources, tuple((number, Refusal(*refusal)) for number, refusal in refused))

    def keep(self, lines: Iterable[tuple[bytes, Refusal | None]], shards: Iterable[tuple[bytes, Found]] = ()) -> None:
        with _machine_errors(self._path), self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO line VALUES (?, ?)",
                sorted((key, json.dumps(refusal) if refusal else None) for key, refusal in lines),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO shard VALUES (?, ?)", [(key, json.dumps(found)) for key, found in shards]
            )
