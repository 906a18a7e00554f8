"""Slices become a warehouse: everything in them, nothing half, the same content each time."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.cdm import duckdb_columns, tables
from omop_etl.gates import Verdict
from omop_etl.submission import receive, submit
from omop_etl.warehouse import build, summary
from tests.slices import FILLED, clean_rows, write_slice

SITES = ("altra", "prova", "terza")
PALMARES = {"submission", "site_verdict", "ledger_summary", "table_rows", "person_site", "person_link", "unmapped"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("three")
    return [write_slice(home / site, clean_rows(site, persons=at + 1), site=site) for at, site in enumerate(SITES)]


def dump(warehouse: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table of every schema with its rows in their order."""
    with duckdb.connect(str(warehouse), read_only=True) as reader:
        names = reader.execute("SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL").fetchall()
        return {f"{schema}.{name}": reader.execute(f'FROM "{schema}"."{name}"').fetchall() for schema, name in names}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".") or path.suffix == ".wal"]


def test_all_tables_of_the_cdm_and_all_rows(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    done = build(three, tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    assert done.sites == list(SITES)
    assert done.persons == 6
    assert done.bytes == (tmp_path / "warehouse.duckdb").stat().st_size
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as reader:
        for name in tables():
            described = reader.execute(f'DESCRIBE main."{name}"').fetchall()
            assert {row[0]: row[1] for row in described} == duckdb_columns(name)
        for name in FILLED:
            listed = ", ".join(f"'{folder / name}.parquet'" for folder in three)
            there = reader.execute(f'FROM main."{name}" ORDER BY ALL').fetchall()
            assert there == duckdb.sql(f"FROM read_parquet([{listed}]) ORDER BY ALL").fetchall()
            assert done.tables.get(name, 0) == len(there)
        found = reader.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'palmares'"
        ).fetchall()
        assert {row[0] for row in found} == PALMARES
        per_site = reader.execute(
            "SELECT site, count(*) FROM palmares.person_site GROUP BY site ORDER BY site"
        ).fetchall()
        assert per_site == [("altra", 1), ("prova", 2), ("terza", 3)]
        assert reader.execute("SELECT count(DISTINCT linkage_token) FROM palmares.person_link").fetchone() == (6,)
        assert reader.execute("SELECT count(*) FROM cdm_source").fetchone() == (3,)
        balance = reader.execute("""
            SELECT count(*) FROM (SELECT site, cdm_table, sum(row_count) AS n FROM palmares.ledger_summary
                                  WHERE outcome = 'written' GROUP BY ALL)
            JOIN palmares.table_rows t USING (site, cdm_table) WHERE n <> t.row_count""").fetchone()
        assert balance == (0,)
        assert reader.execute("SELECT site, source_code, records FROM palmares.unmapped ORDER BY site").fetchall() == [
            (site, "29593-1", 4) for site in SITES
        ]
    assert leftovers(tmp_path) == []


def test_the_vocabulary_tables(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    build(three, tmp_path / "used.duckdb", vocabulary=vocabulary)
    build(three, tmp_path / "starter.duckdb")
    with duckdb.connect(str(tmp_path / "used.duckdb"), read_only=True) as reader:
        used = {row[0] for row in reader.execute("SELECT concept_id FROM concept").fetchall()}
        assert {36203168, 40492507, 8532, 0} <= used
        assert 1592911 not in used, "ribociclib is in the vocabulary, and no one took it"
    with duckdb.connect(str(tmp_path / "starter.duckdb"), read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM concept WHERE concept_id = 1592911").fetchone() == (1,)


def test_the_same_content_each_time_and_in_any_order(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    build(three, tmp_path / "one.duckdb", vocabulary=vocabulary)
    build(three[::-1], tmp_path / "two.duckdb", vocabulary=vocabulary)
    assert dump(tmp_path / "one.duckdb") == dump(tmp_path / "two.duckdb")


def test_submissions_bring_their_verdict(gated: tuple[Path, Path, Verdict], three: list[Path], tmp_path: Path) -> None:
    submit(gated[0], gated[1], tmp_path / "submission")
    receipt = receive(tmp_path / "submission", tmp_path / "intake")
    done = build([three[0], tmp_path / "intake" / "prova"], tmp_path / "warehouse.duckdb")
    assert done.submissions == {"prova": receipt.number}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as reader:
        line = reader.execute(
            "SELECT site, number, verdict, slice_sha256, extracted_to::VARCHAR FROM palmares.submission"
        ).fetchall()
        assert line == [("prova", receipt.number, "PASS", gated[2].slice_sha256, "2024-12-31")]
        checks = reader.execute(
            "SELECT count(*), count(DISTINCT code), min(verdict) FROM palmares.site_verdict"
        ).fetchone()
        assert checks == (sum(gated[2].counts.values()),) * 2 + ("PASS",)
    lines = {one.site: one for one in summary(tmp_path / "warehouse.duckdb")}
    assert (lines["altra"].verdict, lines["altra"].number) == (None, None)
    assert (lines["prova"].verdict, lines["prova"].number) == ("PASS", receipt.number)


def test_the_summary(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    build(three, tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    lines = summary(tmp_path / "warehouse.duckdb")
    assert [(line.site, line.persons) for line in lines] == [("altra", 1), ("prova", 2), ("terza", 3)]
    assert lines[1].tables["measurement"] == 2 * 28
    assert lines[1].rows == sum(lines[1].tables.values())
    assert (lines[0].unmapped_records, lines[0].quarantined) == (4, 0)


@pytest.mark.parametrize("what", ["missing", "a word", "another database"])
def test_no_warehouse(what: str, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    if what == "a word":
        path.write_text("warehouse")
    if what == "another database":
        duckdb.connect(str(path)).close()
    with pytest.raises(PalmaresError, match="E-WAREHOUSE-01"):
        summary(path)


# ------------------------------------------------------------------ what is refused, with nothing changed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def without_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["person_id"]), path)


def of_another_type(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.column_names[0], table[0].cast(pa.string())), path)


def damaged_pages(path: Path) -> None:
    whole = path.read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:4] + b"\xff" * (pages - 4) + whole[pages:])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (cut, "E-SLICE-02"),
        (without_a_column, "E-SLICE-03"),
        (of_another_type, "E-SLICE-03"),
        (damaged_pages, "E-SLICE-02"),
    ],
)
@pytest.mark.parametrize("name", ["measurement.parquet", "side/person_link.parquet"])
def test_a_bad_slice_is_named_and_nothing_changes(
    change: Callable[[Path], None], code: str, name: str, three: list[Path], vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "warehouse.duckdb"
    build(three[:1], out, vocabulary=vocabulary)
    before = out.read_bytes()
    bad = Path(shutil.copytree(three[1], tmp_path / "bad"))
    change(bad / name)
    with pytest.raises(PalmaresError, match=Path(name).stem) as raised:
        build([three[0], bad], out, vocabulary=vocabulary)
    assert raised.value.code == code
    assert str(bad) in str(raised.value)
    assert out.read_bytes() == before
    assert leftovers(tmp_path) == []


def test_unmapped_that_does_not_read(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(three[0], tmp_path / "bad"))
    (bad / "unmapped.csv").write_text("site,records\nprova,Rossi\n")
    with pytest.raises(PalmaresError, match=r"E-SLICE-02 .*unmapped.csv") as raised:
        build([bad], tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    assert "Rossi" not in str(raised.value)
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_no_manifest(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-SLICE-01"):
        build([tmp_path], tmp_path / "warehouse.duckdb")


def test_a_site_twice_and_no_site(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-BUILD-02 prova"):
        build([three[1], three[0], three[1]], tmp_path / "warehouse.duckdb")
    with pytest.raises(PalmaresError, match="E-BUILD-03"):
        build([], tmp_path / "warehouse.duckdb")


@pytest.mark.parametrize("table", ["person", "measurement", "condition_occurrence"])
def test_ids_of_two_sites_that_collide(table: str, three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    rows = clean_rows("altra", persons=1)
    key = tables()[table].primary_key
    assert key
    rows[table][0][key] = pq.read_table(three[1] / f"{table}.parquet")[key][0].as_py()
    collides = write_slice(tmp_path / "collides", rows, site="altra")
    with pytest.raises(PalmaresError, match=f"E-BUILD-01 {table}") as raised:
        build([collides, three[1], three[2]], tmp_path / "warehouse.duckdb", vocabulary=vocabulary)
    assert (raised.value.exit_code, raised.value.count) == (Exit.BALANCE, 1)
    assert "in the rows of altra, prova" in str(raised.value)
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_a_key_without_a_value(vocabulary: Path, tmp_path: Path) -> None:
    rows = clean_rows()
    rows["measurement"][0]["measurement_id"] = None
    with pytest.raises(PalmaresError, match="E-BUILD-01 measurement"):
        build([write_slice(tmp_path / "slice", rows)], tmp_path / "warehouse.duckdb", vocabulary=vocabulary)


def test_a_place_that_cannot_be_written(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.duckdb").mkdir()
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "folder.duckdb", tmp_path / "file" / "warehouse.duckdb"):
        with pytest.raises(PalmaresError, match="E-DISK-02"):
            build(three[:1], out, vocabulary=vocabulary)
    assert leftovers(tmp_path) == []


# ------------------------------------------------------------------ readers, logs, and death at any moment


def test_who_reads_the_old_file_goes_on_reading_it(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    out = tmp_path / "warehouse.duckdb"
    build(three[:1], out, vocabulary=vocabulary)
    code = (
        "import duckdb, sys\n"
        "reader = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(reader.sql('SELECT count(*) FROM person').fetchone()[0], flush=True)\n"
        "sys.stdin.readline()\n"
        "print(*reader.sql('SELECT (SELECT count(*) FROM person), count(*) FROM measurement').fetchone())\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "1\n"
    build(three, out, vocabulary=vocabulary)
    answer, _ = reader.communicate("\n", timeout=60)
    assert answer == "1 28\n"
    assert [line.persons for line in summary(out)] == [1, 2, 3]


def test_a_log_beside_the_old_file_is_not_replayed_into_the_new_one(
    three: list[Path], vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "warehouse.duckdb"
    build(three[:1], out, vocabulary=vocabulary)
    code = (
        "import duckdb, os, sys\n"
        "writer = duckdb.connect(sys.argv[1])\n"
        "writer.sql(\"SET checkpoint_threshold = '1GB'\")\n"
        "writer.sql('DELETE FROM person')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    assert out.with_name("warehouse.duckdb.wal").exists()
    build(three, out, vocabulary=vocabulary)
    assert [line.persons for line in summary(out)] == [1, 2, 3]
    assert leftovers(tmp_path) == []


BUILD = """
import sys
from pathlib import Path
from omop_etl.warehouse import build
steps = []
def progress(step):
    steps.append(step)
    if len(steps) == int(sys.argv[3]):
        print("here", flush=True)
        sys.stdin.readline()
build([Path(p) for p in sys.argv[4:]], Path(sys.argv[1]), vocabulary=Path(sys.argv[2]), progress=progress)
"""


@pytest.mark.parametrize("step", [1, 9, 18, 19])
def test_killed_at_any_step_the_old_warehouse_stays(
    step: int, three: list[Path], vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "warehouse.duckdb"
    build(three[:1], out, vocabulary=vocabulary)
    before = out.read_bytes()
    words = [sys.executable, "-c", BUILD, str(out), str(vocabulary), str(step), *map(str, three)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        assert leftovers(tmp_path), "it is in the middle of the work"
        child.kill()
    assert out.read_bytes() == before
    assert [line.persons for line in summary(out)] == [1]
    build(three, out, vocabulary=vocabulary)
    assert [line.persons for line in summary(out)] == [1, 2, 3]
    assert leftovers(tmp_path) == []


def test_killed_at_random_moments(three: list[Path], vocabulary: Path, tmp_path: Path) -> None:
    out = tmp_path / "warehouse.duckdb"
    code = BUILD.replace("sys.stdin.readline()", "pass")
    build(three[:1], out, vocabulary=vocabulary)
    for wait in (0.0, 0.05, 0.15, 0.3):
        words = [sys.executable, "-c", code, str(out), str(vocabulary), "1", *map(str, three)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(wait)
            child.kill()
        assert [line.persons for line in summary(out)] in ([1], [1, 2, 3])
    build(three, out, vocabulary=vocabulary)
    assert [line.persons for line in summary(out)] == [1, 2, 3]
    assert leftovers(tmp_path) == []
