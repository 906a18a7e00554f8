"""Defects of a slice's files themselves, named in words by tests/spec/quality/defects.toml."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omop_etl.cdm import arrow_schema
from tests.slices import CLASSIFICATION


def changed_files(slice_: Path, words: str) -> Path:
    """Do to a slice folder what the words say: `rm T`, `drop C of T`, `words C of T`, `turn T`, `rows T`, `eras T`."""
    how, *rest = words.split()
    table = rest[-1]
    path = slice_ / f"{table}.parquet"
    if how == "rm":
        path.unlink()
        return slice_
    if how == "eras":
        people = pq.read_table(slice_ / "person.parquet")["person_id"].to_pylist()
        era = {"drug_concept_id": CLASSIFICATION, "drug_exposure_count": 1, "gap_days": 0}
        era |= {"drug_era_start_date": date(2019, 5, 14), "drug_era_end_date": date(2021, 5, 30)}
        rows = [era | {"drug_era_id": at, "person_id": person} for at, person in enumerate(people, 1)]
        pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(table)), path)
        return slice_
    if how == "rows":
        manifest = json.loads((slice_ / "manifest.json").read_text())
        manifest["tables"][table] += 2
        (slice_ / "manifest.json").write_text(json.dumps(manifest))
        return slice_
    rows = pq.read_table(path)
    at = rows.schema.get_field_index(rest[0])
    changed = {
        "drop": lambda: rows.drop_columns([rest[0]]),
        "words": lambda: rows.set_column(at, rest[0], pa.array(["a word"] * len(rows))),
        "turn": lambda: rows.select(rows.column_names[::-1]),
    }[how]()
    pq.write_table(changed, path)
    return slice_
