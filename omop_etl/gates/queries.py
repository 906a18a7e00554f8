"""Queries: for each finding the records to look at, by pseudonym, worked through by the site's data manager and tracked.

    follow(book, slice_, gate)        bring the site's query book up to the gate that was just run; writes queries.csv and queries.xlsx
    take_answers(book, file)          take a worked-through list (.xlsx or .csv) back into the book

A query is one finding: one check and one row of the CDM. Its number follows from both, so that it is the same query from one submission to
the next. Its state:

    open         found, and nobody has answered
    answered     found, and someone has looked: the answer stands beside it
    resolved     no longer found
    reappeared   found again after it was resolved, or after someone said that it was mended

The book stays in the hospital: nothing of it is in a submission but the number of queries per state. It names patients and
resources by their pseudonyms, and holds no date and no value of theirs; what a data manager writes into `comment` stays too.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters import knowledge
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from omop_etl.gates.definitions import Definitions, covers, definitions, key_of
from omop_etl.gates.slices import Slice, open_slice, quoted_path, read_json

STATES = ("open", "answered", "resolved", "reappeared")
BOOK, CSV, XLSX = "queries.json", "queries.csv", "queries.xlsx"
FORMAT = 1
_ANSWER_COLUMNS = ("query", "answer", "comment", "answered_by", "answered_on")
_STYLED = 5_000  # lines of a workbook whose cells are wrapped: each one costs
_TRACE = "side/trace.parquet"
# what a spreadsheet takes for a formula when a cell begins with it
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Query:
    """One finding. `first` and `last` are the ends of the extractions in which it was found first and last; `times` in how many
    different slices. The last five columns are the data manager's."""

    query: str
    state: str
    check: str
    title: str
    patient: str
    resource: str
    table: str
    row: int
    what_to_do: str
    first: str
    last: str
    times: int
    slice: str
    answer: str = ""
    comment: str = ""
    answered_by: str = ""
    answered_on: str = ""


@dataclass(frozen=True)
class Followed:
    """How many queries there are per state, and how many more findings there are than the list holds."""

    site: str
    states: dict[str, int]
    new: int
    more: int
    file: str


@dataclass(frozen=True)
class Taken:
    """What came back: answers taken, lines without an answer."""

    site: str
    answers: int
    unanswered: int
    states: dict[str, int]


def answers() -> dict[str, bool]:
    """The answers that a data manager may give; whether the query is settled by it, or must be gone at the next submission."""
    return {row["code"]: row["settles"] == "yes" for row in knowledge.table("quality", "answers.csv")}


# ------------------------------------------------------------------ following the gate


def follow(book: Path, slice_: Path, gate: Path) -> Followed:
    """Bring the book up to this gate of this slice and write it anew with its lists. The same gate twice changes nothing.

    Answers that were written into the book's own lists and not taken yet are taken first, so that none is lost. Raises E-SLICE-*,
    E-GATE-02, E-QUERY-01 when the book is another site's or does not read, E-QUERY-02 and -03 for answers that do not fit.
    """
    opened = open_slice(slice_)
    verdict = read_json(Path(gate) / "verdict.json", "E-GATE-02")
    if verdict.get("site") != opened.site or verdict.get("slice_sha256") != opened.sha256:
        raise PalmaresError("E-GATE-02", str(gate), detail="the slice has changed since, or is another one")
    old = known(Path(book), opened.site)
    defined = definitions()
    found, more = findings(opened, Path(gate), verdict, defined)
    queries = compared(old, found)
    _write(Path(book), opened.site, queries)
    new = sum(one.query not in old for one in queries.values())
    return Followed(opened.site, states(queries.values()), new, more, str(Path(book) / XLSX))


def compared(old: Mapping[str, Query], found: Mapping[str, Query]) -> dict[str, Query]:
    """The queries after a gate: what was found against what the book held."""
    settles = answers()
    queries: dict[str, Query] = {}
    for number, query in found.items():
        before = old.get(number)
        if before is None:
            queries[number] = query
            continue
        newer = before.slice != query.slice
        state = before.state
        if state == "resolved" or (newer and state == "answered" and not settles.get(before.answer, True)):
            state = "reappeared"
        queries[number] = replace(
            query,
            state=state,
            first=before.first,
            times=before.times + newer,
            answer=before.answer,
            comment=before.comment,
            answered_by=before.answered_by,
            answered_on=before.answered_on,
        )
    for number, before in old.items():
        if number not in found:
            queries[number] = replace(before, state="resolved")
    return queries


