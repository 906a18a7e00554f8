"""The query book: one query per finding, answers that come back, and what becomes of it from one submission to the next."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import PalmaresError
from omop_etl.gates.definitions import definitions
from omop_etl.gates.queries import STATES, Query, answers, compared, findings, follow, states, take_answers
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
        ({"answer": "mended", "answered_by": "x", "answered_on": "31/02/2025"}, "E-QUERY-03"),
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


def back(path: Path, lines: Sequence[Mapping[str, object]], *, first: str = "queries") -> Path:
    """A list as a spreadsheet program saves it: any order of columns, cells of any type, a sheet before it."""
    workbook = openpyxl.Workbook()
    page = workbook.active
    assert page is not None
    page.title = first
    if first != "queries":
        page.append(["answer", "what it means"])
        page = workbook.create_sheet("queries")
    page.append(list(lines[0]))
    for line in lines:
        page.append(list(line.values()))
    workbook.save(path)
    return path


@pytest.mark.parametrize(
    "day",
    [date(2025, 1, 10), datetime(2025, 1, 10), "10/01/2025", "10-1-2025", "10.01.2025", "2025-01-10", "2025-01-10 00:00:00", 45667, 45667.0,
     " 2025-01-10 "],
)  # fmt: skip
def test_a_day_is_read_however_a_spreadsheet_saves_it(day: object, vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 0.2))
    number = sheet(book / "queries.xlsx")[0]["query"]
    line = {
        "Answered_on": day,
        "comment": 12,
        "ANSWER ": " Right-As-It-Is",
        "query": number,
        "answered_by": "M. Rossi",
        "more": None,
    }
    taken = take_answers(book, back(tmp_path / "back.xlsx", [line], first="how"))
    assert taken.states["answered"] == 1
    (told,) = sheet(book / "queries.xlsx")
    assert (told["answer"], told["answered_on"], str(told["comment"])) == ("right-as-it-is", "2025-01-10", "12")
    before = json.loads((book / "queries.json").read_text())["queries"]
    assert take_answers(book, tmp_path / "back.xlsx").states == taken.states
    assert json.loads((book / "queries.json").read_text())["queries"] == before, "the same list twice changes nothing"


def test_the_message_names_the_lines_and_two_answers_to_one_query_are_none(vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 0.2))
    number = sheet(book / "queries.xlsx")[0]["query"]
    good = {"query": number, "answer": "mended", "comment": "", "answered_by": "M. Rossi", "answered_on": "2025-01-10"}
    wrong = [
        good,
        good | {"answer": "cannot-be-known"},
        good | {"query": "Q1", "answered_by": "Maria Bianchi"},
        good | {"answered_by": ""},
    ]
    with pytest.raises(PalmaresError) as raised:
        take_answers(book, back(tmp_path / "back.xlsx", wrong))
    said = str(raised.value)
    assert (
        "line 3: the same query has another answer further up; line 4: the book has no such query; line 5: answered_by is empty"
        in said
    )
    assert "Bianchi" not in said and raised.value.count == 3


def test_a_line_that_is_begun_stops_no_run_and_is_not_lost(vocabulary: Path, tmp_path: Path) -> None:
    book, first = tmp_path / "book", gate_folder(tmp_path, "first", vocabulary, 0.2)
    follow(book, *first)
    answer(book, answer="mended", comment="asked the ward")
    followed = follow(book, *first)
    assert (followed.states["open"], followed.unfinished) == (1, 1)
    assert sheet(book / "queries.xlsx")[0]["comment"] == "asked the ward"
    answer(book, answered_by="M. Rossi", answered_on="2025-01-10")
    followed = follow(book, *first)
    assert (followed.states["answered"], followed.unfinished) == (1, 0)


def test_an_italian_site_gets_its_list_in_italian(vocabulary: Path, tmp_path: Path) -> None:
    book, first = tmp_path / "book", gate_folder(tmp_path, "first", vocabulary, 0.2)
    follow(book, *first, language="it")
    (line,) = sheet(book / "queries.xlsx")
    assert line["title"] == "Ki-67 è una percentuale, non una frazione"
    assert line["what_to_do"] == "Moltiplicare per 100 nell'estrazione, se la fonte contiene frazioni."
    workbook = openpyxl.load_workbook(book / "queries.xlsx")
    assert workbook.sheetnames == ["queries", "come si fa"]
    assert "corretto" in str(workbook.worksheets[0].data_validations.dataValidation[0].formula1)
    assert "Il record è stato corretto nella fonte" in str(list(workbook.worksheets[1].values))
    answer(book, answer="corretto", answered_by="M. Rossi", answered_on="10/01/2025")
    assert follow(book, *first, language="it").states["answered"] == 1
    assert sheet(book / "queries.xlsx")[0]["answer"] == "corretto"
    assert json.loads((book / "queries.json").read_text())["queries"][0]["answer"] == "mended"
    second = gate_folder(tmp_path, "second", vocabulary, 0.3)
    assert follow(book, *second, language="it").states["reappeared"] == 1


def rejected(home: Path, name: str, ids: list[int]) -> tuple[Path, dict[str, Any]]:
    """A gate that rejects these rows of measurement."""
    gate = home / name
    (gate / "rejects").mkdir(parents=True)
    rows = pa.table({"cdm_table": ["measurement"] * len(ids), "cdm_id": pa.array(ids, pa.int64())})
    pq.write_table(rows, gate / "rejects" / "G-RECEPTOR-04.parquet")
    return gate, {"checks": [{"code": "G-RECEPTOR-04", "title": "Ki-67", "verdict": "WARN", "level": "STUDY"}]}


def test_more_findings_than_a_list_holds_come_as_the_first_are_settled(tmp_path: Path) -> None:
    opened = open_slice(write_slice(tmp_path / "slice"))
    defined = replace(definitions(), most_queries=3)
    gate, verdict = rejected(tmp_path, "one", list(range(101, 111)))
    found, more = findings(opened, gate, verdict, defined, {})
    assert (sorted(one.row for one in found.values()), more) == ([101, 102, 103], 7)
    book = compared({}, found)
    # rows with smaller ids come: what the book asks about is still found, and is not resolved
    gate, verdict = rejected(tmp_path, "two", list(range(91, 111)))
    found, more = findings(opened, gate, verdict, defined, book)
    assert (sorted(one.row for one in found.values()), more) == ([101, 102, 103], 17)
    book = compared(book, found)
    assert states(book.values())["resolved"] == 0
    # two are settled: two more are asked, and the settled ones stay settled
    for number in list(book)[:2]:
        book[number] = replace(book[number], state="answered", answer="right-as-it-is")
    found, more = findings(opened, gate, verdict, defined, book)
    assert (len(found), more) == (5, 15)
    book = compared(book, found)
    assert states(book.values()) == {"open": 3, "answered": 2, "resolved": 0, "reappeared": 0}


def test_where_a_table_cannot_be_looked_at_nothing_is_resolved(vocabulary: Path, tmp_path: Path) -> None:
    book = tmp_path / "book"
    follow(book, *gate_folder(tmp_path, "first", vocabulary, 0.2))
    slice_, gate = gate_folder(tmp_path, "second", vocabulary, 30.0)
    verdict = json.loads((gate / "verdict.json").read_text())
    verdict["checks"].append({"code": "G-COLUMNS-measurement", "title": "", "verdict": "BLOCK", "level": "FILE"})
    (gate / "verdict.json").write_text(json.dumps(verdict))
    assert follow(book, slice_, gate).states["open"] == 1
