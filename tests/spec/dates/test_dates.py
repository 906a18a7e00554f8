"""The table of dates.txt, line by line, against the macros and against the reference."""

from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.partial_dates import MACROS, parse

Row = tuple[str, str, date | None, date | None, datetime | None, str | None]


def rows() -> list[Row]:
    """The table: text, zone, date, end, datetime, precision."""
    lines = Path(__file__).with_name("dates.txt").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.strip() and not line.startswith("#")]
    table = []
    for text, zone, day, end, moment, precision in cells[1:]:
        first = None if day == "-" else date.fromisoformat(day)
        table.append(
            (
                text.strip('"'),
                zone,
                first,
                date.fromisoformat(end) if end else first,
                None if moment == "-" else datetime.fromisoformat(moment),
                None if precision == "-" else precision,
            )
        )
    return table


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(MACROS)
    return connection


@pytest.mark.requirement("f2o-072")
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_macros(database: duckdb.DuckDBPyConnection, row: Row) -> None:
    text, zone, day, end, moment, precision = row
    found = database.execute(
        """SELECT fhir_date(t, z), fhir_end_date(t, z), fhir_datetime(t, z), fhir_precision(t), fhir_imputed(t),
                  fhir_end_datetime(t, z)::DATE
           FROM (SELECT ?::VARCHAR AS t, ?::VARCHAR AS z)""",
        [text, zone],
    ).fetchone()
    imputed = None if precision is None else precision in ("year", "month")
    assert found == (day, end, moment, precision, imputed, end)


@pytest.mark.requirement("f2o-072")
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_reference(row: Row) -> None:
    text, zone, day, end, moment, precision = row
    start, last = parse(text, zone), parse(text, zone, end=True)
    if day is None:
        assert start is None and last is None
        return
    assert start is not None and last is not None
    assert (start.date, last.date, start.datetime, start.precision) == (day, end, moment, precision)
    assert start.imputed == last.imputed == (precision in ("year", "month"))
