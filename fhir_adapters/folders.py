"""A folder is written whole or not at all: beside its place first, then moved there by rename."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError, machine_errors


def _beside(out: Path, word: str) -> Path:
    return out.parent / f".{out.name}.{word}"


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and vanishes when it does not.

    A reader sees the old `out` or the new one. What a killed run left beside `out` is cleared, and an `out` that was lost
    between two renames is put back, the next time. Raises E-DISK-01 (full) and E-DISK-02 (not writable).
    """
    out = Path(out)
    partial, previous = _beside(out, "partial"), _beside(out, "previous")
    with machine_errors(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
        restore(out)
        if out.exists() and not out.is_dir():
            raise PalmaresError("E-DISK-02", str(out), detail="a file stands where a folder is to be written")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            if out.exists():
                out.rename(previous)
            partial.rename(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            restore(out)
            raise
        shutil.rmtree(previous, ignore_errors=True)


def restore(out: Path) -> None:
    """Put back an `out` whose replacement was killed between its two renames; drop a spent previous one."""
    previous = _beside(Path(out), "previous")
    if previous.exists():
        if out.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            previous.rename(out)


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yield a path beside `out` that replaces it when the block ends well, and is removed when it does not."""
    out = Path(out)
    partial = _beside(out, "partial")
    with machine_errors(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            yield partial
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)


def must_be_readable(folder: Path, subject: str) -> None:
    """Raise E-LAND-04 for a folder below which one may not be listed: a glob passes it by, and all that it holds would be missing."""

    def fail(error: OSError) -> None:
        raise PalmaresError("E-LAND-04", subject, detail=f"a folder below it may not be read ({type(error).__name__})")

    for _ in os.walk(folder, onerror=fail) if folder.is_dir() else ():
        pass


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a folder, by its path there."""
    described = {}
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        described[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256}
    return described
