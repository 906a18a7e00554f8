"""References in every form that FHIR allows, and what they point to here."""

import duckdb
import pytest

from omop_etl.mapping.codesets import literal
from omop_etl.mapping.identity import MASK, resource_hash
from omop_etl.mapping.sql import statements

VALUES = {"site": "'here'", "site_name": "'here'", "release": "'v'", "zone": "'UTC'", "mask": str(MASK)}


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    for statement in statements("macros.sql", **VALUES):
        if "MACRO reference_key" in statement or "MACRO provider_key" in statement:
            made.execute(statement)
    return made


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("Patient/1", "1"),
        ("Patient/a-b.C", "a-b.C"),
        ("http://server.example/fhir/Patient/1", "1"),
        ("https://server.example/Patient/1/_history/7", "1"),
        ("Patient/1/_history/7", "1"),
        ("urn:uuid:0c3f", "0c3f"),
        ("urn:oid:1.2.3", "1.2.3"),
        ("#1", None),
        ("Patient?identifier=http://x|1", None),
        ("http://server.example/Patient?identifier=1", None),
        ("Group/1", None),
        ("MyPatient/1", None),
        ("http://server.example/OtherPatient/1", None),
        ("Patient/", None),
        ("Patient", None),
        ("", None),
        (None, None),
    ],
)
def test_reference(connection: duckdb.DuckDBPyConnection, text: str | None, identity: str | None) -> None:
    found = connection.execute(f"SELECT reference_key({literal(text)}::VARCHAR, 'Patient')").fetchone()
    assert found == (None if identity is None else resource_hash("here", "Patient", identity),)


def test_a_provider_is_a_practitioner_or_a_role(connection: duckdb.DuckDBPyConnection) -> None:
    for kind in ("Practitioner", "PractitionerRole"):
        found = connection.execute(f"SELECT provider_key('{kind}/1')").fetchone()
        assert found == (resource_hash("here", kind, "1"),)
    assert connection.execute("SELECT provider_key('Organization/1')").fetchone() == (None,)
