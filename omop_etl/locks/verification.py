"""Whether a lock is still what was sealed, byte by byte; and which locks there are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from omop_etl.locks import inputs, register
from omop_etl.locks.citation import citation
from omop_etl.locks.place import CITATION, MANIFEST, locks_folder, names, read_lock


@dataclass(frozen=True)
class Verification:
    """What was found: files held against their hash, and each problem as `kind: path`."""

    name: str
    files: int
    problems: list[str]

    @property
    def sound(self) -> bool:
        return not self.problems


def verify(home: Path, name: str) -> Verification:
    """Hold every byte of a lock against what was sealed: its files, manifest, citation, register and kept inputs.

    Raises E-LOCK-02 and E-LOCK-03; everything else is a problem that is named.
    """
    home = Path(home)
    try:
        folder, manifest = read_lock(home, name)
    except PalmaresError as error:
        if error.code == "E-LOCK-05":
            return Verification(name, 0, [f"changed: {MANIFEST}"])
        raise
    problems = []
    raw = (folder / MANIFEST).read_bytes()
    entry, sound = register.entry_of(locks_folder(home), name)
    if not sound:
        problems.append("changed: register.ndjson")
    elif entry is None:
        problems.append("not in register.ndjson")
    elif entry.get("manifest_sha256") != hashlib.sha256(raw).hexdigest():
        problems.append(f"changed: {MANIFEST}")
    try:
        cited = (folder / CITATION).read_text(encoding="utf-8") == citation(raw.decode())
    except (OSError, ValueError, KeyError, TypeError):
        cited = False
    if not cited:
        problems.append(f"changed: {CITATION} or {MANIFEST}")
    try:
        problems += _files(folder, manifest) + inputs.problems(manifest["inputs"], locks_folder(home) / inputs.STORE)
    except (KeyError, TypeError, AttributeError, ValueError):
        problems.append(f"changed: {MANIFEST}")  # it is JSON still, but no manifest
    return Verification(name, len(manifest["files"]) + 2, problems)


def _files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """What is changed, gone or added in the lock's folder."""
    problems = []
    files = manifest["files"]
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    for path, about in files.items():
        file = there.get(path)
        if file is None:
            problems.append(f"gone: {path}")
        elif file.is_symlink() or not file.is_file() or _changed(file, about):
            problems.append(f"changed: {path}")
    parents = {parent.as_posix() for path in files for parent in Path(path).parents}
    for path, file in there.items():
        known = path in files or path in (MANIFEST, CITATION) or (path in parents and file.is_dir())
        if not known or (path in parents and file.is_symlink()):
            problems.append(f"added: {path}")
    return problems


def _changed(file: Path, about: dict[str, Any]) -> bool:
    if file.stat().st_size != about["bytes"]:
        return True
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() != about["sha256"]


def listing(home: Path) -> list[dict[str, Any]]:
    """The locks that there are, oldest first: name, cut-off, study, sites, when it was sealed, hash of its manifest."""
    found = []
    for name in names(home):
        entry, _ = register.entry_of(locks_folder(Path(home)), name)
        try:
            _, manifest = read_lock(home, name)
        except PalmaresError:
            manifest = {}
        found.append(
            {
                "name": name,
                "cut_off": manifest.get("cut_off", "?"),
                "study": manifest.get("study", "?"),
                "sites": len(manifest.get("sites", [])),
                "sealed_at": entry["at"] if entry else "?",
                "manifest_sha256": entry["manifest_sha256"] if entry else "?",
            }
        )
    return sorted(found, key=lambda one: (one["sealed_at"], one["name"]))
