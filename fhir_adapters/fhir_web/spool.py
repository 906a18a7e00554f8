"""What a run has fetched so far, beside the folder that it will become: a run that was killed goes on where it stood.

    <extracted>/.<n>-<kind>.spool/          mode 0700; removed when the extraction folder is whole
        spool.json                          which run it is of (a hash), and notes: the server's clock at its beginning, …
        <strand>.ndjson                     resources, de-identified before they get here
        <strand>.ids                        one line per resource: m (match) or i (included), type, id, updated
        <strand>.journal                    one line per page: how long the two files were after it, and where to go on

Addresses (where to go on, a job's status and files) may name a patient: with the site's key they are written sealed.

A page counts when its line stands in the journal whole; what the files hold beyond that is cut off when the spool is opened.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from fhir_adapters.errors import PalmaresError, machine_errors

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_NOTES = "spool.json"
_SEALED = ("next", "status", "manifest")  # of an entry or the notes: they hold addresses


class Strand:
    """One series of pages. One thread at a time."""

    def __init__(self, folder: Path, name: str, key: "SiteKey | None" = None) -> None:
        self.name = name
        self._key = key
        self.data = folder / f"{name}.ndjson"
        self.ids = folder / f"{name}.ids"
        self._journal = folder / f"{name}.journal"
        self.entries: list[dict[str, Any]] = self._settle()
        self._files: list[BinaryIO] = []

    def _settle(self) -> list[dict[str, Any]]:
        """The journal's whole lines that the files can back; everything beyond is cut off."""
        entries: list[dict[str, Any]] = []
        held = [path.stat().st_size if path.exists() else 0 for path in (self.data, self.ids)]
        kept = 0
        text = self._journal.read_bytes() if self._journal.exists() else b""
        for line in text.splitlines(keepends=True):
            try:
                entry = _unsealed(orjson.loads(line), self._key) if line.endswith(b"\n") else None
            except orjson.JSONDecodeError:
                entry = None
            if entry is None or entry["data"] > held[0] or entry["ids"] > held[1]:
                break
            entries.append(entry)
            kept += len(line)
        ends = (entries[-1]["data"], entries[-1]["ids"]) if entries else (0, 0)
        for path, end in ((self.data, ends[0]), (self.ids, ends[1]), (self._journal, kept)):
            if path.exists():
                os.truncate(path, end)
        return entries

    @property
    def last(self) -> dict[str, Any] | None:
        """The last page's line of the journal."""
        return self.entries[-1] if self.entries else None

    def marked(self, text: str) -> str:
        """What tells two texts apart without telling them."""
        return _marked(text, self._key)

    def append(self, lines: bytes, ids: bytes, **entry: Any) -> None:
        """Add a page: whole lines with their ends. `entry` goes into the journal."""
        with machine_errors("spool"):
            if not self._files:
                self._files = [path.open("ab") for path in (self.data, self.ids, self._journal)]
            data, names, journal = self._files
            data.write(lines)
            data.flush()
            names.write(ids)
            names.flush()
            entry |= {"data": data.tell(), "ids": names.tell()}
            journal.write(orjson.dumps(_sealed(entry, self._key)) + b"\n")
            journal.flush()
        self.entries.append(entry)

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []

    def clear(self) -> None:
        """Forget all pages."""
        self.close()
        for path in (self.data, self.ids, self._journal):
            path.unlink(missing_ok=True)
        self.entries = []


class Spool:
    """The spool of one extraction folder. Use `opened`."""

    def __init__(self, folder: Path, notes: dict[str, Any], key: "SiteKey | None" = None) -> None:
        self.folder = folder
        self.notes = notes
        self._key = key

    def note(self, **more: Any) -> None:
        """Keep notes, whole or not at all."""
        self.notes |= more
        partial = self.folder / f".{_NOTES}"
        with machine_errors("spool"):
            partial.write_text(json.dumps(_sealed(self.notes, self._key)), encoding="utf-8")
            partial.replace(self.folder / _NOTES)

    def clear(self, *kept: str) -> None:
        """Forget all strands, and all notes but these."""
        for path in self.folder.iterdir():
            if path.name != _NOTES:
                path.unlink()
        self.notes = {name: self.notes[name] for name in kept}
        self.note()

    def strand(self, name: str) -> Strand:
        return Strand(self.folder, name, self._key)

    def files(self) -> list[Path]:
        """The strands' files of resources that are not empty."""
        return sorted(path for path in self.folder.glob("*.ndjson") if path.stat().st_size)

    def id_files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.ids") if path.stat().st_size)

    def copy_to(self, fhir: Path) -> int:
        """Put the resources into an extraction's `fhir` folder, by link where the disk can; returns the bytes."""
        size = 0
        for path in self.files():
            target = fhir / path.name
            try:
                os.link(path, target)
            except OSError:  # a file system without links
                shutil.copyfile(path, target)
            size += target.stat().st_size
        return size

    def remove(self) -> None:
        """The extraction folder is whole: the spool has done its work."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def opened(out: Path, run: Mapping[str, Any], key: "SiteKey | None" = None) -> Iterator[Spool]:
    """The spool beside `out`, as an earlier run left it when `run` (what tells runs apart, plain JSON) is the same, else empty.

    `key` seals addresses; without one they stand as they are (the hospital's own ids are pseudonyms then). The spool stays when
    the block fails, so that the next run goes on. Raises E-SRC-07 when another process works in it.
    """
    folder = out.parent / f".{out.name}.spool"
    mark = _marked(json.dumps(run, sort_keys=True), key)  # a site may have written anything into its search
    with machine_errors(str(folder)):
        out.parent.mkdir(parents=True, exist_ok=True)
        with (out.parent / f".{out.name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PalmaresError("E-SRC-07", out.name) from None
            notes = _notes(folder, key)
            if notes is None or notes.get("run") != mark:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(mode=0o700)
                notes = {"run": mark}
            folder.chmod(0o700)
            spool = Spool(folder, notes, key)
            spool.note()
            yield spool


def _marked(text: str, key: "SiteKey | None") -> str:
    """What tells two texts apart without telling them."""
    return key.pseudonym("spool", text) if key else hashlib.sha256(text.encode()).hexdigest()[:32]


def _sealed(entry: dict[str, Any], key: "SiteKey | None") -> dict[str, Any]:
    """The entry as it is written: what holds addresses is a text that only the site's key reads."""
    if key is None:
        return entry
    return entry | {name: key.sealed(json.dumps(entry[name])) for name in _SEALED if entry.get(name)}


def _unsealed(entry: Any, key: "SiteKey | None") -> dict[str, Any] | None:
    """The entry as it was; None when it is none, or not of this key."""
    if not isinstance(entry, dict):
        return None
    for name in _SEALED if key else ():
        if entry.get(name):
            plain = key.unsealed(entry[name]) if key and isinstance(entry[name], str) else None
            if plain is None:
                return None
            entry[name] = json.loads(plain)
    return entry


def _notes(folder: Path, key: "SiteKey | None") -> dict[str, Any] | None:
    try:
        notes = json.loads((folder / _NOTES).read_bytes())
    except (OSError, ValueError):
        return None
    return _unsealed(notes, key)
