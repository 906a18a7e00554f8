"""The CDM's DDL on a real PostgreSQL: what comes out is what the facts say, by either way in."""

import psycopg
import pytest
import sqlalchemy as sa

from omop_etl import cdm
from tests.postgres import needs_postgresql
from tests.postgres import postgresql as postgresql

pytestmark = needs_postgresql


def _create(cluster, schema, statements):
    with psycopg.connect(cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{schema}"')
        for statement in statements:
            connection.execute(statement)


def _facts(schema, engine):
    """Table → (columns with type and rule, primary key, references) as the database tells them."""
    found = {}
    inspector = sa.inspect(engine)
    for name in inspector.get_table_names(schema=schema):
        columns = [
            (column["name"], column["type"].compile(engine.dialect), column["nullable"])
            for column in inspector.get_columns(name, schema=schema)
        ]
        references = {
            (key["constrained_columns"][0], key["referred_table"], key["referred_columns"][0])
            for key in inspector.get_foreign_keys(name, schema=schema)
        }
        found[name] = (columns, inspector.get_pk_constraint(name, schema=schema)["constrained_columns"], references)
    return found


def _expected(dialect):
    """The same of the metadata."""
    return {
        table.name: (
            [(column.name, column.type.compile(dialect), column.nullable) for column in table.columns],
            [column.name for column in table.primary_key],
            {(key.parent.name, key.column.table.name, key.column.name) for key in table.foreign_keys},
        )
        for table in cdm.metadata().tables.values()
    }


@pytest.fixture(scope="module")
def engine(postgresql):
    engine = sa.create_engine(postgresql.sqlalchemy_url)
    yield engine
    engine.dispose()


def test_reflection_equals_metadata(postgresql, engine):
    _create(postgresql, "at_once", cdm.ddl("postgresql", schema="at_once"))
    assert _facts("at_once", engine) == _expected(engine.dialect)


def test_bare_tables_take_rows_and_then_keys(postgresql, engine):
    _create(postgresql, "bare", cdm.ddl("postgresql", keys=False, schema="bare"))
    assert all(not key and not references for _, key, references in _facts("bare", engine).values())
    with psycopg.connect(postgresql.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO bare.location (location_id) VALUES (9007199254740991)")
        connection.execute("INSERT INTO bare.care_site (care_site_id, location_id) VALUES (1, 9007199254740991)")
        for statement in cdm.key_ddl(schema="bare"):
            connection.execute(statement)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("INSERT INTO bare.care_site (care_site_id, location_id) VALUES (2, 2)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO bare.care_site (care_site_id) VALUES (1)")
    assert _facts("bare", engine) == _expected(engine.dialect)
    indexed = {index["column_names"][0] for index in sa.inspect(engine).get_indexes("measurement", schema="bare")}
    assert indexed == {"person_id", "visit_occurrence_id", "measurement_concept_id"}


def test_some_tables_only(postgresql, engine):
    _create(postgresql, "some", cdm.ddl("postgresql", ["death", "person", "note_nlp"], schema="some"))
    facts = _facts("some", engine)
    assert set(facts) == {"death", "person", "note_nlp"}
    assert facts["death"][2] == {("person_id", "person", "person_id")}


def test_sqlalchemy_can_create_the_same(engine):
    metadata = cdm.metadata(schema="by_metadata")
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("by_metadata"))
        metadata.create_all(connection)
    assert _facts("by_metadata", engine) == _expected(engine.dialect)
