"""What deriving and publishing cost together, from 6,000 to 100,000 patients of about 200 events each.

    python tests/benchmarks/bench_release.py [PATIENTS ...]

Synthetic hospitals are generated, mapped and built, and their patients copied under new ids, with blood counts until each has about
200 events: every one of them becomes a row of `sequences` and of MEDS. A scan of the measurement table in the same run is the baseline.
Each size runs in a process of its own, so that its peak of memory is its own. The bar: 100,000 patients derive and publish in less
than 3 minutes and 4 GB on 4 cores, and the time per patient is that of 6,000.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import duckdb

from tests.benchmarks.bench_derive import SCAN, grow, processor, timed
from tests.derive_truth import run

HEMOGLOBIN = 3000963  # LOINC 718-7
SECONDS, MEGABYTES = 180, 4096


def measure(warehouse: Path, folder: Path) -> dict[str, float]:
    """Seconds and processor seconds of each step, the peak of memory in MB, rows by dataset."""
    from omop_etl.cohorts import run as cohort
    from omop_etl.derive import derive
    from omop_etl.publish import release

    found: dict[str, float] = {}
    steps = {
        "derive": lambda: derive(warehouse, folder / "derived", into_warehouse=False),
        "cohort": lambda: cohort(warehouse, folder / "cohort"),
        "publish": lambda: release(
            warehouse, folder / "cohort", folder / "release", derived=folder / "derived", progress=note
        ),
    }
    for name, step in steps.items():
        before = processor()
        found[name] = timed(step)
        found[f"{name} processor"] = processor() - before
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["bytes"] = sum(path.stat().st_size for path in (folder / "release").rglob("*") if path.is_file()) / 2**20
    return found


_LAST: list[float] = []


def note(step: str) -> None:
    """With PALMARES_BENCH_STEPS: what each step of publishing takes."""
    if os.environ.get("PALMARES_BENCH_STEPS"):
        now = time.perf_counter()
        sys.stderr.write(f"    {now - (_LAST[-1] if _LAST else now):6.1f} s, then: {step}\n")
        _LAST.append(now)


def main() -> int:
    sizes = [int(one) for one in sys.argv[1:]] or [6_000, 100_000]
    slow = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder / "seed", sites=4, patients=1_000, dirty=False)
        print(
            f"{'patients':>9} {'events':>11} {'scan s':>6} {'derive s':>8} {'cohort s':>8} {'publish s':>9} {'d+p s':>6} "
            f"{'d+p processor ms/patient':>24} {'peak MB':>8} {'release MB':>10}"
        )
        for patients in sizes:
            path = folder / "warehouse.duckdb"
            people, events = grow(folder / "seed" / "warehouse.duckdb", path, patients, HEMOGLOBIN)
            with duckdb.connect(str(path), read_only=True) as connection:
                scan = timed(lambda here=connection: here.execute(SCAN).fetchall())
            child = subprocess.run(
                [sys.executable, __file__, "--measure", str(path), str(folder)], check=True, stdout=subprocess.PIPE
            )
            found = json.loads(child.stdout)
            both = found["derive"] + found["publish"]
            used = (found["derive processor"] + found["publish processor"]) / people * 1000
            print(
                f"{people:>9,} {events:>11,} {scan:>6.2f} {found['derive']:>8.1f} {found['cohort']:>8.1f} {found['publish']:>9.1f} "
                f"{both:>6.1f} {used:>24.3f} {found['peak']:>8.0f} {found['bytes']:>10.0f}",
                flush=True,
            )
            slow = slow or (people >= 100_000 and (both > SECONDS or found["peak"] > MEGABYTES))
    return int(slow)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        sys.exit(main())
