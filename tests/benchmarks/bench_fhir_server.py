"""Whether a FHIR server's pages are landed as fast as they arrive.

    python tests/benchmarks/bench_fhir_server.py [PATIENTS]

The baseline, in the same run, is `fetch`: the same pages by the same library, as many at a time, thrown away as they come. What the
extraction takes longer than that is what it costs itself: de-identification, the spool, the counts, the extraction folder.

    search     Medplum's router and store answer each search as it comes, as an EHR's server does
    prepared   the same server sends pages that it has ready, far faster than any EHR: where the extraction's own limit lies

A profile stands beside each: processor time of the extraction as a share of its duration. Below 100 % it waits for the server.
Needs node and the test server's packages (npm ci --prefix tests/servers/medplum).
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fhir_adapters.base import open_source
from fhir_adapters.landing import land
from tests.servers.medplum_server import Server, medplum
from tests.web_helpers import KEY, TYPES, ZONE, records

PAGE, PARALLEL, ROUNDS = 250, 4, 3


def fetch(server: Server) -> int:
    """Every page of every type, thrown away; returns the resources."""

    def one(kind: str) -> int:
        count, url = 0, f"{server.url}/{kind}?_count={PAGE}"
        with httpx.Client(timeout=120) as client:
            while url:
                bundle = client.get(url).json()
                count += len(bundle["entry"])
                url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
        return count

    with ThreadPoolExecutor(PARALLEL) as workers:
        return sum(workers.map(one, TYPES))


def extract(server: Server, out: Path) -> int:
    settings = {"kind": "fhir_server", "url": server.url, "page": PAGE, "parallel": PARALLEL, "types": list(TYPES)}
    source = open_source(settings, folder=out.parent, key=KEY, time_zone=ZONE)
    return sum(source.extract(out).resources.values())


def measure(name: str, server: Server, folder: Path) -> None:
    fetched, extracted, shares = [], [], []
    fetch(server)
    resources = 0
    for number in range(ROUNDS):
        started = time.monotonic()
        resources = fetch(server)
        fetched.append(time.monotonic() - started)
        started, worked = time.monotonic(), time.process_time()
        assert extract(server, folder / f"{name}-{number}") == resources
        extracted.append(time.monotonic() - started)
        shares.append((time.process_time() - worked) / extracted[-1])
    started = time.monotonic()
    land([folder / f"{name}-0"], folder / f"{name}-landed")
    landed = time.monotonic() - started
    best, own = min(fetched), min(extracted)
    print(
        f"{name:9} {resources} resources: fetch {best:.2f} s ({resources / best:,.0f}/s), extract {own:.2f} s ({resources / own:,.0f}/s), "
        f"ratio {own / best:.2f}, processor {min(shares):.0%} of the time; land {landed:.2f} s ({resources / landed:,.0f}/s)"
    )


def main() -> None:
    patients = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as name:
        for kind, options, many in (
            ("search", {"cache": False}, patients),
            ("prepared", {"prepared": True}, 5 * patients),
        ):
            with medplum(**options) as server:
                server.load(records(many, each=12))
                measure(kind, server, Path(name))


if __name__ == "__main__":
    main()
