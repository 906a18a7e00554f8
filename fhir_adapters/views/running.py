"""Running a view: over resources in memory, or over files into a table."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file
from fhir_adapters.views.elements import STORAGE
from fhir_adapters.views.errors import MANY, OUTPUT, STRUCTURE, UNREADABLE, wrong
from fhir_adapters.views.selects import CompiledView, compile_view
from fhir_adapters.views.values import quote

_FORMATS = {
    ".csv": "FORMAT csv, HEADER",
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".ndjson": "FORMAT json",
}


def read_shards(paths: Sequence[str | Path], columns: dict[str, str], *, filename: bool = False) -> str:
    """SQL text of the table function that reads NDJSON files (plain, .gz, .zst) with exactly these columns.

    Nothing is inferred. `filename` adds a column of this name with the file of each row.
    """
    files = ", ".join(quote(_literal_path(str(path))) for path in paths)
    fields = ", ".join(f'"{name}": {quote(type_)}' for name, type_ in columns.items())
    more = ", filename=true" if filename else ""
    return f"read_json([{files}], format='newline_delimited', records='true', columns={{{fields}}}{more})"


def _literal_path(path: str) -> str:
    """The path as a glob pattern that matches only itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def run_sql(connection: duckdb.DuckDBPyConnection, sql: str, subject: str) -> duckdb.DuckDBPyConnection:
    """Execute; DuckDB's own words about a resource, which may show its values, become a numbered error about `subject`."""
    try:
        return connection.execute(sql)
    except UnicodeDecodeError:
        # DuckDB cut the line that it shows in the middle of a letter
        raise PalmaresError(STRUCTURE, subject) from None
    except duckdb.Error as error:
        raise explained(error, subject) from None


def explained(error: duckdb.Error, subject: str) -> PalmaresError | duckdb.Error:
    """The numbered error for what DuckDB says about the resources; another error of DuckDB as it is."""
    text = str(error)
    if MANY + "|" in text:
        place = text.split("|")[1]
        return PalmaresError(MANY, f"{subject} {place}".strip())
    if isinstance(error, duckdb.InvalidInputException) and ("JSON" in text or "json" in text):
        return PalmaresError(STRUCTURE, subject)
    if isinstance(error, duckdb.IOException) and "No files found" in text:
        return PalmaresError("E-LAND-01", subject)
    return error


def evaluate(view: dict[str, Any], resources: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a view over resources in memory; values are bool, int, float, str, list, dict and None.

    Resources of other types are passed over. Raises PalmaresError E-VIEW-01 to -03 and -05.
    """
    compiled = compile_view(view)
    mine = [one for one in resources if one.get("resourceType") == compiled.resource]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        file = Path(folder, "resources.ndjson")
        file.write_text("".join(json.dumps(one) + "\n" for one in mine), encoding="utf-8")
        rows = run_sql(
            connection, compiled.sql(read_shards([file], compiled.columns)), compiled.name or "view"
        ).fetchall()
    return [dict(zip(compiled.names, row, strict=True)) for row in rows]


def run_view(definition: Path, fhir: Path | Sequence[Path], out: Path) -> int:
    """Run a ViewDefinition file over FHIR files into `out` (.csv, .parquet or .ndjson); the number of rows.

    `fhir` is a shards folder, NDJSON files of the resource, Bundles, or folders of these. Raises PalmaresError E-VIEW-*.
    """
    definition, out = Path(definition), Path(out)
    if out.suffix not in _FORMATS:
        wrong(str(out), f"known endings are {', '.join(_FORMATS)}", OUTPUT)
    try:
        view = json.loads(definition.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PalmaresError(UNREADABLE, str(definition)) from None
    compiled = compile_view(view)
    sources = [Path(fhir)] if isinstance(fhir, str | Path) else [Path(one) for one in fhir]
    with tempfile.TemporaryDirectory() as folder:
        return _write(compiled, _shards(compiled.resource, sources, Path(folder)), out)


def _write(compiled: CompiledView, shards: list[Path], out: Path) -> int:
    nested = [name for name in compiled.names if _nested(compiled, name)]
    with whole_file(out) as partial, duckdb.connect() as connection:
        sql = compiled.sql(read_shards(shards, compiled.columns)) if shards else _no_rows(compiled)
        if out.suffix == ".csv" and nested:
            texts = ", ".join(f'to_json("{name}")::VARCHAR AS "{name}"' for name in nested)
            sql = f"SELECT * REPLACE ({texts}) FROM ({sql})"
        copy = f"COPY ({sql}) TO {quote(str(partial))} ({_FORMATS[out.suffix]})"
        return int(run_sql(connection, copy, compiled.name or "view").fetchall()[0][0])


def _nested(compiled: CompiledView, name: str) -> bool:
    return name in compiled.collections or compiled.types[name] not in STORAGE


def _no_rows(compiled: CompiledView) -> str:
    nulls = ", ".join(f'NULL::{type_} AS "{name}"' for name, type_ in compiled.columns.items())
    return compiled.sql(f"(SELECT {nulls} LIMIT 0)")


def _shards(resource: str, sources: list[Path], work: Path) -> list[Path]:
    """The NDJSON files that hold the resource: those of shards folders, else what landing makes of the sources."""
    from fhir_adapters.landing import land

    found: list[Path] = []
    rest = [one for one in sources if not (one / "manifest.json").is_file()]
    folders = [one for one in sources if (one / "manifest.json").is_file()]
    if rest:
        land(rest, work / "landed", by_reference=True)
        folders.append(work / "landed")
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found += [folder / one["path"] for one in manifest["shards"] if one["resource_type"] == resource]
    return found
