"""A release: opens in one line, says what each column is, and holds nothing that leads back."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts import run
from omop_etl.derive import derive
from omop_etl.derive.rules import load_rules
from omop_etl.publish import privacy, release
from omop_etl.publish.datasets import lay_out
from tests.cohort_helpers import patient, registry
from tests.publish_helpers import FRESH, connect, frame, laid_out, write
from tests.warehouses import Event


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write(registry(), folder / "warehouse.duckdb")
    derive(folder / "warehouse.duckdb", folder / "derived")
    run(folder / "warehouse.duckdb", folder / "cohort")
    release(folder / "warehouse.duckdb", folder / "cohort", folder / "release", derived=folder / "derived")
    return folder


@pytest.fixture(scope="module")
def baseline(place: Path) -> pd.DataFrame:
    return pd.read_parquet(place / "release" / "baseline.parquet")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_one_row_per_eligible_patient(baseline: pd.DataFrame) -> None:
    assert len(baseline) == 42
    assert baseline["patient"].is_unique


def test_types_are_those_of_the_dictionary(place: Path, baseline: pd.DataFrame) -> None:
    dictionary = json.loads((place / "release" / "dictionary.json").read_text())
    for table in dictionary["datasets"]:
        rows = pd.read_parquet(place / "release" / f"{table['dataset']}.parquet")
        assert [one["variable"] for one in table["variables"]] == list(rows.columns)
        for one in table["variables"]:
            assert one["label"]
            column = rows[one["variable"]]
            expected = {
                "id": "str", "text": "str", "category": "category", "ordered": "category", "number": "float64",
                "integer": "Int64" if column.isna().any() else "int64", "boolean": "boolean" if column.isna().any() else "bool",
            }  # fmt: skip
            assert str(column.dtype) == expected[one["type"]], one["variable"]
            if one["values"]:
                assert set(column.dropna().astype(str)) <= set(one["values"])
                if str(column.dtype) == "category":
                    assert list(column.cat.categories) == one["values"]
    assert list(baseline["ecog"].cat.categories) == ["0", "1", "2", "3", "4"]
    assert baseline["ecog"].cat.ordered
    assert baseline["death"].dtype == "int64"
    assert "<table>" in (place / "release" / "dictionary.html").read_text()


def test_csv_and_parquet_hold_the_same(place: Path, baseline: pd.DataFrame) -> None:
    text = pd.read_csv(place / "release" / "baseline.csv", dtype=str, keep_default_na=False)
    assert list(text.columns) == list(baseline.columns)
    assert list(text["patient"]) == list(baseline["patient"])
    assert list(text["days_to_death_or_last_contact"].astype(int)) == list(baseline["days_to_death_or_last_contact"])


def test_time_and_event_are_ready_for_a_survival_model(baseline: pd.DataFrame) -> None:
    assert baseline["days_to_death_or_last_contact"].notna().all()
    assert (baseline["days_to_death_or_last_contact"] >= 0).all()
    assert baseline["death"].sum() == 2  # the one of the pair at the other site, the one before the cut-off
    assert set(baseline["death"]) == {0, 1}


def test_no_date_leaves(place: Path) -> None:
    privacy.check(place / "release", day_0=date(2000, 1, 1))
    for path in (place / "release").rglob("*"):
        if path.suffix in (".csv", ".json", ".html"):
            assert not re.search(r"\d{4}-\d\d-\d\d", path.read_text()), path.name
    types = duckdb.sql(f"DESCRIBE SELECT * FROM '{place}/release/baseline.parquet'").fetchall()
    assert not [name for name, kind, *_ in types if kind.startswith(("DATE", "TIME"))]


def test_every_hidden_number_of_the_public_attrition_has_one_sign(place: Path) -> None:
    text = (place / "release" / "attrition.json").read_text() + (place / "release" / "attrition.csv").read_text()
    assert "*" in text
    assert "<10" not in text


def test_no_id_of_the_warehouse_leaves(place: Path, baseline: pd.DataFrame) -> None:
    assert baseline["patient"].str.fullmatch(r"[0-9a-f]{16}").all()
    assert list(baseline["patient"]) == sorted(baseline["patient"])  # an order that says nothing
    salt = json.loads((place / "cohort" / "manifest.json").read_text())["release_salt"]
    assert all(salt not in path.read_text(errors="replace") for path in files(place / "release"))


def test_ids_are_the_same_again_and_others_in_another_cohort(
    place: Path, baseline: pd.DataFrame, tmp_path: Path
) -> None:
    release(place / "warehouse.duckdb", place / "cohort", tmp_path / "again", derived=place / "derived")
    for path in files(place / "release"):
        again = tmp_path / "again" / path.relative_to(place / "release")
        assert again.read_bytes() == path.read_bytes(), path.name
    # ids are made with the cohort's salt, which follows from who is in it and by which rules
    salts = [
        json.loads((folder / "cohort" / "manifest.json").read_text())["release_salt"]
        for folder in (
            place,
            Path(run(place / "warehouse.duckdb", tmp_path / "cohort", cut_off=date(2024, 1, 1)).out).parent,
        )
    ]
    assert salts[0] != salts[1]
    with duckdb.connect() as connection:
        one, other = (
            {
                row[0]
                for row in connection.execute(
                    f"SELECT substr(sha256('{salt}' || n), 1, 16) FROM range(99) AS t (n)"
                ).fetchall()
            }
            for salt in salts
        )
    assert not one & other


def test_the_manifest_has_a_hash_of_every_file(place: Path) -> None:
    manifest = json.loads((place / "release" / "manifest.json").read_text())
    names = {path.relative_to(place / "release").as_posix() for path in files(place / "release")} - {"manifest.json"}
    assert set(manifest["files"]) == names
    for name, file in manifest["files"].items():
        assert hashlib.sha256((place / "release" / name).read_bytes()).hexdigest() == file["sha256"]


def test_the_public_attrition_shows_nothing_below_ten(place: Path) -> None:
    table = json.loads((place / "release" / "attrition.json").read_text())
    numbers = [
        number
        for step in table["steps"]
        for number in (step["came"], step["excluded"], step["left"], *(reason["persons"] for reason in step["reasons"]))
    ]
    assert all(isinstance(number, str) or number == 0 or number >= 10 for number in numbers)


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


Values = Callable[[list[list[Event]]], list[dict[str, object]]]


@pytest.fixture(scope="module")
def values(memory: duckdb.DuckDBPyConnection) -> Values:
    """A function: the released row of each patient, whose events are given as if there were no other."""
    rules = load_rules("palmares2")

    def rows(cases: list[list[Event]]) -> list[dict[str, object]]:
        what = [replace(one, person=person) for person, case in enumerate(cases, 1) for one in case]
        laid_out(memory, what, rules)
        ids = dict(memory.execute("SELECT person_id, patient FROM released").fetchall())
        table = frame(memory, rules, "baseline").set_index("patient")
        found = [table.loc[ids[person]].to_dict() for person in range(1, len(cases) + 1)]
        return [{key: None if pd.isna(value) else value for key, value in row.items()} for row in found]

    return rows


def test_an_ordinary_patient(values: Values) -> None:
    (row,) = values([patient(1)])
    assert row == {
        "site": "s01", "index_year": 2021, "age_at_index": 90, "sex": "F", "menopausal_status": "post",
        "ecog": "1", "bmi": 25.6, "de_novo": False, "days_primary_to_advanced": 1760, "days_advanced_to_index": 40,
        "histology": "NST", "grade": "2", "sample_origin": "primary", "sample_day": -30, "er_percent": 90.0,
        "pgr_percent": 40.0, "hr_low": False, "her2_ihc": "1+", "her2_ish": None, "her2_group": "low",
        "ki67_percent": None, "receptor_discordance": False, "met_bone": True, "met_liver": False, "met_lung": False,
        "met_cns": False, "met_node": False, "met_skin": False, "met_other": False, "metastatic_sites": 1,
        "bone_only": True, "visceral": False, "adjuvant_chemotherapy": False, "adjuvant_et": False,
        "endocrine_sensitivity": "sensitive", "index_drug": "palbociclib", "et_partner": "aromatase-inhibitor",
        "ovarian_suppression": False, "days_to_death_or_last_contact": 401, "death": 0, "potential_follow_up_years": 3,
    }  # fmt: skip


def test_what_was_measured_after_the_index_is_no_baseline(values: Values) -> None:
    later = [
        Event(1, "liver metastasis", "2021-06-02"),
        Event(1, "weight", "2021-06-02", value="80"),
        Event(1, "menopause", "2021-06-02", value="pre"),
        Event(1, "ECOG", "2021-06-05", value="3"),  # nearer than 3 days before: no
        Event(1, "ECOG", "2021-07-02", value="4"),
    ]
    first, second = values([patient(1), patient(1) + later])
    assert first == second


SENSITIVITY: list[tuple[list[tuple[str, str, str]], str]] = [
    ([("tamoxifen", "2017-01-01", "2018-01-01")], "sensitive"),
    ([("tamoxifen", "2019-09-01", "2021-04-22")], "primary-resistant"),
    ([("tamoxifen", "2019-04-23", "2021-04-22")], "primary-resistant"),
    ([("tamoxifen", "2019-04-22", "2021-04-22")], "secondary-resistant"),
    ([("letrozole", "2016-10-01", "2021-04-20")], "secondary-resistant"),
    ([("letrozole", "2016-10-01", "")], "secondary-resistant"),
    ([("letrozole", "2016-10-01", "2020-04-22")], "secondary-resistant"),
    ([("letrozole", "2016-10-01", "2020-04-21")], "sensitive"),
    ([("goserelin", "2019-09-01", "2021-04-22")], "sensitive"),
    ([], "sensitive"),
]


def test_endocrine_sensitivity(values: Values, memory: duckdb.DuckDBPyConnection) -> None:
    # the advanced diagnosis is 2021-04-22, the primary one 2016-06-27
    rows = values([patient(1) + [Event(1, *one) for one in adjuvant] for adjuvant, _ in SENSITIVITY])
    assert [row["endocrine_sensitivity"] for row in rows] == [expected for _, expected in SENSITIVITY]
    # there is one reading: what is released is what deriving states
    stated = memory.execute("SELECT value FROM state WHERE name = 'endocrine-resistance' ORDER BY person_id").fetchall()
    assert [row["endocrine_sensitivity"] for row in rows] == [value for (value,) in stated]


def test_de_novo_is_sensitive_and_an_unknown_primary_unknown(values: Values) -> None:
    known = [one for one in patient(1) if one.event != "primary NST"]
    first, second = values([[*known, Event(1, "primary NST", "2021-04-01")], known])
    assert (first["de_novo"], first["endocrine_sensitivity"]) == (True, "sensitive")
    assert (second["de_novo"], second["endocrine_sensitivity"], second["histology"]) == (None, None, None)


SITES: list[tuple[list[str], int | None, bool | None, bool | None]] = [
    (["bone metastasis"], 1, True, False),
    (["bone metastasis", "unspecified metastasis"], 1, True, False),
    (["unspecified metastasis"], None, None, None),
    (["locally advanced"], 0, False, False),
    (["liver metastasis", "CNS metastasis", "CNS metastasis"], 2, False, True),
    (["node metastasis", "skin metastasis"], 2, False, False),
]


def test_metastatic_sites(values: Values) -> None:
    known = [one for one in patient(1) if one.event != "bone metastasis"]
    rows = values([known + [Event(1, one, "2021-04-22") for one in lesions] for lesions, *_ in SITES])
    assert [(row["metastatic_sites"], row["bone_only"], row["visceral"]) for row in rows] == [
        (sites, bone_only, visceral) for _, sites, bone_only, visceral in SITES
    ]


def test_a_stay_that_runs_over_the_cut_off_counts_up_to_it(values: Values) -> None:
    stay = Event(1, "visit", "2024-12-20", "2025-02-01")
    later = Event(1, "visit", "2025-01-02", "2025-02-01")
    rows = values([[*patient(1), stay], [*patient(1), later]])
    assert [row["days_to_death_or_last_contact"] for row in rows] == [1310, 401]


def test_a_death_before_the_index_leaves_time_and_event_unknown(values: Values) -> None:
    rows = values([[*patient(1), Event(1, "death", "2021-05-31")], [*patient(1), Event(1, "death", "2021-06-01")]])
    assert [(row["days_to_death_or_last_contact"], row["death"]) for row in rows] == [(None, None), (0, 1)]


def test_pounds_are_not_kilograms(memory: duckdb.DuckDBPyConnection) -> None:
    rules = load_rules("palmares2")
    laid_out(memory, patient(1), rules)
    assert "weight" in set(frame(memory, rules, "features")["feature"])
    memory.execute("UPDATE measurement SET unit_concept_id = 1 WHERE value_as_number = 65.5")
    lay_out(memory, rules, FRESH, salt="salt")
    assert frame(memory, rules, "baseline")["bmi"].isna().all()
    assert "weight" not in set(frame(memory, rules, "features")["feature"])


def test_an_empty_cohort_is_released_empty(tmp_path: Path) -> None:
    run(write([], tmp_path / "warehouse.duckdb"), tmp_path / "cohort")
    made = release(tmp_path / "warehouse.duckdb", tmp_path / "cohort", tmp_path / "release")
    names = ("baseline", "analyses", "time_to_event", "lines", "sequences", "features", "meds")
    assert made.datasets == dict.fromkeys(names, 0)
    assert len(pd.read_parquet(tmp_path / "release" / "baseline.parquet").columns) > 30


@pytest.mark.parametrize("what", ["no folder", "no manifest", "other warehouse", "other rules"])
def test_what_does_not_belong_together_is_not_released(what: str, place: Path, tmp_path: Path) -> None:
    cohort, warehouse = tmp_path / "cohort", place / "warehouse.duckdb"
    if what != "no folder":
        shutil.copytree(place / "cohort", cohort)
    if what == "no manifest":
        (cohort / "manifest.json").unlink()
    if what == "other warehouse":
        warehouse = write(registry()[:-1], tmp_path / "other.duckdb")
    if what == "other rules":
        manifest = json.loads((cohort / "manifest.json").read_text()) | {"study_sha256": "0" * 64}
        (cohort / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PalmaresError) as raised:
        release(warehouse, cohort, tmp_path / "release")
    assert raised.value.code == "E-PUBLISH-02"
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("what", ["no folder", "no manifest", "a table is gone", "another cut-off", "other rows"])
def test_what_was_derived_elsewhere_is_not_released(what: str, place: Path, tmp_path: Path) -> None:
    derived = tmp_path / "derived"
    if what != "no folder":
        shutil.copytree(place / "derived", derived)
    if what == "no manifest":
        (derived / "manifest.json").unlink()
    if what == "a table is gone":
        (derived / "line.parquet").unlink()
    changed = {"another cut-off": {"cut_off": "2024-01-01"}, "other rows": {"warehouse_content_sha256": "0" * 64}}.get(
        what
    )
    if changed:
        manifest = json.loads((derived / "manifest.json").read_text()) | changed
        (derived / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PalmaresError) as raised:
        release(place / "warehouse.duckdb", place / "cohort", tmp_path / "release", derived=derived)
    assert raised.value.code == "E-PUBLISH-02"
    assert list(tmp_path.iterdir()) in ([], [derived])


@pytest.mark.parametrize("moved", [0, 1, 3600], ids=["as released", "a day off", "an hour off"])
def test_the_last_look_holds_that_every_patient_has_day_0_at_one_moment(
    moved: int, place: Path, tmp_path: Path
) -> None:
    data = tmp_path / "meds" / "data"
    data.mkdir(parents=True)
    shift = {0: "INTERVAL 0 DAY", 1: "INTERVAL 1 DAY", 3600: "INTERVAL 1 HOUR"}[moved]
    duckdb.sql(
        f"SELECT * REPLACE (CASE WHEN subject_id = (SELECT max(subject_id) FROM '{place}/release/meds/data/0.parquet') "
        f"THEN time + {shift} ELSE time END AS time) FROM '{place}/release/meds/data/0.parquet'"
    ).write_parquet(str(data / "0.parquet"))
    if not moved:
        privacy.check(tmp_path, day_0=date(2000, 1, 1))
        return
    with pytest.raises(PalmaresError) as raised:
        privacy.check(tmp_path, day_0=date(2000, 1, 1))
    assert raised.value.code == "E-PUBLISH-01"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "x,2021-03-04\n"), ("a.html", "<td>4/3/2021</td>"), ("a.json", '{"on": "04.03.2021"}')],
)
def test_the_last_look_finds_dates_in_text(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PalmaresError) as raised:
        privacy.check(tmp_path)
    assert raised.value.code == "E-PUBLISH-01"
    assert "2021" not in str(raised.value)


@pytest.mark.parametrize(
    "column", [pd.to_datetime(["2021-03-04"]), ["seen 2021-03-04"], pd.Categorical(["2021-03-04"]), [date(2021, 3, 4)]]
)
def test_the_last_look_finds_dates_in_parquet(column: object, tmp_path: Path) -> None:
    pd.DataFrame({"x": column}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(PalmaresError) as raised:
        privacy.check(tmp_path)
    assert raised.value.code == "E-PUBLISH-01"


def test_the_last_look_lets_numbers_pass(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("patient,day\n20210304,-30\n0a1b2021-1,12\n")
    privacy.check(tmp_path)


def test_of_two_sites_the_initiating_one_says_what_was_known_at_day_0(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    rules = load_rules("palmares2")
    other = [
        Event(2, "known", site="s02"),
        Event(2, "liver metastasis", "2021-05-01", site="s02"),  # before day 0
        Event(2, "letrozole", "2019-10-01", "2021-04-20", site="s02"),  # adjuvant
        Event(2, "CNS metastasis", "2021-09-01", site="s02"),  # follow-up
        Event(2, "weight", "2021-05-31", value="99", site="s02"),
        Event(1, "linkage token", value="t"), Event(2, "linkage token", value="t", site="s02"),
    ]  # fmt: skip
    own = [Event(1, "liver metastasis", "2021-11-01")]  # known there before: not new
    laid_out(memory, [*patient(1), *own, *other], rules)
    (row,) = frame(memory, rules, "baseline").to_dict("records")
    assert (row["met_liver"], row["met_bone"], row["visceral"], row["metastatic_sites"]) == (False, True, False, 1)
    assert (row["endocrine_sensitivity"], row["adjuvant_et"], row["bmi"]) == ("sensitive", False, 25.6)
    features = frame(memory, rules, "features")
    known = features[features["feature"].isin(["met_liver", "met_cns"])].set_index(["landmark", "feature"])["value"]
    assert (known["day-0", "met_liver"], known["day-0", "met_cns"]) == (0, 0)
    assert (known["month-6", "met_liver"], known["month-6", "met_cns"]) == (1, 1)
    new = memory.execute("SELECT value FROM state WHERE name = 'new-site-undeclared'").fetchall()
    assert new == [("CNS",)]


def test_records_that_nobody_could_map_are_counted_where_meds_leaves_them_out(tmp_path: Path) -> None:
    what = registry()
    what += [Event(person, "unmapped drug", "2021-08-01") for person in range(1, 15)]
    warehouse = write(what, tmp_path / "warehouse.duckdb")
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(
            "INSERT INTO condition_occurrence BY NAME SELECT 900000 + person_id AS condition_occurrence_id, person_id, "
            "0 AS condition_concept_id, DATE '2021-09-01' AS condition_start_date FROM person WHERE person_id < 4"
        )
        connection.execute(  # what the study knows by its LOINC code has one
            "INSERT INTO measurement BY NAME SELECT 900000 + person_id AS measurement_id, person_id, 0 AS measurement_concept_id, "
            "'29593-1' AS measurement_source_value, 20.0 AS value_as_number, DATE '2021-05-01' AS measurement_date FROM person"
        )
    run(warehouse, tmp_path / "cohort")
    release(warehouse, tmp_path / "cohort", tmp_path / "release")
    said = json.loads((tmp_path / "release" / "manifest.json").read_text())["meds_left_out"]
    assert said == {"condition_occurrence": "*", "drug_exposure": 14, "visit_occurrence": 43}
