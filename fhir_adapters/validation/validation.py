"""validate(): a landed folder becomes an accepted folder, without the resources that are not sound FHIR R4.

Each resource is looked at once: what was found is remembered by the content of its line. A shard without faults is linked, not
copied; one with faults is written anew without them, and their places and reasons are added to quarantine. Beside each shard stands where
its resources are (places.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fhir_adapters.errors import machine_errors
from fhir_adapters.folders import restore, whole_folder
from fhir_adapters.landing.lines import BLOCK, blocks, ranged, whole_lines
from fhir_adapters.landing.places import write_places
from fhir_adapters.landing.rules import LARGEST_LINE, Refusal, Reject, too_long
from fhir_adapters.landing.shards import (
    Manifest,
    Shard,
    carry,
    read_manifest,
    write_deleted,
    write_items,
    write_quarantine,
)
from fhir_adapters.processes import in_order, processors, uncollected
from fhir_adapters.shown_names import shown_name
from fhir_adapters.validation.model import check_line
from fhir_adapters.validation.verdicts import Found, Verdicts, digest, mark, prepare

# bytes of a shard that a worker looks at at a time: less where there is less, so that no worker is idle
_TASK, _SMALLEST_TASK = BLOCK, 2**18
_WORTH_A_POOL = 2 * 2**20  # bytes: below, one process is done before others have started


@dataclass(frozen=True)
class Validation:
    """What the accepted folder holds, and how it came to be."""

    folder: Path
    resources: Mapping[str, int]  # accepted, per type
    refused: Mapping[str, int]  # by this validation, per reason
    looked_at: int  # lines that were new
    remembered: int  # lines whose verdict was known
    quarantined: Mapping[str, int]  # all rows of quarantine, landing's too, per reason


class _Task(NamedTuple):
    """A range of the shard with this index."""

    shard: int
    path: str
    resource_type: str
    start: int
    end: int
    verdicts: str | None


class _Result(NamedTuple):
    """What was found in a range; line numbers are those of the range. `fresh` are the lines that were not known."""

    lines: int
    resources: int
    refused: list[tuple[int, Refusal]]
    fresh: list[tuple[bytes, Refusal | None]]
    remembered: int


def validate(
    landed: Path,
    accepted: Path,
    *,
    verdicts: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Validation:
    """Write the shards folder `accepted` with those resources of the shards folder `landed` that are sound.

    `verdicts` is a file that remembers what was found, made when it is not there. `progress` is told the bytes done.
    Raises E-LAND-05 (`landed` is no shards folder), E-LAND-06 (a worker was killed), E-DISK-01, E-DISK-02; `accepted` is
    then as it was before.
    """
    landed, accepted = Path(landed), Path(accepted)
    with machine_errors(str(landed)):
        restore(landed)
    manifest = read_manifest(landed)
    if verdicts is not None:
        prepare(verdicts)
    with whole_folder(accepted) as partial:
        with closing(_Work(landed, manifest, verdicts)) as work:
            found = work.run(jobs if jobs is not None else processors(), progress)
        kept = [
            shard
            for old, what in zip(manifest.shards, found, strict=True)
            if (shard := _accept(old, what, landed, partial)) is not None
        ]
        write_places(kept, partial, accepted, jobs=jobs if jobs is not None else processors())
        rejects = list(_rejects(manifest.shards, found))
        quarantined = write_quarantine(partial, rejects, landed)
        write_deleted(partial, [], landed)
        write_items(partial, [], 0, landed)
        Manifest(manifest.deliveries, tuple(kept), manifest.skipped).write(partial)
    resources: Counter[str] = Counter()
    for shard in kept:
        resources[shard.resource_type] += shard.resources or 0
    return Validation(
        folder=accepted,
        resources=dict(sorted(resources.items())),
        refused=dict(sorted(Counter(reject.reason for reject in rejects).items())),
        looked_at=work.looked_at,
        remembered=work.remembered,
        quarantined=dict(sorted(quarantined.items())),
    )


class _Work:
    """All shards of a folder, looked at in parallel, and what is remembered of them."""

    def __init__(self, landed: Path, manifest: Manifest, verdicts: Path | None) -> None:
        self._landed = landed
        self._shards = manifest.shards
        self._path = verdicts
        self._verdicts = Verdicts(verdicts) if verdicts is not None else None
        self.looked_at = 0
        self.remembered = 0

    def close(self) -> None:
        if self._verdicts is not None:
            self._verdicts.close()

    def run(self, jobs: int, progress: Callable[[int], None] | None) -> list[Found]:
        """What was found in each shard."""
        marks = [mark(shard.resource_type, shard.place(self._landed)) for shard in self._shards]
        found = [self._verdicts.of_shard(key) if self._verdicts is not None else None for key in marks]
        size = sum(shard.bytes for shard, known in zip(self._shards, found, strict=True) if known is None)
        step = max(_SMALLEST_TASK, min(_TASK, size // (4 * jobs)))
        tasks: list[_Task] = []
        for index, (shard, known) in enumerate(zip(self._shards, found, strict=True)):
            if known is None:
                tasks += self._tasks(index, shard, step)
            else:
                self.remembered += known.resources + len(known.refused)
                if progress:
                    progress(shard.bytes)
        workers = 1 if size < _WORTH_A_POOL else min(jobs, len(tasks))
        for task, result in zip(tasks, in_order(_look, tasks, jobs=workers, subject=str(self._landed)), strict=True):
            so_far = found[task.shard] or Found(0, 0, ())
            refused = tuple((so_far.lines + number, refusal) for number, refusal in result.refused)
            whole = Found(so_far.lines + result.lines, so_far.resources + result.resources, so_far.refused + refused)
            found[task.shard] = whole
            self.remembered += result.remembered
            self.looked_at += result.resources + len(refused) - result.remembered
            if self._verdicts is not None:
                is_last = task.end == self._shards[task.shard].bytes
                self._verdicts.keep(result.fresh, [(marks[task.shard], whole)] if is_last else [])
            if progress:
                progress(task.end - task.start)
        return [what or Found(0, 0, ()) for what in found]

    def _tasks(self, index: int, shard: Shard, step: int) -> Iterator[_Task]:
        path = str(shard.place(self._landed))
        verdicts = str(self._path) if self._path is not None else None
        for start in range(0, shard.bytes, step):
            yield _Task(index, path, shard.resource_type, start, min(start + step, shard.bytes), verdicts)


def _look(task: _Task) -> _Result:
    """Look at the lines that begin in a range."""
    known = Verdicts(Path(task.verdicts)) if task.verdicts is not None else None
    lines = resources = remembered = 0
    refused: list[tuple[int, Refusal]] = []
    fresh: list[tuple[bytes, Refusal | None]] = []
    try:
        with uncollected(), Path(task.path).open("rb") as stream:
            for text, is_head in whole_lines(ranged(stream, task.start, task.end)):
                if is_head:
                    lines += 1
                    refused.append((lines, too_long(text)))
                    continue
                for line in text.split(b"\n"):
                    lines += 1
                    line = line.strip()
                    if not line:
                        continue
                    key = digest(task.resource_type, line)
                    is_known, refusal = known.of_line(key) if known is not None else (False, None)
                    if is_known:
                        remembered += 1
                    else:
                        refusal = too_long(line) if len(line) > LARGEST_LINE else check_line(line, task.resource_type)
                        fresh.append((key, refusal))
                    if refusal is None:
                        resources += 1
                    else:
                        refused.append((lines, refusal))
    finally:
        if known is not None:
            known.close()
    return _Result(lines, resources, refused, fresh if known is not None else [], remembered)


def _accept(shard: Shard, found: Found, landed: Path, partial: Path) -> Shard | None:
    """Bring a shard into the accepted folder, without its refused lines; None when nothing is left of it."""
    if not found.resources:
        return None
    if not found.refused:
        carry([shard], landed, partial)
        return replace(shard, resources=found.resources)
    path = shard.path
    if Path(path).is_absolute():
        folder = partial / shard.resource_type
        number = len(list(folder.glob("*"))) + 1 if folder.exists() else 1
        path = f"{shard.resource_type}/{shard.delivery}-r{number:04d}.ndjson"
    place = partial / path
    place.parent.mkdir(parents=True, exist_ok=True)
    refused = {number for number, _ in found.refused}
    number = 0
    with shard.place(landed).open("rb") as stream, place.open("xb") as sink:
        for text, is_head in whole_lines(blocks(stream)):
            lines = text.split(b"\n") if not is_head else [text]
            sink.writelines(
                line + b"\n"
                for at, line in enumerate(lines, number + 1)
                if at not in refused and not line.isspace() and line
            )
            number += len(lines)
    return replace(shard, path=path, resources=found.resources, bytes=place.stat().st_size)


def _rejects(shards: Sequence[Shard], found: Sequence[Found]) -> Iterator[Reject]:
    for shard, what in zip(shards, found, strict=True):
        path = Path(shard.path)
        name = shown_name("/".join(path.parts[-2:])) if path.is_absolute() else shard.path
        for number, refusal in what.refused:
            yield refusal.at(f"{name}:{number}")