def states(queries: Iterable[Query]) -> dict[str, int]:
    """Queries per state."""
    counts = dict.fromkeys(STATES, 0)
    for query in queries:
        counts[query.state] += 1
    return counts


def findings(
    opened: Slice, gate: Path, verdict: Mapping[str, Any], defined: Definitions
) -> tuple[dict[str, Query], int]:
    """The rows that broken checks reject, each as a query; and how many were left out because a check has too many."""

    remedies = {check.code: check.remedy for check in defined.checks}
    with duckdb.connect() as connection:
        titles, more = _asked(connection, gate, verdict, defined)
        rows = _rows(connection, opened) if titles else []
    found = {}
    for code, table, row, patient, resource in rows:
        number = _number(code, table, row)
        found[number] = Query(
            query=number,
            state="open",
            check=code,
            title=titles[code],
            patient=patient or "",
            resource=resource or "",
            table=table,
            row=row,
            what_to_do=remedies.get(code, ""),
            first=opened.extracted_to or "",
            last=opened.extracted_to or "",
            times=1,
            slice=opened.sha256[:16],
        )
    return found, more


def _asked(
    connection: duckdb.DuckDBPyConnection, gate: Path, verdict: Mapping[str, Any], defined: Definitions
) -> tuple[dict[str, str], int]:
    """Fill `asked` (code, cdm_table, cdm_id) from the reject files of the checks that are asked about; their titles, and how many
    rows are too many for a list."""
    connection.execute("CREATE TEMP TABLE asked (code VARCHAR, cdm_table VARCHAR, cdm_id BIGINT)")
    titles, more = {}, 0
    for check in verdict["checks"]:
        code, path = check["code"], gate / "rejects" / f"{check['code']}.parquet"
        broken = check["verdict"] != "PASS" or check["level"] == "STUDY"
        if not broken or not path.is_file() or any(covers(one, code) for one in defined.never_asked):
            continue
        rows = f"SELECT DISTINCT cdm_table, cdm_id FROM read_parquet({quoted_path(path)}) WHERE cdm_id IS NOT NULL"
        there = connection.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0]
        connection.execute(
            f"INSERT INTO asked SELECT ?, * FROM ({rows}) ORDER BY ALL LIMIT {defined.most_queries}", [code]
        )
        more += max(int(there) - defined.most_queries, 0)
        if there:
            titles[code] = check["title"]
    return titles, more


def _number(code: str, table: str, row: int) -> str:
    digest = hashlib.md5(f"{code}|{table}|{row}".encode(), usedforsecurity=False).hexdigest()
    return f"Q{digest[:12]}"


