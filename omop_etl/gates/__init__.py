"""The gate between a slice and the warehouse: slice → verdict.json, checks.parquet, dqd_results.json, rejects/, data_docs/.

    gate(slice_, out, site=…)         one slice; PASS, WARN or BLOCK per check and over all, with both counts and the threshold
    gate_warehouse(warehouse, out)    OHDSI's checks on all sites together, with those that need the derived tables
    gate_many(jobs)                   many slices in few processes, since Great Expectations takes seconds to import
    explain("G-DEATH-02")             what a check looks for, why, and what a site does about it

The checks are data (`mappings/quality/`). They are counted on the slice's Parquet files in DuckDB (`counting.py`), and Great
Expectations holds each count against what the check bears (`validation.py`) and builds the Data Docs.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from omop_etl.gates import dqd_results
from omop_etl.gates import overrides as _overrides
from omop_etl.gates.counting import Count, Counter
from omop_etl.gates.definitions import VERDICTS, Definitions, definitions, explain, verdict_of
from omop_etl.gates.overrides import Override
from omop_etl.gates.profile import profile
from omop_etl.gates.relations import of_slice, of_warehouse
from omop_etl.gates.slices import Slice, open_slice, read_json

__all__ = [
    "VERDICTS",
    "GateJob",
    "Refusal",
    "Verdict",
    "explain",
    "gate",
    "gate_many",
    "gate_warehouse",
    "read_verdict",
    "verdict_of",
]

# what the counting may take of a machine that does other work beside
_MEMORY = "2GB"
_COUNTS, _SHARES = ("numerator", "denominator", "least"), ("threshold", "warn", "block")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """What the gate said. `counts` is checks per verdict; `messages` a sentence for each check that is broken."""

    site: str
    verdict: str
    slice_sha256: str
    counts: dict[str, int]
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GateJob:
    """The arguments of one `gate` in a `gate_many`."""

    slice_: Path
    out: Path
    site: str
    vocabulary: Path | None = None
    overrides: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Why a slice of a `gate_many` was not gated: a numbered error, as plain words that pass between processes."""

    site: str
    code: str
    message: str
    exit_code: int


def gate(
    slice_: Path,
    out: Path,
    *,
    site: str,
    vocabulary: Path | None = None,
    overrides: Iterable[dict[str, Any]] = (),
    book: Path | None = None,
    today: date | None = None,
    progress: Progress = lambda _: None,
) -> Verdict:
    """Check the slice and write the gate folder `out`, whole or not at all. The verdict is an answer, not an error.

    `vocabulary` is the one with which the slice was mapped (None: the starter slice), `overrides` the [[override]] entries of the
    site's TOML (overrides.py), `book` the site's query book (queries.py): the number of its queries per state, as this gate leaves
    them, stands in the verdict. `today` (default: the clock's) is the day on which overrides hold and from which OHDSI counts the future.
    `progress` is told each table as it is counted. Raises E-SLICE-01 and E-SLICE-02 when the slice cannot be read, E-SLICE-04 when
    it is another site's, E-GATE-03 when mappings/quality does not fit, E-GATE-04 when an override does not, E-VOC-01 when there is no
    vocabulary.
    """
    from omop_etl.gates.validation import validate, write_counts
    from omop_etl.vocabulary import open_vocabulary

    started, today = datetime.now(UTC), today or date.today()
    opened = open_slice(slice_)
    if opened.site != site:
        raise PalmaresError("E-SLICE-04", str(slice_), detail="the manifest names another site than the command")
    defined = definitions(opened.extracted_to, today=today)
    let_through = _overrides.read(overrides, defined, site, today)
    concepts = open_vocabulary(vocabulary)
    with whole_folder(out) as folder:
        database = folder / ".counts.duckdb"
        with duckdb.connect(str(database), config=_config(folder)) as connection:
            relations = of_slice(connection, opened, concepts, defined)
            counter = Counter(relations, defined)
            counts = counter.count(progress)
            write_counts(connection, counts)
            _reject(counter, counts, folder / "rejects")
            looks = profile(relations, defined, opened.extracted_to)
            ended = datetime.now(UTC)
            results = dqd_results.results(counts, counter, relations, defined, started=started, ended=ended)
        dqd_results.write(results, folder / dqd_results.FILE)
        progress("great expectations")
        found = validate(database, counts, folder / "data_docs", site=site, overrides=let_through)
        checks, taken = _let_through(counts, found, let_through)
        verdict = Verdict(
            site=site,
            verdict=max((check["verdict"] for check in checks), key=VERDICTS.index, default="PASS"),
            slice_sha256=opened.sha256,
            counts={name: sum(check["verdict"] == name for check in checks) for name in VERDICTS},
            messages=[check["message"] for check in checks if check["verdict"] != "PASS"] + _overrides.messages(taken),
        )
        _write(folder, verdict, checks, taken, looks)
        if book is not None:
            _count_queries(folder, opened, Path(book), defined)
        database.unlink()
        shutil.rmtree(folder / ".spill", ignore_errors=True)
        shutil.rmtree(folder / "data_docs" / "static", ignore_errors=True)  # GX's own logos and fonts
    return verdict


