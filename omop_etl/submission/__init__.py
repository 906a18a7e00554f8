"""What leaves a hospital, and how it arrives: slice and verdict → submission → intake.

    submit(slice_, gate, out)         pack exactly the allowed files, each with its SHA-256; after a BLOCK only a notice, in numbers
    receive(submission, intake)       verify every file and the verdict, then take it into intake/<site>; or a notice, beside the intake

What leaves is pseudonymous: ids computed from pseudonyms, and in the ledger the pseudonymous ids of FHIR resources.
`mappings/quality/leaves.toml` says which columns are emptied on the way out.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import restore, whole_folder
from omop_etl.gates import read_verdict
from omop_etl.gates.slices import MANIFEST, Slice, file_hash, open_slice, quoted_path
from omop_etl.submission.contents import (
    CHECKS,
    FORMAT,
    SLICE,
    SUBMISSION,
    VERDICT,
    Content,
    announced,
    number_of,
    relative_files,
    stays,
    verify,
    withheld,
)
from omop_etl.submission.history import remember, remember_notice
from omop_etl.submission.notice import (
    NOTICE,
    Search,
    announced_notice,
    beside,
    drop_notice,
    is_older,
    keep_notice,
    packed_at,
    remove_notice,
    write_notice,
)

__all__ = ["Content", "Receipt", "Submission", "receive", "submit", "verify"]

# what a reader of submission.json wants to know of the slice without opening it
_SUMMARY = (
    "tables",
    "vocabulary",
    "mappings_sha256",
    "code_version",
    "fhir_version",
    "guide_version",
    "cdm_version",
    "extracted_to",
    "resources",
)


@dataclass(frozen=True)
class Submission:
    """What was packed. `withheld` is column → values that were emptied on the way out."""

    site: str
    number: str
    verdict: str
    files: int
    bytes: int
    withheld: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    """What was taken in: a submission, or after a BLOCK a notice. `already` says that the same had been there, whole, and was left as it is."""

    site: str
    number: str
    verdict: str
    files: int
    bytes: int
    already: bool


def submit(slice_: Path, gate: Path, out: Path, *, search: Search | None = None) -> Submission:
    """Pack the slice and its verdict into the submission folder `out`, whole or not at all.

    The number depends only on what is packed. Raises E-GATE-01 when the gate said BLOCK: the previous submission stays, and beside it
    the folder `notice` tells the centre, in numbers; the next submission that is packed removes it. `search` looks through the notice first.
    Raises E-GATE-02 when the gate is not of this slice, E-SUBMIT-01 when the slice folder holds a file that may not leave.
    """
    opened = open_slice(slice_)
    verdict = read_verdict(gate)
    if verdict.get("site") != opened.site or verdict.get("slice_sha256") != opened.sha256:
        raise PalmaresError("E-GATE-02", str(gate), detail="the slice has changed since, or is another one")
    if not (Path(gate) / CHECKS).is_file():
        raise PalmaresError("E-GATE-02", str(gate), detail=f"{CHECKS} is missing")
    if verdict["verdict"] == "BLOCK":
        broken = [check for check in verdict["checks"] if check["verdict"] == "BLOCK"]
        write_notice(beside(out), opened, verdict, search)
        raise PalmaresError("E-GATE-01", opened.site, count=len(broken), detail=_codes(broken))
    ended = [
        one
        for one in verdict.get("overrides", [])
        if one["state"] == "applied" and one["until"] < f"{datetime.now(UTC):%Y-%m-%d}"
    ]
    if ended:
        raise PalmaresError(
            "E-GATE-02", str(gate), count=len(ended), detail="an override that it applied has ended since"
        )
    strange = relative_files(opened.folder) - set(opened.files) - set(stays())
    if strange:
        raise PalmaresError("E-SUBMIT-01", str(slice_), count=len(strange))
    with whole_folder(out) as folder:
        emptied = _copy_slice(opened, folder / SLICE)
        shutil.copyfile(Path(gate) / VERDICT, folder / VERDICT)
        shutil.copyfile(Path(gate) / CHECKS, folder / CHECKS)
        document = _document(folder, opened, verdict, emptied)
        (folder / SUBMISSION).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    remove_notice(beside(out), opened.site)
    return Submission(
        site=opened.site,
        number=document["number"],
        verdict=verdict["verdict"],
        files=len(document["files"]),
        bytes=sum(entry["bytes"] for entry in document["files"]),
        withheld=document["withheld"],
    )


def receive(submission: Path, intake: Path, *, site: str | None = None) -> Receipt:
    """Take a submission into `intake/<site>`, or a notice beside the intake, after everything about it was verified; else what was there
    stays. A notice changes nothing in the intake; a submission that was packed after it removes it.

    Raises E-RECEIVE-01 to -05 and E-SLICE-01 to -03 (see `contents.verify`), of a notice E-RECEIVE-06 (also when it is not of the `site`
    that is given) and -07. Receiving the same twice changes nothing.
    """
    submission, intake = Path(submission), Path(intake)
    if (submission / NOTICE).is_file() and not (submission / SUBMISSION).exists():
        return _receive_notice(submission, intake, site)
    document = announced(submission)
    place = intake / document["site"]
    there = _there(place, document)
    if there is not None:
        remember(intake, there)  # a run that was killed in between had taken it in, and not remembered it
        drop_notice(intake, there.site, document.get("made_at"), anew=False)
        return _receipt(there, already=True)
    unannounced = relative_files(submission) - {entry["path"] for entry in document["files"]} - {SUBMISSION}
    if unannounced:
        raise PalmaresError("E-RECEIVE-04", str(submission), count=len(unannounced))
    with whole_folder(place) as folder:
        # what is verified is the copy: what changes on the way, or later at the source, is not taken in
        for path in (SUBMISSION, *(entry["path"] for entry in document["files"])):
            if not (submission / path).is_file() or (submission / path).is_symlink():
                raise PalmaresError("E-RECEIVE-02", str(submission), detail=path)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(submission / path, folder / path)
        try:
            content = verify(folder)
        except PalmaresError as error:
            # the copy is gone when this is read: the error is about the submission
            error.args = tuple(str(word).replace(str(folder), str(submission)) for word in error.args)
            error.subject = error.subject.replace(str(folder), str(submission))
            raise
    remember(intake, content)
    drop_notice(intake, content.site, document.get("made_at"), anew=True)
    return _receipt(content, already=False)


def _receive_notice(folder: Path, intake: Path, site: str | None) -> Receipt:
    said = announced_notice(folder)
    if site is not None and said["site"] != site:
        raise PalmaresError("E-RECEIVE-06", str(folder), detail="it is of another site")
    if is_older(said, packed_at(intake / said["site"])):
        raise PalmaresError("E-RECEIVE-07", said["site"])
    new = keep_notice(intake, said)
    remember_notice(intake, said)
    size = (folder / NOTICE).stat().st_size
    return Receipt(said["site"], said["number"], said["verdict"], files=1, bytes=size, already=not new)


def _codes(checks: list[dict[str, Any]], most: int = 3) -> str:
    codes = [f"{check['code']} ({check['numerator']} {check['unit']})" for check in checks]
    return ", ".join(codes[:most]) + (f" and {len(codes) - most} more" if len(codes) > most else "")


def _copy_slice(opened: Slice, target: Path) -> dict[str, dict[str, int]]:
    """Copy what leaves; table → column → values that were emptied."""
    emptied = {}
    for name in opened.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        table = name.removesuffix(".parquet")
        held = _held(opened.folder / name, withheld()[table]) if table in withheld() else {}
        if held:
            emptied[table] = held
            _copy_without(opened.folder / name, target / name, list(held))
        else:
            shutil.copyfile(opened.folder / name, target / name)
    return emptied


def _held(path: Path, columns: list[str]) -> dict[str, int]:
    counts = ", ".join(f'count("{column}")' for column in columns)
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {counts} FROM read_parquet({quoted_path(path)})").fetchall()[0]
    return {column: count for column, count in zip(columns, found, strict=True) if count}


def _copy_without(source: Path, target: Path, columns: list[str]) -> None:
    """Copy a table with some columns emptied; a required one keeps its type and holds NULL."""
    with duckdb.connect() as connection:
        types = {
            row[0]: row[1]
            for row in connection.execute(f"DESCRIBE FROM read_parquet({quoted_path(source)})").fetchall()
        }
        nulls = ", ".join(f'CAST(NULL AS {types[column]}) AS "{column}"' for column in columns)
        connection.execute(
            f"COPY (SELECT * REPLACE ({nulls}) FROM read_parquet({quoted_path(source)})) "
            f"TO {quoted_path(target)} (FORMAT parquet, COMPRESSION zstd)"
        )


def _document(
    folder: Path, opened: Slice, verdict: dict[str, Any], emptied: dict[str, dict[str, int]]
) -> dict[str, Any]:
    paths = sorted(relative_files(folder))
    with ThreadPoolExecutor() as pool:
        hashes = dict(zip(paths, pool.map(lambda path: file_hash(folder / path), paths), strict=True))
    files = []
    for path in paths:
        entry = {"path": path, "bytes": (folder / path).stat().st_size, "sha256": hashes[path]}
        name = path.removeprefix(f"{SLICE}/")
        if name.removesuffix(".parquet") in emptied:
            entry["gated_sha256"] = opened.hashes[name]
        files.append(entry)
    said = hashes | {f"{SLICE}/{MANIFEST}": opened.hashes[MANIFEST]}
    return {
        "format": FORMAT,
        "site": opened.site,
        "number": number_of(said),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": verdict["verdict"],
        "slice_sha256": verdict["slice_sha256"],
        "slice": {key: opened.manifest[key] for key in _SUMMARY if key in opened.manifest},
        "withheld": {f"{table}.{column}": n for table, held in emptied.items() for column, n in held.items()},
        "files": files,
    }


def _there(place: Path, document: dict[str, Any]) -> Content | None:
    """The intake's submission, when it is this very one and whole."""
    restore(place)
    try:
        content = verify(place)
    except PalmaresError:
        return None  # nothing there, or damaged: it is received anew
    return content if content.document == document else None


def _receipt(content: Content, *, already: bool) -> Receipt:
    return Receipt(
        site=content.site,
        number=content.number,
        verdict=str(content.verdict["verdict"]),
        files=len(content.document["files"]),
        bytes=content.bytes,
        already=already,
    )
