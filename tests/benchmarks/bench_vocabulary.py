"""Loading an Athena download and resolving codes against it, beside plain DuckDB `read_csv` of the same files.

    python tests/benchmarks/bench_vocabulary.py [CONCEPTS] [CODES]      default: 1,000,000 concepts, 100,000 codes

Each step runs in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omop_etl.vocabulary import attach, load, open_vocabulary

SYSTEMS = "['SNOMED', 'RxNorm', 'LOINC', 'ICD10', 'NDC', 'ICD10CM', 'HCPCS', 'CVX']"
ADDRESS = "http://snomed.info/sct"


def generate(folder: Path, concepts: int) -> None:
    """An Athena folder: `concepts` rows, about five relationships and eight ancestors for each."""
    connection = _connect()
    options = "(FORMAT csv, DELIMITER '\t', QUOTE '', ESCAPE '', HEADER)"
    dates = "19700101 AS valid_start_date, 20991231 AS valid_end_date"

    def copy(name: str, query: str) -> None:
        connection.execute(f"COPY ({query}) TO '{folder / name}.csv' {options}")

    copy(
        "CONCEPT",
        f"""SELECT i AS concept_id, 'Disorder of structure "' || md5(i::VARCHAR) || ' and of its region' AS concept_name,
        'Condition' AS domain_id, {SYSTEMS}[1 + i % 8] AS vocabulary_id, 'Clinical Finding' AS concept_class_id,
        CASE WHEN i % 3 < 2 THEN 'S' END AS standard_concept, (i * 7919 % 1000000007)::VARCHAR AS concept_code,
        {dates}, NULL AS invalid_reason FROM range(1, {concepts} + 1) t(i)""",
    )
    copy(
        "CONCEPT_RELATIONSHIP",
        f"""SELECT i AS concept_id_1, CASE k WHEN 0 THEN i - i % 3 + 1 ELSE 1 + (i * 31 * k) % {concepts} END AS concept_id_2,
        ['Maps to', 'Mapped from', 'Is a', 'Subsumes', 'Has finding site'][k + 1] AS relationship_id,
        {dates}, NULL AS invalid_reason FROM range(1, {concepts} + 1) t(i), range(5) s(k)""",
    )
    copy(
        "CONCEPT_ANCESTOR",
        f"""SELECT 1 + i // (k + 1) AS ancestor_concept_id, i AS descendant_concept_id, k AS min_levels_of_separation,
        k AS max_levels_of_separation FROM range(1, {concepts} + 1) t(i), range(8) s(k)""",
    )
    copy("VOCABULARY", "SELECT 'None' AS vocabulary_id, 'x' AS vocabulary_name, 'x' AS vocabulary_reference, "
         "'v-bench' AS vocabulary_version, 0 AS vocabulary_concept_id")  # fmt: skip


def baseline(folder: Path) -> None:
    """Plain DuckDB: read each file once, sniffed, into nothing."""
    connection = _connect()
    for path in sorted(folder.glob("*.csv")):
        connection.execute(
            f"SELECT count(*), max(COLUMNS(*)) FROM read_csv('{path}', delim='\t', quote='', escape='', header=true)"
        ).fetchall()


def _used(connection: duckdb.DuckDBPyConnection, codes: int, concepts: int) -> None:
    """Codes spread over the whole vocabulary, one in ten unknown."""
    connection.execute(
        f"CREATE TABLE used AS SELECT DISTINCT '{ADDRESS}' AS system, CASE WHEN i % 10 = 0 THEN 'x' || i::VARCHAR "
        f"ELSE ((8 * (i * 104729 % {concepts // 8})) * 7919 % 1000000007)::VARCHAR END AS code FROM range({codes}) t(i)"
    )


def resolve_loaded(folder: Path, codes: int, concepts: int) -> None:
    """What a mapping run does once: open the loaded vocabulary and answer all its codes."""
    connection = _connect()
    _used(connection, codes, concepts)
    attach(connection, open_vocabulary(folder), codes_used="used")
    mapped = connection.execute("SELECT avg((reason IS NULL)::INT) FROM code_concept").fetchall()[0][0]
    assert 0.3 < mapped < 1, mapped


def resolve_csv(folder: Path, codes: int, concepts: int) -> None:
    """Plain DuckDB: the two joins on the CSV files, without maps, forms, reasons or order."""
    connection = _connect()
    _used(connection, codes, concepts)
    csv = "read_csv('{}', delim='\t', quote='', escape='', header=true, all_varchar=true)"
    concept, relationship = csv.format(folder / "CONCEPT.csv"), csv.format(folder / "CONCEPT_RELATIONSHIP.csv")
    connection.execute(
        f"SELECT count(*) FROM used u JOIN {concept} c ON c.concept_code = u.code AND c.vocabulary_id = 'SNOMED' "
        f"JOIN {relationship} r ON r.concept_id_1 = c.concept_id AND r.relationship_id = 'Maps to' "
        f"JOIN {concept} t ON t.concept_id = r.concept_id_2 AND t.standard_concept = 'S'"
    ).fetchall()


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    return connection


def _timed(function, arguments, answers) -> None:
    started = time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - started
    answers.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(function, *arguments) -> tuple[float, float]:
    """Seconds and peak MB of a call in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_timed, args=(function, arguments, answers))
    process.start()
    process.join()
    assert process.exitcode == 0, function.__name__
    return answers.get()


def run(concepts: int = 1_000_000, codes: int = 100_000) -> dict[str, tuple[float, float]]:
    """Every step with its seconds and peak MB, printed beside its baseline."""
    with tempfile.TemporaryDirectory(prefix="bench-vocabulary-") as name:
        root = Path(name)
        athena = root / "athena"
        athena.mkdir()
        generate(athena, concepts)
        size = sum(path.stat().st_size for path in athena.iterdir()) / 2**20
        print(f"\n{concepts:,} concepts, {size:,.0f} MB of CSV, {codes:,} codes")
        found = {
            "DuckDB read_csv (baseline of load)": measure(baseline, athena),
            "load": measure(load, athena, root / "loaded"),
            "DuckDB joins on CSV (baseline of resolve)": measure(resolve_csv, athena, codes, concepts),
            "resolve": measure(resolve_loaded, root / "loaded", codes, concepts),
            "resolve 1,000 codes": measure(resolve_loaded, root / "loaded", 1_000, concepts),
        }
        packed = sum(path.stat().st_size for path in (root / "loaded").iterdir()) / 2**20
    for step, (seconds, peak) in found.items():
        print(f"  {step:<44}{seconds:8.2f} s {peak:8.0f} MB")
    names = list(found)
    print(f"  load / baseline {found['load'][0] / found[names[0]][0]:.2f}", end=", ")
    print(f"resolve / baseline {found['resolve'][0] / found[names[2]][0]:.2f}, Parquet {packed:,.0f} MB")
    return found


def test_memory_of_loading_and_speed_of_resolving() -> None:
    """Loading is bounded in memory; a run's codes are answered faster than by joining the CSV files."""
    found = run()
    assert found["load"][1] < 1500
    assert found["resolve"][0] < found["DuckDB joins on CSV (baseline of resolve)"][0] * 1.5


if __name__ == "__main__":
    run(*(int(word.replace(",", "")) for word in sys.argv[1:]))
