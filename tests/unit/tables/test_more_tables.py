"""Column maps, the rest: references, quantities, times, exports that repeat, record numbers, and a map whose FHIR is unsound."""

import json
import re
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.column_map import read_map
from fhir_adapters.databases import database
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.table_rows import Converter, _cell

KEY = SiteKey(b"k" * 32)
PATIENT = """
[[table]]
file = "a*.csv"
{table}
[[table.resource]]
type = "Observation"
patient = "cartella"
id = ["n"]
{resource}
fixed = {{ status = "final", code = {{ coding = [{{ system = "http://loinc.org", code = "85337-4" }}] }} }}
{fills}
"""


def fill(column: str, element: str, kind: str, **more: str) -> str:
    lines = [f'column = "{column}"', f'element = "{element}"', f'as = "{kind}"']
    return "\n".join(["[[table.resource.fill]]", *lines, *(f"{name} = {value}" for name, value in more.items())])


def run(
    folder: Path, text: str, files: dict[str, str], head: str = "", **options: Any
) -> tuple[Extraction, dict[str, list[dict[str, Any]]], list[str]]:
    (folder / "map.toml").write_text(head + text, encoding="utf-8")
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    described = {"kind": "tables", "map": "map.toml", "path": "."}
    described |= {name: options.pop(name) for name in ("complete", "most_deleted") if name in options}
    source = open_source(described, folder=folder, key=KEY, time_zone="Europe/Rome")
    extraction = extract_from(source, folder / "out", **options)
    made = {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (folder / "out" / "fhir").glob("*.ndjson")
    }
    return extraction, made, (folder / "out" / "report.csv").read_text("utf-8").splitlines()[1:]


def one(folder: Path, fills: str, rows: str, table: str = "", resource: str = "", head: str = "") -> Any:
    text = PATIENT.format(table=table, resource=resource, fills=fills)
    return run(folder, text, {"a.csv": rows}, head)[1]["Observation"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("< 1", {"value": 1, "comparator": "<"}),
        ("≥20,5", {"value": 20.5, "comparator": ">="}),
        ("90", {"value": 90}),
    ],
)
def test_quantities(tmp_path: Path, cell: str, expected: dict[str, Any]) -> None:
    (made,) = one(tmp_path, fill("er", "valueQuantity", "quantity", unit='"%"'), f"cartella;n;er\n1;1;{cell}\n")
    assert made["valueQuantity"] == expected | {"unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("05/03/2021 10:30", "2021-03-05T10:30:00+01:00"),
        ("2021-07-05T10:30:15", "2021-07-05T10:30:15+02:00"),
        ("2021-07-05 10:30:15Z", "2021-07-05T10:30:15+00:00"),
        ("05/03/2021", "2021-03-05"),
        ("05/03/2021 25:00", None),
        ("03/2021 10:00", None),
    ],
)
def test_times(tmp_path: Path, cell: str, expected: str | None) -> None:
    (made,) = one(tmp_path, fill("quando", "effectiveDateTime", "datetime"), f"cartella;n;quando\n1;1;{cell}\n")
    assert made.get("effectiveDateTime") == expected


def test_typed_cells_of_a_workbook_keep_apart(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["cartella", "n", "er"], ["1", 1, True], ["1", 2, 1], ["1", 3, 1.5]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "a.xlsx")
    text = PATIENT.format(table="", resource="", fills=fill("er", "valueQuantity.value", "number"))
    _, made, report = run(tmp_path, text.replace("a*.csv", "a.xlsx"), {})
    assert [row.get("valueQuantity") for row in made["Observation"]] == [None, {"value": 1}, {"value": 1.5}]
    assert report == ["file-" + report[0].split(",")[0][5:] + ",2,er,T-NUMBER"]


def test_a_record_number_of_a_workbook_is_that_of_a_text(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["cartella", "n"], [123.0, 1], [123, 2], ["123", 3], [0, 4]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "a.xlsx")
    _, made, report = run(tmp_path, PATIENT.format(table="", resource="", fills="").replace("a*.csv", "a.xlsx"), {})
    numbers = ["123", "123", "123", "0"]
    assert [row["subject"]["reference"] for row in made["Observation"]] == [
        f"Patient/{KEY.pseudonym('patient', number)}" for number in numbers
    ]
    assert report == []


