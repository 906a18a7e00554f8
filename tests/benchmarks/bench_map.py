"""What `palmares map` costs: orjson parsing the same files in as many processes is the baseline, in the same run.

    python tests/benchmarks/bench_map.py [GIGABYTES ...]      default: 0.1 1 3
    python tests/benchmarks/bench_map.py --folder DIR         NDJSON files that are there

Prints, per size, seconds of both (best of three in turn), the ratio, and the peak memory of the mapping process. The bound of
the project is a ratio of 4 and 2 GB.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import orjson

from fhir_adapters.processes import processors

GENERATOR = Path(__file__).with_name("synthea_shaped.py")
PALMARES = Path(sys.executable).parent / "palmares"
PIECE = 16_000_000


def parse(piece: tuple[str, int, int]) -> int:
    """Parse the lines that begin in a range of bytes of a file."""
    path, start, end = piece
    count = 0
    with Path(path).open("rb") as stream:
        stream.seek(max(start - 1, 0))
        if start:
            stream.readline()
        while stream.tell() < end and (line := stream.readline()):
            orjson.loads(line)
            count += 1
    return count


def parsing(folder: Path, jobs: int) -> tuple[float, int]:
    """Seconds that orjson takes for all files, the pool's start among them, and the resources in them."""
    begun = time.perf_counter()
    pieces = [
        (str(path), start, min(start + PIECE, path.stat().st_size))
        for path in sorted(folder.glob("*.ndjson"))
        for start in range(0, path.stat().st_size, PIECE)
    ]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        count = sum(pool.map(parse, pieces))
    return time.perf_counter() - begun, count


def mapping(folder: Path, out: Path, jobs: int) -> tuple[float, float]:
    """Seconds and peak megabytes of one `palmares map`, from start to exit."""
    words = [
        str(PALMARES),
        "map",
        "--site",
        "bench",
        "--fhir",
        str(folder),
        "--out",
        str(out),
        "--jobs",
        str(jobs),
        "--json",
    ]
    begun = time.perf_counter()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise SystemExit(f"palmares map failed: {status}")
    return seconds, used.ru_maxrss / 1024


def compare(folder: Path, scratch: Path) -> None:
    jobs = processors()
    size = sum(path.stat().st_size for path in folder.glob("*.ndjson")) / 1e9
    best_parse = best_map = float("inf")
    peak, count = 0.0, 0
    for _ in range(3):
        seconds, count = parsing(folder, jobs)
        best_parse = min(best_parse, seconds)
        seconds, memory = mapping(folder, scratch / "slice", jobs)
        best_map, peak = min(best_map, seconds), max(peak, memory)
    print(
        f"{size:5.2f} GB {count:9,} resources, {jobs} processes: orjson parse (baseline) {best_parse:6.2f} s, "
        f"palmares map {best_map:6.2f} s, ratio {best_map / best_parse:.2f}, peak {peak:,.0f} MB, "
        f"{best_map / count * 1e6:.1f} µs a resource",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if sys.argv[1:2] == ["--folder"]:
            compare(Path(sys.argv[2]), scratch)
            return
        for gigabytes in sys.argv[1:] or ["0.1", "1", "3"]:
            folder = scratch / f"in-{gigabytes}"
            subprocess.run([sys.executable, str(GENERATOR), str(folder), "--gigabytes", gigabytes], check=True)
            compare(folder, scratch)


if __name__ == "__main__":
    main()
