"""What a night costs when 1 % of the patients changed: every resource of theirs is delivered again, with new values.

    python tests/benchmarks/bench_increment.py [GIGABYTES]      default: 1
    python tests/benchmarks/bench_increment.py --folder DIR     NDJSON files that are there

Lands, validates and maps all (the baseline), then the delivery on top of it; prints seconds per stage and the ratio of the sums. The
bound of the project is 5 %. At the end both slices are held against each other.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import orjson

from fhir_adapters.landing import land
from fhir_adapters.validation import validate
from omop_etl.config import load_site
from omop_etl.mapping import map_site

GENERATOR = Path(__file__).with_name("synthea_shaped.py")
SHARE = 0.01
_SUBJECT = re.compile(rb'"Patient/([A-Za-z0-9\-.]+)"')


def changed(folder: Path, out: Path) -> int:
    """Write every resource of one patient in a hundred again, updated and with other values; how many patients."""
    patients = [orjson.loads(line)["id"] for path in sorted(folder.glob("Patient*.ndjson")) for line in path.open("rb")]
    chosen = {one.encode() for one in patients[:: round(1 / SHARE)]}
    out.mkdir()
    for path in sorted(folder.glob("*.ndjson")):
        lines = []
        with path.open("rb") as file:
            for line in file:
                subject = _SUBJECT.search(line)
                of = orjson.loads(line)["id"].encode() if path.name.startswith("Patient") else subject and subject[1]
                if of in chosen:
                    one = orjson.loads(line)
                    one.setdefault("meta", {})["lastUpdated"] = "2026-11-20T10:00:00Z"
                    if "valueQuantity" in one:
                        one["valueQuantity"]["value"] += 1
                    lines.append(orjson.dumps(one) + b"\n")
        if lines:
            (out / path.name).write_bytes(b"".join(lines))
    return len(chosen)


def timed(name: str, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    print(f"  {name:<10}{seconds:8.2f} s", flush=True)
    return seconds


def run(folder: Path, root: Path) -> float:
    """Seconds of the night over seconds of all."""
    site = load_site("bench")
    patients = changed(folder, root / "night")
    landed, accepted, slice_, verdicts = (root / name for name in ("landed", "accepted", "slice", "verdicts"))
    print("all")
    whole = timed("land", lambda: land([folder], landed))
    whole += timed("validate", lambda: validate(landed, accepted, verdicts=verdicts))
    whole += timed("map", lambda: map_site(site, accepted, slice_))
    print(f"{patients} patients again, {sum(p.stat().st_size for p in (root / 'night').iterdir()) / 1e6:.0f} MB")
    night = timed("land", lambda: land([root / "night"], landed, previous=landed))
    night += timed("validate", lambda: validate(landed, accepted, verdicts=verdicts))
    night += timed("map", lambda: map_site(site, accepted, slice_, previous=slice_))
    map_site(site, accepted, root / "over-all")
    for path in sorted((root / "over-all").glob("*.parquet")):
        a, b = (f"read_parquet('{one / path.name}')" for one in (slice_, root / "over-all"))
        row = duckdb.sql(
            f"SELECT count(*) FROM ((FROM {a} EXCEPT ALL FROM {b}) UNION ALL (FROM {b} EXCEPT ALL FROM {a}))"
        ).fetchone()
        if row is None or row[0]:
            raise SystemExit(f"{path.name} differs from that of a run over all")
    print(f"night {night:.2f} s, all {whole:.2f} s: {night / whole:.1%}")
    return night / whole


def main() -> None:
    words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if words[:1] == ["--folder"]:
            folder = Path(words[1])
        else:
            folder = root / "fhir"
            subprocess.run(
                [sys.executable, str(GENERATOR), str(folder), "--gigabytes", words[0] if words else "1"], check=True
            )
        run(folder, root)


if __name__ == "__main__":
    main()
