"""What a submission folder holds, and whether it still does: submission.json against the files beside it.

submission.json       site, number, verdict, what the slice says of itself, and each file with its bytes and SHA-256
slice/                the CDM tables, the ledger, unmapped.csv, the manifest, side/person_link.parquet
verdict.json          the gate's verdict, with numerator, denominator and threshold of each check
checks.parquet        the same as a table
"""

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.gates import VERDICTS, read_verdict, verdict_of
from omop_etl.gates.definitions import covers, definitions
from omop_etl.gates.slices import (
    LEDGER,
    LEDGER_COLUMNS,
    MANIFEST,
    PERSON_LINK,
    PERSON_LINK_COLUMNS,
    UNMAPPED,
    Slice,
    columns_of,
    combined_hash,
    compare_columns,
    content_of_manifest,
    file_hash,
    open_slice,
    read_json,
    slice_tables,
    wrong_columns,
)

FORMAT = 1
SUBMISSION = "submission.json"
VERDICT, CHECKS, SLICE = "verdict.json", "checks.parquet", "slice"
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NUMBER_DIGITS = 16


@dataclass(frozen=True)
class Content:
    """A submission that was verified: its own document, its slice, and its verdict."""

    folder: Path
    document: dict[str, Any]
    slice: Slice
    verdict: dict[str, Any]

    @property
    def site(self) -> str:
        return str(self.document["site"])

    @property
    def number(self) -> str:
        return str(self.document["number"])

    @property
    def bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.document["files"])


@cache
def _leaves(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def stays() -> list[str]:
    """Files of a slice folder that stay in the hospital."""
    return list(_leaves(mappings_folder() / "quality" / "leaves.toml")["stays"])


def withheld() -> dict[str, list[str]]:
    """Table → columns that are emptied in what leaves."""
    return dict(_leaves(mappings_folder() / "quality" / "leaves.toml")["withheld"])


def allowed_files() -> set[str]:
    """Every path that a submission may hold beside submission.json."""
    slice_files = [f"{name}.parquet" for name in slice_tables()] + [LEDGER, UNMAPPED, MANIFEST, PERSON_LINK]
    return {f"{SLICE}/{name}" for name in slice_files} | {VERDICT, CHECKS}


def number_of(hashes: dict[str, str]) -> str:
    """The number of a submission: what it says decides, not when it was packed or how long the mapping ran."""
    return combined_hash(hashes)[:_NUMBER_DIGITS]


def relative_files(folder: Path) -> set[str]:
    """Every file below a folder; a link counts as a file, whatever it leads to."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def is_site(value: object) -> bool:
    """Whether this can be a site's id: it becomes the name of a folder."""
    return isinstance(value, str) and _SITE.fullmatch(value) is not None


def announced(folder: Path) -> dict[str, Any]:
    """submission.json, with its own shape checked. Raises E-RECEIVE-01, E-RECEIVE-04 for a file that may not be in one."""
    document = read_json(folder / SUBMISSION, "E-RECEIVE-01")

    def wrong(what: str) -> PalmaresError:
        return PalmaresError("E-RECEIVE-01", str(folder), detail=f"{SUBMISSION}: {what}")

    if document.get("format") != FORMAT:
        raise wrong("a format that this version does not know")
    if not is_site(document.get("site")):
        raise wrong("no site")
    files = document.get("files")
    if not isinstance(files, list) or not all(_is_entry(entry) for entry in files):
        raise wrong("no list of files with bytes and sha256")
    paths = [entry["path"] for entry in files]
    if len(set(paths)) != len(paths):
        raise wrong("a file is named twice")
    strange = set(paths) - allowed_files()
    if strange:
        raise PalmaresError(
            "E-RECEIVE-04", str(folder), count=len(strange), detail=f"{SUBMISSION} names files that no submission holds"
        )
    missing = {VERDICT, CHECKS, f"{SLICE}/{MANIFEST}", f"{SLICE}/{LEDGER}"} - set(paths)
    if missing:
        raise wrong(f"{' and '.join(sorted(missing))} not named")
    return document


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in ("path", "sha256"))
        and isinstance(entry.get("gated_sha256", ""), str)
        and isinstance(entry.get("bytes"), int)
    )


def verify(folder: Path) -> Content:
    """Hold a submission folder against its own submission.json.

    Raises E-RECEIVE-01 to -05, E-SLICE-01 to -03: each file is there with its size and hash and no other is; the number
    follows from them; the tables are readable and of the CDM; the verdict is of this slice, follows from its own counts,
    and lets it in.
    """
    document = announced(folder)
    _files_as_announced(folder, document)
    opened = open_slice(folder / SLICE)
    if opened.site != document["site"]:
        raise PalmaresError("E-RECEIVE-01", str(folder), detail="the slice is of another site")
    hashes = _content_hashes(document, opened)
    if number_of(hashes) != document.get("number"):
        raise PalmaresError("E-RECEIVE-01", str(folder), detail="the number does not follow from the files")
    tables_fit(opened)
    return Content(folder, document, opened, _verdict(folder, document, opened))


