"""Every check of OHDSI's dashboard on a warehouse full of faults: both numbers agree with SQL written here, check by check.

What is checked, and for which tables and fields, is read from OHDSI's own files, not from ours. The SQL here follows what the
dashboard's documentation says of each check type and shares nothing with the gate's.
"""

import csv
import json
import random
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fhir_adapters.knowledge import mappings_folder
from omop_etl.cdm import duckdb_columns, tables
from omop_etl.gates import gate_warehouse
from omop_etl.gates.ohdsi import FILE, made_from
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared("dqd")
RELEASE = SHARED / "data" / "dqd"
TODAY = date(2024, 6, 1)
EXCLUDED = [
    "concept",
    "vocabulary",
    "concept_ancestor",
    "concept_relationship",
    "concept_class",
    "concept_synonym",
    "relationship",
    "domain",
]
# concept id → domain, class, standard, invalid; of the ids that OHDSI's concept level names, some of each kind
CONCEPTS = {
    0: ("Metadata", "Undefined", None, None),
    8507: ("Gender", "Gender", "S", None),
    8532: ("Gender", "Gender", "S", None),
    32817: ("Type Concept", "Type Concept", "S", None),
    9202: ("Visit", "Visit", "S", None),
    197610: ("Condition", "Clinical Finding", "S", None),
    26662: ("Condition", "Clinical Finding", "S", "D"),
    4095793: ("Condition", "Clinical Finding", "S", None),
    900001: ("Condition", "Clinical Finding", None, None),
    900002: ("Drug", "Ingredient", "S", None),
    900003: ("Drug", "Clinical Drug", "C", None),
    3000963: ("Measurement", "Lab Test", "S", None),
    3024929: ("Measurement", "Lab Test", None, "U"),
    8713: ("Unit", "Unit", "S", None),
    8554: ("Unit", "Unit", "S", None),
    2109463: ("Procedure", "CPT4", "S", None),
}
ANCESTORS = [(4095793, 900001), (4095793, 4095793), (443343, 900001), (4090861, 26662)]


def released(level: str) -> list[dict[str, str]]:
    with (RELEASE / f"OMOP_CDMv5.4_{level}_Level.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = [{key: value.strip() for key, value in row.items() if key} for row in csv.DictReader(lines)]
    return [row for row in rows if row["cdmTableName"].lower() not in EXCLUDED]


def test_our_numbers_are_ohdsis() -> None:
    assert made_from(RELEASE) == (mappings_folder() / "quality" / FILE).read_text(encoding="utf-8")


# ------------------------------------------------------------------ a warehouse full of faults


def value(column: str, type_: str, chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return None
    if column.endswith("concept_id") or column.endswith(("concept_id_1", "concept_id_2")):
        return chance.choice([*CONCEPTS, 0, 77])
    if column == "cost_domain_id":
        return chance.choice(["Drug", "Nowhere"])
    if type_ in ("DATE", "TIMESTAMP"):
        days = [date(1900, 1, 1), date(2024, 6, 1), date(2024, 6, 2), date(2024, 6, 3), date(2999, 1, 1)]
        day = chance.choice([date(1990, 1, 1) + timedelta(chance.randrange(12_000)), *days])
        return day if type_ == "DATE" else datetime(day.year, day.month, day.day, chance.randrange(24))
    if type_ == "VARCHAR":
        return chance.choice(["a", "b", "c", "mg"])
    if type_ == "DOUBLE":
        return chance.choice([-1.0, 0.0, 0.5, 12.0])
    ranges = {
        "year_of_birth": [1840, 1950, 1991, 2000, 2026],
        "month_of_birth": [0, 1, 6, 12],
        "day_of_birth": [0, 1, 28],
    }
    return chance.choice(ranges.get(column, [-1, 0, 1, 2, 3, 5, 400]))


# a warehouse and how it differs from the first: another draw, or tables without a row
WORLDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "full": (6, ()),
    "nobody": (7, ("person", "death")),
    "without eras and visits": (8, ("condition_era", "drug_era", "visit_occurrence", "observation_period")),
}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long if at else ()) for at, name in enumerate(WORLDS)]
)
def warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty(tmp_path_factory.mktemp("dqd") / "warehouse.duckdb", *WORLDS[request.param])


