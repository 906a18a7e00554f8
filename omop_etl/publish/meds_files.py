"""The cohort in MEDS 0.4 (Medical Event Data Standard): `meds/data/*.parquet` and `meds/metadata/`.

Each patient's day 0 stands at one and the same moment (`[meds] day_0` of datasets.toml): times keep their distances and no
date leaves. `subject_id` is the number that the first thirteen hexadecimal digits of the released id make, so that MEDS and
the other datasets join: `int(patient[:13], 16)`. A record that no one could map has no code: it is left out, and counted
(`left_out`). What is written has passed the schemas of the `meds` package.
"""

import json
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl import __version__
from omop_etl.cohorts.small_cells import HIDDEN
from omop_etl.derive.rules import Rules
from omop_etl.publish.datasets import sql_error
from omop_etl.study.reading import literal

DIGITS = 13  # of the released id: 52 bits, which every reader of numbers keeps exactly
FOLDER = "meds"
INDEX = "PALMARES//INDEX"
# by time, what has none first; of one moment birth first and death last
_ORDER = "place, day IS NOT NULL, day, code <> 'MEDS_BIRTH', code = 'MEDS_DEATH', code, numeric_value, text_value, unit"
_NOTHING = (
    "(SELECT '' AS patient, 0 AS place, 0 AS day, '' AS code, '' AS description, CAST(0 AS FLOAT) AS numeric_value, "
    "'' AS text_value, '' AS unit WHERE FALSE)"
)


