"""The register of locks: one line per lock that was sealed, each holding its own hash and that of the line before it.

It is only ever added to. A line that is changed, dropped or put between others breaks the chain.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from omop_etl.locks.place import REGISTER

FIRST = "0" * 64


def add(folder: Path, entry: dict[str, Any]) -> None:
    """Add a line; the file is on the disk when this returns. Raises E-LOCK-05 when the chain is broken already."""
    lines, sound = read(folder)
    if not sound:
        raise PalmaresError("E-LOCK-05", REGISTER, detail="its chain is broken")
    previous = hashlib.sha256(lines[-1][0]).hexdigest() if lines else FIRST
    line = entry | {"at": datetime.now(UTC).isoformat(timespec="seconds"), "previous": previous}
    line |= {"sha256": _sha256(line)}
    with (folder / REGISTER).open("ab") as out:
        out.write(_bytes(line) + b"\n")
        out.flush()
        os.fsync(out.fileno())


def read(folder: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], bool]:
    """The lines, each as its bytes and its content, and whether each holds the hash of the one before.

    A last line without its end (a write that was cut) is not there; it breaks nothing that was sealed before.
    """
    path = folder / REGISTER
    raw = path.read_bytes() if path.is_file() else b""
    found: list[tuple[bytes, dict[str, Any]]] = []
    previous = FIRST
    for line in raw.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return found, False
        try:
            entry = json.loads(line)
            sound = entry["previous"] == previous and isinstance(entry["name"], str)
            # the last line has no line after it: each holds its own hash too
            sound = sound and line == _bytes(entry) + b"\n" and entry["sha256"] == _sha256(entry)
        except (ValueError, KeyError, TypeError):
            return found, False
        if not sound:
            return found, False
        found.append((line[:-1], entry))
        previous = hashlib.sha256(line[:-1]).hexdigest()
    return found, True


def _bytes(entry: dict[str, Any]) -> bytes:
    """A line as it is written: one text for one content."""
    return json.dumps(entry, sort_keys=True).encode()


def _sha256(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_bytes({key: value for key, value in entry.items() if key != "sha256"})).hexdigest()


def entry_of(folder: Path, name: str) -> tuple[dict[str, Any] | None, bool]:
    """The latest line of a lock, and whether the chain is sound."""
    lines, sound = read(folder)
    return next((entry for _, entry in reversed(lines) if entry["name"] == name), None), sound
