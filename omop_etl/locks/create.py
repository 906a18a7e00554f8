"""Making a lock, and making it again: one way from kept inputs to sealed files, so that both give the same bytes."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described
from omop_etl.cohorts import run as cohort
from omop_etl.derive import derive
from omop_etl.locks import inputs, register
from omop_etl.locks.citation import citation
from omop_etl.locks.place import (
    CITATION,
    COHORT,
    DATASETS,
    DERIVED,
    MANIFEST,
    at_work,
    lock_folder,
    locks_folder,
    read_lock,
)
from omop_etl.locks.provenance import differences, provenance
from omop_etl.publish import release
from omop_etl.publish.meds_files import DIGITS, INDEX
from omop_etl.study.reading import literal
from omop_etl.study.rules import load_study
from omop_etl.submission.contents import verify as verify_submission
from omop_etl.warehouse import build

Progress = Callable[[str], None]
# a date that is computed, not recorded: index + 3 months of criterion 9
_COMPUTED = {("eligibility.parquet", "date_used")}


@dataclass(frozen=True)
class Lock:
    """A lock that was sealed: its sites, files, the hash of its manifest, and sites whose extraction ends before the cut-off."""

    name: str
    cut_off: str
    sites: list[str]
    datasets: dict[str, int]
    files: int
    sha256: str
    extracted_before_cut_off: dict[str, str]
    out: str


@dataclass(frozen=True)
class Rebuilt:
    """What came of making a lock again: files that are the same, that differ, and what of code, mappings or environment changed."""

    name: str
    identical: bool
    files: int
    different: list[str]
    changed_since: list[str]


def create(
    home: Path,
    name: str,
    *,
    cut_off: date,
    study: str = "palmares2",
    vocabulary: Path | None = None,
    progress: Progress = lambda _: None,
) -> Lock:
    """Freeze the intake of the workspace `home` at a cut-off date, as the lock `name`: whole and sealed, or not at all.

    The warehouse is built anew from the intake, with the vocabulary in use unless another is given; nothing dated after
    the cut-off enters. Every file is read-only; the name cannot be used again.

    Raises E-LOCK-01 (the name is taken), -02 (it cannot be a name), -04 (something is dated after the cut-off), -08 (no site
    has extracted up to the cut-off), -09 (another is being made), E-BUILD-03 (nothing in the intake), and what building,
    deriving, answering and publishing raise.
    """
    home = Path(home)
    out = lock_folder(home, name)
    load_study(study)
    if out.exists():
        raise PalmaresError("E-LOCK-01", name)
    with at_work(home) as work:
        progress("keep the submissions")
        files = inputs.keep(home / "centre" / "intake", locks_folder(home) / inputs.STORE)
        folder, manifest, counts = _make(
            home, name, files, work, cut_off=cut_off, study=study, vocabulary=vocabulary, progress=progress
        )
        progress("seal")
        sha256 = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        _seal(folder)
        register.add(
            locks_folder(home),
            {"name": name, "cut_off": cut_off.isoformat(), "study": study, "manifest_sha256": sha256},
        )
        try:
            folder.rename(out)
        except OSError:
            if out.exists():  # someone made a folder of this name meanwhile
                raise PalmaresError("E-LOCK-01", name) from None
            raise
        out.chmod(0o555)  # last: a folder that may not be written cannot be moved
    return Lock(
        name=name,
        cut_off=cut_off.isoformat(),
        sites=[site["site"] for site in manifest["sites"]],
        datasets=counts,
        files=len(manifest["files"]) + 2,
        sha256=sha256,
        extracted_before_cut_off={
            site["site"]: site["extracted_to"]
            for site in manifest["sites"]
            if site["extracted_to"] < cut_off.isoformat()
        },
        out=str(out),
    )


def rebuild(home: Path, name: str, *, vocabulary: Path | None = None, progress: Progress = lambda _: None) -> Rebuilt:
    """Make a lock again from what its manifest names, and compare every file, the manifest and the citation included.

    Nothing is kept of what is made. Raises E-LOCK-03, -05 (its manifest cannot be read), -06 (an input is gone), -09, and
    what building, deriving, answering and publishing raise.
    """
    home = Path(home)
    sealed, manifest = read_lock(home, name)
    with at_work(home) as work:
        folder, again, _ = _make(
            home,
            name,
            manifest["inputs"],
            work,
            cut_off=date.fromisoformat(manifest["cut_off"]),
            study=manifest["study"],
            vocabulary=vocabulary,
            progress=progress,
        )
        progress("compare")
        since = differences(manifest, again)
        if again["vocabulary"] != manifest["vocabulary"]:
            since = ["vocabulary", *since]
        # what was made; the manifest and the citation name the code and are the same only where that is
        before, after = dict(manifest["files"]), again["files"]
        if not since:
            own = (MANIFEST, CITATION)
            before |= {path: about for path, about in described(sealed).items() if path in own}
            after = after | {path: about for path, about in described(folder).items() if path in own}
        different = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    return Rebuilt(name, not different, len(before), different, since)


def _make(
    home: Path,
    name: str,
    files: Mapping[str, Mapping[str, Any]],
    work: Path,
    *,
    cut_off: date,
    study: str,
    vocabulary: Path | None,
    progress: Progress,
) -> tuple[Path, dict[str, Any], dict[str, int]]:
    """Make the lock's folder inside `work`, not sealed yet; the folder, its manifest, rows by dataset."""
    folder = work / "lock"
    folder.mkdir()
    intake = inputs.lay_out(files, locks_folder(home) / inputs.STORE, work / "intake")
    sites = [_site(place) for place in intake]
    newest = max(site["extracted_to"] for site in sites)
    if newest < cut_off.isoformat():
        raise PalmaresError("E-LOCK-08", cut_off.isoformat(), detail=f"the newest extraction is of {newest}")
    warehouse = work / "warehouse.duckdb"
    progress("build the warehouse")
    build(intake, warehouse, vocabulary=vocabulary)
    derive(warehouse, folder / DERIVED, study=study, cut_off=cut_off, into_warehouse=False, progress=progress)
    cohort(warehouse, folder / COHORT, study=study, cut_off=cut_off, derived=folder / DERIVED, progress=progress)
    released = release(
        warehouse, folder / COHORT, folder / DATASETS, study=study, derived=folder / DERIVED, progress=progress
    )
    _nothing_later(folder, cut_off)
    rules = load_study(study, cut_off=cut_off)
    manifest = {
        "format": 1,
        "name": name,
        "study": study,
        "title": rules.title,
        "registry": rules.registry,
        "cut_off": cut_off.isoformat(),
        "leaves": [DATASETS, CITATION, MANIFEST],
        "stays_inside": [COHORT, DERIVED],
        "sites": sites,
        "vocabulary": _vocabulary(warehouse),
        **provenance(),
        "inputs": dict(files),
        "files": described(folder),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    (folder / CITATION).write_text(citation(text), encoding="utf-8")
    return folder, manifest, released.datasets


def _site(place: Path) -> dict[str, Any]:
    """A site's part of the manifest: which submission, its verdict, and up to which day it was extracted."""
    content = verify_submission(place)
    document = content.document
    return {
        "site": content.site,
        "submission": content.number,
        "slice_sha256": document["slice_sha256"],
        "verdict": document["verdict"],
        "extracted_to": str(document["slice"]["extracted_to"]),
        "mappings_sha256": document["slice"]["mappings_sha256"],
        "code_version": document["slice"]["code_version"],
    }


def _vocabulary(warehouse: Path) -> dict[str, Any]:
    """The release of the vocabulary in the warehouse, and a hash over its concepts and their descendants."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        parts = {}
        for table in ("concept", "concept_relationship", "concept_ancestor"):
            rows, total = connection.execute(
                f"SELECT count(*), sum(CAST(md5_number(CAST(row AS VARCHAR)) % 18446744073709551616 AS HUGEINT)) FROM {table} AS row"
            ).fetchall()[0]
            parts[table] = {"rows": rows, "sum": str(total)}
        release_name = connection.execute(
            "SELECT any_value(vocabulary_version) FROM vocabulary WHERE vocabulary_id = 'None'"
        ).fetchall()[0][0]
    return {
        "release": release_name,
        "sha256": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        "rows": {table: part["rows"] for table, part in parts.items()},
    }


def _nothing_later(folder: Path, cut_off: date) -> None:
    """Raises E-LOCK-04 when a recorded date of cohort or derived, or a released day, lies after the cut-off."""
    with duckdb.connect() as connection:
        for path in sorted((*(folder / COHORT).rglob("*.parquet"), *(folder / DERIVED).rglob("*.parquet"))):
            source = f"read_parquet({literal(str(path))})"
            for column, kind, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall():
                if kind.startswith(("DATE", "TIMESTAMP")) and (path.name, column) not in _COMPUTED:
                    later = connection.execute(
                        f'SELECT count(*) FROM {source} WHERE CAST("{column}" AS DATE) > ?', [cut_off]
                    ).fetchall()[0][0]
                    if later:
                        raise PalmaresError("E-LOCK-04", f"{path.name}/{column}", count=later)
        salt = json.loads((folder / COHORT / "manifest.json").read_text(encoding="utf-8"))["release_salt"]
        connection.execute(
            f"CREATE TABLE person AS SELECT substr(sha256({literal(salt)} || person_id), 1, 16) AS patient, index_date "
            f"FROM read_parquet({literal(str(folder / COHORT / 'persons.parquet'))}) WHERE eligible"
        )
        for name, column, since in _DAYS:
            source = f"read_parquet({literal(str(folder / DATASETS / f'{name}.parquet'))})"
            later = connection.execute(
                f"SELECT count(*) FROM {source} AS one JOIN person USING (patient) "
                f'WHERE person.index_date + CAST({since} + one."{column}" AS INTEGER) > ?',
                [cut_off],
            ).fetchall()[0][0]
            if later:
                raise PalmaresError("E-LOCK-04", f"{name}/{column}", count=later)
        # the times of MEDS count from one day 0; a subject is a number that the released id makes
        events = f"read_parquet({literal(str(folder / DATASETS / 'meds' / 'data' / '*.parquet'))})"
        later = connection.execute(
            f"""
            SELECT count(*)
            FROM {events} AS event
            JOIN (SELECT subject_id, time AS day_0 FROM {events} WHERE code = '{INDEX}') USING (subject_id)
            JOIN person ON CAST('0x' || substr(person.patient, 1, {DIGITS}) AS BIGINT) = subject_id
            WHERE person.index_date + CAST(date_diff('day', day_0, event.time) AS INTEGER) > ?
            """,
            [cut_off],
        ).fetchall()[0][0]
        if later:
            raise PalmaresError("E-LOCK-04", "meds/time", count=later)


# every released day of something that was recorded: dataset, column, and the day from which it counts
_DAYS = (
    ("baseline", "sample_day", "0"),
    ("baseline", "days_to_death_or_last_contact", "0"),
    ("analyses", "start_day", "0"),
    ("time_to_event", "ADT", "0"),
    ("time_to_event", "entry_day", "STARTDT"),
    ("lines", "start_day", "0"),
    ("lines", "end_day", "0"),
    ("lines", "next_line_day", "0"),
    *(("lines", f"{name}_days", "start_day") for name in ("pfs", "ttnt", "os")),
    ("lines", "entry_day", "start_day"),
    ("sequences", "day", "0"),
    ("features", "day", "0"),
)


def _seal(folder: Path) -> None:
    """Nobody writes here any more; what stays inside is for its owner and group alone."""
    inside = {COHORT, DERIVED}
    for path in sorted(folder.rglob("*"), reverse=True):
        private = path.relative_to(folder).parts[0] in inside
        if path.is_dir():
            path.chmod(0o550 if private else 0o555)
        else:
            with path.open("rb") as content:
                os.fsync(content.fileno())
            path.chmod(0o440 if private else 0o444)
