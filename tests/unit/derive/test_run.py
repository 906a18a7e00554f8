"""The derived folder and what goes into the warehouse."""

import csv
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl import cdm
from omop_etl.derive import derive
from omop_etl.derive.documents import generated
from omop_etl.derive.rules import load_rules
from tests.derive_helpers import connect
from tests.warehouses import Event, events

TWO_SITES = """
    person | site | event           | on         | until      | value
         1 | s01  | linkage token   |            |            | t
         1 | s01  | bone metastasis | 2021-01-04 |            |
         1 | s01  | palbociclib     | 2021-02-01 | 2021-06-30 | other
         1 | s01  | SD              | 2021-04-20 |            |
         1 | s01  | visit           | 2021-06-30 |            |
         2 | s02  | linkage token   |            |            | t
         2 | s02  | bone metastasis | 2021-01-04 |            |
         2 | s02  | palbociclib     | 2021-07-01 | 2022-01-02 | progression
         2 | s02  | SD              | 2021-07-10 |            |
         2 | s02  | SD              | 2021-10-01 |            |
         2 | s02  | PD              | 2021-12-28 |            |
         2 | s02  | capecitabine    | 2022-01-20 |            |
         2 | s02  | visit           | 2022-03-20 |            |
"""
ONE = """
    person | event              | on         | until      | value
         3 | primary NST        | 2015-01-04 |            |
         3 | bone metastasis    | 2021-01-04 |            |
         3 | liver metastasis   | 2021-12-20 |            |
         3 | CNS metastasis     | 2022-06-01 |            |
         3 | ER of primary      | 2015-01-04 |            | 90
         3 | ER of metastasis   | 2021-01-10 |            | 0
         3 | PgR of metastasis  | 2021-01-10 |            | 40
         3 | HER2 IHC of metastasis | 2021-01-10 |        | 2+
         3 | HER2 ISH of metastasis | 2021-01-10 |        | not-amplified
         3 | grade of metastasis | 2021-01-10 |           | 2
         3 | menopause          | 2021-01-10 |            | post
         3 | palbociclib        | 2021-02-01 | 2021-05-01 | toxicity
         3 | ribociclib         | 2021-05-10 | 2021-12-25 | progression
         3 | letrozole          | 2021-02-01 | 2021-12-25 | progression
         3 | SD                 | 2021-04-20 |            |
         3 | PR                 | 2021-07-10 |            |
         3 | CR                 | 2021-10-01 |            |
         3 | PD                 | 2021-12-20 |            |
         3 | everolimus         | 2022-01-10 |            |
         3 | exemestane         | 2022-01-10 |            |
         3 | declared line      | 2022-01-12 |            | 2
         3 | consent            | 2021-04-01 |            |
         3 | visit              | 2022-09-20 |            |
         4 | bone metastasis    | 2021-01-04 |            |
         4 | palbociclib        | 2021-02-01 |            |
         4 | death              | 2020-12-31 |            |
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("derive")
    connect([*events(TWO_SITES), *events(ONE)], root / "warehouse.duckdb").close()
    derive(root / "warehouse.duckdb", root / "derived")
    return root


def rows(folder: Path, select: str) -> list[tuple[Any, ...]]:
    """The answer of a SELECT in which {table} stands for a file of the derived folder."""
    with duckdb.connect() as connection:
        for path in (folder / "derived").glob("*.parquet"):
            connection.execute(f"CREATE VIEW {path.stem} AS FROM '{path}'")
        return connection.execute(select).fetchall()


def test_every_column_is_as_the_study_states_it(folder: Path) -> None:
    stated: dict[str, list[tuple[str, str]]] = {}
    for one in load_rules("palmares2").columns:
        stated.setdefault(one.table, []).append((one.column, one.type))
    stated |= {
        name: list(cdm.duckdb_columns(name).items())
        for name in ("drug_era", "condition_era", "episode", "episode_event")
    }
    assert {path.stem for path in (folder / "derived").glob("*.parquet")} == set(stated)
    for name, columns in stated.items():
        found = rows(folder, f"SELECT column_name, column_type FROM (DESCRIBE {name})")
        assert [(column, kind.upper()) for column, kind in found] == [(c, t.upper()) for c, t in columns], name


def test_every_word_is_explained(folder: Path) -> None:
    with (load_rules("palmares2").study.folder / "derived_words.csv").open(encoding="utf-8") as lines:
        known = {(row["kind"], row["word"]) for row in csv.DictReader(lines)}
    said = set(rows(folder, """
        SELECT 'line flag', unnest(flags) FROM line UNION SELECT 'end reason', end_reason FROM line WHERE end_reason IS NOT NULL
        UNION SELECT 'event', evntdesc FROM endpoint WHERE evntdesc IS NOT NULL
        UNION SELECT 'censored', cnsdtdsc FROM endpoint WHERE cnsdtdsc IS NOT NULL
        UNION SELECT 'endpoint flag', unnest(flags) FROM endpoint UNION SELECT 'disagreement', kind FROM disagreement
        UNION SELECT 'progression', kind FROM progression UNION SELECT 'state', name FROM state
    """))  # fmt: skip
    assert said <= known
    assert {word for kind, word in known if kind == "state"} - {word for kind, word in said} == {"ki67"}


def test_of_a_patient_of_two_sites_follow_up_is_the_union(folder: Path) -> None:
    assert rows(
        folder, "SELECT person_id, line_number, regimen, start_date, end_date FROM line WHERE person_id < 3"
    ) == [
        (1, 1, "palbociclib", date(2021, 2, 1), date(2022, 1, 2)),
        (1, 2, "capecitabine", date(2022, 1, 20), None),
    ]
    found = rows(
        folder, "SELECT paramcd, end_date, evntdesc FROM endpoint WHERE person_id = 1 AND paramcd IN ('RWPFS', 'RWOS')"
    )
    assert sorted(found) == [("RWOS", date(2022, 3, 20), None), ("RWPFS", date(2021, 12, 28), "progression")]
    assert rows(folder, "SELECT count(*) FROM endpoint WHERE person_id = 2") == [(0,)]


def test_conflicting_deaths_withhold_every_endpoint(tmp_path: Path) -> None:
    deaths = [Event(1, "death", "2022-05-01", site="s01"), Event(2, "death", "2022-05-02", site="s02")]
    connect([*events(TWO_SITES), *deaths], tmp_path / "warehouse.duckdb").close()
    derived = derive(tmp_path / "warehouse.duckdb", tmp_path / "derived")
    assert derived.rows["endpoint"] == 0
    assert rows(tmp_path, "SELECT person_id, value FROM state WHERE name = 'endpoints-withheld'") == [
        (1, "deaths-conflict")
    ]
    assert rows(tmp_path, "SELECT line_number, end_date FROM line") == [(1, date(2022, 1, 2)), (2, None)]


def test_states_name_the_row_they_come_from(folder: Path) -> None:
    found = {
        name: rest
        for name, *rest in rows(folder, "SELECT name, value, number, day, source_table FROM state WHERE person_id = 3")
    }
    # the latest metastatic sample decides, not the earlier primary one
    assert found["er"] == ["negative", 0.0, date(2021, 1, 10), "measurement"]
    assert found["pgr"] == ["positive", 40.0, date(2021, 1, 10), "measurement"]
    assert found["her2"] == ["low", None, date(2021, 1, 10), None]
    assert found["sample-origin"][0] == "metastatic"
    assert found["receptor-discordance"][0] == "no"
    # sites at day 0: what came later is not known then
    assert found["metastatic-sites"][:2] == ["bone", 1.0]
    assert found["bone-only"][0] == "yes"
    assert found["visceral"][0] == "no"
    # liver came with the progression, the brain without one
    assert found["new-site-undeclared"][0] == "CNS"
    assert rows(folder, "SELECT kind, line_number FROM progression WHERE person_id = 3") == [("new-site", 1)]
    assert found["menopause"][0] == "post"
    assert rows(folder, "SELECT value FROM state WHERE name = 'endpoints-withheld'") == [("death-before-index",)]


def test_every_endpoint_leads_back_to_its_row(folder: Path) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        day = {"measurement": "measurement_date", "drug_exposure": "drug_exposure_start_date", "death": "death_date"}
        for table, column in day.items():
            key = "person_id" if table == "death" else f"{table}_id"
            lost = connection.execute(
                f"SELECT count(*) FROM '{folder / 'derived' / 'endpoint.parquet'}' AS one LEFT JOIN main.{table} AS row "
                f"ON row.{key} = one.source_id WHERE source_table = '{table}' "
                f"AND (row.{key} IS NULL OR paramcd <> 'TTD' AND row.{column} <> end_date)"
            ).fetchall()
            assert lost == [(0,)], table


def test_episodes_are_linked_and_their_ids_are_safe(folder: Path) -> None:
    words = load_rules("palmares2").episodes
    found = rows(folder, "SELECT episode_concept_id, count(*) FROM episode WHERE person_id = 3 GROUP BY ALL")
    assert dict(found) == {
        words["disease"]: 1,
        words["treatment-regimen"]: 2,
        words["PD"]: 1,
        words["SD"]: 1,
        words["PR"]: 1,
    }
    assert rows(
        folder, "SELECT count(*) - count(DISTINCT episode_id), max(episode_id) < 9007199254740992 FROM episode"
    ) == [(0, True)]
    orphans = (
        "SELECT count(*) FROM episode AS one ANTI JOIN episode AS parent ON parent.episode_id = one.episode_parent_id"
    )
    assert rows(folder, f"{orphans} WHERE one.episode_concept_id <> {words['disease']}") == [(0,)]
    assert rows(folder, "SELECT count(*) FROM line ANTI JOIN episode USING (episode_id)") == [(0,)]
    assert rows(folder, "SELECT count(*) FROM episode ANTI JOIN episode_event USING (episode_id)") == [(0,)]
    drugs = "SELECT count(*) FROM episode_event WHERE episode_event_field_concept_id = " + str(words["drug_exposure"])
    assert rows(folder, drugs)[0][0] >= 8


def test_the_same_warehouse_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    derive(folder / "warehouse.duckdb", tmp_path / "again", into_warehouse=False)
    for path in (folder / "derived").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_eras_and_episodes_go_into_the_warehouse_by_rename(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    connect(events(ONE), path).close()
    before = path.stat().st_ino
    derive(path, tmp_path / "derived", into_warehouse=False)
    assert path.stat().st_ino == before
    with duckdb.connect(str(path), read_only=True) as reader:  # who reads the old file goes on reading it
        derive(path, tmp_path / "derived")
        assert reader.execute("SELECT count(*) FROM main.episode").fetchall() == [(0,)]
    assert path.stat().st_ino != before
    with duckdb.connect(str(path), read_only=True) as connection:
        for table in ("episode", "episode_event", "drug_era", "condition_era"):
            assert connection.execute(f"SELECT count(*) > 0 FROM main.{table}").fetchall() == [(True,)], table
    assert sorted(one.name for one in tmp_path.iterdir()) == ["derived", "warehouse.duckdb"]


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError) as no_warehouse:
        derive(tmp_path / "none.duckdb", tmp_path / "derived")
    assert no_warehouse.value.code == "E-WAREHOUSE-01"
    with pytest.raises(PalmaresError) as no_study:
        derive(tmp_path / "none.duckdb", tmp_path / "derived", study="nothing")
    assert no_study.value.code == "E-STUDY-01"
    assert not (tmp_path / "derived").exists()


def test_an_empty_warehouse_derives_nothing(tmp_path: Path) -> None:
    connect([], tmp_path / "warehouse.duckdb").close()
    derived = derive(tmp_path / "warehouse.duckdb", tmp_path / "derived")
    assert derived.indexed == 0
    assert set(derived.rows.values()) == {0}


def test_the_pages_show_every_window_and_every_table_of_the_specs() -> None:
    pages = {path.name: text for path, text in generated().items()}
    rules = load_rules("palmares2")
    for one in rules.endpoints:
        assert one.paramcd in pages["endpoints.md"]
    for name in ("regimen_days", "restart_gap_days", "era_gap_days"):
        assert name in pages["lines.md"]
    assert "Trap: site-declared against derived lines" in pages["lines.md"]
    assert "Trap: informative censoring" in pages["endpoints.md"]
