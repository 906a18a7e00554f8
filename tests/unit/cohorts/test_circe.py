"""Circe definitions: read strictly, run as they are, equal to SQL that nobody generated; nothing but the cohort is written."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from fhir_adapters.errors import PalmaresError
from omop_etl.cli import app
from omop_etl.cohorts.circe import read, run
from omop_etl.cohorts.circe.engines import harmless, on_duckdb
from tests.circe_helpers import EXPECTED, warehouse

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "docs" / "examples" / "circe").glob("*.json"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("circe") / "warehouse.duckdb")


def test_every_example_has_its_plain_sql() -> None:
    assert {one.stem for one in EXAMPLES} == set(EXPECTED)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_definition_selects_what_the_plain_sql_selects(example: Path, database: Path, tmp_path: Path) -> None:
    found = run(example, tmp_path / "out", warehouse=database, cohort_definition_id=77)
    with duckdb.connect(str(database), read_only=True) as connection:
        expected = sorted(connection.execute(EXPECTED[example.stem]).fetchall())
    rows = duckdb.sql(f"FROM '{tmp_path}/out/cohort.parquet' ORDER BY ALL").fetchall()
    assert [row[1:] for row in rows] == expected
    assert expected, "an example that selects nobody says nothing"
    assert {row[0] for row in rows} == {77}
    assert (found.periods, found.persons) == (len(expected), len({row[0] for row in expected}))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["engine"] == "duckdb"
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"manifest.json"} == set(manifest["files"])
    assert (tmp_path / "out" / "definition.md").read_text(encoding="utf-8").startswith("#")


def test_inclusion_rules_are_counted_in_order_without_small_cells(database: Path, tmp_path: Path) -> None:
    example = next(one for one in EXAMPLES if one.stem.startswith("ribociclib"))
    found = run(example, tmp_path / "out", warehouse=database)
    rows = list(csv.DictReader((tmp_path / "out" / "inclusion.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0]["rule"] == "initial event"
    assert [int(row["persons_left"]) for row in rows] == [found.candidates, *ribociclib_steps(database)]
    assert int(rows[-1]["persons_left"]) == found.persons


def ribociclib_steps(database: Path) -> list[int]:
    """The same rules one by one, by cutting the plain SQL short."""
    whole = EXPECTED["ribociclib-with-bone-metastases"]
    first, er, chemotherapy = (
        whole[: whole.index(part)] if part in whole else whole
        for part in ("AND EXISTS (FROM measurement", "AND NOT EXISTS", "never")
    )
    with duckdb.connect(str(database), read_only=True) as connection:
        return [len(connection.execute(sql).fetchall()) for sql in (first, er, chemotherapy)]


def test_the_same_definition_gives_the_same_bytes_and_the_warehouse_is_only_read(
    database: Path, tmp_path: Path
) -> None:
    before = database.read_bytes()
    for name in ("one", "two"):
        run(EXAMPLES[0], tmp_path / name, warehouse=database)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert database.read_bytes() == before


# ---- what is refused


def plain() -> dict[str, Any]:
    path = next(one for one in EXAMPLES if one.stem.startswith("ribociclib"))
    return copy.deepcopy(json.loads(path.read_text(encoding="utf-8"))["expression"])


def primary(expression: dict[str, Any]) -> dict[str, Any]:
    return expression["PrimaryCriteria"]["CriteriaList"][0]["DrugExposure"]


def misspell_criterion(one: dict[str, Any]) -> None:
    one["PrimaryCriteria"]["CriteriaList"] = [{"DrugExposuree": {"CodesetId": 0}}]


def misspell_field(one: dict[str, Any]) -> None:
    primary(one)["Frist"] = True


def word_for_a_number(one: dict[str, Any]) -> None:
    primary(one)["CodesetId"] = "ribociclib"


def missing_concept_set(one: dict[str, Any]) -> None:
    primary(one)["CodesetId"] = 9


def no_initial_event(one: dict[str, Any]) -> None:
    del one["PrimaryCriteria"]


def empty_concept_set(one: dict[str, Any]) -> None:
    one["ConceptSets"][0]["expression"]["items"] = []


def unknown_exit(one: dict[str, Any]) -> None:
    one["EndStrategy"] = {"UntilTomorrow": {"Days": 1}}


def unknown_operator(one: dict[str, Any]) -> None:
    primary(one)["OccurrenceStartDate"] = {"Value": "2020-01-01", "Op": "about"}


def statement_in_a_date(one: dict[str, Any]) -> None:
    primary(one)["OccurrenceStartDate"] = {"Value": "2020-01-01'); DROP TABLE person; --", "Op": "gt"}


def empty_rule(one: dict[str, Any]) -> None:
    one["InclusionRules"][0]["expression"] = {
        "Type": "ALL",
        "CriteriaList": [],
        "DemographicCriteriaList": [],
        "Groups": [],
    }


def censoring_by_nothing(one: dict[str, Any]) -> None:
    one["CensoringCriteria"] = [{"DrugExposure": {"CodesetId": 12}}]


def unknown_criterion_that_says_nothing(one: dict[str, Any]) -> None:
    one["PrimaryCriteria"]["CriteriaList"].append({"Nothing": {}})


def empty_criterion(one: dict[str, Any]) -> None:
    one["PrimaryCriteria"]["CriteriaList"] = [{}]


def unknown_date_field(one: dict[str, Any]) -> None:
    one["EndStrategy"]["DateOffset"]["DateField"] = "MiddleDate"


def unknown_limit(one: dict[str, Any]) -> None:
    one["QualifiedLimit"] = {"Type": "Third"}


def two_sets_with_one_id(one: dict[str, Any]) -> None:
    one["ConceptSets"].append(copy.deepcopy(one["ConceptSets"][0]))


def condition_in_a_number(one: dict[str, Any]) -> None:
    one["InclusionRules"][1]["expression"]["CriteriaList"][0]["Criteria"]["Measurement"]["ValueAsNumber"]["Value"] = (
        "1 OR 1=1"
    )


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        (unknown_criterion_that_says_nothing, "E-CIRCE-02", r"CriteriaList\[1\]\.Nothing"),
        (empty_criterion, "E-CIRCE-02", r"CriteriaList\[0\]"),
        (unknown_date_field, "E-CIRCE-02", "DateOffset.DateField"),
        (unknown_limit, "E-CIRCE-02", "QualifiedLimit.Type"),
        (two_sets_with_one_id, "E-CIRCE-03", "two concept sets have the id 0"),
        (condition_in_a_number, "E-CIRCE-02", r"Criteria\.Measurement"),
        (misspell_criterion, "E-CIRCE-02", r"PrimaryCriteria\.CriteriaList\[0\]\.DrugExposuree"),
        (misspell_field, "E-CIRCE-02", r"PrimaryCriteria\.CriteriaList\[0\]\.DrugExposure\.Frist"),
        (word_for_a_number, "E-CIRCE-02", r"PrimaryCriteria\.CriteriaList\[0\]\.DrugExposure"),
        (unknown_exit, "E-CIRCE-02", "EndStrategy"),
        (missing_concept_set, "E-CIRCE-03", r"DrugExposure\.CodesetId"),
        (censoring_by_nothing, "E-CIRCE-03", r"CensoringCriteria\[0\]\.DrugExposure\.CodesetId"),
        (no_initial_event, "E-CIRCE-03", "initial event"),
        (empty_concept_set, "E-CIRCE-03", "ribociclib"),
        (unknown_operator, "E-CIRCE-03", "about"),
        (empty_rule, "E-CIRCE-03", "bone metastasis"),
        (statement_in_a_date, "E-CIRCE-03", "date"),
    ],
)
def test_an_invalid_definition_is_refused_by_its_element(
    change: Any, code: str, place: str, database: Path, tmp_path: Path
) -> None:
    expression = plain()
    change(expression)
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(expression), encoding="utf-8")
    with pytest.raises(PalmaresError, match=rf"{code} asked\.json.*{place}"):
        run(path, tmp_path / "out", warehouse=database)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"expression": "{"}', "\x00", "{" * 100_000])
def test_what_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "asked.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PalmaresError, match=r"E-CIRCE-01 asked\.json"):
        read(path)
    with pytest.raises(PalmaresError, match="E-CIRCE-01"):
        read(tmp_path / "absent.json")


def test_an_expression_may_stand_in_an_export_as_an_object_or_as_text(tmp_path: Path) -> None:
    path = tmp_path / "asked.json"
    for inner in (plain(), json.dumps(plain())):
        path.write_text(json.dumps({"id": 5, "name": "mine", "expression": inner}), encoding="utf-8-sig")
        assert read(path).name == "mine"
        assert len(read(path).rules()) == 3


def test_what_atlas_writes_around_a_concept_selects_nothing(database: Path, tmp_path: Path) -> None:
    expression = plain()
    captions = {
        "STANDARD_CONCEPT": "S", "STANDARD_CONCEPT_CAPTION": "Standard", "INVALID_REASON": "V", "INVALID_REASON_CAPTION": "Valid",
        "CONCEPT_CODE": "1", "CONCEPT_CLASS_ID": None,
    }  # fmt: skip
    for one in expression["ConceptSets"]:
        for item in one["expression"]["items"]:
            item["concept"] |= captions
    # a set that nothing refers to may be unknown here
    unused = copy.deepcopy(expression["ConceptSets"][0]) | {"id": 40, "name": "unused"}
    unused["expression"]["items"][0]["concept"]["CONCEPT_ID"] = 5
    expression["ConceptSets"].append(unused)
    primary(expression)["DrugTypeExclude"] = False
    expression["InclusionRules"][0]["description"] = "in words"
    criterion = expression["InclusionRules"][0]["expression"]["CriteriaList"][0]
    criterion |= {"RestrictVisit": False, "IgnoreObservationPeriod": False}
    criterion["Criteria"]["ConditionOccurrence"]["ConditionTypeExclude"] = False
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(expression), encoding="utf-8")
    found = run(path, tmp_path / "out", warehouse=database)
    assert found.persons == ribociclib_steps(database)[-1]
    assert any("concept set unused" in notice for notice in found.notices)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE main.person",
        "COPY main.person TO 'person.csv'",
        "CREATE TABLE main.mine AS SELECT * FROM main.person",
        "INSERT INTO main.person SELECT * FROM main.person",
        "ATTACH 'other.duckdb'",
        "SELECT 1; DELETE FROM main.death",
        "SET memory_limit = '1GB'",
    ],
)
def test_a_statement_that_does_more_than_ask_never_runs(statement: str, database: Path) -> None:
    with on_duckdb(database) as engine, pytest.raises(PalmaresError, match="E-CIRCE-05"):
        harmless([statement], engine, "asked.json")


def test_no_file_can_be_read_or_written_by_a_definition(database: Path, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-CIRCE-04"), on_duckdb(database) as engine:
        engine.execute(f"COPY (SELECT 1) TO '{tmp_path}/x.csv'")
    with pytest.raises(PalmaresError, match="E-CIRCE-04"), on_duckdb(database) as engine:
        engine.execute("SET enable_external_access = true")


def test_quotes_in_texts_and_names_stay_texts(database: Path, tmp_path: Path) -> None:
    expression = plain()
    primary(expression)["StopReason"] = {"Text": "a'); DELETE FROM main.person; --", "Op": "contains"}
    expression["InclusionRules"][0]["name"] = "x'); DROP TABLE main.person; -- @target {1}?{;}"
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(expression), encoding="utf-8")
    assert run(path, tmp_path / "out", warehouse=database).persons == 0
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM person").fetchall() == [(240,)]


def test_a_set_that_the_vocabulary_does_not_know_is_no_silent_nobody(database: Path, tmp_path: Path) -> None:
    expression = plain()
    expression["ConceptSets"][3]["expression"]["items"] = [{"concept": {"CONCEPT_ID": 5, "CONCEPT_NAME": "unheard of"}}]
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(expression), encoding="utf-8")
    with pytest.raises(PalmaresError, match=r"E-CIRCE-06 .*concept set chemotherapy"):
        run(path, tmp_path / "out", warehouse=database)
    expression["ConceptSets"][3] = plain()["ConceptSets"][3]  # four drugs, of which the vocabulary knows one
    path.write_text(json.dumps(expression), encoding="utf-8")
    found = run(path, tmp_path / "out", warehouse=database)
    assert any("3 concepts of concept set chemotherapy" in notice for notice in found.notices)


def test_the_command_line(database: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["circe", "check", str(EXAMPLES[0])])
    assert said.exit_code == 0 and "aromatase" in said.output.lower()
    done = runner.invoke(
        app, ["circe", "run", str(EXAMPLES[0]), "--warehouse", str(database), "--out", str(tmp_path / "o"), "--json"]
    )
    assert json.loads(done.output)["engine"] == "duckdb"
    neither = runner.invoke(app, ["circe", "run", str(EXAMPLES[0]), "--out", str(tmp_path / "o")])
    assert neither.exit_code == 2
    no_address = runner.invoke(
        app, ["circe", "run", str(EXAMPLES[0]), "--schema", "omop", "--out", str(tmp_path / "o")]
    )
    assert isinstance(no_address.exception, PalmaresError) and no_address.exception.code == "E-SERVE-03"
