"""The named analyses: each with its own N, a person in, out, or not to be told; in the folder and in the warehouse."""

import csv
import json
from datetime import date
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts import run
from omop_etl.derive import derive
from omop_etl.study.rules import load_study
from tests.cohort_helpers import patient, registry
from tests.derive_helpers import connect
from tests.warehouses import Event, write

NAMES = (
    "all-comers", "endocrine-sensitive", "endocrine-resistant", "lobular", "her2-low", "her2-zero", "bone-only",
    "visceral", "premenopausal", "elderly", "beyond-progression",
)  # fmt: skip


def special(person: int, *more: Event, **changes: str) -> list[Event]:
    return [*patient(person, **changes), *more]


def people() -> list[Event]:
    """One person for each side of each analysis, born well before 70 unless said."""
    found = [
        *special(5),  # lobular (every fifth), bone only, HER2 1+, postmenopausal
        *special(6, ihc="0"),
        *special(7, Event(7, "liver metastasis", "2021-05-01")),
        *special(8, Event(8, "letrozole", "2018-01-01", "2021-04-20")),  # on adjuvant ET, stopped for the relapse
        *special(9, Event(9, "menopause", "2021-05-20", value="pre")),
        *special(11, Event(11, "sex", value="M")),
        *special(12, Event(12, "born", "1951-06")),  # 70 in the month of the index
        *special(13, Event(13, "born", "1951-07")),
        *special(14, Event(14, "born", "1951")),  # 69 or 70
    ]
    # treated on beyond the first progression, stopped at the second
    found += [one for one in special(16) if one.event not in ("palbociclib", "letrozole")]
    found += [
        Event(16, "palbociclib", "2021-06-01", "2022-12-20"),
        Event(16, "letrozole", "2021-06-01", "2022-12-20"),
        *(Event(16, "SD", day) for day in ("2021-08-20", "2021-11-10", "2022-05-01", "2022-07-20", "2022-10-01")),
        Event(16, "PD", "2022-02-01"),
        Event(16, "PD", "2022-12-18"),
    ]
    born = {one.person for one in found if one.event == "born" and one.on.startswith("1951")}
    return [one for one in found if one.event != "born" or one.on.startswith("1951") or one.person not in born]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyses")
    run(write(people(), folder / "warehouse.duckdb"), folder / "cohort")
    return folder / "cohort"


def answers(out: Path, analysis: str) -> dict[int, bool | None]:
    return dict(
        duckdb.sql(f"SELECT person_id, member FROM '{out}/analyses.parquet' WHERE analysis = '{analysis}'").fetchall()
    )


def members(out: Path, analysis: str) -> set[int]:
    return {person for person, member in answers(out, analysis).items() if member}


def test_the_study_names_its_analyses_each_with_an_id_of_its_own() -> None:
    study = load_study("palmares2")
    assert tuple(one.name for one in study.analyses) == NAMES
    assert [one.cohort_definition_id for one in study.analyses] == list(range(1, 12))
    assert study.analysis("elderly").sentence == "Aged 70 years or more at the index"
    with pytest.raises(PalmaresError, match="E-COHORT-02"):
        study.analysis("youngest")


def test_everyone_eligible_is_in_out_or_not_to_be_told_in_every_analysis(out: Path) -> None:
    everyone = {5, 6, 7, 8, 9, 11, 12, 13, 14, 16}
    assert members(out, "all-comers") == everyone
    assert all(answers(out, name).keys() == everyone for name in NAMES)


def test_who_belongs_to_which(out: Path) -> None:
    assert members(out, "lobular") == {5}
    assert members(out, "her2-zero") == {6}
    assert 6 not in members(out, "her2-low") and 5 in members(out, "her2-low")
    assert members(out, "visceral") == {7}
    assert members(out, "bone-only") == {5, 6, 8, 9, 11, 12, 13, 14, 16}
    assert members(out, "endocrine-resistant") == {8}
    assert members(out, "endocrine-sensitive") == {5, 6, 7, 9, 11, 12, 13, 14, 16}
    assert members(out, "premenopausal") == {9}
    assert answers(out, "premenopausal")[11] is False  # a man


def test_an_age_that_the_month_would_decide_is_not_told_without_it(out: Path) -> None:
    found = answers(out, "elderly")
    assert (found[12], found[13], found[14]) == (True, False, None)


def test_beyond_progression_begins_with_the_first_progression(out: Path) -> None:
    assert members(out, "beyond-progression") == {16}
    ((day,),) = duckdb.sql(
        f"SELECT start_date FROM '{out}/analyses.parquet' WHERE analysis = 'beyond-progression' AND member"
    ).fetchall()
    assert day == date(2022, 2, 1)


