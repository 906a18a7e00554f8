"""The last look before a release: nothing that leaves holds a date."""

import re
from datetime import date, datetime
from pathlib import Path

from fhir_adapters.errors import PalmaresError
from omop_etl.publish.meds_files import FOLDER, INDEX

# ISO dates, and the day-month-year texts of Italian exports
DATES = re.compile(rb"(?<![0-9])(?:(?:19|20)\d\d-[01]\d-[0-3]\d|[0-3]?\d[/.][01]?\d[/.](?:19|20)\d\d)(?![0-9])")
TEXT = (".csv", ".json", ".html", ".txt", ".md")
BLOCK, OVERLAP = 1 << 24, 16


def check(folder: Path, *, day_0: date | None = None) -> None:
    """Raise E-PUBLISH-01 when a text file of the folder holds a date, or a Parquet file a date column or a text like one.

    The one time that may stand there is that of `meds/data`: every patient's day 0 must be at `day_0`, and every time at
    midnight, so that times are distances from it and no dates.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in TEXT:
            twin = path.with_suffix(".parquet")
            # the same rows stand in Parquet, whose texts are looked at there
            found = 0 if path.suffix == ".csv" and twin.is_file() else _dates(path)
            if found:
                raise PalmaresError("E-PUBLISH-01", path.name, count=found)
        elif path.suffix == ".parquet":
            _check_parquet(path, day_0 if path.parent == folder / FOLDER / "data" else None)


def _dates(path: Path) -> int:
    """How many dates a file holds; read in blocks that overlap, so that none is cut in two."""
    found, kept = 0, b""
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            text = kept + block
            found += len(DATES.findall(text))
            kept = text[-OVERLAP:]
    return found


def _check_parquet(path: Path, day_0: date | None) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        for name, kind in zip(schema.names, schema.types, strict=True):
            if pa.types.is_temporal(kind) and not (day_0 and name == "time"):
                raise PalmaresError("E-PUBLISH-01", f"{path.name}/{name}", detail=f"its type is {kind}")
        texts = [name for name, kind in zip(schema.names, schema.types, strict=True) if _is_text(kind)]
        for name in texts:
            seen: set[str] = set()
            for batch in file.iter_batches(columns=[name]):
                column = batch.column(0)
                values = column.dictionary if pa.types.is_dictionary(column.type) else pc.unique(column)
                seen.update(text for text in values.to_pylist() if text is not None)
            found = sum(bool(DATES.search(text.encode())) for text in seen)
            if found:
                raise PalmaresError("E-PUBLISH-01", f"{path.name}/{name}", count=found)
        if day_0:
            _check_shifted(path, day_0)


def _is_text(kind: object) -> bool:
    import pyarrow as pa

    return pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _check_shifted(path: Path, day_0: date) -> None:
    """Every subject of a MEDS file has day 0 exactly once, at `day_0`; every time is a midnight."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["subject_id", "time", "code"])
    index = table.filter(pc.equal(table["code"], INDEX))
    subjects = len(pc.unique(table["subject_id"]))
    moved = pc.all(pc.equal(index["time"], datetime(day_0.year, day_0.month, day_0.day))).as_py()
    midnights = pc.all(pc.equal(table["time"], pc.floor_temporal(table["time"], unit="day"))).as_py()
    if (
        len(index) != subjects
        or len(pc.unique(index["subject_id"])) != subjects
        or moved is False
        or midnights is False
    ):
        raise PalmaresError("E-PUBLISH-01", f"{path.name}/time", detail="its times are not counted from one day 0")
