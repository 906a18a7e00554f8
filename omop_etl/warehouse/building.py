"""Slices → a new DuckDB file, built beside the one that is read and swapped in by rename when it is whole.

Who reads the old file goes on reading it; killed at any moment, the old file is untouched. Tables carry no primary keys in
DuckDB (building the index costs more than loading the rows): that no key is there twice is checked before the swap.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file
from omop_etl.cdm import ddl, tables
from omop_etl.gates.slices import (
    LEDGER,
    PERSON_LINK,
    UNMAPPED,
    Slice,
    first_unreadable,
    open_slice,
    quoted_path,
    unreadable,
)
from omop_etl.submission.contents import SUBMISSION, tables_fit, verify
from omop_etl.vocabulary import Vocabulary, open_vocabulary
from omop_etl.warehouse.concepts import load_vocabulary

_MEMORY = "4GB"
Progress = Callable[[str], None]

PALMARES = {
    "submission": "site VARCHAR, number VARCHAR, made_at VARCHAR, verdict VARCHAR, slice_sha256 VARCHAR, extracted_to DATE, "
    "mappings_sha256 VARCHAR, code_version VARCHAR, vocabulary_release VARCHAR, files INTEGER, bytes BIGINT",
    "site_verdict": "site VARCHAR, code VARCHAR, title VARCHAR, category VARCHAR, cdm_table VARCHAR, cdm_column VARCHAR, "
    "numerator BIGINT, denominator BIGINT, threshold DOUBLE, severity VARCHAR, verdict VARCHAR, message VARCHAR",
    "ledger_summary": "site VARCHAR, resource_type VARCHAR, outcome VARCHAR, reason VARCHAR, cdm_table VARCHAR, "
    "resources BIGINT, row_count BIGINT",
    "table_rows": "site VARCHAR, cdm_table VARCHAR, row_count BIGINT",
    "person_site": "person_id BIGINT, site VARCHAR",
    "person_link": "person_id BIGINT, linkage_token VARCHAR",
    "unmapped": "site VARCHAR, vocabulary_id VARCHAR, source_system VARCHAR, source_code VARCHAR, source_name VARCHAR, "
    "cdm_field VARCHAR, records BIGINT, reason VARCHAR",
}
_UNMAPPED_COLUMNS = (
    "site",
    "vocabulary_id",
    "source_system",
    "source_code",
    "source_name",
    "cdm_field",
    "records",
    "reason",
)


@dataclass(frozen=True)
class Build:
    """What was built: the sites in it, rows per CDM table (those that have any), persons, and the file's size in bytes."""

    sites: list[str]
    tables: dict[str, int]
    persons: int
    bytes: int
    submissions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """One site's contribution: its slice, and for a submission what came with it."""

    slice: Slice
    document: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def site(self) -> str:
        return self.slice.site


def build(
    slices: Sequence[Path],
    out: Path,
    *,
    vocabulary: Path | None = None,
    memory_limit: str = _MEMORY,
    progress: Progress = lambda _: None,
) -> Build:
    """Build the warehouse `out` from one slice per site; a slice is a slice folder or a submission folder (verified again).

    The vocabulary tables hold the starter slice, or what of `vocabulary` the data use. `progress` is told each table as it
    is loaded. Same input, same content. Nothing is changed when it raises: E-BUILD-01 (a key is there twice), E-BUILD-02 (a site
    is given twice), E-BUILD-03 (nothing given), E-SLICE-01 to -03 (a slice cannot be read or does not fit), E-RECEIVE-*
    (a submission is not what was sent), E-DISK-*.
    """
    sources = sorted((_source(Path(folder)) for folder in slices), key=lambda source: source.site)
    if not sources:
        raise PalmaresError("E-BUILD-03", str(out))
    sites = [source.site for source in sources]
    twice = {site for site in sites if sites.count(site) > 1}
    if twice:
        raise PalmaresError("E-BUILD-02", ", ".join(sorted(twice)))
    concepts = open_vocabulary(vocabulary)
    out = Path(out)
    if out.is_dir():
        raise PalmaresError("E-DISK-02", str(out), detail="a folder stands where the file is to be written")
    with whole_file(out) as partial:
        _clear(partial)
        try:
            config: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": str(_beside(partial, "spill"))}
            with duckdb.connect(str(partial), config=config) as connection:
                rows = _fill(connection, sources, concepts, vocabulary is not None, progress)
                connection.execute("CHECKPOINT")
        finally:
            shutil.rmtree(_beside(partial, "spill"), ignore_errors=True)
        # a log that someone left beside the old file must not be replayed into the new one
        _beside(out, "wal").unlink(missing_ok=True)
    return Build(
        sites=sites,
        tables={name: count for name, count in rows.items() if count},
        persons=rows["person"],
        bytes=out.stat().st_size,
        submissions={source.site: str(source.document["number"]) for source in sources if source.document},
    )


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def _clear(partial: Path) -> None:
    """Remove what a killed build left: DuckDB would replay the log of a file that is gone."""
    _beside(partial, "wal").unlink(missing_ok=True)
    shutil.rmtree(_beside(partial, "spill"), ignore_errors=True)


