"""What a column map costs.

    python tests/benchmarks/bench_tables.py [ROWS]

CSV rows to FHIR by the `tables` source, against a baseline in the same run: csv.DictReader and json.dumps of the same rows.
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fhir_adapters.base import open_source
from fhir_adapters.pseudonyms import SiteKey

MAP = """
missing = ["n.d."]
[[table]]
file = "rows.csv"
[[table.resource]]
type = "Observation"
patient = "cartella"
id = ["data"]
fixed = { status = "final", code = { coding = [{ system = "http://loinc.org", code = "718-7" }] } }
[[table.resource.fill]]
column = "data"
element = "effectiveDateTime"
as = "date"
required = true
[[table.resource.fill]]
column = "valore"
element = "valueQuantity.value"
as = "number"
"""


def main(rows: int) -> None:
    """Print both in rows a second, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "map.toml").write_text(MAP, encoding="utf-8")
        lines = (f"{n // 20};{n % 28 + 1:02}/{n % 12 + 1:02}/2021;{n % 20},5" for n in range(rows))
        (folder / "rows.csv").write_text("\n".join(["cartella;data;valore", *lines]) + "\n", encoding="utf-8")
        start = time.perf_counter()
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as source, (folder / "plain").open("w") as sink:
            for row in csv.DictReader(source, delimiter=";"):
                sink.write(json.dumps(row) + "\n")
        plain = time.perf_counter() - start
        start = time.perf_counter()
        described = {"kind": "tables", "map": "map.toml", "path": "."}
        open_source(described, folder=folder, key=SiteKey(b"k" * 32)).extract(folder / "out")
        ours = time.perf_counter() - start
    print(f"plain {rows / plain:,.0f} rows/s; tables {rows / ours:,.0f} rows/s; ratio {ours / plain:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