def gate_warehouse(
    warehouse: Path, out: Path, *, today: date | None = None, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Run OHDSI's checks on a warehouse, all sites together, and write its results JSON and the rejects into `out`.

    Returns the overview. Raises E-WAREHOUSE-01 when there is no warehouse, E-GATE-03 when mappings/quality does not fit.
    """
    started = datetime.now(UTC)
    defined = definitions(None, today=today or date.today())
    checks = [check for check in defined.checks if check.dqd]
    with whole_folder(out) as folder:
        with duckdb.connect(str(folder / ".counts.duckdb"), config=_config(folder)) as connection:
            relations = of_warehouse(connection, Path(warehouse), defined)
            counter = Counter(relations, defined)
            counts = counter.count(progress, checks)
            _reject(counter, counts, folder / "rejects")
            ended = datetime.now(UTC)
            results = dqd_results.results(counts, counter, relations, defined, started=started, ended=ended)
        dqd_results.write(results, folder / dqd_results.FILE)
        (folder / ".counts.duckdb").unlink()
        shutil.rmtree(folder / ".spill", ignore_errors=True)
    return dict(results["Overview"])


def _config(folder: Path) -> dict[str, Any]:
    return {
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / ".spill"),
        "preserve_insertion_order": "false",
    }


def _reject(counter: Counter, counts: Iterable[Count], folder: Path) -> None:
    """The rows that break each check that can become WARN or BLOCK, or is of the study."""
    folder.mkdir()
    for count in counts:
        shown = count.check.severity != "REPORT" or count.check.level == "STUDY"
        if count.numerator and not count.check.structural and shown:
            counter.reject(count, folder / f"{count.check.code}.parquet")


def gate_many(jobs: Sequence[GateJob], *, processes: int | None = None) -> list[Verdict | Refusal]:
    """Gate many slices, in the order of `jobs`; a numbered error of one does not stop the others and is in its place.

    Great Expectations is imported once for all processes.
    """
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1:
        return [_one(job) for job in jobs]
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["omop_etl.gates.validation"])
    with ProcessPoolExecutor(processes, mp_context=server) as pool:
        return list(pool.map(_one, jobs))


def read_verdict(folder: Path) -> dict[str, Any]:
    """The verdict.json of a gate folder. Raises E-GATE-02 when there is none that can be read."""
    document = read_json(Path(folder) / "verdict.json", "E-GATE-02")
    if document.get("verdict") not in VERDICTS or not isinstance(document.get("checks"), list):
        raise PalmaresError("E-GATE-02", str(folder), detail="verdict.json holds no verdict")
    return document


def _one(job: GateJob) -> Verdict | Refusal:
    try:
        return gate(job.slice_, job.out, site=job.site, vocabulary=job.vocabulary, overrides=job.overrides)
    except PalmaresError as error:
        return Refusal(job.site, error.code, str(error), error.exit_code)


def _let_through(
    counts: Sequence[Count], found: dict[str, str], given: Sequence[Override]
) -> tuple[list[dict[str, Any]], list[Override]]:
    """The checks as verdict.json holds them, each BLOCK that an override lets through a WARN; and what became of the overrides."""
    entries, used = [], set()
    for count in counts:
        verdict, override = found[count.check.code], None
        if verdict != count.verdict:
            override = _overrides.applied(given, count.check.code)
        if override is not None:
            used.add(override)
        entries.append(_entry(count, verdict, override))
    taken = [
        Override(one.check, one.by, one.reason, one.until, _overrides.APPLIED, "its BLOCK is a WARN")
        if one in used
        else one
        for one in given
    ]
    return entries, taken


def _count_queries(folder: Path, opened: Slice, book: Path, defined: Definitions) -> None:
    """Put the number of queries per state, as the book will hold them, into verdict.json."""
    from omop_etl.gates import queries

    document = read_json(folder / "verdict.json", "E-GATE-02")
    old = queries.known(book, opened.site)
    found, _ = queries.findings(opened, folder, document, defined, old)
    document["queries"] = queries.states(queries.compared(old, found, gone=queries.seen_whole(document)).values())
    (folder / "verdict.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _entry(count: Count, verdict: str, override: Override | None) -> dict[str, Any]:
    check = count.check
    return {
        "code": check.code,
        "family": check.family,
        "title": check.title,
        "category": check.category,
        "subcategory": check.subcategory,
        "level": check.level,
        "dqd": check.dqd or None,
        "table": check.table,
        "column": check.column,
        "concepts": check.concept_ids or None,
        "unit": check.unit,
        "numerator": count.numerator,
        "denominator": count.denominator,
        "threshold": check.threshold(count.verdict),
        "warn": check.warn,
        "block": check.block,
        "least": check.least,
        "severity": check.severity,
        "verdict": verdict,
        "override": override.check if override else None,
        "message": _message(count, override),
    }


def _message(count: Count, override: Override | None) -> str:
    """Number, object, count, rule, next command; never a value or an id."""
    check, verdict = count.check, count.verdict
    unit = check.unit.removesuffix("s") if count.numerator == 1 else check.unit
    share = f"{100 * count.numerator / count.denominator:.3g} % of {count.denominator}" if count.denominator else "of 0"
    said = f"{check.code} {check.table}: {count.numerator} {unit} {check.finding} ({share}"
    if verdict == "PASS":
        return f"{said})."
    bound = f"{verdict} above {check.threshold(verdict):g} %"
    if override:
        bound += f", let through by {override.by} until {override.until}"
    look = "" if check.structural else f"See rejects/{check.code}.parquet or run"
    return f"{said}; {bound}). {look or 'Run'}: palmares explain {check.code}"


def _write(
    folder: Path,
    verdict: Verdict,
    checks: list[dict[str, Any]],
    taken: Sequence[Override],
    looks: dict[str, Any],
) -> None:
    document = {
        "site": verdict.site,
        "verdict": verdict.verdict,
        "slice_sha256": verdict.slice_sha256,
        "counts": verdict.counts,
        "overrides": [asdict(one) for one in taken],
        "profile": looks,
        "checks": checks,
    }
    (folder / "verdict.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = dict.fromkeys(_COUNTS, pa.int64()) | dict.fromkeys(_SHARES, pa.float64())
    columns = [(name, types.get(name, pa.string())) for name in ("site", *(checks[0] if checks else ()))]
    rows = [{"site": verdict.site} | check for check in checks]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), folder / "checks.parquet")