def faulty(path: Path, seed: int, empty: tuple[str, ...]) -> Path:
    """Forty rows in most tables, a few of them empty, one missing; ids clash, references lead nowhere."""
    chance = random.Random(seed)
    with duckdb.connect(str(path)) as connection:
        for name in tables():
            if name in ("metadata", *EXCLUDED):
                continue
            columns = duckdb_columns(name)
            listed = ", ".join(f'"{column}" {type_}' for column, type_ in columns.items())
            connection.execute(f"CREATE TABLE {name} ({listed})")
            rows = 0 if name in ("cost", "note_nlp", "episode") else 40
            for _ in range(rows):
                row = [value(column, type_, chance) for column, type_ in columns.items()]
                holes = ", ".join("?" for _ in row)
                connection.execute(f"INSERT INTO {name} VALUES ({holes})", row)
        connection.execute("DELETE FROM condition_era WHERE person_id IN (0, 5)")
        connection.execute("UPDATE measurement SET measurement_concept_id = 3000963 WHERE value_as_number > 1")
        connection.execute("CREATE TABLE concept (concept_id INTEGER, concept_name VARCHAR, domain_id VARCHAR, vocabulary_id VARCHAR, "
                           "concept_class_id VARCHAR, standard_concept VARCHAR, concept_code VARCHAR, valid_start_date DATE, "
                           "valid_end_date DATE, invalid_reason VARCHAR)")  # fmt: skip
        for concept, (domain, class_, standard, invalid) in CONCEPTS.items():
            connection.execute(
                "INSERT INTO concept VALUES (?, 'a name', ?, 'Own', ?, ?, 'x', DATE '1970-01-01', DATE '2099-12-31', ?)",
                [concept, domain, class_, standard, invalid],
            )
        connection.execute("CREATE TABLE domain (domain_id VARCHAR, domain_name VARCHAR, domain_concept_id INTEGER)")
        connection.execute("INSERT INTO domain VALUES ('Drug', 'Drug', 1)")
        columns = duckdb_columns("vocabulary")
        connection.execute(f"CREATE TABLE vocabulary ({', '.join(f'{c} {t}' for c, t in columns.items())})")
        connection.execute("INSERT INTO vocabulary (vocabulary_id) VALUES ('a')")
        connection.execute("CREATE TABLE concept_ancestor (ancestor_concept_id INTEGER, descendant_concept_id INTEGER, "
                           "min_levels_of_separation INTEGER, max_levels_of_separation INTEGER)")  # fmt: skip
        for pair in ANCESTORS:
            connection.execute("INSERT INTO concept_ancestor VALUES (?, ?, 1, 1)", list(pair))
        # periods of one person that touch, that touch by the end of one that ends before it starts, and one whose end is not known
        days = [(91, "2020-01-01", "2020-01-31"), (92, "2020-02-01", "2020-03-01"), (93, "2021-01-10", "2021-01-05"),
                (94, "2021-01-06", "2021-01-08"), (95, "2022-02-02", None), (96, "2022-01-01", "2022-02-01")]  # fmt: skip
        for number, start, end in days:
            connection.execute(
                "INSERT INTO observation_period VALUES (?, ?, ?, ?, 32817)", [number, 700 + number // 2, start, end]
            )
        for name in empty:
            connection.execute(f"DELETE FROM {name}")
    return path


# ------------------------------------------------------------------ what each check type counts

Sql = tuple[str, str]
BIRTH = (
    "coalesce(CAST(p.birth_datetime AS DATE), try_cast(concat(p.year_of_birth, '-', lpad(CAST(coalesce(p.month_of_birth, 1) AS "
    "VARCHAR), 2, '0'), '-', lpad(CAST(coalesce(p.day_of_birth, 1) AS VARCHAR), 2, '0')) AS DATE))"
)
JUNE = "coalesce(CAST(p.birth_datetime AS DATE), try_cast(concat(p.year_of_birth, '-06-01') AS DATE))"
SEX = {"Male": 8507, "Female": 8532}


def count(table: str, condition: str, joined: str = "") -> str:
    return f"SELECT count(*) FROM {table} x {joined} WHERE {condition}"


def bound(text: str) -> str:
    if text.startswith("'"):
        return f"strptime('{text[1:-1]}', '%Y%m%d')::DATE"
    return text.replace("DATEADD(dd,1,GETDATE())", f"(DATE '{TODAY}' + INTERVAL 1 DAY)::DATE").replace(
        "YEAR(GETDATE())", str(TODAY.year)
    )


def field_checks(row: dict[str, str], table: str, field: str) -> Iterator[tuple[str, Sql]]:
    every = count(table, "true")
    is_date = "date" in row["cdmDatatype"]
    shown = f"CAST(x.{field} AS DATE)" if is_date else f"x.{field}"
    yield "cdmField", ("SELECT 0", "SELECT 1")
    yield "measureValueCompleteness", (f"SELECT count(*) - count({field}) FROM {table}", every)
    if row["isRequired"] == "Yes":
        yield "isRequired", (f"SELECT count(*) - count({field}) FROM {table}", every)
    if row["cdmDatatype"] == "integer":
        yield "cdmDatatype", ("SELECT 0", every)
    if row["isPrimaryKey"] == "Yes":
        twice = f"EXISTS (SELECT 1 FROM {table} y WHERE y.{field} = x.{field} AND y.rowid <> x.rowid)"
        yield "isPrimaryKey", (count(table, twice), every)
    if row["isForeignKey"] == "Yes":
        there = f"EXISTS (SELECT 1 FROM {row['fkTableName']} y WHERE y.{row['fkFieldName']} = x.{field})"
        yield "isForeignKey", (count(table, f"x.{field} IS NOT NULL AND NOT {there}"), every)
        concept = f"JOIN concept c ON c.concept_id = x.{field} AND c.concept_id <> 0"
        if row["fkDomain"]:
            yield "fkDomain", (count(table, f"c.domain_id <> '{row['fkDomain']}'", concept), every)
        if row["fkClass"]:
            yield "fkClass", (count(table, f"c.concept_class_id <> '{row['fkClass']}'", concept), every)
    if row["isStandardValidConcept"] == "Yes":
        concept = f"JOIN concept c ON c.concept_id = x.{field} AND c.concept_id <> 0"
        yield (
            "isStandardValidConcept",
            (count(table, "c.standard_concept <> 'S' OR c.invalid_reason IS NOT NULL", concept), every),
        )
    for check in ("standardConceptRecordCompleteness", "sourceConceptRecordCompleteness"):
        if row[check] == "Yes":
            numbers = table in ("measurement", "observation") and field == "unit_concept_id"
            looked = "x.value_as_number IS NOT NULL" if numbers else "true"
            yield check, (count(table, f"x.{field} = 0 AND {looked}"), count(table, looked))
    if row["sourceValueCompleteness"] == "Yes":
        values = f"SELECT DISTINCT coalesce({field}, '<nothing>') FROM {table}"
        unmapped = f"{values} WHERE {row['standardConceptFieldName']} = 0"
        yield "sourceValueCompleteness", (f"SELECT count(*) FROM ({unmapped})", f"SELECT count(*) FROM ({values})")
    for check, sign in (("plausibleValueLow", "<"), ("plausibleValueHigh", ">")):
        if row[check]:
            yield check, (count(table, f"{shown} {sign} {bound(row[check])}"), count(table, f"x.{field} IS NOT NULL"))
    if row["plausibleTemporalAfter"] == "Yes":
        if row["plausibleTemporalAfterTableName"] == "PERSON":
            person = "JOIN person p ON p.person_id = x.person_id"
            yield "plausibleTemporalAfter", (count(table, f"CAST(x.{field} AS DATE) < {JUNE}", person), every)
        else:
            other = f"CAST(x.{row['plausibleTemporalAfterFieldName']} AS DATE)"
            yield "plausibleTemporalAfter", (count(table, f"CAST(x.{field} AS DATE) < {other}"), every)
    dead = "JOIN death d ON d.person_id = x.person_id"
    after = f"date_diff('day', d.death_date, CAST(x.{field} AS DATE)) > 60"
    if row["plausibleDuringLife"] == "Yes":
        of = "EXISTS (SELECT 1 FROM death y WHERE y.person_id = x.person_id)"
        yield "plausibleDuringLife", (count(table, after, dead), count(table, of))
    if row["plausibleBeforeDeath"] == "Yes":
        yield "plausibleBeforeDeath", (count(table, after, dead), count(table, f"x.{field} IS NOT NULL", dead))
    if row["plausibleAfterBirth"] == "Yes":
        person = "JOIN person p ON p.person_id = x.person_id"
        yield (
            "plausibleAfterBirth",
            (count(table, f"CAST(x.{field} AS DATE) < {BIRTH}", person), count(table, f"x.{field} IS NOT NULL")),
        )
    if row["withinVisitDates"] == "Yes":
        visit = "JOIN visit_occurrence v ON v.visit_occurrence_id = x.visit_occurrence_id"
        outside = (
            f"date_diff('day', x.{field}, v.visit_start_date) > 7 OR date_diff('day', v.visit_end_date, x.{field}) > 7"
        )
        yield "withinVisitDates", (count(table, outside, visit), count(table, "true", visit))
    if row["plausibleStartBeforeEnd"] == "Yes":
        end = row["plausibleStartBeforeEndFieldName"]
        both = f"x.{field} IS NOT NULL AND x.{end} IS NOT NULL"
        wrong = f"{both} AND date_diff('day', CAST(x.{end} AS DATE), CAST(x.{field} AS DATE)) > 0"
        yield "plausibleStartBeforeEnd", (count(table, wrong), count(table, both))


def table_checks(row: dict[str, str], table: str) -> Iterator[tuple[str, Sql]]:
    people = "SELECT count(*) FROM person"
    yield "cdmTable", ("SELECT 0", "SELECT 1")
    if row["measurePersonCompleteness"] == "Yes":
        # the dashboard counts ids, so a person without one is among those looked at and never among those without a record
        none = f"x.person_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {table} y WHERE y.person_id = x.person_id)"
        yield "measurePersonCompleteness", (count("person", none), people)
    if row["measureConditionEraCompleteness"] == "Yes":
        with_conditions = "SELECT DISTINCT person_id FROM condition_occurrence WHERE person_id IS NOT NULL"
        yield (
            "measureConditionEraCompleteness",
            (
                f"SELECT count(*) FROM ({with_conditions} EXCEPT SELECT person_id FROM condition_era)",
                f"SELECT count(*) FROM ({with_conditions})",
            ),
        )
    if row["measureObservationPeriodOverlap"] == "Yes":
        start, end = "observation_period_start_date", "observation_period_end_date"
        # one may lack a date, or end before it starts: what is left still overlaps or touches
        meet = (
            "a.observation_period_id <> b.observation_period_id AND ("
            f"(a.{start} <= b.{end} AND b.{start} <= a.{end}) OR date_diff('day', a.{end}, b.{start}) = 1 "
            f"OR date_diff('day', b.{end}, a.{start}) = 1)"
        )
        pairs = f"observation_period a JOIN observation_period b ON a.person_id = b.person_id AND {meet}"
        yield (
            "measureObservationPeriodOverlap",
            (
                f"SELECT count(DISTINCT a.person_id) FROM {pairs}",
                "SELECT count(DISTINCT person_id) FROM observation_period",
            ),
        )


def concept_checks(row: dict[str, str], table: str, field: str) -> Iterator[tuple[str, Sql]]:
    ids = row["conceptId"]
    person = "JOIN person p ON p.person_id = x.person_id"
    if row["plausibleGender"]:
        wrong = f"x.{field} IN ({ids}) AND p.gender_concept_id <> {SEX[row['plausibleGender']]}"
        yield "plausibleGender", (count(table, wrong, person), count(table, f"x.{field} IN ({ids})"))
    if row["plausibleGenderUseDescendants"]:
        below = f"JOIN concept_ancestor a ON a.descendant_concept_id = x.{field} AND a.ancestor_concept_id IN ({ids})"
        wrong = f"p.gender_concept_id <> {SEX[row['plausibleGenderUseDescendants']]}"
        yield "plausibleGenderUseDescendants", (count(table, wrong, f"{below} {person}"), count(table, "true", below))
    if row["plausibleUnitConceptIdsThreshold"]:
        looked = f"x.{field} IN ({ids}) AND x.value_as_number IS NOT NULL AND x.unit_source_value IS NOT NULL"
        units = row["plausibleUnitConceptIds"]
        yield (
            "plausibleUnitConceptIds",
            (count(table, f"{looked} AND x.unit_concept_id NOT IN ({units})"), count(table, looked)),
        )


def expected() -> Iterator[tuple[str, str, str, str, Sql, str]]:
    """Check, table, field, concept, SQL of both numbers, threshold: every check that OHDSI's files ask for."""
    for row in released("Table"):
        for check, sql in table_checks(row, row["cdmTableName"].lower()):
            yield check, row["cdmTableName"].lower(), "", "", sql, row.get(f"{check}Threshold", "")
    for row in released("Field"):
        table, field = row["cdmTableName"].lower(), row["cdmFieldName"].lower().strip('"')
        if field != "offset":
            for check, sql in field_checks(row, table, field):
                yield check, table, field, "", sql, row.get(f"{check}Threshold", "")
    for row in released("Concept"):
        table, field, concept = (
            row["cdmTableName"].lower(),
            row["cdmFieldName"].lower(),
            row["conceptId"].replace(" ", ""),
        )
        for check, sql in concept_checks(row, table, field):
            yield check, table, field, concept, sql, row.get(f"{check}Threshold", "")


@pytest.fixture(scope="module")
def results(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("results") / "dqd"
    overview = gate_warehouse(warehouse, out, today=TODAY)
    document = json.loads((out / "dqd_results.json").read_text())
    assert document["Overview"] == overview
    return document


def test_both_numbers_of_every_check_agree(warehouse: Path, results: dict[str, Any]) -> None:
    found = {
        (
            one["checkName"],
            one["cdmTableName"].lower(),
            (one["cdmFieldName"] or "").lower(),
            one["conceptId"] or "",
        ): one
        for one in results["CheckResults"]
    }
    wrong, seen, violated = [], set(), set()
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        one_number: Callable[[str], int] = lambda sql: connection.execute(sql).fetchall()[0][0]  # noqa: E731
        for check, table, field, concept, (numerator, denominator), threshold in expected():
            mine = found.get((check, table, field, concept))
            assert mine is not None, (check, table, field, concept)
            seen.add((check, table, field, concept))
            if table == "metadata":
                assert mine["notApplicable"] == (check != "cdmTable")
                continue
            numbers = one_number(numerator), one_number(denominator)
            if (mine["numViolatedRows"], mine["numDenominatorRows"]) != numbers:
                wrong.append(
                    (check, table, field, concept, numbers, (mine["numViolatedRows"], mine["numDenominatorRows"]))
                )
            if numbers[0]:
                violated.add(check)
            share = 100 * numbers[0] / numbers[1] if numbers[1] else 0.0
            failed = numbers[0] > 0 if threshold in ("", "0") else share > float(threshold)
            assert mine["failed"] == int(failed and not mine["notApplicable"]), (check, table, field)
            assert mine["thresholdValue"] == (float(threshold) if threshold else None)
    assert wrong == []
    assert set(found) == seen, "nothing that OHDSI does not check"
    silent = {check for check, *_ in seen} - violated
    if connection_has(warehouse, "person") and connection_has(warehouse, "visit_occurrence"):
        assert silent == {"cdmTable", "cdmField", "cdmDatatype"}, "the faults reach every check type"


def connection_has(warehouse: Path, table: str) -> bool:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return bool(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def test_the_document_is_what_ohdsis_viewers_read(results: dict[str, Any]) -> None:
    assert {"startTimestamp", "endTimestamp", "executionTime", "CheckResults", "Metadata", "Overview"} == set(results)
    assert {"cdmSourceName", "cdmVersion", "vocabularyVersion", "dqdVersion", "cdmReleaseDate"} <= set(
        results["Metadata"][0]
    )
    checks = results["CheckResults"]
    for one in checks:
        assert one["failed"] + one["passed"] + one["notApplicable"] + one["isError"] == 1
        assert one["context"] in ("Verification", "Validation")
        assert one["category"] in ("Conformance", "Completeness", "Plausibility")
        assert one["checkLevel"] in ("TABLE", "FIELD", "CONCEPT")
        assert (one["notApplicableReason"] is None) == (not one["notApplicable"])
    assert len({one["checkId"] for one in checks}) == len(checks)
    key = next(one for one in checks if one["checkName"] == "isPrimaryKey" and one["cdmTableName"] == "PERSON")
    assert key["checkId"] == "field_isprimarykey_person_person_id"
    overview = results["Overview"]
    assert overview["countTotal"] == len(checks)
    assert overview["countOverallFailed"] == sum(one["failed"] for one in checks)
    assert overview["countPassed"] + overview["countOverallFailed"] == overview["countTotal"]


def test_what_has_nothing_to_look_at_is_not_applicable(results: dict[str, Any]) -> None:
    reasons = {(one["checkId"]): one["notApplicableReason"] for one in results["CheckResults"]}
    assert reasons["field_isrequired_cost_cost_id"] == "Table COST is empty."
    assert reasons["field_isrequired_metadata_metadata_id"] == "Table METADATA does not exist."
    assert reasons["table_cdmtable_metadata"] is None
    assert reasons["concept_plausiblegender_condition_occurrence_condition_concept_id_30969"] == (
        "CONDITION_CONCEPT_ID=30969 is missing from the CONDITION_OCCURRENCE table."
    )


def test_the_context_of_a_check_type_is_ohdsis(results: dict[str, Any]) -> None:
    with (RELEASE / "OMOP_CDMv5.4_Check_Descriptions.csv").open(encoding="utf-8-sig", newline="") as lines:
        said = {row["checkName"]: row for row in csv.DictReader(lines)}
    assert len(said) == 27
    found = {one["checkName"]: one for one in results["CheckResults"]}
    assert set(found) == set(said)
    for name, one in found.items():
        assert (one["checkLevel"], one["context"], one["category"], one["subcategory"]) == (
            said[name]["checkLevel"],
            said[name]["kahnContext"],
            said[name]["kahnCategory"],
            said[name]["kahnSubcategory"],
        ), name