def test_references_between_rows(tmp_path: Path) -> None:
    text = """
    [[table]]
    file = "d.csv"
    [[table.resource]]
    name = "diagnosis"
    type = "Condition"
    patient = "cartella"
    id = ["n"]
    fixed = { code = { coding = [{ system = "http://snomed.info/sct", code = "94222008" }] } }
    [[table]]
    file = "a.csv"
    [[table.resource]]
    type = "Observation"
    patient = "cartella"
    id = ["n"]
    fixed = { status = "final", code = { coding = [{ system = "http://loinc.org", code = "85337-4" }] } }
    [[table.resource.fill]]
    element = "focus[0].reference"
    as = "reference"
    resource = "diagnosis"
    columns = ["diagnosi"]
    """
    _, made, _ = run(tmp_path, text, {"d.csv": "cartella;n\n1;7\n2;7\n", "a.csv": "cartella;n;diagnosi\n1;1;7\n1;2;\n"})
    first, second = made["Observation"]
    assert first["focus"] == [{"reference": f"Condition/{made['Condition'][0]['id']}"}]
    assert "focus" not in second
    with pytest.raises(PalmaresError, match="E-TAB-01"):
        run(tmp_path, text.replace('resource = "diagnosis"', 'resource = "nowhere"'), {})


def test_an_entry_of_a_list_adds_elements(tmp_path: Path) -> None:
    head = """
    [lists.ish]
    amplificato = { valueCodeableConcept = { coding = [{ system = "urn:palmares:her2-ish", code = "amplified" }] } }
    "non eseguito" = { dataAbsentReason = { coding = [{ code = "not-performed" }] } }
    """
    first, second = one(
        tmp_path,
        fill("ish", ".", "list", list='"ish"'),
        "cartella;n;ish\n1;1;Amplificato\n1;2;non eseguito\n",
        head=head,
    )
    assert first["valueCodeableConcept"]["coding"][0]["code"] == "amplified"
    assert second["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "valueCodeableConcept" not in second


def test_checkboxes_and_rows_that_are_meant(tmp_path: Path) -> None:
    text = PATIENT.format(
        table='where = { visita = ["basale", ""] }', resource='when = ["fegato"]\nunless = ["0", "no"]', fills=""
    )
    rows = "cartella;n;visita;fegato\n1;1;basale;1\n1;2;basale;0\n1;3;Basale ;NO\n1;4;mese 3;1\n1;5;;1\n"
    extraction, made, _ = run(tmp_path, text, {"a.csv": rows})
    assert len(made["Observation"]) == 2
    outcomes = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert [row["reason"] for row in outcomes] == ["X-TABLE-ROW"] * 2 + [None]
    assert extraction.more["rows without a resource"] == 2


def test_record_numbers_are_one_only_when_the_map_says_so(tmp_path: Path) -> None:
    rows = "cartella;n\n123;1\n00123;2\n0123A;3\n"
    apart = one(tmp_path, "", rows)
    assert len({row["subject"]["reference"] for row in apart}) == 3
    together = one(tmp_path, "", rows, head="record_number_digits = 5\n")
    same = f"Patient/{KEY.pseudonym('patient', '00123')}"
    assert [row["subject"]["reference"] == same for row in together] == [True, True, False]


def test_exports_that_repeat_are_versions(tmp_path: Path) -> None:
    text = PATIENT.format(table='exported = "name"', resource="", fills=fill("er", "valueQuantity.value", "number"))
    files = {"a_2024-01-31.csv": "cartella;n;er\n1;1;10\n", "a_20240131_1830.csv": "cartella;n;er\n1;1;20\n"}
    _, made, _ = run(tmp_path, text, files)
    assert [(row["meta"]["lastUpdated"], row["valueQuantity"]["value"]) for row in made["Observation"]] == [
        ("2024-01-31T00:00:00+01:00", 10),
        ("2024-01-31T18:30:00+01:00", 20),
    ]
    assert len({row["id"] for row in made["Observation"]}) == 1
    with pytest.raises(PalmaresError, match=r"E-TAB-02.*holds no day"):
        run(tmp_path, text, {"a_ultimo.csv": "cartella;n;er\n1;1;10\n"})


def test_a_column_says_when_a_row_was_changed(tmp_path: Path) -> None:
    rows = "cartella;n;modificato\n1;1;05/03/2021 10:30:15\n1;2;\n1;3;ieri\n"
    text = PATIENT.format(table='updated = "modificato"', resource="", fills="")
    _, made, report = run(tmp_path, text, {"a.csv": rows})
    assert [row.get("meta") for row in made["Observation"]] == [
        {"lastUpdated": "2021-03-05T10:30:15+01:00"},
        None,
        None,
    ]
    assert [line.split(",")[1:] for line in report] == [["4", "modificato", "T-DATE"]]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('status = "final"', 'status = "finito"', "Q-CODE"),
        ('status = "final", ', "", "Q-MISSING"),
        ("code = {", "codice = {", "Q-"),
        ('"valueQuantity.value"', '"valueQuantity.valore"', "Q-UNKNOWN-ELEMENT"),
        ('as = "number"', 'as = "linkage"', "Q-"),
        ('type = "Observation"', 'type = "Paziente"', "E-TAB-01"),
    ],
)
def test_a_map_that_would_make_unsound_fhir_is_refused_at_once(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = PATIENT.format(table="", resource="", fills=fill("er", "valueQuantity.value", "number"))
    with pytest.raises(PalmaresError, match=r"E-TAB-01") as error:
        run(tmp_path, text.replace(old, new), {"a.csv": "cartella;n;er\n1;1;2\n"})
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "url"),
    [
        ("postgres://u:p%40ss@db.example:5433/ecrf", "postgresql+psycopg://u:p%40ss@db.example:5433/ecrf"),
        (
            '{"conn_type": "postgres", "login": "u", "password": "p@ss", "host": "db.example", "port": 5433, "schema": "ecrf"}',
            "postgresql+psycopg://u:p%40ss@db.example:5433/ecrf",
        ),
        ('{"conn_type": "sqlite", "schema": "/data/a.db"}', "sqlite:////data/a.db"),
        (
            '{"conn_type": "postgres", "host": "h", "extra": "{\\"sslmode\\": \\"require\\"}"}',
            "postgresql+psycopg://h?sslmode=require",
        ),
    ],
)
def test_the_forms_of_a_connection(monkeypatch: pytest.MonkeyPatch, held: str, url: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ECRF", held)
    assert database("ecrf", "table 1").render_as_string(hide_password=False) == url


@pytest.mark.parametrize("held", ["{", "no url", '{"login": "u"}', "[]"])
def test_a_connection_that_is_none(monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ECRF", held)
    with pytest.raises(PalmaresError, match="E-TAB-03"):
        database("ecrf", "table 1")


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    text = PATIENT.format(table="", resource="", fills="")
    first, _, _ = run(tmp_path, text, {"a_rossi.csv": "cartella;n\n1;1\n"})
    assert first.full
    assert "rossi" not in json.dumps(first.state)
    second, made, _ = run(tmp_path, text, {}, state=first.state)
    assert (made, second.full, second.state) == ({}, False, first.state)
    third, made, _ = run(tmp_path, text, {"a_rossi.csv": "cartella;n\n1;1\n1;2\n"}, state=second.state)
    assert len(made["Observation"]) == 2
    _, made, _ = run(tmp_path, text, {}, state=third.state, full=True)
    assert len(made["Observation"]) == 2
    _, made, _ = run(tmp_path, text, {}, head='missing = ["x"]\n', state=third.state)
    assert len(made["Observation"]) == 2  # under another map


def rows_of(*numbers: int) -> str:
    return "cartella;n\n" + "".join(f"1;{number}\n" for number in numbers)


def test_a_row_that_is_gone_was_deleted_where_tables_are_complete(tmp_path: Path) -> None:
    text = PATIENT.format(table="", resource="", fills="")
    first, made, _ = run(tmp_path, text, {"a.csv": rows_of(*range(1, 60))}, complete=True)
    ids = {one["id"] for one in made["Observation"]}
    known = tmp_path / "known.parquet"
    (tmp_path / "out" / "known.parquet").rename(known)
    same, made, _ = run(tmp_path, text, {}, complete=True, known=known, state=first.state)
    assert made == {}
    assert not (tmp_path / "out" / "known.parquet").exists()  # what was known stays known
    second, made, _ = run(
        tmp_path, text, {"a.csv": rows_of(*range(3, 60))}, complete=True, known=known, state=same.state
    )
    (bundle,) = made["deleted"]
    gone = {entry["request"]["url"].removeprefix("Observation/") for entry in bundle["entry"]}
    assert gone == ids - {one["id"] for one in made["Observation"]}
    assert second.more["deleted"] == {"Observation": 2}
    with pytest.raises(PalmaresError, match=r"E-TAB-04.*\(49\).*of 59"):
        run(tmp_path, text, {"a.csv": rows_of(*range(1, 11))}, complete=True, known=known, state=same.state)
    _, made, _ = run(
        tmp_path,
        text,
        {"a.csv": rows_of(*range(1, 11))},
        complete=True,
        known=known,
        state=same.state,
        most_deleted=1.0,
    )
    assert len(made["deleted"][0]["entry"]) == 49


def test_the_newest_of_repeated_exports_says_what_is_there(tmp_path: Path) -> None:
    text = PATIENT.format(table='exported = "name"', resource="", fills="")
    run(tmp_path, text, {"a_20240101.csv": rows_of(1, 2)}, complete=True)
    known = tmp_path / "known.parquet"
    (tmp_path / "out" / "known.parquet").rename(known)
    _, made, _ = run(tmp_path, text, {"a_20240201.csv": rows_of(2, 3)}, complete=True, known=known)
    assert len(made["Observation"]) == 4
    assert len(made["deleted"][0]["entry"]) == 1


def test_what_identifies_is_told_to_the_hospitals_own_list(tmp_path: Path) -> None:
    text = '[identifying]\ncognome = "name"\n' + PATIENT.format(table="", resource="", fills="")
    _, _, report = run(tmp_path, text, {"a.csv": "cartella;n;cognome\n77;1;Rossi\n78;1;\n"})
    assert report == []
    source = open_source({"kind": "tables", "map": "map.toml", "path": "."}, folder=tmp_path, key=KEY)
    assert list(source.identifiers()) == [("record-number", "77"), ("name", "Rossi"), ("record-number", "78")]  # type: ignore[attr-defined]
    with pytest.raises(PalmaresError, match="E-TAB-01"):
        run(tmp_path, text.replace('"name"', '"cognome"'), {})


CELLS = st.one_of(st.none(), st.text(alphabet='012,./-<1a é"\\\ue000\n', max_size=12))
MAP = """
missing = ["n.d."]
[lists.l]
a = "final"
1 = "amended"
[[table]]
query = "x"
updated = "u"
[[table.resource]]
type = "Observation"
patient = "p"
id = ["i"]
when = ["a", "b"]
unless = ["0"]
fixed = { status = "final", code = { text = "x" } }
[[table.resource.fill]]
column = "a"
element = "valueQuantity"
as = "quantity"
unit = "%"
[[table.resource.fill]]
column = "b"
element = "component[1].valueQuantity.value"
as = "number"
[[table.resource.fill]]
column = "c"
element = "status"
as = "list"
list = "l"
required = true
[[table.resource.fill]]
column = "d"
element = "effectiveDateTime"
as = "datetime"
"""


@settings(max_examples=60)
@given(st.lists(st.tuples(*[CELLS] * 7), max_size=8))
def test_templates_give_what_a_plain_reading_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    """The fast way against the obvious one: each row by itself, each element put where it belongs."""
    folder = tmp_path_factory.mktemp("map")
    (folder / "map.toml").write_text(MAP, encoding="utf-8")
    mapping = read_map(folder / "map.toml")
    (table,) = mapping.tables
    (recipe,) = table.recipes
    titles = ["p", "i", "a", "b", "c", "d", "u"]
    given_rows = [(1, titles), *((number, list(row)) for number, row in enumerate(rows, start=2))]
    done = list(Converter(table, mapping, "x", KEY, None).convert(iter(given_rows)))
    fast = [json.loads(text) for one_ in done for _, _, text in one_.made]
    slow = []
    for row in rows:
        cells = dict(zip(titles, row, strict=True))
        if not any(cell not in (None, "") for cell in row):
            continue
        counts = [not mapping.is_missing(cells[name]) and cells[name].strip() != "0" for name in ("a", "b")]
        who = (cells["p"] or "").strip(" \t\r\n\0")
        status, _ = recipe.fills[2].read(cells["c"], mapping, None)
        if not any(counts) or mapping.is_missing(cells["p"]) or not who or status is None:
            continue
        resource = {"resourceType": "Observation", "code": {"text": "x"}, "status": status}
        resource["id"] = KEY.pseudonym("table-row", "\0".join([recipe.name, who, (cells["i"] or "").strip()]))
        resource["subject"] = {"reference": f"Patient/{KEY.pseudonym('patient', who)}"}
        for place, name in ((0, "a"), (1, "b"), (3, "d")):
            value, _ = recipe.fills[place].read(cells[name], mapping, None)
            if value is not None:
                element = {"a": "valueQuantity", "b": "component", "d": "effectiveDateTime"}[name]
                resource[element] = [{}, {"valueQuantity": {"value": value}}] if name == "b" else value
        if cells["u"] and (
            value := recipe.fills[3]
            .__class__("u", (), "instant", False, frozenset(), {}, None)
            .read(cells["u"], mapping, None)[0]
        ):
            resource["meta"] = {"lastUpdated": value}
        slow.append(resource)
    assert fast == slow


# --- files that programs write --------------------------------------------------------------------------------------------

PERSONS = """
ignore = ["note"]
[lists.sex]
F = "female"
[[table]]
file = "a.*"
[[table.resource]]
type = "Patient"
patient = "cartella"
[[table.resource.fill]]
column = "sesso"
element = "gender"
as = "list"
list = "sex"
"""
TITLES = "cartella;sesso;note"


def rows(first: int, last: int, note: str = "x") -> list[str]:
    return [f"{number};F;{note}" for number in range(first, last + 1)]


@pytest.mark.parametrize(
    ("after", "read"),
    [
        (rows(3, 20), 19),  # nothing closes it: the rest of the file would be one cell
        ([*rows(3, 9), '10;F;"y"', *rows(11, 20)], 19),
        ([*rows(3, 9), '"10";F;y', *rows(11, 20)], 19),
        (rows(3, 4000, "x" * 100), 3999),  # more than a cell may hold
        (['3;F;"another', *rows(4, 20)], 18),
    ],
)
def test_a_quotation_mark_that_nothing_closes_loses_its_own_row_only(
    tmp_path: Path, after: list[str], read: int
) -> None:
    text = "\n".join([TITLES, *rows(1, 1), '2;F;"paziente dice', *after])
    extraction, made, report = run(tmp_path, PERSONS, {"a.csv": text})
    assert len({one["id"] for one in made["Patient"]}) == read
    assert extraction.more["reported"]["T-ROW"] == extraction.more["rows without a resource"] == len(report)
    assert report[0].endswith(",3,,T-ROW")
    assert "paziente" not in str(report)


def test_a_cell_of_several_lines_is_a_cell(tmp_path: Path) -> None:
    text = f'{TITLES}\n1;F;"a;b\nc;""d"";e\n\nf"\n2;F;x\n'
    extraction, made, report = run(tmp_path, PERSONS, {"a.csv": text})
    assert (len(made["Patient"]), report, extraction.more["rows without a resource"]) == (2, [], 0)


@pytest.mark.parametrize(
    "text",
    [
        f"sep=;\n{TITLES}\n1;F;x\n",
        f"\ufeffsep=;\n{TITLES}\n1;F;x\n",
        f'"sep=;"\n{TITLES}\n1;F;x\n',
        f"\n\n{TITLES}\n1;F;x\n",
        f"{TITLES}\n1;F;x;;\n",
        f"{TITLES};\n1;F;x;\n",
        f"{TITLES}\r1;F;x\r",
    ],
)
def test_what_programs_put_around_a_table(tmp_path: Path, text: str) -> None:
    _, made, report = run(tmp_path, PERSONS, {"a.csv": text})
    assert [one["gender"] for one in made["Patient"]] == ["female"]
    assert report == []


def workbook(path: Path, change: Any = lambda sheet: sheet) -> None:
    """A workbook of two patients, the text of its sheet changed."""
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["", ""], ["cartella", "sesso", "note"], [1, "F", "x"], ["2", "F", "y"]):
        book.active.append(row)
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = change(parts[sheet].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("size", ['<dimension ref="A1"/>', '<dimension ref="A1:C3"/>', '<dimension ref="A1:Z9"/>', ""])
@pytest.mark.parametrize("name", ["a.xlsx", "a.XLSM"])
def test_a_workbook_that_is_wrong_about_its_size_loses_no_row(tmp_path: Path, size: str, name: str) -> None:
    workbook(tmp_path / name, lambda sheet: re.sub(r'<dimension ref="[^"]*" ?/>', size, sheet))
    _, made, report = run(tmp_path, PERSONS, {})
    assert (len(made["Patient"]), report) == (2, [])


def test_a_damaged_workbook_says_nothing_of_its_cells(tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx", lambda sheet: sheet.replace("<v>1</v>", "<v>ROSSI</v>"))
    with pytest.raises(PalmaresError, match="E-TAB-02") as caught:
        run(tmp_path, PERSONS, {})
    assert "ROSSI" not in str(caught.value)


@pytest.mark.parametrize("cell", [7, 7.0, "7", Decimal("7"), Decimal("7.00"), " 7 "])
def test_a_record_number_is_one_whatever_type_it_has(cell: Any) -> None:
    assert _cell(cell) == "7"


@pytest.mark.parametrize(("cell", "text"), [(7.5, "7.5"), (Decimal("7.50"), "7.50"), (float("nan"), "nan")])
def test_a_fraction_is_no_whole_number(cell: Any, text: str) -> None:
    assert _cell(cell) == text
