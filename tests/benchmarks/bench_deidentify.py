"""What de-identification costs: the same NDJSON parsed and written again by orjson, in as many processes, is the baseline.

    python tests/benchmarks/bench_deidentify.py [MEGABYTES]

Prints seconds, resources and megabytes a second, the ratio (extraction / parse and write) and the ratio to fhir.resources' own walk over
a sample of the same lines, on one core and on all. Then phi-check: megabytes a second with 100,000 known identifiers.
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

from fhir_adapters.base import open_source
from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.processes import processors
from fhir_adapters.pseudonyms import SiteKey
from omop_etl.onboarding import Known, phi_check

GENERATOR = Path(__file__).with_name("synthea_shaped.py")
KEY = SiteKey(bytes(range(32)))


def copied(piece: tuple[str, int, int]) -> int:
    """Parse and write the lines that begin in a range of bytes."""
    path, start, end = piece
    count = 0
    with Path(path).open("rb") as stream, Path(f"{path}.{start}.copy").open("wb") as sink:
        stream.seek(start)
        if start:
            stream.readline()
        while stream.tell() < end and (line := stream.readline()):
            sink.write(orjson.dumps(orjson.loads(line)) + b"\n")
            count += 1
    Path(f"{path}.{start}.copy").unlink()
    return count


def copy_all(path: Path, jobs: int) -> int:
    size = path.stat().st_size
    step = -(-size // (jobs * 4))
    pieces = [(str(path), start, min(start + step, size)) for start in range(0, size, step)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(copied, pieces))


def timed(work: Callable[[], object], times: int = 3) -> float:
    """The best of some runs, in seconds."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found)


def model_walk(lines: list[bytes]) -> float:
    """Resources a second of fhir.resources: parse, model, write."""
    from fhir.resources.R4B import get_fhir_model_class

    begun = time.perf_counter()
    for line in lines:
        resource = orjson.loads(line)
        get_fhir_model_class(resource["resourceType"]).model_validate(resource).model_dump_json()
    return len(lines) / (time.perf_counter() - begun)


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    jobs = processors()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, str(GENERATOR), str(folder / "in"), "--gigabytes", str(megabytes / 1000), "--mixed"],
            check=True,
            capture_output=True,
        )
        (path,) = sorted((folder / "in").rglob("*.ndjson"))
        size = path.stat().st_size / 1e6
        with path.open("rb") as stream:
            lines = [line for _, line in zip(range(20_000), stream, strict=False)]
        count = copy_all(path, jobs)

        one = Deidentifier(KEY)
        alone = timed(lambda: [orjson.dumps(one.resource(orjson.loads(line))) for line in lines])
        plain = timed(lambda: [orjson.dumps(orjson.loads(line)) for line in lines])
        print(
            f"one core, in memory   {len(lines) / alone:9,.0f} resources/s   {alone / plain:4.1f} times parse and write"
        )
        modelled = model_walk(lines[:2000])
        print(
            f"fhir.resources        {modelled:9,.0f} resources/s   {len(lines) / alone / modelled:4.0f} times slower than ours"
        )

        source = open_source({"kind": "fhir_files", "path": str(path)}, folder=folder, key=KEY)
        ours = timed(lambda: source.extract(folder / "out"))
        base = timed(lambda: copy_all(path, jobs))
        print(f"{jobs} processes          {count / ours:9,.0f} resources/s   {size / ours:5.0f} MB/s of {size:.0f} MB")
        print(f"parse and write       {count / base:9,.0f} resources/s   ours takes {ours / base:.1f} times as long")

        known = [Known("name", f"Cognome{number} Nome{number}") for number in range(50_000)]
        known += [Known("record-number", f"MRN{number:08d}") for number in range(50_000)]
        begun = time.perf_counter()
        found = phi_check([folder / "out"], known)
        seconds = time.perf_counter() - begun
        rate = found.bytes / 1e6 / seconds
        print(
            f"phi-check             {rate:5.1f} MB/s, {found.identifiers:,} identifiers, {len(found.findings)} findings"
        )


if __name__ == "__main__":
    main()
