"""HL7 v2 messages → FHIR: framing, separators, character sets, values, order of messages, outcomes, and that nothing identifying passes."""

import gzip
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fhir_adapters.base import Extraction, adapter_class, extract_from, open_source
from fhir_adapters.errors import PalmaresError
from fhir_adapters.hl7v2.message import NoMessage, instant, moment, segments, structure, unescaped
from fhir_adapters.hl7v2.site_map import read_site_map, tables
from fhir_adapters.knowledge import table
from fhir_adapters.pseudonyms import LinkageKey, SiteKey, check_character
from tests.shared import SHARED, needs_shared

KEY = SiteKey(b"k" * 32)
PERSON = KEY.pseudonym("patient", "4711")
PID = "PID|1||4711^^^OSP^MR||ROSSI^MARIA||19600417|F|||VIA ROMA 1^^MILANO"
STANDARD = "|^~\\&"


def msh(kind: str = "ADT^A01", time: str = "20230105103000", more: str = "") -> str:
    return f"MSH|^~\\&|ADT|OSP|ETL|OSP|{time}||{kind}|M{time}|P|2.5{more}"


def message(*lines: str, kind: str = "ADT^A01", time: str = "20230105103000", more: str = "") -> str:
    return "\r".join([msh(kind, time, more), *lines]) + "\r"


class Run:
    """An extraction of some files, and what it wrote."""

    def __init__(self, folder: Path, files: dict[str, str | bytes], site_map: str = "", **settings: Any) -> None:
        (folder / "in").mkdir(exist_ok=True)
        for name, content in files.items():
            path = folder / "in" / name
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        if site_map:
            (folder / "map.toml").write_text(site_map, encoding="utf-8")
            settings["map"] = "map.toml"
        options = {name: settings.pop(name) for name in ("state", "full") if name in settings}
        described = {"kind": "hl7v2", "path": "in", **settings}
        source = open_source(described, folder=folder, key=KEY, time_zone="Europe/Rome")
        self.source = source
        self.extraction: Extraction = extract_from(source, folder / "out", **options)
        self.out = folder / "out"
        self.made: dict[str, list[dict[str, Any]]] = {
            path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for path in (folder / "out" / "fhir").glob("*.ndjson")
        }
        rows = pq.read_table(folder / "out" / "outcomes.parquet").to_pylist()
        self.outcomes = [(row["outcome"], row["reason"]) for row in rows]
        self.items = [row["item"] for row in rows]
        lines = (folder / "out" / "report.csv").read_text(encoding="utf-8").splitlines()[1:]
        cells = [line.split(",")[1:] for line in lines]
        self.report = [
            (f"{column.split('-')[0]} {row.split('/')[1]}", column.split("-")[1], reason)
            for row, column, reason in cells
        ]

    def text(self) -> str:
        return "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in self.out.rglob("*") if path.is_file()
        )

    def one(self, kind: str) -> dict[str, Any]:
        (resource,) = self.made[kind]
        return resource


Runner = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    def go(*texts: str | bytes, **more: Any) -> Run:
        return Run(tmp_path, {f"{number}.hl7": text for number, text in enumerate(texts)}, **more)

    return go


def visit(number: str = "V1", kind: str = "I", begun: str = "20230105100000", ended: str = "") -> str:
    fields = [""] * 46
    fields[0], fields[2], fields[19], fields[44], fields[45] = "PV1", kind, f"{number}^^^OSP", begun, ended
    return "|".join(fields)


# --- patients and visits ------------------------------------------------------------------------------------------------


