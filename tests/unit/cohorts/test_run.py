"""The cohort folder: complete, adding up, the same every time, and without small cells."""

import csv
import json
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts import CohortResult, run
from omop_etl.cohorts.attrition import attrition, shown
from omop_etl.cohorts.eligibility import evaluate
from omop_etl.study.reading import content_sha256, open_warehouse
from omop_etl.study.rules import Study, load_study
from tests.cohort_helpers import patient, registry, registry_file
from tests.warehouses import Event, connect, words, write


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registry_file(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def result(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CohortResult, Path]:
    out = tmp_path_factory.mktemp("run") / "cohort"
    return run(warehouse, out), out


def rows(path: Path, what: str = "*") -> list[tuple]:
    return duckdb.sql(f"SELECT {what} FROM '{path}'").fetchall()


def test_everyone_is_answered_at_every_criterion(result: tuple[CohortResult, Path]) -> None:
    outcome, out = result
    assert (outcome.persons, outcome.eligible) == (60, 42)
    assert len(rows(out / "eligibility.parquet")) == 600
    assert rows(out / "persons.parquet", "count(*), count(*) FILTER (eligible)") == [(60, 42)]


def test_the_folder_is_complete_and_described(result: tuple[CohortResult, Path]) -> None:
    _, out = result
    manifest = json.loads((out / "manifest.json").read_text())
    names = {path.name for path in out.iterdir()}
    assert names - {"manifest.json"} == set(manifest["files"])
    assert {
        "eligibility.parquet", "persons.parquet", "attrition.csv", "attrition.json", "attrition.svg", "attrition.png",
        "queries.csv", "cohort.parquet", "cohort_definition.parquet",
    } <= names  # fmt: skip
    assert manifest["cut_off"] == "2025-01-01"
    assert manifest["parameters"]["lead_in_days"] == 90


def test_who_is_out_says_where_and_why(result: tuple[CohortResult, Path]) -> None:
    _, out = result
    found = duckdb.sql(
        f"SELECT failed_criterion, failed_reason, count(*) FROM '{out}/persons.parquet' "
        "WHERE NOT eligible GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert found == [
        (1, "no-advanced-disease", 1),
        (5, "ihc-3", 12),
        (5, "ish-missing", 1),
        (7, "no-et", 3),
        (10, "duplicate-of-other-site", 1),
    ]


def test_follow_up_is_the_union_of_linked_persons(result: tuple[CohortResult, Path]) -> None:
    _, out = result
    found = dict(rows(out / "persons.parquet", "person_id, death_date"))
    assert found[58] == found[59] == date(2024, 2, 3)
    assert found[7] == date(2023, 5, 6)
    assert found[9] is None  # dated after the cut-off


def test_attrition_hides_small_cells_but_adds_up_inside(warehouse: Path, result: tuple[CohortResult, Path]) -> None:
    _, out = result
    study = load_study("palmares2")
    with open_warehouse(warehouse) as connection:
        evaluate(connection, study)
        steps = attrition(connection, study)
    for before, after in pairwise(steps):
        assert before.left == after.came
    assert all(step.came - sum(n for _, n in step.reasons) == step.left for step in steps)
    assert (steps[0].came, steps[-1].left) == (60, 42)
    table = json.loads((out / "attrition.json").read_text())
    assert {key: value for key, value in table.items() if key != "analyses"} == shown(steps, study, public=False)
    written = [
        number
        for row in csv.DictReader((out / "attrition.csv").read_text().splitlines())
        for number in (row["came"], row["excluded"], row["excluded_for_reason"], row["left"])
    ]
    assert all(number in ("*", "0") or int(number) >= 5 for number in written)
    assert shown(steps, study, public=True)["small_cells"] == 10


def test_queries_name_who_acts_and_leave_out_who_fails_anyway(result: tuple[CohortResult, Path]) -> None:
    outcome, out = result
    asked = list(csv.DictReader((out / "queries.csv").read_text().splitlines()))
    assert [(row["site"], row["action"], row["person_id"], row["code"]) for row in asked] == [
        ("s01", "query", "56", "ish-missing"),
        ("s03", "adjudication", "57", "hr-low"),
    ]
    assert all(row["remedy"] for row in asked)
    assert (outcome.queries, outcome.adjudications) == (1, 1)


def test_the_cohort_is_written_as_omop_has_it(result: tuple[CohortResult, Path]) -> None:
    _, out = result
    found = rows(out / "cohort.parquet")
    assert sum(row[0] == 1 for row in found) == 42
    assert found[6] == (1, 7, date(2021, 6, 1), date(2023, 5, 6))
    (number, name, _, _, syntax, *_), *_ = rows(out / "cohort_definition.parquet")
    assert number == 1
    assert "all comers" in name
    assert syntax.count("\n-- ") > 10


def test_the_same_warehouse_gives_the_same_bytes_and_another_order_the_same_content(
    warehouse: Path, result: tuple[CohortResult, Path], tmp_path: Path
) -> None:
    _, out = result
    run(warehouse, tmp_path / "again")
    for path in out.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    backwards = tmp_path / "backwards.duckdb"
    with connect(registry(), backwards) as connection:
        for table in ("measurement", "drug_exposure", "person"):
            connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM {table} ORDER BY ALL DESC")
    with open_warehouse(warehouse) as one, open_warehouse(backwards) as other:
        assert content_sha256(one) == content_sha256(other)


def test_the_warehouse_is_only_read(warehouse: Path, tmp_path: Path) -> None:
    before = warehouse.read_bytes()
    run(warehouse, tmp_path / "cohort")
    assert warehouse.read_bytes() == before


def test_an_earlier_cut_off_sees_less(warehouse: Path, tmp_path: Path) -> None:
    outcome = run(warehouse, tmp_path / "cohort", cut_off=date(2021, 8, 31))
    assert outcome.eligible == 0  # index + 3 months is 1 September
    outcome = run(warehouse, tmp_path / "cohort", cut_off=date(2021, 9, 1))
    assert outcome.eligible == 41


def test_progress_tells_each_sentence(warehouse: Path, tmp_path: Path) -> None:
    told: list[str] = []
    run(warehouse, tmp_path / "cohort", progress=told.append)
    assert len(told) == 10 + 1 + 13 + 1  # criteria, analyses, the steps of deriving, writing
    assert told[0].startswith("1. Advanced disease")


def test_an_empty_warehouse_gives_an_empty_cohort(tmp_path: Path) -> None:
    outcome = run(write([], tmp_path / "warehouse.duckdb"), tmp_path / "cohort")
    assert (outcome.persons, outcome.eligible) == (0, 0)


def test_descendants_are_understood_where_the_warehouse_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with connect(patient(1), path) as connection:
        palbociclib = words()["palbociclib"][1]
        connection.execute("UPDATE drug_exposure SET drug_concept_id = 1 WHERE drug_concept_id = ?", [palbociclib])
        connection.execute("INSERT INTO concept_ancestor VALUES (?, 1, 1, 1)", [palbociclib])
    assert run(path, tmp_path / "cohort").eligible == 1


@pytest.mark.parametrize(
    ("moment", "supply", "end", "partner"),
    [
        (None, None, "2019-06-01", True),  # taken, no end stated: still taken
        (None, None, "2019-07-01", True),  # the CDM's end is the day on which somebody last said so
        ("given", None, "2019-06-01", False),  # one dose
        ("given", None, "2019-07-01", True),  # still being given
        ("dispensed", None, "2019-06-01", False),
        ("dispensed", 30, "2019-06-30", False),
        ("dispensed", 700, "2021-05-01", True),
    ],
)
def test_until_when_a_drug_without_a_stated_end_is_active(
    moment: str | None, supply: int | None, end: str, partner: bool
) -> None:
    what = [*patient(1, partner=""), Event(1, "tamoxifen", "2019-06-01")]
    with connect(what) as connection:
        connection.execute(
            "UPDATE drug_exposure SET drug_exposure_end_date = ?, days_supply = ?, drug_type_concept_id = ? "
            "WHERE drug_concept_id = ?",
            [end, supply, words()[f"drug-moment:{moment}"][1] if moment else 0, words()["tamoxifen"][1]],
        )
        evaluate(connection, load_study("palmares2"))
        answer = connection.execute("SELECT reason FROM eligibility WHERE criterion_name = 'with-et'").fetchall()
    assert answer == [("with-et" if partner else "no-et",)]


@pytest.mark.parametrize("what", ["nothing", "text", "empty database"])
def test_what_is_no_warehouse_is_an_error_and_leaves_what_was_there(what: str, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    if what == "text":
        path.write_text("no database")
    elif what == "empty database":
        duckdb.connect(str(path)).close()
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "old").touch()
    with pytest.raises(PalmaresError) as raised:
        run(path, tmp_path / "cohort")
    assert raised.value.code == "E-WAREHOUSE-01"
    assert [one.name for one in (tmp_path / "cohort").iterdir()] == ["old"]
    assert {one.name for one in tmp_path.iterdir()} <= {"cohort", "warehouse.duckdb"}


def broken(study: Study, sql: str) -> Study:
    return replace(study, criteria=(replace(study.criteria[0], sql=sql), *study.criteria[1:]))


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT person_id, 'PASS' AS answer, 'advanced-dated' AS reason, NULL::DATE AS date_used, NULL AS flag "
         "FROM study_person WHERE person_id > 1", "E-COHORT-01"),
        ("SELECT person_id, 'PASS' AS answer, 'advanced-dated' AS reason, NULL::DATE AS date_used, NULL AS flag "
         "FROM study_person, range(2)", "E-COHORT-01"),
        ("SELECT person_id, 'PASS' AS answer, 'no-advanced-disease' AS reason, NULL::DATE AS date_used, NULL AS flag "
         "FROM study_person", "E-COHORT-01"),
        ("SELECT person_id, NULL AS answer, 'advanced-dated' AS reason, NULL::DATE AS date_used, NULL AS flag "
         "FROM study_person", "E-COHORT-01"),
        ("SELECT person_id, 'PASS' AS answer, 'advanced-dated' AS reason, NULL::DATE AS date_used, 'odd' AS flag "
         "FROM study_person", "E-COHORT-01"),
        ("SELECT nothing FROM nowhere", "E-STUDY-03"),
    ],
    ids=["someone left out", "answered twice", "reason of another answer", "no answer", "unknown flag", "no SQL"],
)  # fmt: skip
def test_a_criterion_that_does_not_balance_stops_the_run(sql: str, code: str) -> None:
    with connect([*patient(1), *patient(2)]) as connection, pytest.raises(PalmaresError) as raised:
        evaluate(connection, broken(load_study("palmares2"), sql))
    assert raised.value.code == code


def test_an_error_that_met_data_shows_no_value() -> None:
    sql = "SELECT person_id, error('secret') AS answer, 'x' AS reason, NULL::DATE AS date_used, NULL AS flag FROM study_person"
    with connect(patient(1)) as connection, pytest.raises(PalmaresError) as raised:
        evaluate(connection, broken(load_study("palmares2"), sql))
    assert raised.value.code == "E-STUDY-03"
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_person_without_a_site_stops_the_run() -> None:
    with connect([Event(1, "known")]) as connection, pytest.raises(PalmaresError) as raised:
        connection.execute("DELETE FROM palmares.person_site")
        evaluate(connection, load_study("palmares2"))
    assert raised.value.code == "E-COHORT-01"
