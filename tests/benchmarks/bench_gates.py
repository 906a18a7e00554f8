"""What the gate, the warehouse and the report on quality cost.

    python tests/benchmarks/bench_gates.py                     37 sites of 6,000 patients, then 20 million measurements
    python tests/benchmarks/bench_gates.py sites [SITES PATIENTS]
    python tests/benchmarks/bench_gates.py rows [ROWS]

The baseline of both, in the same run, is `read`: DuckDB reads every column of the same Parquet files once (a hash of each
value). Bounds on 4 cores: 37 sites of 6,000 patients in less than 2 minutes; 20 million measurements in less than 1 minute
and 3 GB.
Each part runs in a process of its own, whose peak memory is that of it and its children.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omop_etl.cdm import ddl
from omop_etl.gates import GateJob, gate, gate_many
from omop_etl.reports.quality import report
from omop_etl.submission import receive, submit
from omop_etl.warehouse import build
from tests.slices import (
    EHR,
    HEMOGLOBIN,
    OUTPATIENT,
    PERCENT,
    clean_rows,
    ledger_of,
    write_ledger,
    write_slice,
    write_vocabulary,
)


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def peak_megabytes() -> int:
    """Of this process and the largest of its children."""
    both = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(both) // 1024


def read(slices: list[Path]) -> None:
    """Every column of every file, once."""
    with duckdb.connect(config={"memory_limit": "2GB"}) as connection:
        for folder in slices:
            for path in folder.glob("*.parquet"):
                connection.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM read_parquet('{path}')").fetchall()


def many_sites(home: Path, sites: int, patients: int) -> dict[str, float]:
    vocabulary = write_vocabulary(home / "vocabulary")
    names = [f"site{number:02}" for number in range(1, sites + 1)]
    share = max(1, patients // sites)
    slices = [write_slice(home / name, clean_rows(name, persons=share), site=name) for name in names]
    jobs = [GateJob(home / name, home / f"{name}-gate", name, vocabulary) for name in names]
    answers: list[object] = []
    times = {"read": seconds(lambda: read(slices)), "gate": seconds(lambda: answers.extend(gate_many(jobs)))}
    verdicts = {getattr(answer, "verdict", "refused") for answer in answers}
    assert verdicts == {"PASS"}, verdicts
    submissions = [home / f"{name}-submission" for name in names]
    times["submit"] = seconds(
        lambda: [submit(job.slice_, job.out, out) for job, out in zip(jobs, submissions, strict=True)]
    )
    times["receive"] = seconds(lambda: [receive(one, home / "intake") for one in submissions])
    taken = sorted((home / "intake").iterdir())
    warehouse = home / "warehouse.duckdb"
    times["build"] = seconds(lambda: build(taken, warehouse, vocabulary=vocabulary))
    times["quality"] = seconds(lambda: report(home / "intake", home / "quality", warehouse=warehouse))
    return times


def grown_slice(home: Path, rows: int) -> Path:
    """A slice of one site with `rows` measurements, a visit for every tenth, and 2,000 persons."""
    site = "prova"
    tiny = clean_rows(site, persons=2_000)
    slice_ = write_slice(home / "slice", tiny, site=site)
    counts: dict[str, int] = {}
    with duckdb.connect(config={"memory_limit": "3GB", "preserve_insertion_order": False}) as connection:
        for statement in ddl("duckdb", ["visit_occurrence", "measurement"], keys=False):
            connection.execute(statement)
        people = f"(SELECT list(person_id) FROM '{slice_}/person.parquet')"
        connection.execute(f"""
            INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, visit_start_date, visit_end_date,
                                          visit_type_concept_id, visit_source_value)
            SELECT i + 1, {people}[1 + i % 2000], {OUTPATIENT}, DATE '2020-01-01' + (i // 2000 % 1500)::INTEGER,
                   DATE '2020-01-01' + (i // 2000 % 1500)::INTEGER, {EHR}, 'AMB' || i
            FROM range({rows // 10}) AS r (i)""")
        connection.execute(f"""
            INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, measurement_datetime,
                                     measurement_type_concept_id, value_as_number, unit_concept_id, visit_occurrence_id,
                                     measurement_source_value, unit_source_value, value_source_value)
            SELECT (i * 7919) % 9007199254740881 + 1, {people}[1 + (i // 10) % 2000], {HEMOGLOBIN},
                   DATE '2020-01-01' + (i // 20000 % 1500)::INTEGER,
                   TIMESTAMP '2020-01-01 08:00:00' + to_days((i // 20000 % 1500)::INTEGER) + to_minutes(i % 10),
                   {EHR}, 8 + i % 1000 / 100, {PERCENT},
                   i // 10 + 1, '718-7', 'g/dL', (8 + i % 1000 / 100)::VARCHAR
            FROM range({rows}) AS r (i)""")
        for name in ("visit_occurrence", "measurement"):
            path = slice_ / f"{name}.parquet"
            connection.execute(f"INSERT INTO {name} FROM '{path}'")
            connection.execute(f"COPY {name} TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            counts[name] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    ledger = [line for line in ledger_of(tiny) if line["cdm_table"] not in counts]
    ledger += [ledger[0] | {"resource_id": name, "cdm_table": name, "row_count": n} for name, n in counts.items()]
    write_ledger(slice_, ledger)
    manifest = json.loads((slice_ / "manifest.json").read_text())
    manifest["tables"] |= counts
    (slice_ / "manifest.json").write_text(json.dumps(manifest))
    return slice_


def many_rows(home: Path, rows: int) -> dict[str, float]:
    vocabulary = write_vocabulary(home / "vocabulary")
    # made in a process of its own, so that the peak is the gate's
    subprocess.run([sys.executable, __file__, "make", str(home), str(rows)], check=True)
    slice_ = home / "slice"
    times = {"read": seconds(lambda: read([slice_]))}
    times["import"] = seconds(lambda: __import__("omop_etl.gates.validation"))
    verdicts = []
    times["gate"] = seconds(lambda: verdicts.append(gate(slice_, home / "gate", site="prova", vocabulary=vocabulary)))
    assert verdicts[0].verdict in ("PASS", "WARN"), verdicts[0].messages
    print(f"gate of {rows:,} measurements; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
    times["submit"] = seconds(lambda: submit(slice_, home / "gate", home / "submission"))
    times["build"] = seconds(lambda: build([slice_], home / "warehouse.duckdb", vocabulary=vocabulary))
    return times


def main() -> None:
    words = sys.argv[1:]
    if not words:
        for part in ("sites", "rows"):
            subprocess.run([sys.executable, __file__, part], check=True)
        return
    if words[0] == "make":
        grown_slice(Path(words[1]), int(words[2]))
        return
    numbers = [int(word) for word in words[1:]]
    with tempfile.TemporaryDirectory() as folder:
        if words[0] == "sites":
            sites, patients = numbers or (37, 6_000)
            title, times = f"{sites} sites, {patients} patients", many_sites(Path(folder), sites, patients)
        else:
            rows = numbers[0] if numbers else 20_000_000
            title, times = f"{rows:,} measurements", many_rows(Path(folder), rows)
    print(f"{title}; peak {peak_megabytes()} MB")
    for name, taken in times.items():
        print(f"  {name:8} {taken:7.1f} s   {taken / times['read']:6.1f} x read")


if __name__ == "__main__":
    main()