def test_admission(run: Runner) -> None:
    done = run(message("EVN|A01|20230105103000", PID, visit()))
    assert done.one("Patient") == {
        "resourceType": "Patient",
        "id": PERSON,
        "meta": {"lastUpdated": "2023-01-05T09:30:00Z"},
        "birthDate": "1960-04",
        "gender": "female",
    }
    stay = done.one("Encounter")
    assert stay["status"] == "in-progress"
    assert stay["class"] == {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    assert stay["period"] == {"start": "2023-01-05T10:00:00+01:00"}
    assert stay["subject"] == {"reference": f"Patient/{PERSON}"}
    assert done.outcomes == [("resource", None)]
    assert not any(name in done.text() for name in ("ROSSI", "MARIA", "4711", "ROMA", "MILANO", "V1"))


@pytest.mark.parametrize("turn", [1, -1])
def test_the_newest_message_wins_in_whatever_order_they_come(run: Runner, turn: int) -> None:
    texts = [
        message(PID, visit(), time="20230105100500"),
        message(PID.replace("19600417", "19610101"), visit("V1", "I"), kind="ADT^A08", time="20230106080000"),
        # the discharge does not repeat the admission: what is not valued says nothing
        message(
            "EVN|A03|20230109",
            PID.replace("19600417", ""),
            visit("V1", "", "", "20230109120000"),
            kind="ADT^A03",
            time="20230109120500",
        ),
    ]
    done = run(*texts[::turn])
    assert done.one("Patient")["birthDate"] == "1961-01"
    assert done.one("Patient")["meta"]["lastUpdated"] == "2023-01-09T11:05:00Z"
    stay = done.one("Encounter")
    assert stay["status"] == "finished"
    assert stay["class"]["code"] == "IMP"
    assert stay["period"] == {"start": "2023-01-05T10:00:00+01:00", "end": "2023-01-09T12:00:00+01:00"}


def test_a_cancelled_discharge_opens_the_stay_again(run: Runner) -> None:
    done = run(
        message(PID, visit(), time="20230105100500"),
        message(PID, visit(ended="20230107120000"), kind="ADT^A03", time="20230107120500"),
        message(PID, visit(), kind="ADT^A13", time="20230107150000"),
    )
    assert done.one("Encounter")["status"] == "in-progress"
    assert done.one("Encounter")["period"] == {"start": "2023-01-05T10:00:00+01:00"}


@pytest.mark.parametrize(
    ("event", "status"),
    [("A05", "planned"), ("A11", "cancelled"), ("A23", "entered-in-error"), ("A04", "in-progress"), ("A21", "onleave")],
)
def test_events(run: Runner, event: str, status: str) -> None:
    assert run(message(PID, visit(), kind=f"ADT^{event}")).one("Encounter")["status"] == status


def test_death_and_its_withdrawal(run: Runner) -> None:
    dead = PID + "|" * 18 + "20230301|Y"
    done = run(message(dead, kind="ADT^A31"))
    assert done.one("Patient")["deceasedDateTime"] == "2023-03-01"
    alive = PID + "|" * 18 + '""|""'
    done = run(message(dead, kind="ADT^A31", time="20230302"), message(alive, kind="ADT^A31", time="20230303"))
    assert not any(name.startswith("deceased") for name in done.one("Patient"))


def test_merged_files_are_linked(run: Runner) -> None:
    done = run(
        message("PID|1||88^^^OSP^MR||ROSSI^M||196004|F", kind="ADT^A28", time="20220101"),
        message(PID, "MRG|88^^^OSP^MR", kind="ADT^A40", time="20230105"),
    )
    old, new = sorted(done.made["Patient"], key=lambda one: one["id"] == PERSON)
    assert old["id"] == KEY.pseudonym("patient", "88")
    assert old["link"] == [{"other": {"reference": f"Patient/{PERSON}"}, "type": "replaced-by"}]
    assert old["birthDate"] == "1960-04"
    assert "link" not in new


def test_a_merged_file_that_was_never_seen_gets_the_birth_of_the_one_that_stands(run: Runner) -> None:
    done = run(
        message("PID|1||77^^^OSP^MR", "MRG|88^^^OSP^MR", kind="ADT^A40", time="20230104"),
        message("PID|1||4711^^^OSP^MR", "MRG|77^^^OSP^MR", kind="ADT^A40", time="20230105"),
        message("PID|1||99^^^OSP^MR", "MRG|99^^^OSP^MR~", kind="ADT^A40", time="20230105"),
        message(PID, kind="ADT^A28", time="20220101"),
    )
    births = {one["id"]: one.get("birthDate") for one in done.made["Patient"]}
    assert births == {KEY.pseudonym("patient", one): "1960-04" for one in ("77", "88", "4711")} | {
        KEY.pseudonym("patient", "99"): None
    }


def test_of_two_merges_the_later_one_stands(run: Runner) -> None:
    done = run(
        message("PID|1||1^^^OSP^MR", "MRG|2^^^OSP^MR", kind="ADT^A40", time="20230104"),
        message("PID|1||2^^^OSP^MR", "MRG|1^^^OSP^MR", kind="ADT^A40", time="20230105"),
    )
    first, second = (KEY.pseudonym("patient", one) for one in ("1", "2"))
    links = {one["id"]: [link["other"]["reference"] for link in one.get("link", [])] for one in done.made["Patient"]}
    assert links == {first: [f"Patient/{second}"], second: []}


def test_a_moved_visit_belongs_to_the_other_patient(run: Runner) -> None:
    done = run(
        message("PID|1||88^^^OSP^MR", visit("V9"), time="20230101"),
        message(PID, "MRG|88^^^OSP^MR||||V9^^^OSP", kind="ADT^A45", time="20230102"),
    )
    assert done.one("Encounter")["subject"] == {"reference": f"Patient/{PERSON}"}


# --- several patients in a message ---------------------------------------------------------------------------------------


def person(number: str, *more: str) -> str:
    return "|".join([f"PID|1||{number}^^^OSP^MR", *more])


def subjects(resources: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Type → whose the resources are."""
    of = {KEY.pseudonym("patient", one): one for one in ("1", "2", "3", "4", "4711")}
    found: dict[str, set[str]] = {}
    for one in resources:
        found.setdefault(one["resourceType"], set()).add(of[one["subject"]["reference"].removeprefix("Patient/")])
    return found


def results(order: str, value: str) -> list[str]:
    return [f"OBR|1||{order}|58410-2^x^LN|||20230105", f"OBX|1|NM|718-7^x^LN||{value}|g/dL|||||F"]


def test_a_result_belongs_to_the_patient_that_it_stands_under(run: Runner) -> None:
    """ORU_R01 repeats its patients."""
    done = run(message(person("1"), *results("F1", "12"), person("2"), *results("F2", "14"), kind="ORU^R01"))
    values = {one["valueQuantity"]["value"]: one for one in done.made["Observation"]}
    assert subjects([values[12]]) == {"Observation": {"1"}}
    assert subjects([values[14]]) == {"Observation": {"2"}}
    assert subjects(done.made["DiagnosticReport"]) == {"DiagnosticReport": {"1", "2"}}
    assert len(done.made["Patient"]) == 2
    assert (done.outcomes, done.report) == ([("resource", None)], [])


def test_a_patient_without_a_number_does_not_take_the_others_along(run: Runner) -> None:
    unknown = "PID|1||"
    done = run(
        message(unknown, *results("F1", "12"), person("2"), *results("F2", "14"), kind="ORU^R01"),
        message(unknown, *results("F3", "12"), unknown, *results("F4", "14"), kind="ORU^R01"),
    )
    assert subjects(done.made["Observation"]) == {"Observation": {"2"}}
    assert done.report == [("PID 2", "3", "H-PATIENT")]
    assert done.outcomes == [("resource", None), ("quarantined", "Q-HL7-NO-PATIENT")]


def test_a_patient_told_twice_in_a_message_loses_no_result(run: Runner) -> None:
    done = run(message(person("1"), *results("F1", "12"), person("1"), *results("F1", "13"), kind="ORU^R01"))
    assert [one["valueQuantity"]["value"] for one in done.made["Observation"]] == [12, 13]
    assert len({one["id"] for one in done.made["Observation"]}) == 2


def test_each_merge_of_a_message_is_of_its_own_patients(run: Runner) -> None:
    """A39 and A40 repeat the pair of PID and MRG."""
    done = run(message(person("1"), "MRG|2^^^OSP^MR", person("3"), "MRG|4^^^OSP^MR", kind="ADT^A40"))
    name = {KEY.pseudonym("patient", one): one for one in ("1", "2", "3", "4")}
    links = {
        name[one["id"]]: [name[link["other"]["reference"].removeprefix("Patient/")] for link in one.get("link", [])]
        for one in done.made["Patient"]
    }
    assert links == {"1": [], "2": ["1"], "3": [], "4": ["3"]}


def test_two_patients_that_change_beds_keep_their_visits(run: Runner) -> None:
    done = run(message(person("1"), visit("V1"), person("2"), visit("V2"), kind="ADT^A17"))
    assert subjects(done.made["Encounter"]) == {"Encounter": {"1", "2"}}


@pytest.mark.parametrize("event", ["A24", "A29", "A37", "A43", "A44"])
def test_what_somebody_has_to_look_at_is_reported(run: Runner, event: str) -> None:
    done = run(message(f"EVN|{event}|20230105", person("1"), person("2"), "MRG|2^^^OSP^MR", kind=f"ADT^{event}"))
    assert done.report == [("EVN 2", "1", "H-BY-HAND")]
    assert not any("link" in one for one in done.made["Patient"])
    done = run(message(person("1"), person("2"), "MRG|2^^^OSP^MR", kind=f"ADT^{event}"))
    assert done.report == [("MSH 1", "9", "H-BY-HAND")]


def test_a_merge_that_does_not_say_of_whom_is_reported(run: Runner) -> None:
    assert run(message(PID, kind="ADT^A40")).report == [("MSH 1", "9", "H-BY-HAND")]
    assert run(message(PID, "MRG|", kind="ADT^A40")).report == [("MRG 3", "1", "H-NUMBER")]
    assert run(message(PID, "MRG|2^^^OSP^MR", kind="ADT^A45")).report == [("MRG 3", "5", "H-NUMBER")]


def test_an_event_in_evn_alone_counts(run: Runner) -> None:
    """Before version 2.3 the header named the type only."""
    done = run(message("EVN|A40|20230105", person("1"), "MRG|2^^^OSP^MR", kind="ADT"))
    assert sum("link" in one for one in done.made["Patient"]) == 1


# --- procedures, and what nobody reads -----------------------------------------------------------------------------------


def test_procedures(run: Runner) -> None:
    procedure = "PR1|1||85.41^MASTECTOMIA^I9CP||20230106" + "|" * 14 + "77"
    done = run(message(PID, visit(), procedure), message(PID, visit(), procedure + "|D", time="20230107"))
    first, second = done.made["Procedure"]
    assert first["code"] == {"coding": [{"system": "http://hl7.org/fhir/sid/icd-9-cm/procedure", "code": "85.41"}]}
    assert (first["status"], first["performedDateTime"]) == ("completed", "2023-01-06")
    assert first["encounter"]["reference"] == f"Encounter/{done.one('Encounter')['id']}"
    assert (second["id"], second["status"]) == (first["id"], "entered-in-error")
    assert "MASTECTOMIA" not in done.text()


def test_a_segment_that_brings_nothing_is_reported(run: Runner) -> None:
    done = run(
        message(PID, visit(), "AL1|1|DA|741^PENICILLINA^LOC", "DG1|1||^carcinoma", "PR1|1||^mastectomia"),
        message(PID, "OBR|1||F1|58410-2^x^LN", "OBX|1|NM|||12|g/dL|||||F", kind="ORU^R01"),
        message(PID, "ORC|NW|P1", "RXA|0|1|||L01EF03^x^ATC|1", "RXD|1|L01EF03^x^ATC||1", kind="RAS^O17"),
    )
    assert sorted(done.report) == [
        ("AL1 4", "0", "H-SEGMENT"),
        ("DG1 5", "3", "H-CODE"),
        ("OBX 4", "3", "H-CODE"),
        ("PR1 6", "3", "H-CODE"),
        ("RXA 4", "3", "H-DATE"),
        ("RXD 5", "3", "H-DATE"),
    ]


def test_orders_that_share_their_orc_or_have_none(run: Runner) -> None:
    tests = ["OBR|1|P1||58410-2^x^LN|||20230105", "OBR|2|P2||718-7^x^LN|||20230105"]
    done = run(message(PID, "ORC|NW|P1", *tests, kind="ORM^O01"))
    assert len(done.made["ServiceRequest"]) == 2
    done = run(message(PID, *tests, kind="ORM^O01"))
    assert len(done.made["ServiceRequest"]) == 2
    drugs = ["RXE||L01EF03^x^ATC|150||mg", "TQ1|1||BID", "RXE||L01EF02^x^ATC|600||mg", "TQ1|1||QD"]
    done = run(message(PID, "ORC|NW|P1", *drugs, kind="RDE^O11"))
    asked = {
        one["medicationCodeableConcept"]["coding"][0]["code"]: one["dosageInstruction"][0]["timing"]["repeat"]
        for one in done.made["MedicationRequest"]
    }
    assert {code: one["frequency"] for code, one in asked.items()} == {"L01EF03": 2, "L01EF02": 1}


def test_the_laboratory_does_not_overrule_the_registry(run: Runner) -> None:
    done = run(
        message(PID, kind="ADT^A28", time="20230101"),
        message(
            PID.replace("|F|", "|M|"),
            "OBR|1||7|718-7^Hb^LN",
            "OBX|1|NM|718-7^Hb^LN||12|g/dL|||||F",
            kind="ORU^R01",
            time="20230201",
        ),
    )
    assert done.one("Patient")["gender"] == "female"


def test_the_codice_fiscale_passes_as_its_token_only(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "RSSMRA60D57F205" + check_character("RSSMRA60D57F205")
    monkeypatch.setenv("PALMARES_LINKAGE_KEY", "ab" * 32)
    person = f"PID|1||4711^^^OSP^MR~{code}^^^MEF^NNITA||ROSSI"
    done = run(message(person, kind="ADT^A28"), linkage=True)
    token = LinkageKey(bytes.fromhex("ab" * 32)).token(code)
    assert done.one("Patient")["identifier"] == [{"system": "urn:palmares:linkage-token", "value": token}]
    older = run(message("PID|1||4711^^^OSP^MR" + "|" * 16 + code, kind="ADT^A28"), linkage=True)
    assert older.one("Patient")["identifier"] == done.one("Patient")["identifier"]
    wrong = run(message(person.replace(code, code[:-1] + "?"), kind="ADT^A28"), linkage=True)
    assert wrong.report == [("PID 2", "3", "T-FISCAL-CODE")]
    assert code[:11] not in done.text() + wrong.text()


@pytest.mark.parametrize(
    ("identifiers", "settings", "number"),
    [
        ("4711^^^OSP^MR~9^^^REG^PI", {}, "4711"),
        ("9^^^REG^PI~4711^^^OSP^MR", {}, "4711"),
        ("9^^^ALTRO^MR~4711^^^OSP&1.2.3&ISO^MR", {"authority": "OSP"}, "4711"),
        ("9^^^ALTRO^MR~4711^^^OSP&1.2.3&ISO^MR", {"authority": "1.2.3"}, "4711"),
        ("9^^^ALTRO^MR~4711^^^OSP^MR", {}, None),  # two of one type: nobody says whose
        ("4711", {}, "4711"),
        ("4711~9^^^X^SS", {}, "4711"),
        ("", {}, None),
        ("00004711", {"record_number_digits": 4}, "4711"),
        ("00004711", {}, "00004711"),
    ],
)
def test_which_identifier_is_the_record_number(
    run: Runner, identifiers: str, settings: dict[str, Any], number: str | None
) -> None:
    done = run(message(f"PID|1||{identifiers}"), **settings)
    if number is None:
        assert done.outcomes == [("quarantined", "Q-HL7-NO-PATIENT")]
    else:
        assert done.one("Patient")["id"] == KEY.pseudonym("patient", number)


def test_a_diagnosis(run: Runner) -> None:
    diagnosis = "DG1|1||174.9^TUMORE DI ROSSI MARIA^I9C|testo libero|20221101|F"
    done = run(message(PID, visit(), diagnosis))
    condition = done.one("Condition")
    assert condition["code"] == {"coding": [{"system": "http://hl7.org/fhir/sid/icd-9-cm", "code": "174.9"}]}
    assert condition["onsetDateTime"] == "2022-11-01"
    assert condition["encounter"] == {"reference": f"Encounter/{done.one('Encounter')['id']}"}
    assert "ROSSI" not in done.text()
    assert "libero" not in done.text()


# --- results ------------------------------------------------------------------------------------------------------------

UCUM = {"unit": "g/dL", "system": "http://unitsofmeasure.org", "code": "g/dL"}


def result(run: Runner, obx: str, **more: Any) -> tuple[Run, dict[str, Any]]:
    done = run(message(PID, "OBR|1|P1|F1|58410-2^EMOCROMO^LN|||20230105080000", obx, kind="ORU^R01"), **more)
    return done, done.one("Observation")


@pytest.mark.parametrize(
    ("kind", "value", "unit", "expected"),
    [
        ("NM", "12.5", "g/dL", {"valueQuantity": {"value": 12.5} | UCUM}),
        ("NM", "12,5", "g/dl", {"valueQuantity": {"value": 12.5} | UCUM}),
        ("NM", "7", "g/dL^grammi^L", {"valueQuantity": {"value": 7} | UCUM}),
        ("ST", "< 0,5", "g/dL", {"valueQuantity": {"value": 0.5, "comparator": "<"} | UCUM}),
        ("SN", ">^100", "g/dL", {"valueQuantity": {"value": 100, "comparator": ">"} | UCUM}),
        ("SN", "^5", "", {"valueQuantity": {"value": 5}}),
        ("SN", "^3^-^5", "", {"valueRange": {"low": {"value": 3}, "high": {"value": 5}}}),
        ("SN", "^1^:^80", "", {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 80}}}),
        (
            "CWE",
            "10828004^positivo^SCT",
            "",
            {"valueCodeableConcept": {"coding": [{"system": "http://snomed.info/sct", "code": "10828004"}]}},
        ),
        (
            "CE",
            "X^positivo^99LOC^LA6576-8^Positive^LN",
            "",
            {"valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": "LA6576-8"}]}},
        ),
        (
            "ST",
            " Negativo ",
            "",
            {"valueCodeableConcept": {"coding": [{"system": "http://snomed.info/sct", "code": "260385009"}]}},
        ),
        ("DT", "20230105", "", {"valueDateTime": "2023-01-05"}),
        ("TS", "202301050830", "", {"valueDateTime": "2023-01-05T08:30:00+01:00"}),
        ("DTM", "20230105083000-0500", "", {"valueDateTime": "2023-01-05T08:30:00-05:00"}),
    ],
)
def test_values(run: Runner, kind: str, value: str, unit: str, expected: dict[str, Any]) -> None:
    done, made = result(run, f"OBX|1|{kind}|718-7^Hb^LN||{value}|{unit}|||||F")
    assert {name: made[name] for name in expected} == expected
    assert "dataAbsentReason" not in made
    assert done.report == []


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("NM", "dodici", "H-NUMBER"),
        ("NM", "1.2.3", "H-NUMBER"),
        ("SN", "~^", "H-NUMBER"),
        ("ST", "Paziente ROSSI MARIA", "H-TEXT"),
        ("FT", "referto di ROSSI", "H-TEXT"),
        ("CWE", "ROSSI^ROSSI^99X", "H-CODE"),
        ("CWE", "ROSSI^ROSSI^SCT", "H-CODE"),
        ("ED", "x^application^pdf^Base64^Uk9TU0k=", "H-TYPE"),
        ("XPN", "ROSSI^MARIA", "H-TYPE"),
        ("DT", "20231341", "H-DATE"),
    ],
)
def test_what_does_not_pass_is_masked_and_told(run: Runner, kind: str, value: str, reason: str) -> None:
    done, made = result(run, f"OBX|1|{kind}|718-7^Hb^LN||{value}||||||F")
    if value != "~^":
        assert made["dataAbsentReason"]["coding"][0]["code"] == "masked"
        assert ("OBX 4", "5", reason) in done.report
    assert not [name for name in made if name.startswith("value")]
    assert "ROSSI" not in done.text()


def test_status_flags_range_and_when(run: Runner) -> None:
    _, made = result(run, "OBX|1|NM|718-7^Hb^LN||9,1|g/dL|12,0 - 16,0|L~A|||C|||20230105081500")
    assert made["status"] == "corrected"
    assert made["meta"]["versionId"] == "3"
    assert [one["coding"][0]["code"] for one in made["interpretation"]] == ["L", "A"]
    assert made["referenceRange"] == [{"low": {"value": 12.0} | UCUM, "high": {"value": 16.0} | UCUM}]
    assert made["effectiveDateTime"] == "2023-01-05T08:15:00+01:00"
    assert made["category"][0]["coding"][0]["code"] == "laboratory"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("F", "final"),
        ("P", "preliminary"),
        ("X", "cancelled"),
        ("D", "entered-in-error"),
        ("W", "entered-in-error"),
        ("I", "registered"),
        ("?", "unknown"),
    ],
)
def test_result_status(run: Runner, code: str, status: str) -> None:
    assert result(run, f"OBX|1|NM|718-7^Hb^LN||9|g/dL|||||{code}")[1]["status"] == status


def test_a_correction_is_the_same_observation(run: Runner) -> None:
    texts = [
        message(
            PID,
            "OBR|1|P1|F1|58410-2^E^LN",
            f"OBX|1|NM|718-7^Hb^LN||{value}|g/dL|||||{status}",
            kind="ORU^R01",
            time=time,
        )
        for value, status, time in (("9", "F", "20230105"), ("11", "C", "20230106"))
    ]
    first, second = run(*texts).made["Observation"]
    assert first["id"] == second["id"]
    assert first["meta"]["lastUpdated"] < second["meta"]["lastUpdated"]


def test_groups_reports_and_specimens(run: Runner) -> None:
    done = run(
        message(
            PID,
            visit(),
            "ORC|RE|P1|F1",
            "OBR|1|P1|F1|58410-2^EMOCROMO^LN|||20230105080000|||||||||||||||20230105120000||HM|F",
            "OBX|1|NM|718-7^Hb^LN||12|g/dL|||||F",
            "OBX|2|NM|777-3^PLT^LN||250|10*3/uL|||||F",
            "SPM|1|S1||BLD|||||||||||||20230105075500",
            "OBR|2|P2|F2|24323-8^CHIMICA^LN|||20230105080000|||||||||||||||||CH|P",
            "OBX|1|NM|1742-6^ALT^LN||22|U/L|||||P",
            kind="ORU^R01",
        )
    )
    first, second = done.made["DiagnosticReport"]
    assert (first["status"], second["status"]) == ("final", "preliminary")
    assert first["issued"] == "2023-01-05T12:00:00+01:00"
    assert len(first["result"]) == 2
    assert first["specimen"] == [{"reference": f"Specimen/{done.one('Specimen')['id']}"}]
    assert [one.get("specimen") for one in done.made["Observation"]] == [first["specimen"][0]] * 2 + [None]
    assert {one["encounter"]["reference"] for one in done.made["Observation"]} == {first["encounter"]["reference"]}
    assert "Encounter" not in done.made  # a result refers to the visit; ADT tells of it
    assert "ServiceRequest" not in done.made


def test_repeated_results_keep_apart(run: Runner) -> None:
    lines = ["OBX|1|NM|8867-4^FC^LN||60~80|bpm|||||F", "OBX|2|NM|8867-4^FC^LN||70|bpm|||||F"]
    made = run(message(PID, *lines)).made["Observation"]
    assert [one["valueQuantity"]["value"] for one in made] == [60, 80, 70]
    assert len({one["id"] for one in made}) == 3


def test_the_hospitals_own_map(run: Runner) -> None:
    site_map = """
    [systems]
    LAB = { system = "urn:palmares:site:prova:laboratory", pattern = "[0-9]{4}" }
    ANAT = { system = "urn:palmares:site:prova:pathology", codes = ["HER2"] }
    [units]
    "gr%" = "g/dL"
    [values.HER2]
    "2+" = { system = "urn:palmares:her2-ihc", code = "2+" }
    """
    lines = [
        "OBX|1|NM|0042^Hb^LAB||12|gr%|||||F",
        "OBX|2|ST|HER2^x^ANAT||2+||||||F",
        "OBX|3|ST|ROSSI^x^ANAT||2+||||||F",
    ]
    done = run(message(PID, *lines, kind="ORU^R01"), site_map=site_map)
    first, second = done.made["Observation"]
    assert first["code"]["coding"] == [{"system": "urn:palmares:site:prova:laboratory", "code": "0042"}]
    assert first["valueQuantity"] == {"value": 12} | UCUM
    assert second["valueCodeableConcept"] == {"coding": [{"system": "urn:palmares:her2-ihc", "code": "2+"}]}
    assert done.report == [("OBX 5", "3", "H-CODE")]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[system]\n",
        "[systems]\nLAB = 1\n",
        '[systems]\nLAB = {system = "u:x", pattern = "[A-Z]+"}\n',
        "[values.X]\na = 1\n",
    ],
)
def test_a_map_that_does_not_fit(run: Runner, text: str) -> None:
    with pytest.raises(PalmaresError, match="E-MSG-01"):
        run(message(PID), site_map=text)


# --- orders -------------------------------------------------------------------------------------------------------------


def test_an_order_and_its_cancellation(run: Runner) -> None:
    lines = ["OBR|1|P7||24725-4^CT^LN||20230110"]
    done = run(
        message(PID, "ORC|NW|P7|||||||20230105", *lines, kind="ORM^O01", time="20230105"),
        message(PID, "ORC|CA|P7", *lines, kind="ORM^O01", time="20230106"),
    )
    order = done.one("ServiceRequest")
    assert order["status"] == "revoked"
    assert order["authoredOn"] == "2023-01-05"
    assert order["code"]["coding"] == [{"system": "http://loinc.org", "code": "24725-4"}]


def test_a_prescription(run: Runner) -> None:
    done = run(
        message(
            PID,
            "ORC|NW|RX1|||||||20230105",
            "TQ1|1||BID|||28^d",
            "RXE||L01EF03^ABEMACICLIB^ATC|150||mg||||56|||2",
            "RXR|PO",
            kind="RDE^O11",
        )
    )
    order = done.one("MedicationRequest")
    assert order["status"] == "active"
    assert order["medicationCodeableConcept"] == {"coding": [{"system": "http://www.whocc.no/atc", "code": "L01EF03"}]}
    (dosage,) = order["dosageInstruction"]
    assert dosage["timing"] == {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}
    assert dosage["doseAndRate"][0]["doseQuantity"]["value"] == 150
    assert order["dispenseRequest"]["numberOfRepeatsAllowed"] == 2
    assert order["dispenseRequest"]["expectedSupplyDuration"]["value"] == 28


@pytest.mark.parametrize(
    ("answer", "status"), [("CP", "completed"), ("", "completed"), ("RE", "not-done"), ("NA", "not-done")]
)
def test_what_was_given(run: Runner, answer: str, status: str) -> None:
    given = "RXA|0|1|20230105090000|20230105093000|L02BA03^FULVESTRANT^ATC|500|mg" + "|" * 13 + answer
    done = run(message(PID, "ORC|RE|RX1", given, "RXR|IM", kind="RAS^O17"))
    made = done.one("MedicationAdministration")
    assert made["status"] == status
    assert made["effectivePeriod"] == {"start": "2023-01-05T09:00:00+01:00", "end": "2023-01-05T09:30:00+01:00"}
    assert made["dosage"]["dose"]["code"] == "mg"


def test_what_the_pharmacy_handed_over(run: Runner) -> None:
    done = run(message(PID, "ORC|RE|RX1", "RXD|1|L01EF01^PALBOCICLIB^ATC|20230105|21|cpr", kind="RDS^O13"))
    made = done.one("MedicationDispense")
    assert (made["status"], made["whenHandedOver"]) == ("completed", "2023-01-05")
    assert (made["quantity"]["value"], made["quantity"]["code"]) == (21, "{tbl}")
    assert done.report == []


@pytest.mark.parametrize(
    ("of_report", "status"), [("F", "final"), ("C", "corrected"), ("A", "unknown"), ("", "unknown")]
)
def test_a_result_without_a_status_has_its_reports(run: Runner, of_report: str, status: str) -> None:
    order = "OBR|1|P1|F1|58410-2^E^LN" + "|" * 21 + of_report
    assert (
        run(message(PID, order, "OBX|1|NM|718-7^Hb^LN||9|g/dL", kind="ORU^R01")).one("Observation")["status"] == status
    )


# --- files, frames, separators, character sets -----------------------------------------------------------------------------

TWO = [message(PID, visit("V1")), message(PID.replace("4711", "4712"), visit("V2"), time="20230106")]


@pytest.mark.parametrize(
    "content",
    [
        "".join(TWO),
        "".join(TWO).replace("\r", "\n"),
        "".join(TWO).replace("\r", "\r\n"),
        "\r\n\r\n".join(TWO),
        "\n".join(one.replace("\r", "\\r") for one in TWO),
        "".join(f"\x0b{one}\x1c\r" for one in TWO),
        "FHS|^~\\&|X\rBHS|^~\\&|X\r" + "".join(TWO) + "BTS|2\rFTS|1\r",
        "\ufeff" + "".join(TWO),
        "".join(TWO).encode("utf-16"),
        gzip.compress("".join(TWO).encode()),
        "".join(TWO).replace("|", "#").replace("^~\\&", "*!$%").replace("^", "*"),
        "".join(TWO).replace("|^~\\&|", "|^~\\&amp;|"),
        "".join(TWO).replace("|^~\\&|", "|^~\\\\&|"),
        "".join(TWO).replace("|^~\\&|", "|^~|"),
        "".join(TWO).replace("ROSSI^MARIA", "ROSSI\nMARIA"),
    ],
)
def test_however_two_messages_are_written(run: Runner, content: str | bytes) -> None:
    done = run(content)
    assert {one["id"] for one in done.made["Patient"]} == {KEY.pseudonym("patient", one) for one in ("4711", "4712")}
    assert len(done.made["Encounter"]) == 2
    assert done.outcomes == [("resource", None)] * 2
    assert [one.split(":")[1] for one in done.items] == ["1", "2"]


def test_what_is_no_message_has_an_outcome_too(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.txt": "elenco di ROSSI MARIA",
        "b.hl7": "OBX|1|NM|fine di un altro\r" + TWO[0],
        "c.hl7": f"\x0b{TWO[0][:90]}",
        "d.hl7": "BHS|^~\\&|X\r" + TWO[1] + "BTS|3\r",
        "e.hl7": "MSH|^^^^|X\r" + PID,
        "f.hl7": message("EVN|A20", kind="ADT^A20"),
        "g.hl7": message(PID, kind="SIU^S12"),
        "h.hl7": message(PID).replace("|P|2.5", "|T|2.5"),
        "i.hl7": message("EVN|A01"),
        "j.hl7": message(PID.replace("4711", "47\udc8111")).encode("utf-8", "surrogateescape"),
        "k.hl7.gz": b"\x1f\x8b\x08broken",
        "l.hl7": b"",
        "m.hl7": TWO[0],
        "n.hl7": message("PID|1||1^^^OSP^MR", "OBR|1||9|XX^x^99L", "OBX|1|NM|YY^x^99L||1", kind="ORU^R01"),
    }
    done = Run(tmp_path, files)
    reasons = {item: reason for item, (_, reason) in zip(done.items, done.outcomes, strict=True) if reason}
    assert sorted(reasons.values()) == sorted(
        ["X-NOT-HL7", "X-NOT-HL7", "Q-HL7-FRAGMENT", "Q-HL7-CUT", "Q-HL7-BATCH", "Q-HL7-HEADER", "X-HL7-TYPE", "X-HL7-TYPE",
         "X-HL7-TEST", "Q-HL7-NO-PATIENT", "Q-HL7-TEXT", "Q-HL7-FILE", "M-HL7-REPEATED"]
    )  # fmt: skip
    assert len(done.items) == len(set(done.items)) == 16
    assert "ROSSI" not in done.text()
    assert not (tmp_path / "out" / ".spool").exists()


@pytest.mark.parametrize(
    ("charset", "encoding"), [("8859/1", "cp1252"), ("UNICODE UTF-8", "utf-8"), ("", "cp1252"), ("ASCII", "utf-8")]
)
def test_character_sets(run: Runner, charset: str, encoding: str) -> None:
    text = message(PID.replace("4711", "È47"), "OBX|1|NM|2160-0^C^LN||80|µmol/L|||||F", more="||||||" + charset)
    done = run(text.encode(encoding))
    assert done.one("Patient")["id"] == KEY.pseudonym("patient", "È47")
    assert done.one("Observation")["valueQuantity"]["code"] == "umol/L"


def test_escapes() -> None:
    assert unescaped("a\\T\\b\\S\\c\\R\\d\\F\\e\\E\\f\\.br\\g\\X41\\h\\Zx\\i\\H\\", STANDARD) == "a&b^c~d|e\\f gAhi"
    assert unescaped("5\\mg", STANDARD) == "5\\mg"


def test_folders_without_messages_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-SRC-04"):
        Run(tmp_path, {})
    with pytest.raises(PalmaresError, match="E-MSG-02"):
        Run(tmp_path, {"a.txt": "niente"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"encoding": "nessuno"},
        {"record_number_digits": -1},
        {"visit_numbers": "x"},
        {"processing": ""},
        {"identifiers": [1]},
    ],
)
def test_settings_that_do_not_fit(run: Runner, settings: dict[str, Any]) -> None:
    with pytest.raises(PalmaresError, match="E-SRC-02"):
        run(message(PID), **settings)


def test_processes_give_the_same(tmp_path: Path) -> None:
    texts = [message(PID.replace("4711", str(n)), visit(f"V{n}"), time=f"202301{n % 28 + 1:02}") for n in range(400)]
    pad = "NTE|1||" + "x" * 24000 + "\r"
    outputs = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        done = Run(folder, {"all.hl7": "".join(text + pad for text in texts)}, jobs=jobs)
        outputs.append({name: done.made[name] for name in sorted(done.made)})
        assert done.extraction.resources == {"Encounter": 400, "Patient": 400}
    assert outputs[0] == outputs[1]


def test_the_second_night_writes_what_is_new(tmp_path: Path) -> None:
    admitted = message(PID, visit("V1"), "OBX|1|NM|718-7^^LN||12|g/dL|||||F", time="20230105100500")
    other = message(PID.replace("4711", "4712"), visit("V2"), time="20230105")
    first = Run(tmp_path, {"a.hl7": admitted, "b.hl7": other})
    assert first.extraction.full
    state = first.extraction.state
    assert not any(name in json.dumps(state) for name in ("a.hl7", "b.hl7"))
    same = Run(tmp_path, {}, state=state)
    assert (same.made, same.outcomes, same.extraction.full, same.extraction.state) == ({}, [], False, state)
    gone_home = message(PID, visit("V1", "", "", "20230109120000"), kind="ADT^A03", time="20230109120500")
    second = Run(tmp_path, {"c.hl7": gone_home}, state=state)
    # the stay as all its messages tell it; the other patient and the result are as they were
    assert second.one("Encounter")["period"] == {
        "start": "2023-01-05T10:00:00+01:00",
        "end": "2023-01-09T12:00:00+01:00",
    }
    assert second.one("Patient")["id"] == PERSON
    assert second.outcomes == [("resource", None)]
    assert "Observation" not in second.made
    whole = Run(tmp_path, {}, state=second.extraction.state, full=True)
    assert len(whole.made["Encounter"]) == 2
    assert whole.extraction.full
    under_another_map = Run(tmp_path, {}, site_map='[units]\n"x" = "g"\n', state=whole.extraction.state)
    assert len(under_another_map.made["Encounter"]) == 2


def test_what_identifies_is_told_to_the_hospitals_own_list(run: Runner) -> None:
    code = "RSSMRA60D57F205" + check_character("RSSMRA60D57F205")
    done = run(message(PID.replace("^MR", f"^MR~{code}^^^MEF^NNITA") + "||02 5551234", visit("V7")))
    told = set(done.source.identifiers())  # type: ignore[attr-defined]
    assert told == {
        ("record-number", "4711"),
        ("codice-fiscale", code),
        ("name", "ROSSI MARIA"),
        ("address", "VIA ROMA 1"),
        ("telephone", "02 5551234"),
        ("accession-number", "V7"),
    }


# --- hard rules ------------------------------------------------------------------------------------------------------------

_ODD = st.text(alphabet='|^~\\&\r\n"\x0b\x1c0129ABCMSHPIDOBXµ \ufeff', max_size=300)


@settings(max_examples=40)
@given(st.lists(_ODD, max_size=4))
@example(["PID|1||~^~"])
@example(["PID|1||1", "OBX|1|NM|718-7^^LN||" + "9" * 400])
@example(["PID|1||1", "OBX|1|SN|718-7^^LN||^9999^-^"])
@example(["PID|1||1", "OBX||||||||||||||20230105999999+9999"])
@example(["PID|1||\0"])
def test_no_text_of_a_message_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("odd")
    done = Run(folder, {"a.hl7": message(*lines)})
    assert done.outcomes


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    done = Run(folder, {"a.hl7": message(PID).encode() + noise, "b.hl7": b"MSH|^~\\&" + noise, "c.hl7": noise})
    assert ("resource", None) in done.outcomes


@given(st.text(alphabet="ab^~&\\|", max_size=30).map(lambda text: text.replace("|", "")))
def test_hl7apy_and_plain_splitting_agree(text: str) -> None:
    plain = tuple(
        tuple(tuple(unescaped(sub, STANDARD) for sub in component.split("&")) for component in one.split("^"))
        for one in text.split("~")
    )
    assert structure(text, STANDARD) == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023", "2023"),
        ("202301", "2023-01"),
        ("20230105", "2023-01-05"),
        ("20230000", "2023"),
        ("2023010508", "2023-01-05T08:00:00+01:00"),
        ("202307050830", "2023-07-05T08:30:00+02:00"),
        ("20230705083015.1234", "2023-07-05T08:30:15+02:00"),
        ("20230705083015+0530", "2023-07-05T08:30:15+05:30"),
        ("20231305", None),
        ("99990105", None),
        ("2023010", None),
        ("", None),
        ("20230105083000+9900", None),
    ],
)
def test_times(text: str, expected: str | None) -> None:
    assert moment(text, "Europe/Rome") == expected
    assert (instant(text, "Europe/Rome") is None) == (expected is None)


def test_no_header_no_message() -> None:
    with pytest.raises(NoMessage):
        segments("MSH")


def test_the_guides_examples_hold(tmp_path: Path) -> None:
    guide = Path(__file__).resolve().parents[3] / "docs" / "sources-hl7v2.md"
    site, site_map = (part.split("```")[0] for part in guide.read_text("utf-8").split("```toml\n")[1:])
    offered = tomllib.loads(site.replace("\n# ", "\n"))["source"][0]
    declared = adapter_class("hl7v2").settings
    assert offered.keys() - {"kind"} <= declared.keys()
    assert declared.keys() - offered.keys() == {"time_zone", "jobs"}
    open_source(offered, folder=tmp_path, key=KEY)
    (tmp_path / "map.toml").write_text(site_map, encoding="utf-8")
    assert read_site_map(tmp_path / "map.toml").coding("0042", "lab") is not None


def test_every_reason_is_explained() -> None:
    known = {row["code"] for row in table("explanations", "reasons.csv")}
    folder = Path(__file__).resolve().parents[3] / "fhir_adapters" / "hl7v2"
    said = {
        found for path in folder.glob("*.py") for found in re.findall(r'"([QXMH]-[A-Z0-9-]+)"', path.read_text("utf-8"))
    }
    assert said <= known
    assert set(tables()) >= {"message", "event", "class", "result", "system", "unit"}


@needs_shared("hl7v2")
def test_every_shared_message_has_one_outcome(tmp_path: Path) -> None:
    source = open_source(
        {"kind": "hl7v2", "path": str(SHARED / "data" / "hl7v2"), "processing": "PTD"}, folder=tmp_path, key=KEY
    )
    extraction = source.extract(tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert len(rows) == extraction.files == 36
    assert len({row["item"] for row in rows}) == 36
    assert sum(row["resources"] for row in rows) == sum(extraction.resources.values())
    assert sum(row["outcome"] == "resource" for row in rows) >= 35
    names = ("EVERYMAN", "DUCK", "Huckleberry", "BOWSER", "MARIO", "Woolfson", "1234567", "ELM", "SPRING STREET")
    written = "".join(
        path.read_text("utf-8") for path in (tmp_path / "out").rglob("*") if path.suffix in (".ndjson", ".csv", ".json")
    )
    assert not [name for name in names if name in written]