def _source(folder: Path) -> _Source:
    if (folder / SUBMISSION).is_file():
        content = verify(folder)
        return _Source(content.slice, content.document, content.verdict["checks"])
    opened = open_slice(folder)
    tables_fit(opened)
    return _Source(opened)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    sources: list[_Source],
    concepts: Vocabulary,
    only_used: bool,
    progress: Progress,
) -> dict[str, int]:
    for statement in ddl("duckdb", keys=False):
        connection.execute(statement)
    connection.execute("CREATE SCHEMA palmares")
    for name, columns in PALMARES.items():
        connection.execute(f"CREATE TABLE palmares.{name} ({columns})")
    rows = {}
    for name in tables():
        files = [source.slice.tables[name] for source in sources if name in source.slice.tables]
        rows[name] = _load(connection, f'main."{name}"', "*", files, progress) if files else 0
        if rows[name]:
            _keys_hold(connection, name, sources)
    progress("vocabulary")
    load_vocabulary(connection, concepts, only_used=only_used)
    progress("palmares")
    _people(connection, sources)
    _bookkeeping(connection, sources)
    return rows


def _load(
    connection: duckdb.DuckDBPyConnection, target: str, columns: str, files: list[Path], progress: Progress
) -> int:
    """Append files in their order; rows keep the order that the mapping gave them."""
    progress(target)
    listed = ", ".join(quoted_path(file) for file in files)
    try:
        done = connection.execute(f"INSERT INTO {target} SELECT {columns} FROM read_parquet([{listed}])").fetchone()
    except duckdb.Error as error:
        broken = first_unreadable(connection, files)
        if broken is None:
            raise  # the disk, the memory
        raise unreadable(broken, error) from None
    return int(done[0]) if done else 0


def _keys_hold(connection: duckdb.DuckDBPyConnection, name: str, sources: list[_Source]) -> None:
    key = tables()[name].primary_key
    if key is None:
        return
    total, filled, distinct = connection.execute(
        f'SELECT count(*), count("{key}"), count(DISTINCT "{key}") FROM main."{name}"'
    ).fetchall()[0]
    if total == filled == distinct:
        return
    here = [
        f"SELECT '{source.site}' AS site, \"{key}\" AS id FROM read_parquet({quoted_path(source.slice.tables[name])})"
        for source in sources
        if name in source.slice.tables
    ]
    clashing = connection.execute(
        f"SELECT DISTINCT site FROM ({' UNION ALL '.join(here)}) "
        "WHERE id IS NULL OR id IN (SELECT id FROM ("
        f"{' UNION ALL '.join(here)}) GROUP BY id HAVING count(*) > 1) ORDER BY site"
    ).fetchall()
    sites = ", ".join(row[0] for row in clashing)
    raise PalmaresError("E-BUILD-01", name, count=total - distinct, detail=f"in the rows of {sites}")


