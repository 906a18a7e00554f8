"""Queries: for each finding the records to look at, by pseudonym, worked through by the site's data manager and tracked.

    follow(book, slice_, gate)        bring the site's query book up to the gate that was just run; writes queries.csv and queries.xlsx
    take_answers(book, file)          take a worked-through list (.xlsx or .csv) back into the book

A query is one finding: one check and one row of the CDM. Its number follows from both, so that it is the same query from one submission to
the next. Its state:

    open         found, and nobody has answered
    answered     found, and someone has looked: the answer stands beside it
    resolved     no longer found
    reappeared   found again after it was resolved, or after someone said that it was mended

A list that comes back may have been saved by any spreadsheet program: columns in another order, days as days or as Italy writes them, a
sheet moved. An answer may be given in English or in Italian; the book holds the English word. A line that is begun and not finished
waits in the book's own list and stops no run.

The book stays in the hospital: nothing of it is in a submission but the number of queries per state. It names patients and
resources by their pseudonyms, and holds no date and no value of theirs; what a data manager writes into `comment` stays too.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters import knowledge
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from omop_etl.config import LANGUAGES
from omop_etl.gates.definitions import Definitions, covers, definitions, key_of
from omop_etl.gates.slices import Slice, open_slice, quoted_path, read_json

STATES = ("open", "answered", "resolved", "reappeared")
BOOK, CSV, XLSX = "queries.json", "queries.csv", "queries.xlsx"
FORMAT = 1
_ANSWER_COLUMNS = ("query", "answer", "comment", "answered_by", "answered_on")
_SHOWN = 5  # lines of a list that a message names
# a check that says that a table cannot be looked at: then nothing is known to be gone
_UNSEEN = ("G-COLUMNS", "G-TABLE", "G-FIELD")
_ITALIAN_DAY = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?: 0?0[:.]00(?:[:.]00)?)?")
_EXCEL_DAY_0 = date(1899, 12, 30)
_STYLED = 5_000  # lines of a workbook whose cells are wrapped: each one costs
_TRACE = "side/trace.parquet"
# the second sheet of a list: its name, and how the list is worked
_HOW = {
    "en": (
        "how",
        "Each line is one query: look the patient up by the pseudonym, look at the record, and fill the coloured columns.",
        "Save it where it is: the next run takes the answers. Or send them at once: palmares gate answers queries.xlsx --book FOLDER",
        "Write no name, no birth date and no number of the patient into the comment.",
        "The answers, and what they mean:",
    ),
    "it": (
        "come si fa",
        "Ogni riga è una query: cercare il paziente con lo pseudonimo, guardare il record e compilare le colonne colorate.",
        "Salvare il file dov'è: la prossima esecuzione prende le risposte. Oppure subito: palmares gate answers queries.xlsx --book CARTELLA",
        "Nel commento non scrivere nomi, date di nascita o numeri del paziente.",
        "Le risposte e il loro significato:",
    ),
}
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
    """How many queries there are per state, how many more findings there are than the list holds, and lines of the list that were
    begun and not finished."""

    site: str
    states: dict[str, int]
    new: int
    more: int
    file: str
    unfinished: int = 0


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


def _answer_words(language: str) -> dict[str, str]:
    """Answer → how a list in this language writes it."""
    return {
        row["code"]: row["risposta" if language == "it" else "code"]
        for row in knowledge.table("quality", "answers.csv")
    }


def _settled(query: "Query") -> bool:
    return query.state == "resolved" or (query.state == "answered" and answers().get(query.answer, False))


# ------------------------------------------------------------------ following the gate


def follow(book: Path, slice_: Path, gate: Path, *, language: str = LANGUAGES[0]) -> Followed:
    """Bring the book up to this gate of this slice and write it anew with its lists, in the site's language. The same gate twice
    changes nothing.

    Answers that were written into the book's own lists and not taken yet are taken first, so that none is lost; a line that is not
    finished stays in the list. Raises E-SLICE-*, E-GATE-02, E-QUERY-01 when the book is another site's or does not read, E-QUERY-02 for
    a list that does not read.
    """
    opened = open_slice(slice_)
    verdict = read_json(Path(gate) / "verdict.json", "E-GATE-02")
    if verdict.get("site") != opened.site or verdict.get("slice_sha256") != opened.sha256:
        raise PalmaresError("E-GATE-02", str(gate), detail="the slice has changed since, or is another one")
    old = known(Path(book), opened.site)
    defined = definitions()
    found, more = findings(opened, Path(gate), verdict, defined, old, language)
    queries = compared(old, found, gone=seen_whole(verdict))
    _write(Path(book), opened.site, queries, language)
    new = sum(one.query not in old for one in queries.values())
    unfinished = sum(
        bool(one.answer) and one.state in ("open", "reappeared") and one.answer not in answers()
        for one in queries.values()
    )
    unfinished += sum(
        one.state in ("open", "reappeared")
        and one.answer in answers()
        and not (one.answered_by and _day(one.answered_on))
        for one in queries.values()
    )
    return Followed(opened.site, states(queries.values()), new, more, str(Path(book) / XLSX), unfinished)


def seen_whole(verdict: Mapping[str, Any]) -> bool:
    """Whether every table could be looked at; where one could not, what is not found is not known to be gone."""
    return not any(
        covers(family, check["code"]) and check["verdict"] != "PASS"
        for check in verdict["checks"]
        for family in _UNSEEN
    )


def compared(old: Mapping[str, Query], found: Mapping[str, Query], *, gone: bool = True) -> dict[str, Query]:
    """The queries after a gate: what was found against what the book held. What is not found any more is resolved, if what is not
    found is known to be `gone`."""
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
            queries[number] = replace(before, state="resolved") if gone else before
    return queries


def states(queries: Iterable[Query]) -> dict[str, int]:
    """Queries per state."""
    counts = dict.fromkeys(STATES, 0)
    for query in queries:
        counts[query.state] += 1
    return counts


def findings(
    opened: Slice,
    gate: Path,
    verdict: Mapping[str, Any],
    defined: Definitions,
    old: Mapping[str, Query],
    language: str = LANGUAGES[0],
) -> tuple[dict[str, Query], int]:
    """The rows that broken checks reject, each as a query; and how many were left out because a check has too many. Those that the
    book knows are always among them."""
    said = {check.code: check.text(language) for check in defined.checks}
    with duckdb.connect() as connection:
        titles, more = _asked(connection, gate, verdict, defined, old)
        rows = _rows(connection, opened) if titles else []
    found = {}
    for code, table, row, patient, resource in rows:
        number = _number(code, table, row)
        found[number] = Query(
            query=number,
            state="open",
            check=code,
            title=said[code].title if code in said else titles[code],
            patient=patient or "",
            resource=resource or "",
            table=table,
            row=row,
            what_to_do=said[code].remedy if code in said else "",
            first=opened.extracted_to or "",
            last=opened.extracted_to or "",
            times=1,
            slice=opened.sha256[:16],
        )
    return found, more


def _asked(
    connection: duckdb.DuckDBPyConnection,
    gate: Path,
    verdict: Mapping[str, Any],
    defined: Definitions,
    old: Mapping[str, Query],
) -> tuple[dict[str, str], int]:
    """Fill `asked` (code, cdm_table, cdm_id) from the reject files of the checks that are asked about; their titles, and how many
    rows are too many for a list. Rows that the book has are always asked; new ones until so many are unsettled as a list may hold."""
    connection.execute("CREATE TEMP TABLE asked (code VARCHAR, cdm_table VARCHAR, cdm_id BIGINT)")
    connection.execute("CREATE TEMP TABLE had (code VARCHAR, cdm_table VARCHAR, cdm_id BIGINT, settled BOOLEAN)")
    had = [(one.check, one.table, one.row, _settled(one) and one.state != "resolved") for one in old.values()]
    if had:
        connection.executemany("INSERT INTO had VALUES (?, ?, ?, ?)", had)
    titles, more = {}, 0
    for check in verdict["checks"]:
        code, path = check["code"], gate / "rejects" / f"{check['code']}.parquet"
        broken = check["verdict"] != "PASS" or check["level"] == "STUDY"
        if not broken or not path.is_file() or any(covers(one, code) for one in defined.never_asked):
            continue
        rows = f"SELECT DISTINCT cdm_table, cdm_id FROM read_parquet({quoted_path(path)}) WHERE cdm_id IS NOT NULL"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE here AS SELECT r.cdm_table, r.cdm_id, h.code IS NOT NULL AS known, coalesce(h.settled, false) AS "
            f"settled FROM ({rows}) r LEFT JOIN had h ON h.code = ? AND h.cdm_table = r.cdm_table AND h.cdm_id = r.cdm_id",
            [code],
        )
        there, told, open_ = connection.execute(
            "SELECT count(*), count(*) FILTER (known), count(*) FILTER (known AND NOT settled) FROM here"
        ).fetchall()[0]
        room = max(defined.most_queries - open_, 0)
        connection.execute("INSERT INTO asked SELECT ?, cdm_table, cdm_id FROM here WHERE known", [code])
        connection.execute(
            f"INSERT INTO asked SELECT ?, cdm_table, cdm_id FROM here WHERE NOT known ORDER BY ALL LIMIT {room}", [code]
        )
        more += max(int(there) - int(told) - room, 0)
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


def take_answers(book: Path, file: Path, *, language: str = LANGUAGES[0]) -> Taken:
    """Take the answers of a worked-through list into the book.

    A line without an answer is left as it is. Raises E-QUERY-01 when there is no book, E-QUERY-02 when the file cannot be read or lacks
    columns, E-QUERY-03 for answers that are not known, lack who gave them or a date, are for queries that the book does not have, or
    that contradict each other; then none is taken.
    """
    site, queries = _read(Path(book))
    given = _answers_of(Path(file))
    taken, wrong = _taken(queries, given)
    if wrong:
        raise PalmaresError("E-QUERY-03", Path(file).name, count=len(wrong), detail=_told(wrong))
    unanswered = sum(not line["answer"] for line in given)
    _write(Path(book), site, taken, language)
    return Taken(site, len(given) - unanswered, unanswered, states(taken.values()))


def _told(wrong: Sequence[tuple[int, str]]) -> str:
    """Which lines of a list do not fit, and how: never what stands in them."""
    lines = "; ".join(f"line {line}: {why}" for line, why in wrong[:_SHOWN])
    return lines + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")


def _taken(
    queries: Mapping[str, Query], given: Iterable[Mapping[str, str]]
) -> tuple[dict[str, Query], list[tuple[int, str]]]:
    """The queries with the answers that fit, and the lines that do not, each with the reason."""
    codes, taken, wrong = answers(), dict(queries), []
    first: dict[str, Mapping[str, str]] = {}
    for line in given:
        if not line["answer"]:
            continue
        query, at = queries.get(line["query"]), int(line["line"])
        said = {key: line[key] for key in _ANSWER_COLUMNS}
        if query is None:
            wrong.append((at, "the book has no such query"))
        elif line["answer"] not in codes:
            wrong.append((at, f"the answer is none of {', '.join(codes)}"))
        elif not line["answered_by"]:
            wrong.append((at, "answered_by is empty"))
        elif not _day(line["answered_on"]):
            wrong.append((at, "answered_on is no day (2025-01-31 or 31/01/2025)"))
        elif first.setdefault(line["query"], said) != said:
            wrong.append((at, "the same query has another answer further up"))
        elif any(said[key] != getattr(query, key) for key in _ANSWER_COLUMNS) or _unfinished(query):
            taken[query.query] = replace(
                query,
                state="answered" if query.state in ("open", "reappeared") else query.state,
                answer=line["answer"],
                comment=line["comment"],
                answered_by=line["answered_by"],
                answered_on=line["answered_on"],
            )
    return taken, wrong


def _unfinished(query: Query) -> bool:
    """Whether its answer waits for the rest of its line."""
    return query.state == "open" and bool(query.answer)


def _begun(
    queries: Mapping[str, Query], given: Iterable[Mapping[str, str]], wrong: Iterable[tuple[int, str]]
) -> dict[str, Query]:
    """The queries with what was begun in the lines that do not fit yet, so that the next list holds it."""
    lines, begun = {line for line, _ in wrong}, dict(queries)
    for line in given:
        query = begun.get(line["query"])
        if int(line["line"]) in lines and query is not None and query.state in ("open", "reappeared"):
            begun[query.query] = replace(
                query,
                answer=line["answer"],
                comment=line["comment"],
                answered_by=line["answered_by"],
                answered_on=line["answered_on"],
            )
    return begun


def _day(text: str) -> str:
    """A day as YYYY-MM-DD, however a spreadsheet wrote it; "" for what is none."""
    italian = _ITALIAN_DAY.fullmatch(text)
    try:
        if italian:
            return date(int(italian[3]), int(italian[2]), int(italian[1])).isoformat()
        if re.fullmatch(r"\d{5}(\.0)?", text):  # a day whose format was lost
            return (_EXCEL_DAY_0 + timedelta(days=int(float(text)))).isoformat()
        return date.fromisoformat(
            text[:10] if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]00:00(:00)?", text) else text
        ).isoformat()
    except ValueError:
        return ""


def _answers_of(file: Path) -> list[dict[str, str]]:
    """The lines of a worked-through list, .csv or .xlsx, with the columns of an answer and the number of its line."""
    try:
        heads, lines = _sheet(file) if file.suffix.lower() in (".xlsx", ".xlsm") else _comma_separated(file)
    except FileNotFoundError:
        raise PalmaresError("E-QUERY-02", file.name, detail="there is no such file") from None
    except Exception as error:  # whatever a library says of a damaged file may hold its text: only the kind is told
        raise PalmaresError("E-QUERY-02", file.name, detail=f"it does not read ({type(error).__name__})") from None
    places = {head.strip().lower(): place for place, head in reversed(list(enumerate(heads)))}
    missing = [name for name in _ANSWER_COLUMNS if name not in places]
    if missing:
        raise PalmaresError("E-QUERY-02", file.name, detail=f"columns are missing: {', '.join(missing)}")
    words = {said.lower(): code for language in LANGUAGES for code, said in _answer_words(language).items()}
    found = []
    for number, cells in lines:
        line = {name: _plain(cells[places[name]] if places[name] < len(cells) else None) for name in _ANSWER_COLUMNS}
        if line["query"]:
            line["answer"] = words.get(line["answer"].lower(), line["answer"])
            line["answered_on"] = _day(line["answered_on"]) or line["answered_on"]
            found.append(line | {"line": str(number)})
    return found


def _plain(value: object) -> str:
    """A cell as text: a date as its day, without the apostrophe that keeps a spreadsheet from calculating."""
    if value is None:
        return ""
    if isinstance(value, date):
        return value.isoformat()[:10]
    text = " ".join(str(value).split())
    return text[1:] if text.startswith("'") else text


_Lines = list[tuple[int, Sequence[Any]]]


def _sheet(file: Path) -> tuple[list[str], _Lines]:
    """The heads and the lines of the workbook's sheet of queries, wherever it stands."""
    import openpyxl

    workbook = openpyxl.load_workbook(file, read_only=True)
    try:
        sheets = [list(sheet.iter_rows(values_only=True)) for sheet in workbook.worksheets]
    finally:
        workbook.close()
    for rows in sheets:
        heads = [str(cell or "") for cell in rows[0]] if rows else []
        if "query" in [head.strip().lower() for head in heads]:
            return heads, [(number, row) for number, row in enumerate(rows[1:], 2) if any(row)]
    return [], []