def test_a_histology_without_a_name_and_her2_without_a_score_are_unknown(tmp_path: Path) -> None:
    found = [one for one in patient(21, ihc="negative") if not one.event.startswith("primary")]
    run(write(found, tmp_path / "warehouse.duckdb"), tmp_path / "cohort")
    for name in ("lobular", "her2-low", "her2-zero"):
        assert answers(tmp_path / "cohort", name) == {21: None}


def test_numbers_are_shown_without_small_cells(out: Path) -> None:
    rows = list(csv.DictReader((out / "analyses.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["analysis"] for row in rows] == list(NAMES)
    shown = {row["analysis"]: (row["persons"], row["others"], row["unknown"]) for row in rows}
    assert shown["all-comers"] == ("10", "0", "0")
    assert shown["visceral"] == ("*", "*", "0")  # 1 of 10: the 9 would give it away
    assert shown["elderly"] == ("*", "*", "*")  # 8, 1 and 1: two small ones add up to less than 5
    assert json.loads((out / "attrition.json").read_text())["analyses"][7]["persons"] == "*"


def test_the_cohorts_are_omop_rows_and_go_into_the_warehouse(tmp_path: Path) -> None:
    warehouse = write(registry(), tmp_path / "warehouse.duckdb")
    run(warehouse, tmp_path / "cohort", into_warehouse=True)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = connection.execute(
            "SELECT cohort_definition_id, count(*) FROM cohort GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        names = dict(
            connection.execute("SELECT cohort_definition_id, cohort_definition_name FROM cohort_definition").fetchall()
        )
        broken = connection.execute("SELECT count(*) FROM cohort WHERE cohort_end_date < cohort_start_date").fetchall()
    assert found[0] == (1, 42)
    assert names[1] == "PALMARES-2 eligible, all comers" and names[4] == "PALMARES-2 eligible, lobular"
    assert len(names) == len(NAMES) and broken == [(0,)]
    # the warehouse holds the same patients as before: the same cohort again, byte for byte
    run(warehouse, tmp_path / "again")
    assert (tmp_path / "again" / "cohort.parquet").read_bytes() == (tmp_path / "cohort" / "cohort.parquet").read_bytes()


def test_a_derived_folder_serves_as_well_as_deriving_anew(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    connect(people(), warehouse).close()
    derive(warehouse, tmp_path / "derived")
    run(warehouse, tmp_path / "anew")
    run(warehouse, tmp_path / "given", derived=tmp_path / "derived")
    for name in ("analyses.parquet", "cohort.parquet", "queries.csv"):
        assert (tmp_path / "anew" / name).read_bytes() == (tmp_path / "given" / name).read_bytes()


@pytest.mark.parametrize("what", ["cut-off", "warehouse", "folder"])
def test_a_derived_folder_of_something_else_is_refused(tmp_path: Path, what: str) -> None:
    warehouse, other = tmp_path / "warehouse.duckdb", tmp_path / "other.duckdb"
    connect(people(), warehouse).close()
    connect(patient(1), other).close()
    derived = tmp_path / "derived"
    if what == "folder":
        derived.mkdir()
    else:
        derive(other if what == "warehouse" else warehouse, derived, into_warehouse=False)
    cut_off = date(2024, 1, 1) if what == "cut-off" else None
    with pytest.raises(PalmaresError, match="E-COHORT-03"):
        run(warehouse, tmp_path / "cohort", derived=derived, cut_off=cut_off)
    assert not (tmp_path / "cohort").exists()


def test_the_course_of_those_who_are_in_is_asked_about(tmp_path: Path) -> None:
    found = [
        *special(1, Event(1, "unmapped drug", "2021-09-01"), Event(1, "liver metastasis", "2021-12-01")),
        *special(2, Event(2, "PD", "2021-06-10")),
        *special(3, Event(3, "unmapped drug", "2021-09-01"), ihc="3+"),  # out anyway: no one is asked
        *special(
            4,
            Event(4, "declared line", "2021-11-01", value="2"),
            Event(4, "consent", "2023-06-01"),
            Event(4, "death", "2023-05-01"),
        ),
    ]
    warehouse = tmp_path / "warehouse.duckdb"
    connect(found, warehouse).close()
    result = run(warehouse, tmp_path / "cohort")
    asked = list(csv.DictReader((tmp_path / "cohort" / "queries.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["person_id"], row["action"], row["code"]) for row in asked] == [
        ("4", "adjudication", "line-disagreement"),
        ("1", "query", "line-unmapped-drug"),
        ("1", "query", "new-site-undeclared"),
        ("2", "query", "early-progression"),
        ("4", "query", "consent-after-end"),
    ]
    assert all(row["explanation"] and row["remedy"] for row in asked)
    assert (result.queries, result.adjudications) == (4, 1)
