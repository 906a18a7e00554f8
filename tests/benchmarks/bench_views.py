"""What a view costs beyond reading: DuckDB's `read_json` into the same columns is the baseline, in the same run.

    python tests/benchmarks/bench_views.py [MEGABYTES]

Prints, for one thread and for all, thousand resources per second of both and their ratio (view / reading).
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import orjson

from fhir_adapters.views import compile_view, read_shards

FLAT = [
    ("id", "getResourceKey()"),
    ("patient", "subject.getReferenceKey(Patient)"),
    ("encounter", "encounter.getReferenceKey(Encounter)"),
    ("status", "status"),
    ("category", "category.coding.code.first()"),
    ("system", "code.coding.first().system"),
    ("code", "code.coding.first().code"),
    ("effective", "effective.ofType(dateTime)"),
    ("value", "value.ofType(Quantity).value"),
    ("unit", "value.ofType(Quantity).code"),
]


def _columns(*columns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "path": path} for name, path in columns]


def _complex(name: str, path: str, type_: str, fields: str) -> dict[str, Any]:
    tag = [{"name": "palmares/fields", "value": fields}]
    return {"name": name, "path": path, "type": type_, "collection": True, "tag": tag}


CODE_AND_VALUE = _columns(("code", "code.coding.first().code"), ("value", "value.ofType(Quantity).value"))
VIEWS: dict[str, list[dict[str, Any]]] = {
    "flat": [{"column": _columns(*FLAT)}],
    "forEach": [{"column": _columns(("id", "id"))}, {"forEach": "code.coding", "column": _columns(("code", "code"))}],
    "unionAll": [
        {"column": _columns(("id", "id"))},
        {"unionAll": [{"column": CODE_AND_VALUE}, {"forEach": "component", "column": CODE_AND_VALUE}]},
    ],
    "complex": [
        {
            "column": [
                *_columns(("id", "id")),
                _complex("codings", "code.coding", "Coding", "system,code,display,userSelected"),
                _complex(
                    "parts", "component", "BackboneElement", "code.coding.system,code.coding.code,valueQuantity.value"
                ),
            ]
        }
    ],
}


def observation(n: int, chance: random.Random) -> dict[str, Any]:
    """A laboratory result of about 1.2 kB; every tenth has two components."""
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"{n:032x}",
        "meta": {
            "lastUpdated": "2024-01-01T00:00:00Z",
            "profile": ["http://example.org/StructureDefinition/laboratory"],
        },
        "status": "final",
        "category": [
            {"coding": [{"system": "http://example.org/category", "code": "laboratory", "display": "Laboratory"}]}
        ],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": f"{chance.randrange(9999)}-{n % 10}", "display": "A test"}
            ]
        },
        "subject": {"reference": f"Patient/{n % 10000:032x}"},
        "encounter": {"reference": f"Encounter/{n % 50000:032x}"},
        "effectiveDateTime": "2021-03-04T10:11:12+01:00",
        "issued": "2021-03-04T10:11:12.345+01:00",
        "note": [{"text": "words " * 50}],
        "valueQuantity": {
            "value": round(chance.random() * 100, 2),
            "unit": "mg/dL",
            "system": "http://unitsofmeasure.org",
            "code": "mg/dL",
        },
    }
    if n % 10 == 0:
        made["component"] = [{"code": made["code"], "valueQuantity": made["valueQuantity"]}] * 2
    return made


def write(file: Path, megabytes: int) -> int:
    """Fill the file; the number of resources."""
    chance = random.Random(1)
    count = size = 0
    with file.open("wb") as lines:
        while size < megabytes * 1_000_000:
            line = orjson.dumps(observation(count, chance)) + b"\n"
            lines.write(line)
            count, size = count + 1, size + len(line)
    return count


def seconds(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        connection.execute(f"CREATE OR REPLACE TEMP TABLE result AS {sql}")
        best = min(best, time.perf_counter() - start)
    return best


def test_a_view_costs_little_more_than_reading(megabytes: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "Observation.ndjson")
        count = write(file, megabytes)
        print(f"\n{count} observations, {megabytes} MB; thousand resources per second")
        for threads in (1, 0):
            with duckdb.connect() as connection:
                if threads:
                    connection.execute(f"SET threads = {threads}")
                for name, select in VIEWS.items():
                    view = compile_view({"resource": "Observation", "select": select})
                    source = read_shards([file], view.columns)
                    reading = seconds(connection, f"SELECT * FROM {source}")
                    viewing = seconds(connection, view.sql(source))
                    ratio = viewing / reading
                    print(
                        f"  {threads or 'all'} threads  {name:9} reading {count / reading / 1000:6.0f}"
                        f"  view {count / viewing / 1000:6.0f}  ratio {ratio:.2f}"
                    )
                    assert ratio < 2


if __name__ == "__main__":
    test_a_view_costs_little_more_than_reading(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
