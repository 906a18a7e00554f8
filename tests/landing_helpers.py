"""What the tests of landing and validation share."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from pyarrow import parquet

# the suite looks at the same examples each time; PALMARES_EXAMPLES=5000 looks long, and at new ones
DERANDOMIZE = "PALMARES_EXAMPLES" not in os.environ
EXAMPLES = int(os.environ.get("PALMARES_EXAMPLES", "50"))


def ndjson(path: Path, resources: Iterable[Any]) -> Path:
    """Write resources as NDJSON; texts and bytes go in as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        item if isinstance(item, bytes) else item.encode() if isinstance(item, str) else orjson.dumps(item)
        for item in resources
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def quarantine(folder: Path) -> list[tuple]:
    """The rows of a shards folder's quarantine: type, id, reason, position, element."""
    return [tuple(row.values()) for row in parquet.read_table(folder / "quarantine.parquet").to_pylist()]


def deleted(folder: Path) -> list[tuple]:
    """The rows of a shards folder's deletes: type, id, deleted_at, delivery."""
    return [tuple(row.values()) for row in parquet.read_table(folder / "deleted.parquet").to_pylist()]


def landed(folder: Path) -> dict[str, list[bytes]]:
    """Every line of a shards folder, per type, in the order of its manifest."""
    lines: dict[str, list[bytes]] = {}
    for shard in orjson.loads((folder / "manifest.json").read_bytes())["shards"]:
        text = (folder / shard["path"]).read_bytes()
        lines.setdefault(shard["resource_type"], []).extend(line for line in text.splitlines() if line.strip())
    return lines


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