def _people(connection: duckdb.DuckDBPyConnection, sources: list[_Source]) -> None:
    """Whose person is whose, and the linkage tokens."""
    for source in sources:
        if "person" in source.slice.tables:
            path = quoted_path(source.slice.tables["person"])
            connection.execute(
                f"INSERT INTO palmares.person_site SELECT person_id, ? FROM read_parquet({path})", [source.site]
            )
    links = [source.slice.folder / PERSON_LINK for source in sources]
    here = [path for path in links if path.is_file()]
    if here:
        _load(connection, "palmares.person_link", "person_id, linkage_token", here, lambda _: None)


def _bookkeeping(connection: duckdb.DuckDBPyConnection, sources: list[_Source]) -> None:
    for source in sources:
        _ledger(connection, source)
        _unmapped(connection, source)
        for name, path in source.slice.tables.items():
            connection.execute(
                f"INSERT INTO palmares.table_rows SELECT ?, ?, count(*) FROM read_parquet({quoted_path(path)})",
                [source.site, name],
            )
        if source.document:
            _submission(connection, source)
    _verdicts(connection, sources)


def _verdicts(connection: duckdb.DuckDBPyConnection, sources: list[_Source]) -> None:
    """Each site's checks with their counts."""
    import pyarrow as pa

    lines = [(source.site, *(check.get(key) for key in _CHECK_KEYS)) for source in sources for check in source.checks]
    if lines:
        names = ["site", *_CHECK_KEYS]
        checks = pa.Table.from_pydict(
            {name: list(values) for name, values in zip(names, zip(*lines, strict=True), strict=True)}
        )
        connection.register("checks", checks)
        connection.execute("INSERT INTO palmares.site_verdict SELECT * FROM checks")
        connection.unregister("checks")


_CHECK_KEYS = (
    "code", "title", "category", "table", "column", "numerator", "denominator", "threshold", "severity", "verdict", "message",
)  # fmt: skip


def _ledger(connection: duckdb.DuckDBPyConnection, source: _Source) -> None:
    path = source.slice.folder / LEDGER
    try:
        connection.execute(
            "INSERT INTO palmares.ledger_summary "
            "SELECT ?, resource_type, outcome, reason, cdm_table, count(DISTINCT resource_id), sum(row_count) "
            f"FROM read_parquet({quoted_path(path)}) GROUP BY ALL ORDER BY ALL",
            [source.site],
        )
    except duckdb.Error as error:
        if first_unreadable(connection, [path]) is None:
            raise
        raise unreadable(path, error) from None


def _unmapped(connection: duckdb.DuckDBPyConnection, source: _Source) -> None:
    path = source.slice.folder / UNMAPPED
    if not path.is_file():
        return
    types = ", ".join(f"'{name}': '{'BIGINT' if name == 'records' else 'VARCHAR'}'" for name in _UNMAPPED_COLUMNS)
    try:
        connection.execute(
            f"INSERT INTO palmares.unmapped SELECT * FROM read_csv({quoted_path(path)}, header = true, auto_detect = false, "
            f"""delim = ',', quote = '"', escape = '"', columns = {{{types}}})"""
        )
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException):
        raise PalmaresError(
            "E-SLICE-02", str(source.slice.folder), detail=f"{UNMAPPED} does not read as its columns"
        ) from None


def _submission(connection: duckdb.DuckDBPyConnection, source: _Source) -> None:
    document, manifest = source.document, source.slice.manifest
    vocabulary = manifest.get("vocabulary")
    connection.execute(
        f"INSERT INTO palmares.submission VALUES ({', '.join('?' * 11)})",
        [
            source.site,
            document["number"],
            document.get("made_at"),
            document["verdict"],
            document.get("slice_sha256"),
            source.slice.extracted_to,
            manifest.get("mappings_sha256"),
            manifest.get("code_version"),
            vocabulary.get("release") if isinstance(vocabulary, dict) else None,
            len(document["files"]),
            sum(entry["bytes"] for entry in document["files"]),
        ],
    )
