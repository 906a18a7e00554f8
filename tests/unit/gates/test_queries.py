"""The query book: one query per finding, answers that come back, and what becomes of it from one submission to the next."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from omop_etl.gates.queries import STATES, Query, answers, compared, follow, states, take_answers
from omop_etl.gates.slices import open_slice
from tests.gate_helpers import counted
from tests.slices import clean_rows, write_slice

FOUND = Query("Q1", "open", "G-ER", "ER", "p", "Patient/p", "person", 1, "look", "2024-01-01", "2024-01-01", 1, "s1")


def gate_folder(home: Path, name: str, vocabulary: Path, ki67: float | None, persons: int = 3) -> tuple[Path, Path]:
    """A slice whose first patient has this Ki-67, and what a gate leaves of it: verdict and rejects, counted without GX."""
    rows = clean_rows(persons=persons)
    for one in rows["measurement"]:
        if one.get("measurement_source_value") == "29593-1" and one["person_id"] == rows["person"][0]["person_id"]:
            one["value_as_number"] = ki67
    slice_ = write_slice(home / name / "slice", rows)
    gate = home / name / "gate"
    (gate / "rejects").mkdir(parents=True)
    counts = counted(slice_, vocabulary, gate / "rejects", family="G-RECEPTOR-04")
    checks = [
        {"code": code, "title": one.check.title, "verdict": one.verdict, "level": one.check.level}
        for code, one in counts.items()
    ]
    verdict = {"site": "prova", "slice_sha256": open_slice(slice_).sha256, "verdict": "WARN", "checks": checks}
    (gate / "verdict.json").write_text(json.dumps(verdict))
    return slice_, gate


def sheet(path: Path) -> list[dict[str, str]]:
    rows = list(openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True))
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def answer(book: Path, **given: str) -> None:
    """Fill the first line of queries.xlsx, as a data manager does."""
    workbook = openpyxl.load_workbook(book / "queries.xlsx")
    page = workbook.worksheets[0]
    heads = [cell.value for cell in page[1]]
    for name, value in given.items():
        page.cell(row=2, column=heads.index(name) + 1, value=value)
    workbook.save(book / "queries.xlsx")


def test_the_way_of_a_query(vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    first = gate_folder(tmp_path, "first", vocabulary, 0.2)
    followed = follow(book, *first)
    assert (followed.states["open"], followed.new, followed.more) == (1, 1, 0)
    assert follow(book, *first).new == 0, "the same gate twice changes nothing"
    (line,) = sheet(book / "queries.xlsx")
    assert (line["check"], line["state"], line["times"]) == ("G-RECEPTOR-04", "open", 1)
    rows = clean_rows(persons=1)
    assert line["patient"] == rows["person"][0]["person_source_value"]
    with (book / "queries.csv").open(encoding="utf-8-sig", newline="") as lines:
        assert [one["query"] for one in csv.DictReader(lines)] == [line["query"]]

    answer(book, answer="mended", answered_by="M. Rossi", answered_on="2025-01-10", comment="=1+1")
    assert take_answers(book, book / "queries.xlsx").states["answered"] == 1
    assert sheet(book / "queries.xlsx")[0]["comment"] == "'=1+1", "no spreadsheet calculates it"
    assert follow(book, *first).states["answered"] == 1, "the next submission has not come yet"

    second = gate_folder(tmp_path, "second", vocabulary, 0.3)
    assert follow(book, *second).states["reappeared"] == 1, "it was said to be mended, and is not"
    third = gate_folder(tmp_path, "third", vocabulary, 30.0)
    assert follow(book, *third).states == {"open": 0, "answered": 0, "resolved": 1, "reappeared": 0}
    fourth = gate_folder(tmp_path, "fourth", vocabulary, 0.4)
    assert follow(book, *fourth).states["reappeared"] == 1
    (line,) = sheet(book / "queries.xlsx")
    assert (line["times"], line["answered_by"]) == (3, "M. Rossi")


def test_answers_in_the_books_own_list_are_not_lost(vocabulary: Path, tmp_path: Path) -> None:
    book, first = tmp_path / "book", gate_folder(tmp_path, "first", vocabulary, 0.2)
    follow(book, *first)
    answer(book, answer="right-as-it-is", answered_by="M. Rossi", answered_on="2025-01-10")
    assert follow(book, *first).states["answered"] == 1
    second = gate_folder(tmp_path, "second", vocabulary, 0.2, persons=4)
    assert follow(book, *second).states["answered"] == 1, "an answer that settles it stays, though it is found again"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"answer": "perhaps", "answered_by": "x", "answered_on": "2025-01-10"}, "E-QUERY-03"),
        ({"answer": "mended", "answered_on": "2025-01-10"}, "E-QUERY-03"),
        ({"answer": "mended", "answered_by": "x", "answered_on": "10/01/2025"}, "E-QUERY-03"),
        ({"query": "Q0", "answer": "mended", "answered_by": "x", "answered_on": "2025-01-10"}, "E-QUERY-03"),
    ],
)
def test_answers_that_do_not_fit_are_refused_whole(
    given: dict[str, str], code: str, vocabulary: Path, tmp_path: Path
) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 0.2))
    before = (book / "queries.json").read_bytes()
    answer(book, **given)
    with pytest.raises(PalmaresError, match=code) as raised:
        take_answers(book, book / "queries.xlsx")
    assert raised.value.count == 1
    assert (book / "queries.json").read_bytes() == before


def test_a_list_as_excel_writes_it_in_italy(vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 0.2))
    number = sheet(book / "queries.xlsx")[0]["query"]
    text = f"query;answer;comment;answered_by;answered_on\r\n{number};cannot-be-known;così è;M. Rossi;2025-01-10\r\n"
    (tmp_path / "back.csv").write_bytes(text.encode("cp1252"))
    taken = take_answers(book, tmp_path / "back.csv")
    assert (taken.answers, taken.unanswered, taken.states["answered"]) == (1, 0, 1)
    assert sheet(book / "queries.xlsx")[0]["comment"] == "così è"


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PK\x03\x04 no workbook", None])
@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_a_file_that_is_no_list(content: bytes | None, suffix: str, vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 20.0))
    path = tmp_path / f"back{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PalmaresError, match="E-QUERY-02"):
        take_answers(book, path)


def test_a_book_that_is_none_or_another_sites(vocabulary: Path, tmp_path: Path) -> None:
    slice_, gate = gate_folder(tmp_path, "first", vocabulary, 0.2)
    with pytest.raises(PalmaresError, match="E-QUERY-01"):
        take_answers(tmp_path / "none", tmp_path / "x.csv")
    follow(tmp_path / "book", slice_, gate)
    path = tmp_path / "book" / "queries.json"
    path.write_text(path.read_text().replace('"site": "prova"', '"site": "altra"'))
    with pytest.raises(PalmaresError, match=r"E-QUERY-01.*another site"):
        follow(tmp_path / "book", slice_, gate)
    path.write_text("{}")
    with pytest.raises(PalmaresError, match=r"E-QUERY-01.*no query book"):
        follow(tmp_path / "book", slice_, gate)
    path.unlink()
    other = write_slice(tmp_path / "other", clean_rows(persons=2))
    with pytest.raises(PalmaresError, match="E-GATE-02"):
        follow(tmp_path / "book", other, gate)


slices_seen = st.lists(st.tuples(st.booleans(), st.sampled_from(["", *answers()])), max_size=8)


@given(slices_seen)
def test_no_query_is_ever_lost_and_what_is_found_is_never_resolved(history: list[tuple[bool, str]]) -> None:
    book: dict[str, Query] = {}
    for number, (found, said) in enumerate(history):
        seen = {"Q1": replace(FOUND, slice=hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest())}
        known = set(book)
        book = compared(book, seen if found else {})
        assert known <= set(book)
        assert sum(states(book.values()).values()) == len(book)
        if found:
            assert book["Q1"].state in STATES
            assert book["Q1"].state != "resolved"
        elif book:
            assert book["Q1"].state == "resolved"
        if said and found:
            book["Q1"] = replace(book["Q1"], state="answered", answer=said)
