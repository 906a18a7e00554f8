"""Where locks stand in a workspace, what their names may be, and that one of them is made at a time."""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError, machine_errors

MANIFEST, CITATION, DATASETS, COHORT, DERIVED = "manifest.json", "CITATION.txt", "datasets", "cohort", "derived"
REGISTER = "register.ndjson"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def locks_folder(home: Path) -> Path:
    """The workspace's folder of locks."""
    return Path(home) / "locks"


def lock_folder(home: Path, name: str) -> Path:
    """The folder of the lock of this name, whether it is there or not. Raises E-LOCK-02 when the name cannot be one."""
    if not _NAME.fullmatch(name):
        raise PalmaresError("E-LOCK-02", "the name of the lock")
    return locks_folder(home) / name


def read_lock(home: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """A lock's folder and its manifest. Raises E-LOCK-02, E-LOCK-03 (no such lock), E-LOCK-05 (its manifest cannot be read)."""
    folder = lock_folder(home, name)
    if not folder.is_dir():
        there = ", ".join(names(home)) or "none"
        raise PalmaresError("E-LOCK-03", name, detail=f"there are {there}")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict) or manifest["name"] != name:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-LOCK-05", name, detail=f"{MANIFEST} cannot be read") from None
    return folder, manifest


def names(home: Path) -> list[str]:
    """The names of the locks that there are."""
    return sorted(path.name for path in locks_folder(home).glob("*") if path.is_dir() and _NAME.fullmatch(path.name))


@contextmanager
def at_work(home: Path) -> Iterator[Path]:
    """A folder to work in, for one maker of locks at a time; what a killed one left is cleared.

    Raises E-LOCK-09 when another is at work, E-DISK-01 and -02.
    """
    folder = locks_folder(home)
    with machine_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".busy").open("w") as busy:
            try:
                fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PalmaresError("E-LOCK-09", folder.name) from None
            work = folder / ".work"
            remove(work)
            work.mkdir()
            try:
                yield work
            finally:
                remove(work)


def remove(folder: Path) -> None:
    """Remove a folder of ours, sealed or not."""
    if not folder.exists():
        return
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
        path.chmod(0o700)
    shutil.rmtree(folder)
