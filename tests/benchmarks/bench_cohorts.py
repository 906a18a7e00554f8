"""What a cohort and its release cost, from 6,000 to 100,000 patients; time per patient should stay flat.

    python tests/benchmarks/bench_cohorts.py [PATIENTS ...]

The registry of the tests is copied under new ids, with laboratory values until each patient has about 200 events. A scan of the
measurement table in the same run is the baseline.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omop_etl.cohorts import run
from omop_etl.publish import release
from omop_etl.study.reading import open_warehouse
from tests.cohort_helpers import registry
from tests.warehouses import connect

IDS = {
    "person": ("person_id",),
    "condition_occurrence": ("condition_occurrence_id", "person_id"),
    "drug_exposure": ("drug_exposure_id", "person_id"),
    "measurement": ("measurement_id", "person_id", "measurement_event_id"),
    "observation": ("observation_id", "person_id"),
    "visit_occurrence": ("visit_occurrence_id", "person_id"),
    "death": ("person_id",),
    "palmares.person_site": ("person_id",),
}
STEP = 1_000_000  # above every id of the registry
LABORATORY = 180
SCAN = "SELECT person_id, max(measurement_date), count(*) FROM measurement GROUP BY person_id"


def grow(path: Path, patients: int) -> int:
    """A warehouse of at least so many patients; the rows of its measurement table."""
    with connect(registry(), path) as connection:
        connection.execute("SET threads = 4")
        copies = -(-patients // 60) - 1
        for table, ids in IDS.items():
            shifted = ", ".join(f"{name} + copy * {STEP} AS {name}" for name in ids)
            copied = f"SELECT * EXCLUDE (copy) REPLACE ({shifted}) FROM {table}, range(1, {copies} + 1) AS r (copy)"
            connection.execute(f"INSERT INTO {table} {copied}")
        # everyone else has a token of their own, as at sites that compute them
        connection.execute(
            "INSERT INTO palmares.person_link "
            "SELECT person_id, md5(person_id::VARCHAR) FROM person ANTI JOIN palmares.person_link USING (person_id)"
        )
        # and every site came as a submission, whose hash stands for its rows
        connection.execute(
            "CREATE TABLE palmares.submission AS SELECT DISTINCT site, md5(site) AS slice_sha256 FROM palmares.person_site"
        )
        connection.execute(
            f"""
            INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, value_as_number)
            SELECT {STEP * STEP} + row_number() OVER (), person_id, 0, DATE '2021-01-01' + CAST(n * 5 AS INTEGER), n
            FROM person, range({LABORATORY}) AS r (n)
            """
        )
        return connection.execute("SELECT count(*) FROM measurement").fetchall()[0][0]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    sizes = [int(one) for one in sys.argv[1:]] or [6_000, 100_000]
    print(
        f"{'patients':>10} {'rows':>12} {'scan s':>8} {'cohort s':>9} {'release s':>9} {'ms/patient':>10} {'peak MB':>8}"
    )
    for patients in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "warehouse.duckdb"
            rows = grow(path, patients)
            with open_warehouse(path) as connection:
                scan = timed(lambda here=connection: here.execute(SCAN).fetchall())
            cohort = timed(lambda path=path: run(path, path.parent / "cohort"))
            released = timed(lambda path=path: release(path, path.parent / "cohort", path.parent / "release"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{patients:>10,} {rows:>12,} {scan:>8.2f} {cohort:>9.1f} {released:>9.1f} "
            f"{(cohort + released) / patients * 1000:>10.2f} {peak:>8.0f}"
        )


if __name__ == "__main__":
    main()