def _rows(connection: duckdb.DuckDBPyConnection, opened: Slice) -> list[tuple[str, str, int, str, str]]:
    """Code, table, row, the patient's pseudonym and the resource of each row of `asked`, in their order."""
    from omop_etl.mapping import origins

    if (opened.folder / _TRACE).is_file():
        connection.execute(
            "CREATE TEMP TABLE origin AS SELECT cdm_table, cdm_id, min(resource_type || '/' || resource_id) AS resource "
            f"FROM {origins(opened.folder)} o SEMI JOIN asked a USING (cdm_table, cdm_id) GROUP BY ALL"
        )
    else:
        connection.execute("CREATE TEMP TABLE origin (cdm_table VARCHAR, cdm_id BIGINT, resource VARCHAR)")
    found: list[tuple[str, str, int, str, str]] = []
    people = opened.tables.get("person")
    tables = [row[0] for row in connection.execute("SELECT DISTINCT cdm_table FROM asked ORDER BY 1").fetchall()]
    for table in tables:
        file = opened.tables.get(table)
        if file is None or people is None:
            continue
        columns = {row[0] for row in connection.execute(f"DESCRIBE FROM {quoted_path(file)}").fetchall()}
        person = "t.person_id" if "person_id" in columns else "NULL"
        found += connection.execute(
            f"""SELECT a.code, a.cdm_table, a.cdm_id, min(p.person_source_value), min(o.resource)
                FROM asked a LEFT JOIN {quoted_path(file)} t ON t."{key_of(table)}" = a.cdm_id
                LEFT JOIN {quoted_path(people)} p ON p.person_id = {person}
                LEFT JOIN origin o ON o.cdm_table = a.cdm_table AND o.cdm_id = a.cdm_id
                WHERE a.cdm_table = '{table}' GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    return found


# ------------------------------------------------------------------ answers


def take_answers(book: Path, file: Path) -> Taken:
    """Take the answers of a worked-through list into the book.

    A line without an answer is left as it is. Raises E-QUERY-01 when there is no book, E-QUERY-02 when the file cannot be read or lacks
    columns, E-QUERY-03 for answers that are not known, lack who gave them or a date, or are for queries that the book does not have;
    then none is taken.
    """
    site, queries = _read(Path(book))
    given = _answers_of(Path(file))
    taken, unanswered = _taken(queries, given, Path(file).name)
    _write(Path(book), site, taken)
    return Taken(site, len(given) - unanswered, unanswered, states(taken.values()))


def _taken(queries: Mapping[str, Query], given: Iterable[Mapping[str, str]], name: str) -> tuple[dict[str, Query], int]:
    codes, taken, wrong, unanswered = answers(), dict(queries), 0, 0
    for line in given:
        if not line["answer"]:
            unanswered += 1
            continue
        query = queries.get(line["query"])
        if query is None or line["answer"] not in codes or not line["answered_by"] or not _is_date(line["answered_on"]):
            wrong += 1
            continue
        if all(line[key] == getattr(query, key) for key in _ANSWER_COLUMNS):
            continue  # it had been taken
        taken[query.query] = replace(
            query,
            state="answered" if query.state in ("open", "reappeared") else query.state,
            answer=line["answer"],
            comment=line["comment"],
            answered_by=line["answered_by"],
            answered_on=line["answered_on"],
        )
    if wrong:
        raise PalmaresError(
            "E-QUERY-03",
            name,
            count=wrong,
            detail=f"answers are {', '.join(codes)}, with who gave them and the day as YYYY-MM-DD",
        )
    return taken, unanswered


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _answers_of(file: Path) -> list[dict[str, str]]:
    """The lines of a worked-through list, .csv or .xlsx, with the columns of an answer."""
    try:
        lines = _sheet(file) if file.suffix.lower() == ".xlsx" else _comma_separated(file)
    except FileNotFoundError:
        raise PalmaresError("E-QUERY-02", file.name, detail="there is no such file") from None
    except Exception as error:  # whatever a library says of a damaged file may hold its text: only the kind is told
        raise PalmaresError("E-QUERY-02", file.name, detail=f"it does not read ({type(error).__name__})") from None
    missing = [name for name in _ANSWER_COLUMNS if lines and name not in lines[0]]
    if missing or not lines:
        raise PalmaresError(
            "E-QUERY-02", file.name, detail=f"columns are missing: {', '.join(missing or _ANSWER_COLUMNS)}"
        )
    return [{name: _plain(line[name]) for name in _ANSWER_COLUMNS} for line in lines if line["query"]]


def _plain(value: object) -> str:
    """A cell as text: a date as its day, without the apostrophe that keeps a spreadsheet from calculating."""
    if value is None:
        return ""
    if isinstance(value, date):
        return value.isoformat()[:10]
    text = str(value).strip()
    return text[1:] if text.startswith("'") else text


def _sheet(file: Path) -> list[dict[str, Any]]:
    import openpyxl

    workbook = openpyxl.load_workbook(file, read_only=True)
    try:
        rows = list(workbook.worksheets[0].iter_rows(values_only=True))
    finally:
        workbook.close()
    heads = [str(cell or "") for cell in rows[0]] if rows else []
    return [dict(zip(heads, row, strict=False)) for row in rows[1:] if any(row)]


def _comma_separated(file: Path) -> list[dict[str, Any]]:
    """A CSV as the list was written, or as Excel writes it in Italy: with semicolons, perhaps in Windows-1252."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    head = text.partition("\n")[0]
    return list(csv.DictReader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ","))


# ------------------------------------------------------------------ the book


