"""A slice folder as its readers see it: which files belong to it, whether they are whole, and the hash of what they say.

A slice is written by the mapping (see DESIGN.md): `<cdm_table>.parquet`, `ledger.parquet`, `unmapped.csv`, `manifest.json`, and
beside the CDM `side/person_link.parquet`, which leaves the hospital, and `side/trace.parquet`, which does not.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cdm import duckdb_columns, tables

MANIFEST = "manifest.json"
LEDGER = "ledger.parquet"
UNMAPPED = "unmapped.csv"
PERSON_LINK = "side/person_link.parquet"
LEDGER_COLUMNS = {
    "resource_type": "VARCHAR",
    "resource_id": "VARCHAR",
    "outcome": "VARCHAR",
    "reason": "VARCHAR",
    "cdm_table": "VARCHAR",
    "row_count": "BIGINT",
}
PERSON_LINK_COLUMNS = {"person_id": "BIGINT", "linkage_token": "VARCHAR"}
# the parts of a manifest that differ between two runs on the same input
_RUN = ("run",)


def slice_tables() -> list[str]:
    """The CDM tables that a slice may hold: all but the vocabulary and the results, in the order of the specification."""
    return [table.name for table in tables().values() if table.schema == "cdm"]


def quoted_path(path: Path) -> str:
    """A path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


@dataclass(frozen=True)
class Slice:
    """A slice that has its manifest and its ledger. `tables` holds the Parquet file of each CDM table that is there."""

    folder: Path
    manifest: dict[str, Any]
    tables: dict[str, Path]

    @property
    def site(self) -> str:
        """The site's id, as the manifest states it."""
        return str(self.manifest["site"])

    @property
    def extracted_to(self) -> str | None:
        """The day to which the data reach, YYYY-MM-DD; None when the manifest names none."""
        day = str(self.manifest.get("extracted_to") or "")[:10]
        try:
            return date.fromisoformat(day).isoformat() if day else None
        except ValueError:
            raise PalmaresError("E-SLICE-01", str(self.folder), detail="extracted_to is no date") from None

    @property
    def files(self) -> list[str]:
        """The files that make up the slice's content, sorted, relative to the folder. Nothing else may leave a hospital."""
        optional = [name for name in (UNMAPPED, PERSON_LINK) if (self.folder / name).is_file()]
        return sorted([f"{name}.parquet" for name in self.tables] + [LEDGER, MANIFEST] + optional)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file in `files`; that of the manifest leaves out when and how long the mapping ran."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(self.files, pool.map(self._hash, self.files), strict=True))

    @property
    def sha256(self) -> str:
        """The hash of the hashes: equal for two slices that say the same."""
        return combined_hash(self.hashes)

    def _hash(self, name: str) -> str:
        if name == MANIFEST:
            return content_of_manifest(self.manifest)
        return file_hash(self.folder / name)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_of_manifest(manifest: dict[str, Any]) -> str:
    """SHA-256 of what a manifest says about the data, without when and how long the mapping ran."""
    said = {key: value for key, value in manifest.items() if key not in _RUN}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def combined_hash(hashes: dict[str, str]) -> str:
    """One SHA-256 over named hashes, in the order of their names."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def open_slice(folder: Path) -> Slice:
    """The slice in `folder`. Raises E-SLICE-01 when it has no manifest that can be read, or no ledger."""
    folder = Path(folder).absolute()
    manifest = read_json(folder / MANIFEST, "E-SLICE-01")
    if not isinstance(manifest.get("site"), str) or not manifest["site"]:
        raise PalmaresError("E-SLICE-01", str(folder), detail=f"{MANIFEST} names no site")
    counts, derived = manifest.get("tables", {}), manifest.get("derived", [])
    if not isinstance(counts, dict) or not all(isinstance(rows, int) for rows in counts.values()):
        raise PalmaresError("E-SLICE-01", str(folder), detail=f"tables of {MANIFEST} is no list of row counts")
    if not isinstance(derived, list) or not all(isinstance(name, str) for name in derived):
        raise PalmaresError("E-SLICE-01", str(folder), detail=f"derived of {MANIFEST} is no list of tables")
    if not (folder / LEDGER).is_file():
        raise PalmaresError("E-SLICE-01", str(folder), detail=f"{LEDGER} is missing")
    found = {name: folder / f"{name}.parquet" for name in slice_tables() if (folder / f"{name}.parquet").is_file()}
    return Slice(folder, manifest, found)


def read_json(path: Path, code: str) -> dict[str, Any]:
    """A JSON object from a file, or the error `code` about its folder."""
    if not path.is_file():
        raise PalmaresError(code, str(path.parent), detail=f"{path.name} is missing")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise PalmaresError(code, str(path.parent), detail=f"{path.name} is no JSON") from None
    if not isinstance(document, dict):
        raise PalmaresError(code, str(path.parent), detail=f"{path.name} is no JSON object")
    return document


def columns_of(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Column → DuckDB type of a Parquet file. Raises E-SLICE-02 when the file is truncated or no Parquet."""
    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({quoted_path(path)})").fetchall()
    except duckdb.Error as error:
        raise unreadable(path, error) from None
    return {row[0]: row[1] for row in rows}


def first_unreadable(connection: duckdb.DuckDBPyConnection, paths: Iterable[Path]) -> Path | None:
    """The first Parquet file whose pages cannot be read, whatever its footer says; None when all can."""
    for path in paths:
        try:
            connection.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM read_parquet({quoted_path(path)})").fetchall()
        except duckdb.Error:
            return path
    return None


def unreadable(path: Path, error: Exception) -> PalmaresError:
    """The numbered error for a Parquet file that DuckDB cannot read; the text of its own error may hold values."""
    if "No files found" in str(error) or "No such file" in str(error):
        return PalmaresError("E-SLICE-02", str(path.parent), detail=f"{path.name} is missing")
    return PalmaresError("E-SLICE-02", str(path.parent), detail=f"{path.name} is truncated, damaged or no Parquet")


def wrong_columns(found: dict[str, str], table: str) -> list[str]:
    """What is wrong with a table's columns, a sentence each: missing, unknown, out of order, of another type."""
    return compare_columns(found, duckdb_columns(table))


def compare_columns(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What is wrong with `found` against `expected`, both column → DuckDB type in their order."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not of the CDM" for name in found if name not in expected]
    problems += [
        f"{name} is {found[name]}, not {type_}"
        for name, type_ in expected.items()
        if name in found and found[name] != type_
    ]
    if not problems and list(found) != list(expected):
        problems.append("the columns are not in the order of the CDM")
    return problems
