"""Tables through a column map: Italian cells, wide groups, what is reported, and that no value of a patient passes."""

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhir_adapters.base import Extraction, open_source
from fhir_adapters.column_map import read_map
from fhir_adapters.databases import database_url
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import LinkageKey, SiteKey, check_character

KEY = SiteKey(b"k" * 32)
MAP = """
missing = ["n.d.", "999"]
ignore = ["cognome"]
yes = ["sì", "1"]
no = ["no", "0"]
[lists.sex]
M = "male"
F = "female"
[[table]]
{source}
[[table.resource]]
type = "Patient"
patient = "cartella"
[[table.resource.fill]]
column = "sesso"
element = "gender"
as = "list"
list = "sex"
[[table.resource.fill]]
column = "nato"
element = "birthDate"
as = "month"
[[table.resource]]
type = "Observation"
patient = "cartella"
repeat = [1, 2]
id = ["data_{{n}}"]
when = ["er_{{n}}"]
fixed = {{status = "final", code = {{coding = [{{system = "http://loinc.org", code = "85337-4"}}]}}}}
[[table.resource.fill]]
column = "data_{{n}}"
element = "effectiveDateTime"
as = "date"
required = true
[[table.resource.fill]]
column = "er_{{n}}"
element = "valueQuantity.value"
as = "number"
"""
HEADER = "Cartella;Cognome;Sesso;Nato;data_1;er_1;data_2;er_2"


def run(
    folder: Path, source: str = 'file = "*.csv"', **settings: str
) -> tuple[Extraction, dict[str, list[Any]], list[Any]]:
    (folder / "map.toml").write_text(MAP.format(source=source), encoding="utf-8")
    described = {"kind": "tables", "map": "map.toml", "path": ".", **settings}
    extraction = open_source(described, folder=folder, key=KEY).extract(folder / "out")
    made = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (folder / "out" / "fhir").glob("*.ndjson")
    }
    with (folder / "out" / "report.csv").open(encoding="utf-8", newline="") as lines:
        return extraction, made, [tuple(row)[1:] for row in list(csv.reader(lines))[1:]]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16"])
