"""`omop_etl/cdm/tables.csv` against OHDSI's own definitions of CDM 5.4 and of the Medical Imaging extension."""

import csv

import pytest

from omop_etl import cdm
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared("omop_cdm")
FOLDER = SHARED / "data" / "omop_cdm"
TYPES = {"int": "integer", "datetime": "timestamp", "float": "double", "varchar(max)": "text"}


def _rows(name):
    with (FOLDER / name).open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.DictReader(lines):
            clean = {key.strip(): (value or "").replace("\xa0", " ").strip() for key, value in row.items() if key}
            yield {key: "" if value == "NA" else value for key, value in clean.items()}


def _fields():
    for name in ("OMOP_CDMv5.4_Field_Level.csv", "MI-CDM_Field_Level.csv"):
        for row in _rows(name):
            # one file writes fkFrieldName, one quotes the reserved word "offset"
            row["fkFieldName"] = row.get("fkFieldName") or row.get("fkFrieldName", "")
            row["cdmFieldName"] = row["cdmFieldName"].strip('"')
            yield row


@pytest.fixture(scope="module")
def fields():
    return list(_fields())


def test_the_same_columns_in_the_same_order(fields):
    theirs = [(row["cdmTableName"].lower(), row["cdmFieldName"].lower()) for row in fields]
    ours = [(table.name, name) for table in cdm.tables().values() for name in table.names]
    assert ours == theirs


def test_the_same_types_but_for_ids_of_rows(fields):
    for row in fields:
        column = cdm.tables()[row["cdmTableName"].lower()][row["cdmFieldName"].lower()]
        theirs = TYPES.get(row["cdmDatatype"].lower(), row["cdmDatatype"].lower())
        if column.type == "bigint":
            assert theirs == "integer" and column.name.removesuffix("_1").removesuffix("_2").endswith("_id")
        else:
            assert column.type == theirs, (row["cdmTableName"], column.name)


def test_the_same_rules(fields):
    for row in fields:
        column = cdm.tables()[row["cdmTableName"].lower()][row["cdmFieldName"].lower()]
        assert column.required == (row["isRequired"] == "Yes")
        assert column.primary_key == (row["isPrimaryKey"] == "Yes")
        theirs = (row["fkTableName"].lower(), row["fkFieldName"].lower()) if row["isForeignKey"] == "Yes" else None
        assert column.references == theirs
        assert (column.domain, column.concept_class) == (row["fkDomain"], row["fkClass"])


def test_the_same_schemas():
    theirs = {row["cdmTableName"].lower(): row["schema"].lower() for row in _rows("OMOP_CDMv5.4_Table_Level.csv")}
    assert {name: cdm.tables()[name].schema for name in theirs} == theirs
