"""What an archive gave so far: `known.parquet`, one row per study and resource, so that a run reads what changed and tells deletes.

resource_type, resource_id    as written; a sample that two studies show stands there twice
study                         the study's id
print                         what the archive said of the study, hashed; empty where it says too little to see a change
dated                         whether the study has a date: without one it is in no window that an archive is asked for
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_adapters.dicom.values import Instance
from fhir_adapters.errors import PalmaresError
from fhir_adapters.memory import KNOWN

_COLUMNS = ("resource_type", "resource_id", "study", "print", "dated")
FEW = 20  # so many studies may be gone whatever the share: a small archive has large shares


class Row(NamedTuple):
    """A resource that a study gave."""

    resource_type: str
    resource_id: str
    study: str
    print: str
    dated: bool = True


def read(path: Path | None) -> list[Row]:
    """The rows of an earlier extraction; none when there was none or the file is not of this form."""
    if path is None:
        return []
    try:
        table = pq.read_table(path)
        if "dated" not in table.column_names:  # of an earlier version
            table = table.append_column("dated", pa.array([False] * len(table)))
        table = table.select(_COLUMNS)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError):
        return []
    return [Row(*values) for values in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)]


def told_by(
    instances: Iterable[Instance], prints: Mapping[str, str], undated: Collection[str] = frozenset()
) -> set[Row]:
    """What the instances of studies gave. `prints`: study → what the archive said of it; `undated`: studies without a date."""
    found: set[Row] = set()
    for one in instances:
        mark = prints.get(one.study, "")
        about = one.study, mark, one.study not in undated
        found.add(Row("ImagingStudy", one.study, *about))
        found |= {Row("Observation", measure.id, *about) for measure in one.measures}
        for name, value in one.values:
            if name == "specimen-uid":
                found.add(Row("Specimen", str(value[0]), *about))
    return found


class Settled(NamedTuple):
    """What stands after a run, and what does no more."""

    stands: list[Row]
    deleted: list[tuple[str, str]]


def settle(
    before: Sequence[Row], now: set[Row], *, read_anew: set[str], named: set[str] | None, most: float
) -> Settled:
    """What stands after a run that read the studies `read_anew` and was told of the studies `named` (None: of a part only).

    Raises E-PACS-06 when more than the share `most` of the known studies is named no more.
    """
    studies = {row.study for row in before}
    gone = set() if named is None else studies - named
    if len(gone) > FEW and len(gone) > most * len(studies):
        raise PalmaresError("E-PACS-06", "studies", count=len(gone), detail=f"of {len(studies)}")
    kept = {row for row in before if row.study not in gone and row.study not in read_anew}
    stands = kept | now
    standing = {(row.resource_type, row.resource_id) for row in stands}
    deleted = {(row.resource_type, row.resource_id) for row in before} - standing
    return Settled(sorted(stands), sorted(deleted))


def write(settled: Settled, folder: Path) -> None:
    """Write `known.parquet`, and the deletes as Bundles of history, into an extraction folder."""
    columns = list(zip(*settled.stands, strict=True)) or [()] * len(_COLUMNS)
    types = [*[pa.string()] * 4, pa.bool_()]
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(_COLUMNS)), folder / KNOWN, compression="zstd")
    if settled.deleted:
        with (folder / "fhir" / "deleted.ndjson").open("wb") as lines:
            for at in range(0, len(settled.deleted), 1000):
                lines.write(orjson.dumps(_bundle(settled.deleted[at : at + 1000])) + b"\n")


def _bundle(deleted: Iterable[tuple[str, str]]) -> dict[str, Any]:
    entries = [{"request": {"method": "DELETE", "url": f"{name}/{one}"}} for name, one in deleted]
    return {"resourceType": "Bundle", "type": "history", "entry": entries}