def _read(book: Path) -> tuple[str, dict[str, Query]]:
    document = read_json(book / BOOK, "E-QUERY-01")
    names = {one.name for one in fields(Query)}
    try:
        if document["format"] != FORMAT:
            raise KeyError("format")
        return str(document["site"]), {
            entry["query"]: Query(**{name: entry[name] for name in names}) for entry in document["queries"]
        }
    except (KeyError, TypeError):
        raise PalmaresError("E-QUERY-01", str(book), detail=f"{BOOK} is no query book") from None


def known(book: Path, site: str) -> dict[str, Query]:
    """The queries of the book, with what was written into its own lists since; none when there is no book yet.

    Raises E-QUERY-01 when it is another site's or does not read, E-QUERY-02 and -03 for answers that do not fit."""
    if not (book / BOOK).is_file():
        return {}
    owner, queries = _read(book)
    if owner != site:
        raise PalmaresError("E-QUERY-01", str(book), detail="it is another site's")
    written = read_json(book / BOOK, "E-QUERY-01").get("lists", {})
    for name in (CSV, XLSX):
        path = book / name
        if path.is_file() and _hash(path) != written.get(name):
            queries, _ = _taken(queries, _answers_of(path), name)
    return queries


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(book: Path, site: str, queries: Mapping[str, Query]) -> None:
    """The book and its two lists, whole or not at all: what is to be worked on first."""
    order = {"reappeared": 0, "open": 1, "answered": 2, "resolved": 3}
    listed = sorted(queries.values(), key=lambda one: (order[one.state], one.check, one.patient, one.query))
    with whole_folder(book) as folder:
        with (folder / CSV).open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([one.name for one in fields(Query)])
            writer.writerows([_guarded(value) for value in asdict(one).values()] for one in listed)
        _write_sheet(folder / XLSX, listed)
        document = {
            "format": FORMAT,
            "site": site,
            "lists": {name: _hash(folder / name) for name in (CSV, XLSX)},
            "queries": [asdict(one) for one in listed],
        }
        (folder / BOOK).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_sheet(path: Path, listed: list[Query]) -> None:
    """The list as a workbook: filters, a fixed head, the answers to choose from; a second sheet says how it is worked."""
    import openpyxl
    from openpyxl.styles import Alignment, Font, PatternFill
    from openpyxl.worksheet.datavalidation import DataValidation

    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    sheet.title = "queries"
    names = [one.name for one in fields(Query)]
    sheet.append(names)
    for one in listed:
        sheet.append([_guarded(value) for value in asdict(one).values()])
    yours = PatternFill("solid", fgColor="FFF2CC")
    widths = {"title": 44, "what_to_do": 60, "comment": 40, "patient": 34, "resource": 40, "check": 30}
    for at, name in enumerate(names, 1):
        head = sheet.cell(row=1, column=at)
        head.font = Font(bold=True)
        if name in _ANSWER_COLUMNS[1:]:
            head.fill = yours
        sheet.column_dimensions[head.column_letter].width = widths.get(name, 14)
    if len(listed) <= _STYLED:
        for row in sheet.iter_rows(min_row=2):
            for cell in row:
                cell.alignment = Alignment(vertical="top", wrap_text=True)
    sheet.freeze_panes = "C2"
    sheet.auto_filter.ref = sheet.dimensions
    choice = DataValidation(type="list", formula1=f'"{",".join(answers())}"', allow_blank=True)
    letter = sheet.cell(row=1, column=names.index("answer") + 1).column_letter
    choice.add(f"{letter}2:{letter}{max(len(listed), 1) + 1}")
    sheet.add_data_validation(choice)
    how = workbook.create_sheet("how")
    for line in (
        [
            "Each line is one query: look the patient up by the pseudonym, look at the record, and fill the coloured columns."
        ],
        ["Then: palmares gate answers queries.xlsx --book FOLDER"],
        ["Write no name, no birth date and no number of the patient into the comment."],
        [],
        ["answer", "what it means"],
        *([row["code"], row["explanation"]] for row in knowledge.table("quality", "answers.csv")),
    ):
        how.append(line)
    how.column_dimensions["A"].width = 24
    how.column_dimensions["B"].width = 110
    workbook.save(path)
