"""REDCap: events, repeating instruments, checkboxes, missing data codes, by the API and as files; increments and faults."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.column_map import read_map
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.redcap_dictionary import fitted, read_dictionary
from fhir_adapters.table_rows import check_recipes
from tests.servers.redcap import TOKEN, Redcap, serving

KEY = SiteKey(b"k" * 32)


def field(name: str, form: str, kind: str = "text", choices: str = "", identifier: str = "") -> dict[str, str]:
    return {
        "field_name": name,
        "form_name": form,
        "section_header": "",
        "field_type": kind,
        "field_label": f"Campo {name}, di Rossi",
        "select_choices_or_calculations": choices,
        "identifier": identifier,
    }


METADATA = [
    field("record_id", "anagrafica"),
    field("cartella", "anagrafica", identifier="y"),
    field("cognome", "anagrafica", identifier="y"),
    field("sesso", "anagrafica", "radio", "1, Femmina | 2, Maschio"),
    field("nato_il", "anagrafica", identifier="y"),
    field("sedi", "malattia", "checkbox", "1, Osso | 2, Fegato | -9, Non so"),
    field("avanzata_il", "malattia"),
    field("farmaco", "farmaci", "dropdown", "palbo, Palbociclib | ribo, Ribociclib | altro, Altro"),
    field("inizio", "farmaci"),
    field("dose", "farmaci"),
    field("note_farmaco", "farmaci", "notes"),
    field("er", "campione"),
    field("er_il", "campione"),
]
EMPTY = dict.fromkeys(
    [
        "cartella",
        "cognome",
        "sesso",
        "nato_il",
        "avanzata_il",
        "farmaco",
        "inizio",
        "dose",
        "note_farmaco",
        "er",
        "er_il",
    ],
    "",
)
BOXES = {"sedi___1": "0", "sedi___2": "0", "sedi____9": "0"}


def row(
    record: str, event: str = "basale_arm_1", instrument: str = "", instance: str = "", **cells: str
) -> dict[str, str]:
    keys = {"record_id": record, "redcap_event_name": event, "redcap_repeat_instrument": instrument}
    return keys | {"redcap_repeat_instance": instance} | EMPTY | BOXES | {"anagrafica_complete": "2"} | cells


ROWS = [
    row(
        "1", cartella="C1", cognome="Rossi", sesso="1", nato_il="1960-05-17",
        sedi___1="1", sedi___2="1", avanzata_il="2020-03-01", er="90", er_il="2020-03-05",
    ),
    row("1", instrument="farmaci", instance="1", farmaco="palbo", inizio="2020-04-01", dose="125", note_farmaco="di Rossi"),
    row("1", instrument="farmaci", instance="2", farmaco="ribo", inizio="2021-06-01", dose="UNK"),
    row("1", event="controllo_arm_1", instance="1", er="80", er_il="2021-05-01"),
    row("1", event="controllo_arm_1", instance="2", er="UNK", er_il="2022-05-01"),
    row("2", cartella="C2", cognome="Verdi", sesso="2", nato_il="1955"),
    row("2", instrument="farmaci", instance="1", farmaco="altro", inizio="2020-04-01"),
]  # fmt: skip
MAP = """
[lists.sesso]
1 = "female"
2 = "male"
[lists.farmaco]
palbo = "L01EF01"
ribo = "L01EF02"
[[table]]
form = "anagrafica"
[[table.resource]]
type = "Patient"
patient = "cartella"
fill = [
  { column = "sesso", element = "gender", as = "list", list = "sesso" },
  { column = "nato_il", element = "birthDate", as = "month" },
]
[[table]]
form = "malattia"
[[table.resource]]
type = "Condition"
patient = "cartella"
when = ["sedi___1"]
unless = ["0"]
fixed = { code = { coding = [{ system = "http://snomed.info/sct", code = "94222008" }] } }
fill = [{ column = "avanzata_il", element = "onsetDateTime", as = "date" }]
[[table.resource]]
type = "Condition"
patient = "cartella"
when = ["sedi___2"]
unless = ["0"]
fixed = { code = { coding = [{ system = "http://snomed.info/sct", code = "94381002" }] } }
fill = [{ column = "avanzata_il", element = "onsetDateTime", as = "date" }]
[[table]]
form = "farmaci"
[[table.resource]]
type = "MedicationStatement"
patient = "cartella"
fixed = { status = "active", medicationCodeableConcept = { coding = [{ system = "http://www.whocc.no/atc" }] } }
fill = [
  { column = "farmaco", element = "medicationCodeableConcept.coding[0].code", as = "list", list = "farmaco", required = true },
  { column = "inizio", element = "effectivePeriod.start", as = "date", required = true },
  { column = "dose", element = "dosage[0].doseAndRate[0].doseQuantity", as = "quantity", unit = "mg" },
]
[[table]]
form = "campione"
events = ["basale_arm_1", "controllo_arm_1"]
[[table.resource]]
type = "Observation"
patient = "cartella"
when = ["er"]
fixed = { status = "final", code = { coding = [{ system = "http://loinc.org", code = "85337-4" }] } }
fill = [
  { column = "er_il", element = "effectiveDateTime", as = "date", required = true },
  { column = "er", element = "valueQuantity", as = "quantity", unit = "%" },
]
"""


def project() -> Redcap:
    told = {
        "is_longitudinal": 1,
        "has_repeating_instruments_or_events": 1,
        "missing_data_codes": "UNK, Sconosciuto | NI, No",
    }
    return Redcap(METADATA, told, [dict(one) for one in ROWS], {"1": "2024-01-01 10:00:00", "2": "2024-06-01 10:00:00"})


def read(
    folder: Path, text: str = MAP, **settings: Any
) -> tuple[Extraction, dict[str, list[dict[str, Any]]], list[str]]:
    options = {name: settings.pop(name) for name in ("state", "full", "known") if name in settings}
    (folder / "map.toml").write_text(text, encoding="utf-8")
    source = open_source(
        {"kind": "redcap", "map": "map.toml", **settings}, folder=folder, key=KEY, time_zone="Europe/Rome"
    )
    extraction = extract_from(source, folder / "out", **options)
    made = {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (folder / "out" / "fhir").glob("*.ndjson")
    }
    return extraction, made, (folder / "out" / "report.csv").read_text("utf-8").splitlines()[1:]


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ECRF", json.dumps({"password": TOKEN}))


def write_files(folder: Path) -> None:
    titles = {"field_name": "Variable / Field Name", "form_name": "Form Name", "field_type": "Field Type"}
    titles |= {"select_choices_or_calculations": "Choices, Calculations, OR Slider Labels", "identifier": "Identifier?"}
    with (folder / "Studio_DataDictionary_2024-06-01.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [titles.get(name, name) for name in METADATA[0]])
        writer.writeheader()
        writer.writerows({titles.get(name, name): value for name, value in one.items()} for one in METADATA)
    with (folder / "Studio_DATA_2024-06-01_1030.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


@pytest.mark.usefixtures("token")
def test_a_longitudinal_project_with_repeating_instruments(tmp_path: Path) -> None:
    with serving(project()) as server:
        extraction, made, report = read(tmp_path, url=server.url, connection="ecrf")
    first, second = (KEY.pseudonym("patient", number) for number in ("C1", "C2"))
    assert [(one["id"], one["gender"], one["birthDate"]) for one in made["Patient"]] == [
        (first, "female", "1960-05"),
        (second, "male", "1955"),
    ]
    assert len(made["Condition"]) == 2
    assert {one["subject"]["reference"] for one in made["Condition"]} == {f"Patient/{first}"}
    drugs = made["MedicationStatement"]
    # the record number stands on the first event alone; "UNK" is a missing data code of the project
    assert [one["medicationCodeableConcept"]["coding"][0]["code"] for one in drugs] == ["L01EF01", "L01EF02"]
    assert [("dosage" in one) for one in drugs] == [True, False]
    assert {one["subject"]["reference"] for one in drugs} == {f"Patient/{first}"}
    assert len({one["id"] for one in drugs}) == 2
    assert [one["valueQuantity"]["value"] for one in made["Observation"]] == [90, 80]
    assert len({one["id"] for one in made["Observation"]}) == 2
    assert [line.split(",", 1)[1] for line in report] == ["0,farmaco,T-CHOICE", "8,farmaco,T-VALUE"]
    assert extraction.full
    asked = [name for one in server.asked for name in one.values()]
    assert "note_farmaco" not in asked
    assert "cognome" not in asked
    text = "".join(
        path.read_bytes().decode("utf-8", "replace") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    assert not any(name in text for name in ("Rossi", "Verdi", "C1", TOKEN))


@pytest.mark.usefixtures("token")
def test_files_give_what_the_api_gives(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    write_files(tmp_path / "files")
    with serving(project()) as server:
        _, by_api, _ = read(tmp_path, url=server.url, connection="ecrf", batch=1)
    extraction, by_file, _ = read(
        tmp_path, MAP.replace("[lists.sesso]", 'missing = ["UNK"]\n[lists.sesso]', 1), path="files"
    )
    assert by_api == by_file
    same, made, _ = read(
        tmp_path,
        MAP.replace("[lists.sesso]", 'missing = ["UNK"]\n[lists.sesso]', 1),
        path="files",
        state=extraction.state,
    )
    assert (made, same.full) == ({}, False)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("way", ["api", "files"])
def test_what_identifies_is_told_to_the_hospitals_own_list(tmp_path: Path, way: str) -> None:
    """What the map calls identifying, what the project marks as such, and the record numbers; no days, no missing data codes."""
    (tmp_path / "map.toml").write_text(
        'missing = ["UNK"]\nidentifying = { cognome = "name" }\n' + MAP, encoding="utf-8"
    )
    (tmp_path / "files").mkdir()
    write_files(tmp_path / "files")
    marked = project()
    with serving(marked) as server:
        where = {"url": server.url, "connection": "ecrf"} if way == "api" else {"path": "files"}
        source: Any = open_source({"kind": "redcap", "map": "map.toml", **where}, folder=tmp_path, key=KEY)
        found = set(source.identifiers())
    assert found == {("record-number", "C1"), ("record-number", "C2"), ("name", "Rossi"), ("name", "Verdi")}


def test_a_row_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A project's rows belong together: one that is missing would be taken for a deleted one."""
    (tmp_path / "files").mkdir()
    write_files(tmp_path / "files")
    path = next((tmp_path / "files").glob("*DATA*.csv"))
    path.write_text(path.read_text("utf-8") + f'3,basale_arm_1,,,"{"x" * 200_000}"' + "," * 14 + "\n", encoding="utf-8")
    with pytest.raises(PalmaresError, match="E-RED-03"):
        read(tmp_path, MAP.replace("[lists.sesso]", 'missing = ["UNK"]\n[lists.sesso]', 1), path="files")