def _files_as_announced(folder: Path, document: dict[str, Any]) -> None:
    entries = {entry["path"]: entry for entry in document["files"]}
    there = relative_files(folder) - {SUBMISSION}
    for path in sorted(entries):
        if path not in there:
            raise PalmaresError("E-RECEIVE-02", str(folder), detail=path)
    if there - set(entries):
        raise PalmaresError("E-RECEIVE-04", str(folder), count=len(there - set(entries)))
    for path, entry in entries.items():
        file = folder / path
        if file.is_symlink() or file.stat().st_size != entry["bytes"]:
            raise PalmaresError("E-RECEIVE-03", str(folder), detail=f"{path} has another size")
    with ThreadPoolExecutor() as pool:
        for path, digest in zip(entries, pool.map(lambda path: file_hash(folder / path), entries), strict=True):
            if digest != entries[path]["sha256"]:
                raise PalmaresError("E-RECEIVE-03", str(folder), detail=f"{path} has another SHA-256")


def _content_hashes(document: dict[str, Any], opened: Slice) -> dict[str, str]:
    """Path → hash of what the file says: the files' own hashes were just verified, the manifest is read without its run."""
    hashes = {entry["path"]: entry["sha256"] for entry in document["files"]}
    return hashes | {f"{SLICE}/{MANIFEST}": content_of_manifest(opened.manifest)}


def gated_hash(document: dict[str, Any], opened: Slice) -> str:
    """The hash of the slice as it was gated: before columns were emptied on the way out."""
    hashes = _content_hashes(document, opened)
    hashes |= {entry["path"]: entry["gated_sha256"] for entry in document["files"] if entry.get("gated_sha256")}
    prefix = f"{SLICE}/"
    return combined_hash({path[len(prefix) :]: digest for path, digest in hashes.items() if path.startswith(prefix)})


def tables_fit(opened: Slice) -> None:
    """Raises E-SLICE-02 for a file that cannot be read, E-SLICE-03 for one whose columns or types are not the CDM's."""
    with duckdb.connect() as connection:
        for name, path in opened.tables.items():
            _fits(opened, path, wrong_columns(columns_of(connection, path), name))
        for name, columns in ((LEDGER, LEDGER_COLUMNS), (PERSON_LINK, PERSON_LINK_COLUMNS)):
            path = opened.folder / name
            if path.is_file():
                _fits(opened, path, compare_columns(columns_of(connection, path), columns))


def _fits(opened: Slice, path: Path, problems: list[str]) -> None:
    if problems:
        subject = f"{path.name} of {opened.folder}"
        raise PalmaresError("E-SLICE-03", subject, count=len(problems), detail=problems[0])


def _verdict(folder: Path, document: dict[str, Any], opened: Slice) -> dict[str, Any]:
    """The verdict, as long as it lets the slice in."""
    verdict = read_verdict(folder)

    def wrong(what: str) -> PalmaresError:
        return PalmaresError("E-RECEIVE-05", str(document["site"]), detail=what)

    if verdict.get("site") != document["site"] or verdict.get("slice_sha256") != gated_hash(document, opened):
        raise wrong("verdict.json is of another slice")
    try:
        follows = [_follows(check, verdict, str(document.get("made_at"))[:10]) for check in verdict["checks"]]
        stated = [check["verdict"] for check in verdict["checks"]]
    except (KeyError, TypeError, ValueError):
        raise wrong("verdict.json lacks counts or thresholds") from None
    worst = max(follows, key=VERDICTS.index, default="PASS")
    if follows != stated or worst != verdict["verdict"] or document.get("verdict") != worst:
        raise wrong("the verdict does not follow from its counts")
    if worst == "BLOCK":
        raise wrong("the verdict is BLOCK")
    return verdict


def _follows(check: dict[str, Any], verdict: dict[str, Any], made_on: str) -> str:
    """What a check's counts say; a BLOCK that an override lets through is a WARN, as long as it held when this was packed."""
    counts = int(check["numerator"]), int(check["denominator"])
    said = verdict_of(*counts, check["warn"], check["block"], int(check.get("least", 1)))
    if said != "BLOCK" or not check.get("override"):
        return said
    defined = definitions()
    holds = [
        one
        for one in verdict.get("overrides", [])
        if one["check"] == check["override"] and covers(one["check"], check["code"]) and one["until"] >= made_on
    ]
    barred = any(covers(never, check["code"]) for never in defined.never_overridden)
    return "WARN" if holds and not barred else said
