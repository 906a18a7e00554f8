"""The inputs of locks: each file of a submission kept once, under its hash, and laid out again as the intake was.

A lock does not trust the intake to stay as it is: a hospital's next submission replaces the one before. What a lock was made
from is copied into `<home>/locks/.inputs`, read-only, and shared between locks.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described

STORE = ".inputs"


def keep(intake: Path, store: Path) -> dict[str, dict[str, Any]]:
    """Keep every file of the intake's submissions; by its path in the intake, its bytes and SHA-256.

    Raises E-BUILD-03 when the intake holds no submission, E-LOCK-06 when a file changes while it is copied.
    """
    sites = sorted(path for path in intake.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not sites:
        raise PalmaresError("E-BUILD-03", intake.name)
    for left in store.glob("*/*.partial"):  # of a maker that was killed
        left.unlink()
    try:
        files = {f"{site.name}/{path}": about for site in sites for path, about in described(site).items()}
        for path, about in files.items():
            _keep(intake / path, _place(store, about["sha256"]), about["sha256"])
    except FileNotFoundError:  # a submission arrived and took the place of the one that was read
        raise PalmaresError("E-LOCK-06", "intake", detail="a file changed while it was read") from None
    return files


def _keep(file: Path, place: Path, sha256: str) -> None:
    if place.is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".partial")
    shutil.copyfile(file, partial)
    if _sha256(partial) != sha256:
        partial.unlink()
        raise PalmaresError("E-LOCK-06", "intake", detail="a file changed while it was read")
    partial.chmod(0o440)
    partial.replace(place)


def lay_out(files: Mapping[str, Mapping[str, Any]], store: Path, out: Path) -> list[Path]:
    """The kept files as the intake had them, below `out`; one folder per site. Each is held against its hash.

    Raises E-LOCK-06 when one is not there any more, or is not what it was.
    """
    for path, about in files.items():
        place = _place(store, str(about["sha256"]))
        if not place.is_file() or _sha256(place) != about["sha256"]:
            raise PalmaresError("E-LOCK-06", path.partition("/")[0], detail="a kept file is gone or has changed")
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(place, target)
        except OSError:
            shutil.copyfile(place, target)  # a file system without hard links
    return [out / site for site in sorted({path.partition("/")[0] for path in files})]


def problems(files: Mapping[str, Mapping[str, Any]], store: Path) -> list[str]:
    """The kept files of a lock that are gone or have changed, by their path in the intake."""
    found = []
    for path, about in files.items():
        place = _place(store, str(about["sha256"]))
        if not place.is_file():
            found.append(f"input gone: {path}")
        elif _sha256(place) != about["sha256"]:
            found.append(f"input changed: {path}")
    return found


def _place(store: Path, sha256: str) -> Path:
    return store / sha256[:2] / sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