@pytest.mark.usefixtures("token")
def test_a_record_that_is_gone_was_deleted_when_all_is_read(tmp_path: Path) -> None:
    known = tmp_path / "known.parquet"
    with serving(project()) as server:
        first, _, _ = read(tmp_path, url=server.url, connection="ecrf")
        (tmp_path / "out" / "known.parquet").rename(known)
        server.rows = [one for one in server.rows if one["record_id"] != "2"]
        server.changed["1"] = "2024-09-01 00:00:00"
        state = dict(first.state or {}) | {"since": "2024-08-01 00:00:00"}
        _second, made, _ = read(tmp_path, url=server.url, connection="ecrf", state=state, known=known)
        assert "deleted" not in made  # an increment does not see it, and forgets nobody
        (tmp_path / "out" / "known.parquet").replace(known)
        _, made, _ = read(tmp_path, url=server.url, connection="ecrf", full=True, known=known)
    gone = [entry["request"]["url"] for entry in made["deleted"][0]["entry"]]
    assert gone == [f"Patient/{KEY.pseudonym('patient', 'C2')}"]


@pytest.mark.usefixtures("token")
def test_only_changed_records_the_second_time(tmp_path: Path) -> None:
    with serving(project()) as server:
        first, _, _ = read(tmp_path, url=server.url, connection="ecrf")
        assert first.state is not None
        state = dict(first.state) | {"since": "2024-03-01 00:00:00"}
        second, made, _ = read(tmp_path, url=server.url, connection="ecrf", state=state)
        assert [one["id"] for one in made["Patient"]] == [KEY.pseudonym("patient", "C2")]
        assert not second.full
        third, made, _ = read(tmp_path, url=server.url, connection="ecrf", state=state, full=True)
        assert len(made["Patient"]) == 2
        assert third.full
        _, made, _ = read(
            tmp_path, url=server.url, connection="ecrf", state=dict(state) | {"since": "2099-01-01 00:00:00"}
        )
        assert made == {}
        _, made, _ = read(tmp_path, "# changed\n" + MAP, url=server.url, connection="ecrf", state=state)
        assert len(made["Patient"]) == 2  # under another map, all anew


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("fault", [503, "page", "cut"])
def test_an_answer_that_breaks_is_asked_for_again(
    tmp_path: Path, fault: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    server_project = project()
    server_project.faults = [fault, fault]
    with serving(server_project) as server:
        extraction, _, _ = read(tmp_path, url=server.url, connection="ecrf", timeout=5)
    assert extraction.resources["Patient"] == 2


def test_refusals_are_numbered_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    monkeypatch.setenv("AIRFLOW_CONN_ECRF", json.dumps({"password": "F" * 32}))
    with serving(project()) as server, pytest.raises(PalmaresError, match="E-RED-01") as error:
        read(tmp_path, url=server.url, connection="ecrf")
    assert "F" * 32 not in str(error.value)
    monkeypatch.setenv("AIRFLOW_CONN_ECRF", json.dumps({"password": TOKEN}))
    with pytest.raises(PalmaresError, match="E-RED-01"):
        read(tmp_path, url="http://127.0.0.1:1/api/", connection="ecrf")
    with pytest.raises(PalmaresError, match="E-RED-01"):
        read(tmp_path, url="nowhere", connection="ecrf")
    with pytest.raises(PalmaresError, match="E-FHIR-10"):
        read(tmp_path, url="http://127.0.0.1:1/api/", connection="none")
    with pytest.raises(PalmaresError, match="E-SRC-02"):
        read(tmp_path)
    with pytest.raises(PalmaresError, match="E-RED-03"):
        read(tmp_path, path=".")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('form = "malattia"', 'form = "malatia"', "no form"),
        ('column = "dose"', 'column = "dosi"', "no field called dosi"),
        (
            '{ column = "dose", element = "dosage[0].doseAndRate[0].doseQuantity", as = "quantity", unit = "mg" }',
            '{ column = "note_farmaco", element = "reasonCode[0].text", as = "pattern", pattern = "[0-9]+" }',
            "may not be read",
        ),
        (
            '{ column = "nato_il", element = "birthDate", as = "month" }',
            '{ column = "cognome", element = "birthDate", as = "pattern", pattern = "[0-9]{4}" }',
            "may not be read",
        ),
    ],
)
def test_a_map_that_does_not_fit_the_project_is_refused_before_a_record_is_asked_for(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with serving(project()) as server:
        with pytest.raises(PalmaresError, match="E-RED-02") as error:
            read(tmp_path, MAP.replace(old, new), url=server.url, connection="ecrf")
        assert said in str(error.value)
        assert not [one for one in server.asked if one["content"] == "record"]


@pytest.mark.usefixtures("token")
def test_records_that_the_server_loses_are_missed(tmp_path: Path) -> None:
    lossy = project()
    whole = lossy._records

    def losing(form: dict[str, str]) -> list[dict[str, str]]:
        return [one for one in whole(form) if "records[0]" not in form or one["record_id"] != "2"]

    lossy._records = losing  # type: ignore[method-assign]
    with serving(lossy) as server, pytest.raises(PalmaresError, match=r"E-RED-01.*did not give"):
        read(tmp_path, url=server.url, connection="ecrf")


def test_a_record_with_two_record_numbers_is_nobody(tmp_path: Path) -> None:
    write_files(tmp_path)
    text = (tmp_path / "Studio_DATA_2024-06-01_1030.csv").read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    lines[4] = lines[4].replace("controllo_arm_1,,1,", "controllo_arm_1,,1,C9", 1)
    (tmp_path / "Studio_DATA_2024-06-01_1030.csv").write_text("\n".join(lines), encoding="utf-8")
    _, made, report = read(tmp_path, path=".")
    assert "MedicationStatement" not in made
    assert any(line.endswith("cartella,T-REQUIRED") for line in report)


def test_the_guides_examples_hold(tmp_path: Path) -> None:
    guide = Path(__file__).resolve().parents[3] / "docs" / "sources-redcap.md"
    site, column_map = (part.split("```")[0] for part in guide.read_text("utf-8").split("```toml\n")[1:])
    offered = tomllib.loads(site.replace("\n# ", "\n"))["source"][0]
    open_source(offered, folder=tmp_path, key=KEY)
    (tmp_path / "map.toml").write_text(column_map, encoding="utf-8")
    mapping = read_map(tmp_path / "map.toml")
    check_recipes(mapping)
    assert fitted(mapping, read_dictionary(METADATA), [], []).missing == {""}
