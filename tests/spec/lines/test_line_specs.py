"""The tables of this folder, each row an answer, held against the SQL and against the plain-Python reference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omop_etl.derive import reference
from omop_etl.derive.rules import apply, load_rules
from tests.derive_helpers import connect, fill, patients
from tests.spec.derive_specs import LINE, Spec, read

SPECS = read(Path(__file__).parent)
CASES = [pytest.param(spec, id=f"{spec.file}: {spec.heading}") for spec in SPECS]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


def check(spec: Spec, found: dict[int, list[tuple[Any, ...]]]) -> None:
    for person in {answer.person for _, answer in spec.answers}:
        said = [answer.words for _, answer in spec.answers if answer.person == person]
        named = [one for one in said if not one.startswith("disagreement")]
        if named == ["no line"]:
            assert found.get(person, []) == [], f"person {person}"
            continue
        lines = found.get(person, [])
        assert len(lines) == len(named), f"person {person}: {lines}"
        for words, (number, start, end, regimen, reason, flags) in zip(named, lines, strict=True):
            match = LINE.fullmatch(words)
            assert match, f"person {person}: not an answer: {words}"
            wanted = match.groupdict()
            assert (int(wanted["number"]), wanted["start"], wanted["end"], wanted["regimen"]) == (
                number, str(start), str(end) if end else "", regimen,
            ), f"person {person}"  # fmt: skip
            if wanted["reason"]:
                assert wanted["reason"] == reason, f"person {person}"
            assert sorted(filter(None, (wanted["flags"] or "").split(", "))) == sorted(flags), f"person {person}"


@pytest.mark.parametrize("spec", CASES)
def test_sql_derives_as_the_table_says(spec: Spec, warehouse: duckdb.DuckDBPyConnection) -> None:
    fill(warehouse, spec.events)
    apply(warehouse, load_rules("palmares2"))
    found: dict[int, list[tuple[Any, ...]]] = {}
    rows = warehouse.execute(
        "SELECT person_id, line_number, start_date, end_date, regimen, end_reason, flags FROM line ORDER BY ALL"
    ).fetchall()
    for person, *rest in rows:
        found.setdefault(person, []).append(tuple(rest))
    check(spec, found)
    listed = warehouse.execute("SELECT person_id, kind FROM disagreement ORDER BY ALL").fetchall()
    said = [(a.person, a.words.partition(" ")[2]) for _, a in spec.answers if a.words.startswith("disagreement")]
    assert listed == sorted(said)


@pytest.mark.parametrize("spec", CASES)
def test_reference_derives_as_the_table_says(spec: Spec) -> None:
    rules = load_rules("palmares2")
    check(
        spec,
        {
            person: [
                (line.number, line.start, line.end, line.regimen, line.reason, line.flags)
                for line in reference.lines(patient, rules)
            ]
            for person, patient in patients(spec.events, rules).items()
        },
    )