def test_italian_cells(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(
        f"{HEADER}\r\n00123;Nicolò;F;31/12/1960;5/3/2021;12,5;n.d.;999\r\n".encode(encoding)
    )
    _, made, report = run(tmp_path)
    person = KEY.pseudonym("patient", "00123")
    assert made["Patient"] == [{"resourceType": "Patient", "id": person, "gender": "female", "birthDate": "1960-12"}]
    (er,) = made["Observation"]
    assert (er["effectiveDateTime"], er["valueQuantity"]) == ("2021-03-05", {"value": 12.5})
    assert er["subject"] == {"reference": f"Patient/{person}"}
    assert report == []


def test_what_is_wrong_is_reported_without_its_value(tmp_path: Path) -> None:
    rows = ["1;Rossi;X;31/02/1960;1/1/2020;1.234;;", ";Verdi;M;;;;;", "2;Bianchi;M;1950;;40;;", "3;a;b;c;d;e;f;g;h"]
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    _, made, report = run(tmp_path)
    assert report == [
        ("2", "sesso", "T-VALUE"),
        ("2", "nato", "T-DATE"),
        ("2", "er_1", "T-NUMBER"),
        ("3", "cartella", "T-REQUIRED"),
        ("4", "data_1", "T-REQUIRED"),
        ("5", "", "T-ROW"),
    ]
    assert len(made["Patient"]) == 2
    written = "".join(path.read_bytes().decode("utf-8", "replace") for path in (tmp_path / "out").rglob("*.*"))
    assert not any(value in written for value in ["Rossi", "Verdi", "Bianchi", "31/02/1960", "1.234"])


def test_columns_unknown_and_absent(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cartella;Rossi Maria;sesso\n1;x;M\n", encoding="utf-8")
    _, made, report = run(tmp_path)
    assert report[0] == ("1", "#2", "T-COLUMN")
    assert ("1", "nato", "T-NO-COLUMN") in report
    assert "Rossi" not in (tmp_path / "out" / "report.csv").read_text(encoding="utf-8")
    assert made["Patient"][0]["gender"] == "male"


@pytest.mark.parametrize("text", ["", "\n", "a;b\n1;2\n", "cartella;sesso;sesso\n1;M;F\n"])
def test_a_table_that_does_not_fit_is_an_error_and_writes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(PalmaresError, match="E-TAB-02"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_huge_cell_costs_its_row_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n1;{'x' * 200_000};M;;;;;\n2;y;M;;;;;\n", encoding="utf-8")
    _, made, report = run(tmp_path)
    assert [row["id"] for row in made["Patient"]] == [KEY.pseudonym("patient", "2")]
    assert ("2", "", "T-ROW") in report


def test_sheet_and_query_give_what_the_csv_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["7", "Neri", "M", "01/05/1955", "05/03/2021", "80", None, None]
    results = []
    for kind in ("csv", "xlsx", "sql"):
        folder = tmp_path / kind
        folder.mkdir()
        source, settings = f'file = "*.{kind}"', {}
        if kind == "csv":
            (folder / "a.csv").write_text(HEADER + "\n" + ";".join(cell or "" for cell in cells), encoding="utf-8")
        elif kind == "xlsx":
            book = openpyxl.Workbook()
            book.worksheets[0].append(HEADER.split(";"))
            book.worksheets[0].append(cells)
            book.save(folder / "a.xlsx")
        else:
            with sqlite3.connect(folder / "a.db") as base:
                base.execute(f"CREATE TABLE t ({HEADER.replace(';', ',')})")
                base.execute("INSERT INTO t VALUES (?,?,?,?,?,?,?,?)", cells)
            base.close()
            monkeypatch.setenv("AIRFLOW_CONN_ECRF", f"sqlite:///{folder / 'a.db'}")
            source, settings = 'query = "SELECT * FROM t"', {"connection": "ecrf"}
        results.append(run(folder, source, **settings)[1])
    assert results[0] == results[1] == results[2]
    assert results[0]["Observation"][0]["valueQuantity"] == {"value": 80}


def test_no_database_and_no_map_are_numbered(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-TAB-03"):
        run(tmp_path, 'query = "SELECT 1"', connection="nowhere")
    (tmp_path / "bad.toml").write_text("[[table]]\nfile = 'x'\n", encoding="utf-8")
    with pytest.raises(PalmaresError, match="E-TAB-01"):
        read_map(tmp_path / "bad.toml")


@given(st.binary(max_size=300))
@example(noise=b"\x00")  # a record number of nothing but a null byte
def test_any_bytes_end_in_a_report_or_a_numbered_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "a.csv").write_bytes(HEADER.encode() + b"\n" + noise)
    try:
        run(folder)
    except PalmaresError as error:
        assert error.code == "E-TAB-02"


def test_the_codice_fiscale_passes_as_its_token_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "RSSMRA80A41H501" + check_character("RSSMRA80A41H501")
    guide = Path(__file__).resolve().parents[3] / "docs" / "sources-tables.md"
    (example,) = guide.read_text(encoding="utf-8").split("```toml\n")[1:]
    (tmp_path / "map.toml").write_text(example.split("```")[0], encoding="utf-8")
    header = "cartella;sesso;data_nascita;codice_fiscale;her2_1;data_her2_1"
    rows = [f"1;F;1/1/1980;{code};2+;1/2/2021", f"2;F;1/1/1980;{code[:-1]}?;;"]
    (tmp_path / "pazienti.csv").write_text("\n".join([header, *rows]), encoding="cp1252")
    monkeypatch.setenv("PALMARES_LINKAGE_KEY", "ab" * 32)
    source = open_source({"kind": "tables", "map": "map.toml", "path": "."}, folder=tmp_path, key=KEY)
    extraction = source.extract(tmp_path / "out")
    assert extraction.resources == {"Patient": 2, "Observation": 1}
    assert extraction.more["reported"] == {"T-NO-COLUMN": 4, "T-FISCAL-CODE": 1}
    first, second = map(json.loads, (tmp_path / "out/fhir/Patient.ndjson").read_text(encoding="utf-8").splitlines())
    token = LinkageKey(bytes.fromhex("ab" * 32)).token(code)
    assert first["identifier"] == [{"system": "urn:palmares:linkage-token", "value": token}]
    assert "identifier" not in second
    assert not any(
        code[:15] in path.read_bytes().decode("utf-8", "replace") for path in (tmp_path / "out").rglob("*.*")
    )


def test_the_url_of_an_airflow_connection_is_one_of_sqlalchemy() -> None:
    assert database_url("postgres://u:p@h/d") == database_url("postgresql://u:p@h/d") == "postgresql+psycopg://u:p@h/d"
    assert database_url("sqlite:///a.db") == "sqlite:///a.db"


@pytest.mark.parametrize("pattern", [".*", "[A-Za-z ]+", r"\\w+", "(?i)[a-z]{2,}"])
def test_a_pattern_that_lets_names_through_is_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "map.toml").write_text(
        f"""
        [[table]]
        file = "a.csv"
        [[table.resource]]
        type = "Observation"
        patient = "id"
        fill = [{{ column = "note", element = "valueString", as = "pattern", pattern = "{pattern}" }}]
        """,
        encoding="utf-8",
    )
    with pytest.raises(PalmaresError, match=r"E-TAB-01.*narrower"):
        read_map(tmp_path / "map.toml")
