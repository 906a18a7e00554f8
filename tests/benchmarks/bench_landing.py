"""What landing costs: orjson parsing the same mixed NDJSON in as many processes is the baseline, in the same run.

    python tests/benchmarks/bench_landing.py [MEGABYTES]

Prints seconds, megabytes a second and the ratio (landing / parsing), and the peak memory of one process; then the careful
lane and validation.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import orjson

from fhir_adapters.landing import land
from fhir_adapters.landing.careful import explain_shard
from fhir_adapters.processes import processors
from fhir_adapters.validation import validate

GENERATOR = Path(__file__).with_name("synthea_shaped.py")
COLUMNS = {
    "resourceType": "VARCHAR",
    "id": "VARCHAR",
    "status": "VARCHAR",
    "category": 'STRUCT(coding STRUCT("system" VARCHAR, code VARCHAR)[])[]',
    "code": 'STRUCT(coding STRUCT("system" VARCHAR, code VARCHAR, display VARCHAR)[], "text" VARCHAR)',
    "subject": "STRUCT(reference VARCHAR)",
    "encounter": "STRUCT(reference VARCHAR)",
    "effectiveDateTime": "VARCHAR",
    "valueQuantity": 'STRUCT("value" VARCHAR, unit VARCHAR, "system" VARCHAR, code VARCHAR)',
}


def parse(piece: tuple[str, int, int]) -> int:
    """Parse the lines that begin in a range of bytes."""
    path, start, end = piece
    count = 0
    with Path(path).open("rb") as stream:
        stream.seek(start)
        if start:
            stream.readline()
        while stream.tell() < end and (line := stream.readline()):
            orjson.loads(line)
            count += 1
    return count


def parse_all(path: Path, jobs: int) -> int:
    size = path.stat().st_size
    step = -(-size // (jobs * 4))
    pieces = [(str(path), start, min(start + step, size)) for start in range(0, size, step)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(parse, pieces))


def peak_memory(folder: Path) -> float:
    """MB of a fresh process that lands the folder alone."""
    script = (
        "import re, sys; from pathlib import Path; from fhir_adapters.landing import land\n"
        "land([Path(sys.argv[1], 'in')], Path(sys.argv[1], 'alone'), jobs=1)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def best(work: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 200.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, str(GENERATOR), str(folder / "in"), "--gigabytes", str(megabytes / 1000), "--mixed"],
            check=True,
        )
        (path,) = (folder / "in").glob("*.ndjson")
        size = path.stat().st_size / 1e6
        for jobs in (1, processors()):
            parsing = best(lambda jobs=jobs: parse_all(path, jobs))
            landing = best(lambda jobs=jobs: land([folder / "in"], folder / "landed", jobs=jobs))
            print(f"{jobs} processes, {size:.0f} MB mixed NDJSON")
            print(f"  orjson parse (baseline)  {parsing:6.2f} s  {size / parsing:6.0f} MB/s")
            print(
                f"  land                     {landing:6.2f} s  {size / landing:6.0f} MB/s  ratio {landing / parsing:.2f}"
            )
        print(f"  peak memory, 1 process   {peak_memory(folder):6.0f} MB")
        referred = best(lambda: land([folder / "landed" / "Observation"], folder / "referred", by_reference=True))
        print(f"  land by reference        {referred:6.2f} s")

        shard = max((folder / "landed" / "Observation").iterdir(), key=lambda one: one.stat().st_size)
        lines = shard.read_bytes().count(b"\n")
        careful = best(lambda: explain_shard(shard, COLUMNS, folder / "good", resource_type="Observation"))
        print(f"careful lane, one process: {lines / careful:,.0f} lines/s")
        begun = time.perf_counter()
        checked = validate(folder / "landed", folder / "accepted", verdicts=folder / "verdicts")
        seconds = time.perf_counter() - begun
        print(f"validation, {processors()} processes: {checked.looked_at / seconds:,.0f} resources/s")
        again = best(lambda: validate(folder / "landed", folder / "accepted", verdicts=folder / "verdicts"), 1)
        print(f"validation again, all remembered: {again:.2f} s")


if __name__ == "__main__":
    main()