def write_meds(
    connection: duckdb.DuckDBPyConnection, rules: Rules, settings: Mapping[str, Any], folder: Path, spill: Path
) -> int:
    """Write `meds/` into `folder`, from the tables that `lay_out` made; returns the number of events.

    Raises E-STUDY-03 when the SELECT does not run or the settings do not fit, E-PUBLISH-03 when two patients would have one
    subject_id or the `meds` package refuses what was made.
    """
    out, plain = folder / FOLDER, spill / FOLDER
    (out / "data").mkdir(parents=True)
    (out / "metadata").mkdir()
    spill.mkdir(parents=True, exist_ok=True)
    day_0, size, splits = _settings(settings)
    sql = (rules.study.folder / "datasets" / "meds.sql").read_text(encoding="utf-8")
    patients, subjects = connection.execute(
        f"SELECT count(*), count(DISTINCT substr(patient, 1, {DIGITS})) FROM released"
    ).fetchall()[0]
    if patients != subjects:
        raise PalmaresError("E-PUBLISH-03", FOLDER, count=patients - subjects, detail="subject ids are not unique")
    # one pass over the records, each to the part of its file; then each file is sorted by itself
    try:
        connection.execute(
            f"COPY (SELECT (place - 1) // {size} AS part, * FROM ({sql.strip().rstrip(';')})) TO {literal(str(plain))} "
            "(FORMAT parquet, PARTITION_BY (part))"
        )
    except duckdb.Error as error:
        raise sql_error(error, "datasets/meds.sql") from None
    parts = -(-patients // size)
    for number in range(max(1, parts)):
        source = f"read_parquet({literal(f'{plain}/part={number}/*.parquet')})" if number < parts else _NOTHING
        select = f"""
            SELECT
                CAST('0x' || substr(patient, 1, {DIGITS}) AS BIGINT) AS subject_id,
                CAST(DATE '{day_0.isoformat()}' + CAST(day AS INTEGER) AS TIMESTAMP) AS time,
                code, numeric_value, text_value, unit
            FROM {source}
            ORDER BY {_ORDER}
        """
        _write_data(connection, select, out / "data" / f"{number}.parquet")
    events = f"read_parquet({literal(f'{plain}/*/*.parquet')})" if parts else _NOTHING
    _write_metadata(connection, events, rules, splits, out / "metadata")
    total = int(connection.execute(f"SELECT count(*) FROM {events}").fetchall()[0][0])
    shutil.rmtree(plain, ignore_errors=True)
    return total


def left_out(connection: duckdb.DuckDBPyConnection, *, threshold: int) -> dict[str, int | str]:
    """By CDM table the records that MEDS leaves out because no one could map them; a small number is hidden.

    Raises E-STUDY-03 when the tables that `lay_out` made do not say.
    """
    try:
        found = connection.execute("SELECT cdm_table, records FROM meds_left_out ORDER BY cdm_table").fetchall()
    except duckdb.Error as error:
        raise sql_error(error, "datasets/tables") from None
    return {str(table): HIDDEN if 0 < records < threshold else int(records) for table, records in found}


def _settings(settings: Mapping[str, Any]) -> tuple[date, int, list[tuple[str, float]]]:
    about = settings.get("meds", {})
    day_0, size, splits = about.get("day_0"), about.get("patients_per_file"), about.get("splits", {})
    sound = isinstance(day_0, date) and isinstance(size, int) and size > 0 and splits and min(splits.values()) >= 0
    if not sound or abs(sum(splits.values()) - 1) > 1e-9:
        raise PalmaresError(
            "E-STUDY-03", "datasets/datasets.toml", detail="[meds] needs day_0, patients_per_file, splits"
        )
    bounds, until = [], 0.0
    for name, share in splits.items():
        until += share
        bounds.append((name, until))
    return day_0, size, bounds


def _write_data(connection: duckdb.DuckDBPyConnection, select: str, out: Path) -> None:
    import meds
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = meds.DataSchema.schema().append(pa.field("unit", pa.string()))
    table = connection.execute(select).to_arrow_table()
    table = table.select(schema.names).cast(schema)
    _valid(meds.DataSchema, table, out.name)
    pq.write_table(table, out, compression="zstd", row_group_size=122_880)


def _write_metadata(
    connection: duckdb.DuckDBPyConnection, events: str, rules: Rules, splits: list[tuple[str, float]], folder: Path
) -> None:
    import meds
    import pyarrow.parquet as pq

    codes = connection.execute(
        f"""
        SELECT
            code, min(description) AS description,
            -- of a code that is a concept's, the concept as other vocabularies write it
            CASE
                WHEN split_part(code, '//', 1) NOT IN ('PALMARES', 'SITE', 'GENDER') AND contains(code, '//')
                    THEN [split_part(code, '//', 1) || '/' || split_part(code, '//', 2)]
            END AS parent_codes
        FROM {events} GROUP BY code ORDER BY code
        """
    ).to_arrow_table()
    codes = meds.CodeMetadataSchema.align(codes)
    _valid(meds.CodeMetadataSchema, codes, "codes.parquet")
    pq.write_table(codes, folder / "codes.parquet", compression="zstd")
    # which split: by digits of the released id that subject_id does not use, so that it says nothing else
    bucket = f"CAST('0x' || substr(patient, {DIGITS + 1}, 3) AS INTEGER) / 4096.0"
    last = splits[-1][0]
    cases = " ".join(f"WHEN {bucket} < {until} THEN {literal(name)}" for name, until in splits[:-1])
    split = f"CASE {cases} ELSE {literal(last)} END" if cases else literal(last)
    subjects = connection.execute(
        f"SELECT CAST('0x' || substr(patient, 1, {DIGITS}) AS BIGINT) AS subject_id, {split} AS split FROM released ORDER BY place"
    ).to_arrow_table()
    subjects = meds.SubjectSplitSchema.align(subjects).cast(meds.SubjectSplitSchema.schema())
    _valid(meds.SubjectSplitSchema, subjects, "subject_splits.parquet")
    pq.write_table(subjects, folder / "subject_splits.parquet", compression="zstd")
    about = {
        "dataset_name": rules.study.name,
        "dataset_version": rules.study.sha256()[:12],
        "etl_name": "palmares",
        "etl_version": __version__,
        "meds_version": meds.__version__,
        "code_modifier_columns": ["unit"],
    }
    try:
        meds.DatasetMetadataSchema.validate(about)
    except Exception as error:
        raise PalmaresError("E-PUBLISH-03", "dataset.json", detail=type(error).__name__) from None
    (folder / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _valid(schema: Any, table: Any, name: str) -> None:
    """Raises E-PUBLISH-03 with the kind of what the `meds` package says: its text may hold a value."""
    try:
        schema.validate(table)
    except Exception as error:
        raise PalmaresError("E-PUBLISH-03", f"{FOLDER}/{name}", detail=type(error).__name__) from None
