"""A hospital's PostgreSQL as a source: the same FHIR as its CSV export, increments by a column, and a server that is away."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from tests.postgres import Cluster, needs_postgresql, postgresql

__all__ = ["postgresql"]

KEY = SiteKey(b"k" * 32)
MAP = """
missing = ["n.d."]
[lists.sesso]
M = "male"
F = "female"
[[table]]
{source}
[[table.resource]]
type = "Patient"
patient = "cartella"
fill = [
  {{ column = "sesso", element = "gender", as = "list", list = "sesso" }},
  {{ column = "nato", element = "birthDate", as = "month" }},
]
[[table]]
{results}
updated = "modificato"
[[table.resource]]
type = "Observation"
patient = "cartella"
id = ["numero"]
fixed = {{ status = "final", code = {{ coding = [{{ system = "http://loinc.org", code = "718-7" }}] }} }}
fill = [
  {{ column = "quando", element = "effectiveDateTime", as = "datetime" }},
  {{ column = "valore", element = "valueQuantity", as = "quantity", unit = "g/dL" }},
]
"""
PATIENTS = "SELECT cartella, sesso, nato FROM pazienti ORDER BY cartella"
RESULTS = "SELECT cartella, numero, quando, valore, modificato FROM esami WHERE modificato >= :since ORDER BY numero"


@pytest.fixture
def hospital(postgresql: Cluster) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgresql.dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS pazienti, esami")
        connection.execute("CREATE TABLE pazienti (cartella text, sesso char(1), nato date, cognome text)")
        connection.execute(
            "CREATE TABLE esami (cartella text, numero int, quando timestamp, valore numeric, modificato timestamptz)"
        )
        connection.execute(
            "INSERT INTO pazienti SELECT 'C' || n, CASE n % 2 WHEN 0 THEN 'F' ELSE 'M' END, date '1950-01-15' + n * 30, 'Rossi' "
            "FROM generate_series(1, 40) n"
        )
        connection.execute(
            "INSERT INTO esami SELECT 'C' || (n % 40 + 1), n, timestamp '2021-01-01 08:00' + n * interval '1 hour', 10 + n % 50 / 10.0,"
            " timestamptz '2021-01-02 00:00+01' + n * interval '1 minute' FROM generate_series(1, 6000) n"
        )
        yield connection


def extract(
    folder: Path, cluster: Cluster | None, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Extraction, dict[str, list[dict[str, Any]]]]:
    if cluster is not None:
        held = {
            "conn_type": "postgres",
            "login": "palmares",
            "host": "127.0.0.1",
            "port": cluster.port,
            "schema": "postgres",
        }
        monkeypatch.setenv("AIRFLOW_CONN_HOSPITAL", json.dumps(held))
    folder.mkdir(exist_ok=True)
    (folder / "map.toml").write_text(
        MAP.format(source=f'query = "{PATIENTS}"', results=f'query = "{RESULTS}"'), encoding="utf-8"
    )
    source = open_source(
        {"kind": "tables", "map": "map.toml", "connection": "hospital"}, folder=folder, key=KEY, time_zone="Europe/Rome"
    )
    extraction = extract_from(source, folder / "out", **options)
    made = {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (folder / "out" / "fhir").glob("*.ndjson")
    }
    return extraction, made


@needs_postgresql
def test_the_database_gives_what_its_export_gives(
    hospital: psycopg.Connection[Any], postgresql: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extraction, from_database = extract(tmp_path / "sql", postgresql, monkeypatch)
    assert extraction.resources == {"Patient": 40, "Observation": 6000}
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, query in (("pazienti", PATIENTS), ("esami", RESULTS.replace(":since", "'1800-01-01'"))):
        with (folder / f"{name}.csv").open("wb") as file, hospital.cursor() as cursor:
            cursor.execute("SET timezone = 'Europe/Rome'")
            with cursor.copy(f"COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)") as rows:
                for block in rows:
                    file.write(block)
    (folder / "map.toml").write_text(
        MAP.format(source='file = "pazienti.csv"', results='file = "esami.csv"'), encoding="utf-8"
    )
    source = open_source(
        {"kind": "tables", "map": "map.toml", "path": "."}, folder=folder, key=KEY, time_zone="Europe/Rome"
    )
    source.extract(folder / "out")
    for kind in ("Patient", "Observation"):
        lines = (folder / "out" / "fhir" / f"{kind}.ndjson").read_text("utf-8").splitlines()
        of_csv = [json.loads(line) for line in lines]
        for row in (*of_csv, *from_database[kind]):
            if "meta" in row:
                row["meta"] = datetime.fromisoformat(row["meta"]["lastUpdated"])
        # numeric columns come as decimals from the driver and as texts from the export
        assert sorted(of_csv, key=lambda row: row["id"]) == sorted(from_database[kind], key=lambda row: row["id"])


@needs_postgresql
def test_increments_by_the_column_of_changes(
    hospital: psycopg.Connection[Any], postgresql: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = extract(tmp_path / "one", postgresql, monkeypatch)
    assert first.full
    hospital.execute("UPDATE esami SET valore = 99, modificato = '2021-02-01' WHERE numero = 17")
    second, made = extract(tmp_path / "two", postgresql, monkeypatch, state=first.state)
    assert not second.full
    # the changed row, and the last one of before, for the query says >=: no row that has the same instant is lost
    assert sorted(row["valueQuantity"]["value"] for row in made["Observation"]) == [10.0, 99.0]
    full, made = extract(tmp_path / "three", postgresql, monkeypatch, state=second.state, full=True)
    assert full.full
    assert len(made["Observation"]) == 6000


@needs_postgresql
@pytest.mark.parametrize("broken", ["closed", "refused", "no-table"])
def test_a_database_that_does_not_answer_is_numbered_and_writes_nothing(
    postgresql: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "closed":
        monkeypatch.setenv("AIRFLOW_CONN_HOSPITAL", "postgres://palmares@127.0.0.1:1/postgres")
    if broken == "refused":
        monkeypatch.setenv("AIRFLOW_CONN_HOSPITAL", f"postgres://palmares@127.0.0.1:{postgresql.port}/nessuno")
    if broken == "no-table":
        with psycopg.connect(postgresql.dsn, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS pazienti, esami")
    with pytest.raises(PalmaresError, match="E-TAB-03") as error:
        extract(tmp_path / "sql", postgresql if broken == "no-table" else None, monkeypatch)
    assert "palmares@" not in str(error.value)
    assert not (tmp_path / "sql" / "out").exists()
