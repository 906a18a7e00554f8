"""What deriving costs, from 6,000 to 100,000 patients of about 200 events each; time per patient should stay flat.

    python tests/benchmarks/bench_derive.py [PATIENTS ...]
    python tests/benchmarks/bench_derive.py --truth [SITES PATIENTS]

Synthetic hospitals are generated, mapped and built, and their patients copied under new ids, with laboratory values until each has about
200 events. A scan of the measurement table in the same run is the baseline. With --truth: 37 hospitals with 6,000 patients, clean and
dirty, from FHIR to endpoints and eligibility, each line, endpoint, answer and step of the attrition held against the truth.
"""

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import duckdb

from omop_etl.derive import derive
from tests.derive_truth import differences, eligibility_differences, opened, run

TABLES = (
    "person", "condition_occurrence", "drug_exposure", "procedure_occurrence", "measurement", "observation",
    "visit_occurrence", "death",
)  # fmt: skip
IDS = ("person_id", "measurement_event_id", "observation_event_id", "visit_occurrence_id")
SCAN = "SELECT person_id, max(measurement_date), count(*) FROM main.measurement GROUP BY person_id"
EVENTS = 200
STEP = 2**53  # above every id of a slice


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor() -> float:
    """Processor seconds of this process so far: what a busy machine does not change."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def grow(seed: Path, path: Path, patients: int, concept: int = 0) -> tuple[int, int]:
    """A warehouse of so many patients from a smaller one; its patients and its events. What is added measures `concept`."""
    shutil.copyfile(seed, path)
    with duckdb.connect(str(path), config={"threads": 4, "memory_limit": "6GB"}) as connection:
        persons = connection.execute("SELECT count(*) FROM person").fetchall()[0][0]
        copies = -(-patients // persons) - 1
        for table in TABLES:
            columns = [
                row[0]
                for row in connection.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = 'main' AND table_name = ? "
                    "ORDER BY ordinal_position",
                    [table],
                ).fetchall()
            ]
            shifted = ", ".join(
                f"{name} + copy * {STEP} AS {name}" if name in IDS or name == f"{table}_id" else name
                for name in columns
            )
            connection.execute(f"INSERT INTO {table} SELECT {shifted} FROM {table}, range(1, {copies} + 1) AS r (copy)")
        connection.execute(
            f"INSERT INTO palmares.person_site SELECT person_id + copy * {STEP}, site "
            f"FROM palmares.person_site, range(1, {copies} + 1) AS r (copy)"
        )
        # everyone else has a token of their own, as at sites that compute them
        connection.execute(
            "INSERT INTO palmares.person_link "
            "SELECT person_id, md5(person_id::VARCHAR) FROM person ANTI JOIN palmares.person_link USING (person_id)"
        )
        # and every site came as a submission, whose hash stands for its rows
        connection.execute("DROP TABLE IF EXISTS palmares.submission")
        connection.execute(
            "CREATE TABLE palmares.submission AS SELECT DISTINCT site, md5(site) AS slice_sha256 FROM palmares.person_site"
        )
        rows = " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        held, people = connection.execute(f"SELECT {rows}, (SELECT count(*) FROM person)").fetchall()[0]
        more = max(0, EVENTS - held // people)
        connection.execute(
            f"""
            INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, value_as_number)
            SELECT row_number() OVER (), person_id, {concept}, DATE '2021-01-01' + CAST(n * 5 AS INTEGER), n
            FROM person, range({more}) AS r (n)
            """
        )
        return people, held + more * people


def main() -> None:
    sizes = [int(one) for one in sys.argv[1:]] or [6_000, 100_000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder / "seed", sites=4, patients=1_000, dirty=False)
        print(
            f"{'patients':>9} {'events':>12} {'scan s':>7} {'derive s':>9} {'of it swap s':>12} {'ms/patient':>10} {'peak MB':>8}"
        )
        for patients in sizes:
            path = folder / "warehouse.duckdb"
            people, events = grow(folder / "seed" / "warehouse.duckdb", path, patients)
            with duckdb.connect(str(path), read_only=True) as connection:
                scan = timed(lambda here=connection: here.execute(SCAN).fetchall())
            before = processor()
            seconds = timed(lambda path=path: derive(path, folder / "derived"))
            used = processor() - before
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{people:>9,} {events:>12,} {scan:>7.2f} {seconds:>9.1f} {used:>11.1f} "
                f"{used / people * 1e6:>10.0f} {peak:>8.0f}",
                flush=True,
            )


def truth() -> None:
    sites, patients = (int(one) for one in (sys.argv[2:] or ("37", "6000")))
    for dirty in (False, True):
        with tempfile.TemporaryDirectory() as name:
            seconds = timed(lambda name=name, dirty=dirty: run(Path(name), sites=sites, patients=patients, dirty=dirty))
            with opened(Path(name)) as connection:
                compared, spoiled, pairs = connection.execute(
                    "SELECT count(*) FILTER (told AND NOT spoiled), count(*) FILTER (spoiled), count(*) FILTER (NOT told) FROM who"
                ).fetchall()[0]
            found = {
                table: len(rows)
                for table, rows in (differences(Path(name)) | eligibility_differences(Path(name))).items()
            }
            print(
                f"{'dirty' if dirty else 'clean'}: {compared} patients compared ({spoiled} planted as wrong, {pairs} in pairs that "
                f"cannot be told), {seconds:.0f} s from FHIR; differences: {found}"
            )


if __name__ == "__main__":
    truth() if sys.argv[1:2] == ["--truth"] else main()
