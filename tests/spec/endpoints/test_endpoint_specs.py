"""The tables of this folder, each row an answer, held against the SQL and against the plain-Python reference."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omop_etl.derive import reference
from omop_etl.derive.rules import Rules, apply, load_rules
from tests.derive_helpers import connect, fill, patients
from tests.spec.derive_specs import ENDPOINT, Answer, Spec, read

SPECS = read(Path(__file__).parent)
CASES = [pytest.param(spec, id=f"{spec.file}: {spec.heading}") for spec in SPECS]
TRAPS = (
    "immortal time", "left truncation", "informative censoring", "leap years", "month ends", "events of the same day",
    "death on day 0", "progression after the cut-off", "death in doubt",
)  # fmt: skip


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


def cut_offs(spec: Spec) -> list[date | None]:
    return list(dict.fromkeys(cut_off for cut_off, _ in spec.answers))


def check(
    answer: Answer, endpoints: dict[tuple[int, str], tuple[Any, ...]], states: dict[tuple[int, str], Any]
) -> None:
    said = f"person {answer.person}: {answer.words}"
    if answer.words.startswith("state "):
        _, name, value = answer.words.split(" ")
        assert (states.get((answer.person, name)) or "none") == value, said
        return
    match = ENDPOINT.fullmatch(answer.words)
    assert match, f"not an answer: {said}"
    wanted = match.groupdict()
    found = endpoints.get((answer.person, wanted["paramcd"]))
    if not (wanted["event"] or wanted["censored"]):
        assert found is None, said
        return
    assert found is not None, said
    start, end, event, censored, entry, flags = found
    assert (str(end), event, censored) == (wanted["day"] or wanted["censored"], wanted["event"], wanted["why"]), said
    assert wanted["start"] in (None, str(start)), said
    if wanted["entry"]:
        assert wanted["entry"] == str(entry).lower(), said
    assert sorted(filter(None, (wanted["flags"] or "").split(", "))) == sorted(flags), said


@pytest.mark.parametrize("spec", CASES)
def test_sql_derives_as_the_table_says(spec: Spec, warehouse: duckdb.DuckDBPyConnection) -> None:
    fill(warehouse, spec.events)
    for cut_off in cut_offs(spec):
        apply(warehouse, load_rules("palmares2", cut_off=cut_off))
        endpoints = {
            (person, name): tuple(rest)
            for person, name, *rest in warehouse.execute(
                "SELECT person_id, paramcd, start_date, end_date, evntdesc, cnsdtdsc, entry_day, flags FROM endpoint"
            ).fetchall()
        }
        states = {
            (person, name): value
            for person, name, value in warehouse.execute("SELECT person_id, name, value FROM state").fetchall()
        }
        for of, answer in spec.answers:
            if of == cut_off:
                check(answer, endpoints, states)


def states_of(patient: reference.Patient, rules: Rules) -> dict[str, str | None]:
    new = reference.de_novo(patient, rules)
    return {
        "de-novo": None if new is None else "yes" if new else "no",
        "endocrine-resistance": reference.resistance(patient, rules),
        "endpoints-withheld": patient.believed().in_doubt,
    }


@pytest.mark.parametrize("spec", CASES)
def test_reference_derives_as_the_table_says(spec: Spec) -> None:
    for cut_off in cut_offs(spec):
        rules = load_rules("palmares2", cut_off=cut_off)
        of = patients(spec.events, rules)
        endpoints = {
            (person, one.paramcd): (one.start, one.end, one.event, one.censored, one.entry_day, one.flags)
            for person, patient in of.items()
            for one in reference.endpoints(patient, rules)
        }
        states = {
            (person, name): value for person, patient in of.items() for name, value in states_of(patient, rules).items()
        }
        for at, answer in spec.answers:
            if at == cut_off:
                check(answer, endpoints, states)


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_of_the_protocol_has_its_table(trap: str) -> None:
    assert any(spec.heading.startswith("Trap: ") and trap in spec.heading for spec in SPECS), trap
