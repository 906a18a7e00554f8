"""The shards folder: what landing and validation write and mapping reads.

manifest.json       {"format": 1, "deliveries": […], "shards": […], "skipped": […]}
<Type>/<delivery>-<nnnn>.ndjson    one resource a line, UTF-8
quarantine.parquet  resource_type, resource_id, reason, position, element
deleted.parquet     resource_type, resource_id, deleted_at (ISO text or null), delivery
items.parquet       source_kind, item, outcome, reason, resources, delivery: what became of each file or message that a source read
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.landing.rules import Reject

FORMAT = 1
ITEMS = "items.parquet"
_ITEMS = "source_kind VARCHAR, item VARCHAR, outcome VARCHAR, reason VARCHAR, resources INTEGER"
_DELETED = {"resource_type": "VARCHAR", "resource_id": "VARCHAR", "deleted_at": "VARCHAR", "delivery": "INTEGER"}


@dataclass(frozen=True)
class Delivery:
    """One landing of files. `sha256` is of its content, whatever the files are called; `newest` an ISO instant."""

    number: int
    files: int
    bytes: int
    resources: int | None  # None where landed by reference
    newest: str | None
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A file of one resource type. `path` is relative to the folder, or absolute when it is the source file itself."""

    resource_type: str
    path: str
    delivery: int
    resources: int | None
    bytes: int

    def place(self, folder: Path) -> Path:
        return folder / self.path


@dataclass(frozen=True)
class Manifest:
    """What a shards folder holds."""

    deliveries: tuple[Delivery, ...]
    shards: tuple[Shard, ...]
    skipped: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        document = {"format": FORMAT, **asdict(self)}
        (folder / "manifest.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a shards folder. Raises E-LAND-05 when the folder is none."""
    try:
        document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise PalmaresError("E-LAND-05", str(folder), detail="its manifest has another format number")
        return Manifest(
            tuple(Delivery(**item) for item in document["deliveries"]),
            tuple(Shard(**item) for item in document["shards"]),
            tuple(document["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-LAND-05", str(folder)) from None


def _write(
    folder: Path, name: str, columns: dict[str, str], rows: Sequence[Sequence[Any]], before: Path | None, question: str
) -> list[Any]:
    """Write `<name>.parquet`, the rows of the folder `before` first, and answer a question over the table `written`.

    By DuckDB: pyarrow takes half a second to be imported.
    """
    import duckdb

    def quoted(path: Path) -> str:
        return "'" + str(path).replace("'", "''") + "'"

    typed = ", ".join(f"CAST(NULL AS {type_}) AS {column}" for column, type_ in columns.items())
    parts = [f"SELECT {typed} WHERE false"]
    if before is not None:
        parts.append(f"SELECT {', '.join(columns)} FROM read_parquet({quoted(before / f'{name}.parquet')})")
    given = folder / f".{name}.ndjson"
    if rows:
        given.write_bytes(b"\n".join(orjson.dumps(dict(zip(columns, row, strict=True))) for row in rows))
        types = ", ".join(f"'{column}': '{type_}'" for column, type_ in columns.items())
        parts.append(
            f"SELECT * FROM read_json({quoted(given)}, format = 'newline_delimited', columns = {{{types}}}, "
            f"maximum_object_size = {max(given.stat().st_size, 2**24)})"
        )
    with machine_errors(str(folder)), duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE written AS {' UNION ALL '.join(parts)}")
        connection.execute(f"COPY written TO {quoted(folder / f'{name}.parquet')} (FORMAT parquet, COMPRESSION zstd)")
        answer = connection.execute(question).fetchall()
    given.unlink(missing_ok=True)
    return answer


def write_quarantine(folder: Path, rejects: Sequence[Reject], before: Path | None = None) -> Counter[str]:
    """Write `quarantine.parquet`, the rows of the folder `before` first; return all its rows per reason."""
    question = "SELECT reason, count(*) FROM written GROUP BY 1 ORDER BY 1"
    return Counter(
        dict(_write(folder, "quarantine", dict.fromkeys(Reject._fields, "VARCHAR"), rejects, before, question))
    )


def write_deleted(folder: Path, deleted: Sequence[tuple[str, str, str | None, int]], before: Path | None = None) -> int:
    """Write `deleted.parquet`, the rows of the folder `before` first; return how many rows it has."""
    rows = _write(folder, "deleted", _DELETED, deleted, before, "SELECT count(*) FROM written")
    return int(rows[0][0])


def write_items(folder: Path, outcomes: Sequence[Path], number: int, before: Path | None = None) -> None:
    """Write `items.parquet`: what the sources of delivery `number` say in `outcomes`, after the rows of the folder `before`."""
    import duckdb

    def listed(paths: Sequence[Path]) -> str:
        return ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)

    with machine_errors(str(folder)), duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE items ({_ITEMS}, delivery INTEGER)")
        if before is not None and (before / ITEMS).is_file():
            connection.execute(f"INSERT INTO items BY NAME SELECT * FROM read_parquet({listed([before / ITEMS])})")
        if outcomes:
            connection.execute(
                f"INSERT INTO items BY NAME SELECT *, {number} AS delivery FROM read_parquet([{listed(outcomes)}], union_by_name = true)"
            )
        connection.execute(
            f"COPY (FROM items ORDER BY ALL) TO {listed([folder / ITEMS])} (FORMAT parquet, COMPRESSION zstd)"
        )


def carry(shards: Iterable[Shard], old: Path, new: Path) -> None:
    """Bring shards of one folder into another: by hard link, for nobody writes into a shard once it stands; else by copy."""
    for shard in shards:
        if Path(shard.path).is_absolute():
            continue
        place = new / shard.path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / shard.path, place)
        except OSError:  # another file system, or one without links
            shutil.copyfile(old / shard.path, place)