def _comma_separated(file: Path) -> tuple[list[str], _Lines]:
    """A CSV as the list was written, or as Excel writes it in Italy: with semicolons, perhaps in Windows-1252."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    heads = next(reader, [])
    return heads, [(reader.line_num, row) for row in reader if any(row)]


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


def site_of(book: Path) -> str:
    """Whose book it is. Raises E-QUERY-01."""
    return _read(Path(book))[0]


def known(book: Path, site: str) -> dict[str, Query]:
    """The queries of the book, with what was written into its own lists since; none when there is no book yet.

    Raises E-QUERY-01 when it is another site's or does not read, E-QUERY-02 for a list that does not read."""
    if not (book / BOOK).is_file():
        return {}
    owner, queries = _read(book)
    if owner != site:
        raise PalmaresError("E-QUERY-01", str(book), detail="it is another site's")
    written = read_json(book / BOOK, "E-QUERY-01").get("lists", {})
    for name in (CSV, XLSX):
        path = book / name
        if path.is_file() and _hash(path) != written.get(name):
            given = _answers_of(path)
            queries, wrong = _taken(queries, given)
            queries = _begun(queries, given, wrong)
    return queries


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(book: Path, site: str, queries: Mapping[str, Query], language: str) -> None:
    """The book and its two lists, whole or not at all: what is to be worked on first."""
    order = {"reappeared": 0, "open": 1, "answered": 2, "resolved": 3}
    listed = sorted(queries.values(), key=lambda one: (order[one.state], one.check, one.patient, one.query))
    with whole_folder(book) as folder:
        with (folder / CSV).open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([one.name for one in fields(Query)])
            writer.writerows(_cells(one, language) for one in listed)
        _write_sheet(folder / XLSX, listed, language)
        document = {
            "format": FORMAT,
            "site": site,
            "lists": {name: _hash(folder / name) for name in (CSV, XLSX)},
            "queries": [asdict(one) for one in listed],
        }
        (folder / BOOK).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cells(query: Query, language: str) -> list[Any]:
    """A query as a line of a list."""
    said = asdict(query) | {"answer": _answer_words(language).get(query.answer, query.answer)}
    return [_guarded(value) for value in said.values()]


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_sheet(path: Path, listed: list[Query], language: str) -> None:
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
        sheet.append(_cells(one, language))
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
    choice = DataValidation(type="list", formula1=f'"{",".join(_answer_words(language).values())}"', allow_blank=True)
    letter = sheet.cell(row=1, column=names.index("answer") + 1).column_letter
    choice.add(f"{letter}2:{letter}{max(len(listed), 1) + 1}")
    sheet.add_data_validation(choice)
    how = workbook.create_sheet(_HOW[language][0])
    words = _answer_words(language)
    for line in _HOW[language][1:]:
        how.append([line])
    for row in knowledge.table("quality", "answers.csv"):
        how.append([words[row["code"]], row["spiegazione" if language == "it" else "explanation"]])
    how.column_dimensions["A"].width = 24
    how.column_dimensions["B"].width = 110
    workbook.save(path)
