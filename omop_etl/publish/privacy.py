"""The last look before a release: nothing that leaves holds a date."""

import re
from pathlib import Path

from fhir_adapters.errors import PalmaresError

# ISO dates, and the day-month-year texts of Italian exports
DATES = re.compile(rb"(?<![0-9])(?:(?:19|20)\d\d-[01]\d-[0-3]\d|[0-3]?\d[/.][01]?\d[/.](?:19|20)\d\d)(?![0-9])")
TEXT = (".csv", ".json", ".html", ".txt", ".md")


def check(folder: Path) -> None:
    """Raise E-PUBLISH-01 when a text file of the folder holds a date, or a Parquet file a date column or a text like one."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in TEXT:
            found = len(DATES.findall(path.read_bytes()))
            if found:
                raise PalmaresError("E-PUBLISH-01", path.name, count=found)
        elif path.suffix == ".parquet":
            _check_parquet(path)


def _check_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_temporal(column.type):
            raise PalmaresError("E-PUBLISH-01", f"{path.name}/{name}", detail=f"its type is {column.type}")
        if (
            pa.types.is_dictionary(column.type)
            or pa.types.is_string(column.type)
            or pa.types.is_large_string(column.type)
        ):
            values = column.combine_chunks().cast(pa.string()) if pa.types.is_dictionary(column.type) else column
            found = sum(bool(DATES.search(text.encode())) for text in values.unique().to_pylist() if text is not None)
            if found:
                raise PalmaresError("E-PUBLISH-01", f"{path.name}/{name}", count=found)
