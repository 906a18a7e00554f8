"""Where each resource stands in an accepted shard, so that some can be read without the others.

Beside `X.ndjson` stands `X.places.parquet`: resource_id, start, bytes (of the line without its end), one row a line in the order of the
lines. A shard that is the file of an earlier run keeps the places that were found then.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from fhir_adapters.errors import machine_errors
from fhir_adapters.landing.shards import Shard
from fhir_adapters.processes import in_order, uncollected

_WORTH_A_POOL = 64 * 2**20  # bytes: below, one process is done before others have started


class _Task(NamedTuple):
    shard: str
    out: str


def places_of(shard: Path) -> Path:
    """The file of places of a shard, whether it is there or not."""
    return shard.with_name(f"{shard.stem}.places.parquet")


def write_places(shards: Sequence[Shard], folder: Path, before: Path, *, jobs: int) -> None:
    """Write the places of all shards of `folder` that are its own; `before` is the folder of the run before, if there was one.

    Raises E-DISK-01, E-DISK-02, E-LAND-06 (a worker was killed).
    """
    new = [shard for shard in shards if not Path(shard.path).is_absolute() and not _linked(shard, folder, before)]
    if not new:
        return
    import duckdb  # here: the workers of validation read this module and need no database

    tasks = [_Task(str(shard.place(folder)), f"{shard.place(folder)}.places") for shard in new]
    workers = 1 if sum(shard.bytes for shard in new) < _WORTH_A_POOL else min(jobs, len(tasks))
    with machine_errors(str(folder)), duckdb.connect() as connection:
        for task, _ in zip(tasks, in_order(_find, tasks, jobs=workers, subject=str(folder)), strict=True):
            connection.execute(
                f"COPY (SELECT * FROM read_csv({_literal(Path(task.out))}, delim = '\t', header = false, quote = '', escape = '', "
                "auto_detect = false, columns = {'resource_id': 'VARCHAR', 'start': 'BIGINT', 'bytes': 'BIGINT'})) "
                f"TO {_literal(places_of(Path(task.shard)))} (FORMAT parquet, COMPRESSION zstd)"
            )
            Path(task.out).unlink()


def _linked(shard: Shard, folder: Path, before: Path) -> bool:
    """Take over the places found before when the shard is the same file, which nobody writes into once it stands."""
    old, new = shard.place(before), shard.place(folder)
    try:
        if not old.samefile(new):
            return False
        os.link(places_of(old), places_of(new))
    except OSError:  # there was no run before, or none that wrote places
        return False
    return True


def _find(task: _Task) -> None:
    start = 0
    with uncollected(), Path(task.shard).open("rb") as lines, Path(task.out).open("w", encoding="utf-8") as out:
        for line in lines:
            text = line.strip()
            if text:
                out.write(f"{orjson.loads(text)['id']}\t{start}\t{len(line)}\n")
            start += len(line)


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
