"""FHIR → OMOP: a folder of shards becomes one hospital's slice. Start reading here.

    shards ─reading→ stage tables ─codes→ chosen concepts ─rows→ records with links ─slice→ Parquet, ledger, worklist, manifest

What is mapped how stands in `mappings/`: `views` (FHIR → flat rows), `events` (what is left out, and what a resource says), `codes`, `omop`
(one SELECT per CDM table). The modules here only run it, in DuckDB, with at most `memory_limit` of memory; what does not fit
stands for a while in a folder beside `out`.

    map_site(site, shards, out)     a shards folder, as landing and validation write it; single patients again where a slice is there
    map_folder(site, fhir, out)     any folder of FHIR: landed by reference first
    origins(slice)                  which resource each row of a slice comes from
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.folders import whole_folder
from fhir_adapters.processes import processors
from omop_etl.config import Site
from omop_etl.mapping.identity import MASK, origins

__all__ = ["MapResult", "Steps", "map_folder", "map_site", "origins"]
MEMORY_LIMIT = "1200MB"  # of DuckDB; with what stands beside it the process stays below 2 GB
Progress = Callable[[str], None]


@dataclass(frozen=True)
class MapResult:
    """What a slice holds: resources by outcome, rows by CDM table, and how much of the coded content has a concept."""

    slice: Path
    resources: dict[str, int]  # outcome → resources
    rows: dict[str, int]  # CDM table → rows, tables without rows left out
    unmapped: dict[str, int]  # CDM field → records with concept 0
    mapped_share: float | None  # of the records' own codes
    seconds: dict[str, float] = field(default_factory=dict)
    patients: int | None = None  # mapped again, where the others were kept; None: all


class Steps:
    """Tells the caller which step is at work, and keeps how long each took."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress or (lambda _: None)
        self.seconds: dict[str, float] = {}
        self.now = "opening"

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        self.now = name
        self._progress(name)
        started = time.perf_counter()
        yield self._progress
        self.seconds[name] = round(time.perf_counter() - started, 3)


def map_site(
    site: Site,
    shards: Path,
    out: Path,
    *,
    vocabulary: Path | None = None,
    previous: Path | None = None,
    jobs: int | None = None,
    memory_limit: str | None = None,
    progress: Progress | None = None,
) -> MapResult:
    """Map the shards folder `shards` of a site to the slice `out`, whole or not at all.

    `vocabulary` is an Athena folder or a loaded one (None: the starter slice), `jobs` the threads (None: all cores). `previous` is
    a slice of the same site, and may be `out`: only patients of whom later deliveries tell are then mapped again, where that
    gives the slice that a run over all gives; else all are (`progress` is told why). Raises E-LAND-05 (no shards folder), E-VOC-*
    (no vocabulary), E-BALANCE-01 (rows do not balance), E-MAP-01 (a step failed), E-DISK-*.
    """
    from omop_etl.mapping.increments import Increment
    from omop_etl.mapping.memory import MapAll
    from omop_etl.mapping.run import Run

    steps, out = Steps(progress), Path(out)
    with whole_folder(out) as folder, _work_folder(out) as work:
        run = Run(
            site,
            Path(shards),
            folder,
            work,
            steps,
            _jobs(jobs),
            memory_limit or MEMORY_LIMIT,
            MASK,
            remember=True,
        )
        if previous is not None:
            try:
                return Increment(run, Path(previous), vocabulary, out).go()
            except MapAll as reason:
                if progress:
                    progress(f"mapping all patients: {reason}")
                _empty(folder)
                _empty(work)
        return run.go(vocabulary, out)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def map_folder(
    site: Site,
    fhir: Path,
    out: Path,
    *,
    vocabulary: Path | None = None,
    skip_unreadable: bool = False,
    jobs: int | None = None,
    memory_limit: str | None = None,
    progress: Progress | None = None,
) -> MapResult:
    """Map a folder of FHIR (Bundles and NDJSON, plain, .gz, .zst), or a shards folder, to the slice `out`.

    NDJSON files of one type are read where they stand. Raises what `land` and `map_site` raise.
    """
    from fhir_adapters.landing import land, read_manifest
    from omop_etl.mapping.run import ForeignTypes, Run

    fhir, out, steps = Path(fhir), Path(out), Steps(progress)
    with whole_folder(out) as folder, _work_folder(out) as work:

        def run(shards: Path, strict: bool) -> MapResult:
            return Run(site, shards, folder, work, steps, _jobs(jobs), memory_limit or MEMORY_LIMIT, MASK, strict).go(
                vocabulary, out
            )

        try:
            read_manifest(fhir)
        except PalmaresError:
            pass
        else:
            return run(fhir, strict=False)
        landed = work / "landed"
        with steps.step("landing"):
            land([fhir], landed, by_reference=True, skip_unreadable=skip_unreadable, jobs=jobs)
        try:
            return run(landed, strict=True)
        except ForeignTypes:
            # a file that looked like one type holds several: sort its lines
            with steps.step("landing"):
                land([fhir], landed, skip_unreadable=skip_unreadable, jobs=jobs)
            return run(landed, strict=False)


def _jobs(jobs: int | None) -> int:
    return jobs or processors()


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what does not outlive the run; what a killed run left there is cleared."""
    with machine_errors(str(out)):
        for left in out.parent.glob(f".{out.name}.work-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.work-", dir=out.parent) as name:
            yield Path(name)
