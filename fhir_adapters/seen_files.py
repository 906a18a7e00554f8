"""Which files a source has read before: by size and time, under a hash of their names, for names may hold patients' names."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Seen = dict[str, list[int]]  # hash of the path below the folder → bytes, time of the last change in nanoseconds


def looked_at(paths: Iterable[Path], root: Path) -> Seen:
    """How the files look now; one that is gone by now is left out."""
    seen: Seen = {}
    for path in paths:
        try:
            what = path.stat()
        except OSError:
            continue
        seen[name_hash(path, root)] = [what.st_size, what.st_mtime_ns]
    return seen


def name_hash(path: Path, root: Path) -> str:
    """What a file is known by."""
    name = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    return hashlib.md5(name, usedforsecurity=False).hexdigest()[:16]


def recipe(*parts: Any) -> str:
    """A short hash of what decides how files are read: what was read under another recipe is read again. A path stands for
    the content of its file."""

    def shown(part: Any) -> Any:
        if isinstance(part, Path) and part.is_file():
            return hashlib.sha256(part.read_bytes()).hexdigest()
        return str(part)

    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=shown).encode()).hexdigest()[:16]


def of_recipe(state: Mapping[str, Any] | None, of: str) -> Mapping[str, Any]:
    """The state, when it was made under this recipe; else nothing."""
    return state if state is not None and state.get("of") == of else {}
