"""Ids: from source identity, the same in SQL and in Python, within what a double holds, settled alike in any order."""

import random
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omop_etl.mapping.codesets import literal
from omop_etl.mapping.identity import MASK, resource_hash, row_id, settle
from omop_etl.mapping.sql import statements
from tests.mapping_helpers import Slice, mapped, patient, resource

VALUES = {"site": "'here'", "site_name": "'here'", "release": "'v'", "zone": "'UTC'", "mask": str(MASK)}
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    for statement in statements("macros.sql", **VALUES):
        if "MACRO resource_key" in statement or "MACRO id_of" in statement or "MACRO row_hash" in statement:
            made.execute(statement)
    return made


CONNECTION = connection()


@settings(deadline=None)
@given(identity=words, discriminator=st.just("") | words)
def test_sql_and_python_give_one_id(identity: str, discriminator: str) -> None:
    hash_ = f"row_hash(resource_key('Patient', {literal(identity)}), {literal(discriminator)})"
    found = CONNECTION.execute(f"SELECT {hash_}, id_of({hash_})").fetchone()
    hashed = resource_hash("here", "Patient", identity, discriminator)
    assert found == (hashed, row_id(hashed))
    assert 0 < row_id(hashed) <= 2**53 - 1


def test_what_an_id_depends_on() -> None:
    one = resource_hash("here", "Patient", "1")
    assert one != resource_hash("there", "Patient", "1")
    assert one != resource_hash("here", "Encounter", "1")
    assert one != resource_hash("here", "Patient", "1", "component/1")
    # pinned: ids must never change between versions of ours, of Python or of DuckDB
    assert row_id(one) == 8821097593536880


def settled(hashes: list[int], mask: int, seed: int) -> dict[int, int]:
    with duckdb.connect() as own:
        own.execute("CREATE TABLE rows (hash UHUGEINT, row_id BIGINT)")
        shuffled = random.Random(seed).sample(hashes, len(hashes))
        own.execute("INSERT INTO rows VALUES " + ", ".join(f"({one}, {row_id(one, mask)})" for one in shuffled))
        settle(own, ["rows"], mask)
        return dict(own.execute("SELECT hash, row_id FROM rows").fetchall())


@settings(deadline=None, max_examples=25)
@given(hashes=st.lists(st.integers(1, 2**127), min_size=2, max_size=40, unique=True), seed=st.integers(0, 99))
def test_collisions_end_alike_in_any_order(hashes: list[int], seed: int) -> None:
    mask = 0xFF  # an eight-bit id collides often
    one, other = settled(hashes, mask, seed), settled(hashes, mask, seed + 1)
    assert one == other
    assert len(set(one.values())) == len(hashes)


@pytest.mark.requirement("f2o-020", "f2o-021")
def test_business_identifiers_make_no_id_and_stand_in_no_source_value(tmp_path: Path) -> None:
    """Other identifiers, the same ids; another logical id with the same identifiers, another id."""

    def known(number: str, *, of: str = "p", suffix: str = "") -> list[dict[str, Any]]:
        own = {"identifier": [{"system": "urn:hospital:mrn", "value": number}]}
        told = [
            resource(kind, kind.lower() + suffix, of, **own)
            for kind in ("Condition", "Encounter", "MedicationRequest", "Procedure", "Observation", "DiagnosticReport")
        ]
        staff = [{"resourceType": kind, "id": f"s{suffix}", "name": "x"} | own for kind in ("Organization", "Location")]
        return [patient(of, **own), {"resourceType": "Practitioner", "id": f"s{suffix}"} | own, *staff, *told]

    def ids(found: Slice) -> dict[str, set[int]]:
        return {
            path.stem: {row[f"{path.stem}_id"] for row in found.rows(path.stem)}
            for path in found.folder.glob("*.parquet")
            if path.stem not in ("ledger", "death", "cdm_source")
        }

    one = mapped(tmp_path / "one", known("MRN-0001"))
    other = mapped(tmp_path / "other", known("MRN-9999"))
    assert ids(one) == ids(other)
    renamed = mapped(tmp_path / "renamed", known("MRN-0001", of="q", suffix="-2"))
    for table, found in ids(renamed).items():
        assert not found & ids(one)[table], table
    for path in sorted(one.folder.rglob("*.parquet")):
        assert "MRN-0001" not in str(one.rows(str(path.relative_to(one.folder).with_suffix("")))), path.name
