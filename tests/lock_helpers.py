"""An intake for tests of locks: the patients of `tests/slices.py`, submitted and received as the stages do.

The gate of each slice said PASS to nothing asked: what the gate asks is tested in its own room, and takes seconds.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omop_etl.gates.slices import open_slice
from omop_etl.submission import receive, submit
from tests.slices import ER, HER2_IHC, Rows, clean_rows, write_slice


def deliver(
    home: Path,
    site: str,
    persons: int,
    folder: Path,
    *,
    change: Callable[[Rows], None] = lambda _: None,
    extracted_to: str = "2024-12-31",
) -> None:
    """A hospital's submission arrives: so many patients, changed by `change`; what it sent before is replaced."""
    rows = clean_rows(site, persons)
    lesions = {row["person_id"]: row for row in rows["measurement"] if row["measurement_concept_id"] == ER}
    for row in rows["measurement"]:
        if row["measurement_concept_id"] == HER2_IHC:  # of the same sample as the other receptors
            row |= {
                key: lesions[row["person_id"]][key] for key in ("measurement_event_id", "meas_event_field_concept_id")
            }
    change(rows)
    slice_ = write_slice(
        folder / "slice", rows, site=site, manifest=lambda said: said.update(extracted_to=extracted_to)
    )
    gate = folder / "gate"
    gate.mkdir()
    verdict = {"site": site, "verdict": "PASS", "slice_sha256": open_slice(slice_).sha256, "checks": []}
    (gate / "verdict.json").write_text(json.dumps(verdict))
    (gate / "profile.json").write_text("{}")
    pq.write_table(pa.table({"code": pa.array([], pa.string())}), gate / "checks.parquet")
    submit(slice_, gate, folder / "submission")
    receive(folder / "submission", home / "centre" / "intake")
