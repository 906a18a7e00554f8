"""The CDM facts: light to import, the same in DDL, metadata and Arrow."""

import subprocess
import sys

import duckdb
import pytest

from omop_etl import cdm


def test_import_is_light():
    loaded = subprocess.run(
        [sys.executable, "-c", "import omop_etl.cdm, sys; omop_etl.cdm.tables(); print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"sqlalchemy", "pyarrow", "pandas", "duckdb"} & set(loaded)


def test_tables_of_the_cdm_and_of_medical_imaging():
    assert len(cdm.tables()) == 41
    assert next(iter(cdm.tables())) == "person"
    assert {"image_occurrence", "image_feature"} <= set(cdm.tables())


def test_names_are_lower_case_words():
    for table in cdm.tables().values():
        for name in (table.name, *table.names):
            assert name.islower() and name.replace("_", "").isalnum()


def test_ids_of_rows_are_bigint_and_concept_ids_are_integer():
    for table in cdm.tables().values():
        for column in table.columns:
            if "concept_id" in column.name:
                assert column.type == "integer", (table.name, column.name)
            elif column.references and column.references[0] != "concept":
                target = cdm.tables()[column.references[0]]
                assert column.type == target[column.references[1]].type, (table.name, column.name)


def test_every_reference_meets_a_primary_key():
    for table in cdm.tables().values():
        for column in table.columns:
            if column.references:
                name, key = column.references
                assert cdm.tables()[name].primary_key == key


def test_death_has_no_key_of_its_own():
    assert cdm.tables()["death"].primary_key is None
    assert cdm.tables()["measurement"].primary_key == "measurement_id"


def test_length_of_text_columns():
    person = cdm.tables()["person"]
    assert person["person_source_value"].length == 50
    assert cdm.tables()["note"]["note_text"].length is None


@pytest.mark.parametrize("keys", [True, False])
def test_duckdb_takes_the_ddl_and_keeps_columns_and_types(keys):
    connection = duckdb.connect()
    for statement in cdm.ddl("duckdb", keys=keys):
        connection.execute(statement)
    for name, table in cdm.tables().items():
        described = connection.execute(f"DESCRIBE {name}").fetchall()
        assert {row[0]: row[1] for row in described} == cdm.duckdb_columns(name)
        assert tuple(row[0] for row in described) == table.names
        required = {row[0] for row in described if row[2] == "NO"}
        assert required == ({column.name for column in table.columns if column.required} if keys else set())


def test_duckdb_keeps_the_primary_key():
    connection = duckdb.connect()
    for statement in cdm.ddl("duckdb", ["episode_event", "domain"]):
        connection.execute(statement)
    connection.execute("INSERT INTO domain VALUES ('Drug', 'Drug', 13)")
    with pytest.raises(duckdb.ConstraintException):
        connection.execute("INSERT INTO domain VALUES ('Drug', 'Drug', 13)")


def test_arrow_schema_is_what_duckdb_writes():
    connection = duckdb.connect()
    for statement in cdm.ddl("duckdb"):
        connection.execute(statement)
    for name in cdm.tables():
        assert connection.execute(f"FROM {name}").to_arrow_table().schema == cdm.arrow_schema(name)


def test_postgresql_gets_references_only_between_chosen_tables():
    statements = cdm.ddl("postgresql", ["person", "death"])
    references = [statement for statement in statements if "FOREIGN KEY" in statement]
    assert [statement.split('"')[1] for statement in references] == ["death"]
    assert (
        'REFERENCES "person" ("person_id")' in references[0] and "concept" not in references[0].split("REFERENCES")[1]
    )


def test_keys_afterwards_say_the_same_as_keys_at_once():
    at_once = "\n".join(cdm.ddl("postgresql"))
    afterwards = "\n".join(cdm.key_ddl())
    assert at_once.count("FOREIGN KEY") == afterwards.count("FOREIGN KEY") > 150
    assert at_once.count("PRIMARY KEY") == afterwards.count("PRIMARY KEY") == 30
    assert at_once.count("NOT NULL") == afterwards.count("SET NOT NULL")
    assert "FOREIGN KEY" not in "\n".join(cdm.key_ddl(foreign=False))


def test_schema_is_part_of_the_name():
    assert cdm.ddl("postgresql", ["death"], keys=False, schema="palmares")[0].startswith(
        'CREATE TABLE "palmares"."death"'
    )


def test_metadata_holds_the_same_facts():
    metadata = cdm.metadata(schema="omop")
    assert set(metadata.tables) == {f"omop.{name}" for name in cdm.tables()}
    for name, table in cdm.tables().items():
        reflected = metadata.tables[f"omop.{name}"]
        assert tuple(column.name for column in reflected.columns) == table.names
        assert {key.target_fullname for key in reflected.foreign_keys} == {
            "omop." + ".".join(column.references) for column in table.columns if column.references
        }


def test_identifiers_fit_postgresql():
    for table in cdm.tables().values():
        for column in table.columns:
            assert len(f"fk_{table.name}_{column.name}") < 64


def test_duckdb_reflection_equals_metadata():
    """By the dialect through which the gate looks at a slice."""
    import sqlalchemy as sa

    pytest.importorskip("duckdb_sqlalchemy")
    engine = sa.create_engine("duckdb:///:memory:")
    with engine.connect() as connection:
        for statement in cdm.ddl("duckdb"):
            connection.execute(sa.text(statement))
        inspector = sa.inspect(connection)
        for name, table in cdm.metadata().tables.items():
            reflected = {column["name"]: column for column in inspector.get_columns(name)}
            assert list(reflected) == [column.name for column in table.columns]
            for column in table.columns:
                assert reflected[column.name]["nullable"] == column.nullable
                assert reflected[column.name]["type"].python_type is column.type.python_type
            assert inspector.get_pk_constraint(name)["constrained_columns"] == [key.name for key in table.primary_key]
