"""The shards folder: what landing and validation write and mapping reads.

manifest.json       {"format": 1, "deliveries": […], "shards": […], "skipped": […]}
<Type>/<delivery>-<nnnn>.ndjson    one resource a line, UTF-8
quarantine.parquet  resource_type, resource_id, reason, position, element
deleted.parquet     resource_type, resource_id, deleted_at (ISO text or null), delivery
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.landing.rules import Reject

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1


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


def quarantine_schema() -> "pyarrow.Schema":
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in Reject._fields])


def deleted_schema() -> "pyarrow.Schema":
    import pyarrow as pa

    text = [(name, pa.string()) for name in ("resource_type", "resource_id", "deleted_at")]
    return pa.schema([*text, ("delivery", pa.int32())])


def _table(rows: Sequence[Sequence[Any]], schema: "pyarrow.Schema", before: Path | None) -> "pyarrow.Table":
    import pyarrow as pa
    from pyarrow import parquet

    table = schema.empty_table()
    if rows:  # to make an array of Python values, pyarrow imports pandas: most deliveries need none
        columns: list[Any] = list(zip(*rows, strict=True))
        arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=schema)
    if before is not None:
        table = pa.concat_tables([parquet.read_table(before, schema=schema), table])
    return table


def write_quarantine(folder: Path, rejects: Sequence[Reject], before: Path | None = None) -> Counter[str]:
    """Write `quarantine.parquet`, the rows of the folder `before` first; return all its rows per reason."""
    from pyarrow import parquet

    table = _table(rejects, quarantine_schema(), before / "quarantine.parquet" if before else None)
    parquet.write_table(table, folder / "quarantine.parquet", compression="zstd")
    return Counter(table.column("reason").to_pylist())


def write_deleted(folder: Path, deleted: Sequence[tuple[str, str, str | None, int]], before: Path | None = None) -> int:
    """Write `deleted.parquet`, the rows of the folder `before` first; return how many rows it has."""
    from pyarrow import parquet

    table = _table(deleted, deleted_schema(), before / "deleted.parquet" if before else None)
    parquet.write_table(table, folder / "deleted.parquet", compression="zstd")
    return int(table.num_rows)


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
