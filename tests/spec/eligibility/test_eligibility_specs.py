"""The tables of this folder, each row an answer, held against the SQL and against the plain-Python reference.

    person | event | on | until | value   -> criterion ANSWER reason [flag]; …

`*` is everyone in the table; `at DATE:` and `in VARIANT:` before an answer give another cut-off or a named variant.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import duckdb
import pytest

from omop_etl.cohorts import reference
from omop_etl.cohorts.eligibility import evaluate
from omop_etl.study.rules import Study, load_study
from tests.warehouses import Event, connect, event, fill, people, read_table

HERE = Path(__file__).parent
ANSWER = re.compile(
    r"(?P<criterion>[a-z0-9-]+) (?P<answer>PASS|FAIL|UNKNOWN) (?P<reason>[a-z0-9-]+)(?: \[(?P<flag>[a-z0-9-]+)\])?"
)


@dataclass(frozen=True)
class Expected:
    """One answer of a table."""

    person: int
    criterion: str
    answer: str
    reason: str
    flag: str | None
    cut_off: date | None
    variant: str | None


@dataclass(frozen=True)
class Spec:
    """One table of a file: what happened and what is to be answered."""

    file: str
    number: int
    events: tuple[Event, ...]
    expected: tuple[Expected, ...]


@cache
def specs() -> tuple[Spec, ...]:
    found = []
    for path in sorted(HERE.glob("*.md")):
        blocks = re.findall(r"(?:^ {4}.*\n)+", path.read_text(encoding="utf-8"), re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            rows = read_table(block)
            persons = list(dict.fromkeys(row["person"] for row in rows if row["person"] != "*"))
            # what everyone has comes first, so that a person's own row (a sex, a month of birth) has the last word
            all_ = [
                row | {"person": person, "site": _site(rows, person)}
                for person in persons
                for row in rows
                if row["person"] == "*"
            ]
            own = [row for row in rows if row["person"] != "*"]
            expected = tuple(one for row in own for one in _expected(int(row["person"]), row["->"]))
            found.append(Spec(path.name, number, tuple(event(row) for row in all_ + own), expected))
    return tuple(found)


def _site(rows: list[dict[str, str]], person: str) -> str:
    return next(row.get("site", "") for row in rows if row["person"] == person)


def _expected(person: int, text: str) -> list[Expected]:
    cut_off, variant = None, None
    if text.startswith("at "):
        day, _, text = text[3:].partition(": ")
        cut_off = date.fromisoformat(day)
    elif text.startswith("in "):
        variant, _, text = text[3:].partition(": ")
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = ANSWER.fullmatch(part)
        assert match, f"person {person}: not an answer: {part}"
        found.append(Expected(person, **match.groupdict(), cut_off=cut_off, variant=variant))
    return found


def settings(spec: Spec) -> list[tuple[date | None, str | None]]:
    return list(dict.fromkeys((one.cut_off, one.variant) for one in spec.expected))


CASES = [pytest.param(spec, id=f"{spec.file}-{spec.number}") for spec in specs()]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect([]) as connection:
        yield connection


@pytest.mark.parametrize("spec", CASES)
def test_sql_answers_as_the_table_says(spec: Spec, warehouse: duckdb.DuckDBPyConnection) -> None:
    fill(warehouse, spec.events)
    for cut_off, variant in settings(spec):
        evaluate(warehouse, load_study("palmares2", cut_off=cut_off, variant=variant))
        rows = warehouse.execute("SELECT person_id, criterion_name, answer, reason, flag FROM eligibility").fetchall()
        check(spec, cut_off, variant, {(person, name): rest for person, name, *rest in rows})


@pytest.mark.parametrize("spec", CASES)
def test_reference_answers_as_the_table_says(spec: Spec) -> None:
    for cut_off, variant in settings(spec):
        study = load_study("palmares2", cut_off=cut_off, variant=variant)
        answers = reference.eligibility(people(spec.events), study.parameters, study.cut_off)
        found = {
            (person, criterion.name): [one.answer, one.reason, one.flag or flag_of(study, criterion.number, one.reason)]
            for person, several in answers.items()
            for criterion, one in zip(study.criteria, several, strict=True)
        }
        check(spec, cut_off, variant, found)


def flag_of(study: Study, criterion: int, code: str) -> str | None:
    """A reason that someone must act on is its own flag."""
    reason = study.reason(criterion, code)
    return code if reason and reason.action != "none" else None


def check(
    spec: Spec, cut_off: date | None, variant: str | None, found: dict[tuple[int, str], list[str | None]]
) -> None:
    for one in spec.expected:
        if (one.cut_off, one.variant) != (cut_off, variant):
            continue
        answer, reason, flag = found[one.person, one.criterion]
        assert (answer, reason) == (one.answer, one.reason), f"person {one.person}, {one.criterion}"
        assert one.flag in (None, flag), f"person {one.person}, {one.criterion}: flag"


def test_every_reason_and_flag_stands_in_a_table() -> None:
    study = load_study("palmares2")
    numbers = {criterion.name: criterion.number for criterion in study.criteria}
    shown = {
        (numbers[one.criterion], code) for spec in specs() for one in spec.expected for code in (one.reason, one.flag)
    }
    assert {(one.criterion, one.code) for one in study.reasons if one.kind != "finding"} <= shown


def test_every_criterion_has_its_file_and_its_sentence() -> None:
    for criterion in load_study("palmares2").criteria:
        text = (HERE / f"{criterion.number:02}_{criterion.name.replace('-', '_')}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {criterion.number}. {criterion.sentence}\n")
