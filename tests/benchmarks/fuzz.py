"""Broken resources through landing, validation and mapping until something gives way.

    python tests/benchmarks/fuzz.py [RESOURCES] [FIRST_SEED]      default: 100000 0

Prints a line per batch of 5,000 (a seed each) and the sum; ends with 1 when a stage raised, resources were lost, or a text of a
resource was said. A batch that failed is run again alone by its seed: `python tests/benchmarks/fuzz.py 5000 <seed>`.
"""

import csv
import io
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzzing import MARK, broken, hold

BATCH = 5000


def leaks(said: list[str]) -> int:
    """Texts that repeat what a resource says; codes, which the worklist is there to show, apart."""
    found = 0
    for text in said:
        if text.startswith("site,vocabulary_id"):
            rows = csv.DictReader(io.StringIO(text))
            found += sum(MARK in row["source_name"] or len(row["source_code"]) > 50 for row in rows)
        else:
            found += MARK in text
    return found


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    total: Counter[str] = Counter()
    bad = 0
    for seed in range(first, first + -(-wanted // BATCH)):
        begun = time.perf_counter()
        said: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes = hold(Path(folder), broken(seed, min(BATCH, wanted)), said)
            except Exception as error:
                bad += 1
                print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
                continue
        found = leaks(said)
        bad += bool(found)
        total += outcomes
        print(f"seed {seed}: {dict(outcomes)}, {found} leaks, {time.perf_counter() - begun:.1f} s", flush=True)
    print(f"{sum(total.values())} resources: {dict(total)}; {bad} batches failed")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
