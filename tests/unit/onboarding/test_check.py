"""palmares site check: every source is tried, what it holds is told, what to do next is said, and nothing of a patient is shown."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from fhir_adapters.pseudonyms import SiteKey
from omop_etl.cli import app
from omop_etl.config import load_site
from omop_etl.onboarding import read_known
from omop_etl.onboarding.check import check_site, lines

LOINC = {"system": "http://loinc.org", "code": "85337-4"}
NAME = "Zuccarelli"
TOML = """
name = "Prova"
time_zone = "Europe/Rome"
key_file = "prova.key"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("sites")
    SiteKey.create(at / "prova.key")
    (at / "fhir").mkdir()
    patient = {
        "resourceType": "Patient",
        "id": "p1",
        "birthDate": "1961-05-17",
        "name": [{"family": NAME, "given": ["Maria"]}],
        "identifier": [
            {"system": "http://hl7.it/sid/codiceFiscale", "value": "RSSMRA71E01F205E"},
            {"value": "0012345"},
        ],
        "address": [{"line": ["Via Segreta 3"]}],
        "telecom": [{"value": "333 1234567"}, {"value": "a@b.it"}],
    }
    observations = [
        {"resourceType": "Observation", "id": f"o{n}", "status": "final", "subject": {"reference": "Patient/p1"}, "code": {"coding": [coding]},
         "effectiveDateTime": when, "valueQuantity": {"value": 80, "unit": "%"}, "meta": {"lastUpdated": "2024-06-01T10:00:00Z"}}
        for n, (coding, when) in enumerate(
            [(LOINC, "2021-03-01"), (LOINC, "2022-03-01T08:00:00+01:00"), (LOINC, "2023-01-01T08:00:00"), (LOINC, "2999-01-01"),
             ({"system": "http://lab.example/codes", "code": "EMO"}, "2021-04-01"), ({**LOINC, "code": "99999-9"}, "2021-04-01")]
        )
    ]  # fmt: skip
    lines_ = [orjson.dumps(one) for one in (patient, *observations)]
    (at / "fhir" / "export.ndjson").write_bytes(
        b"\n".join([*lines_, b'{"resourceType":"Observation","id":"x",,}']) + b"\n"
    )
    (at / "prova.toml").write_text(TOML + '[[source]]\nkind = "fhir_files"\npath = "fhir"\n')
    (at / "failing.toml").write_text(
        TOML + '[[source]]\nkind = "fhir_files"\npath = "absent"\n[[source]]\nkind = "fhir_files"\npath = "fhir"\n'
    )
    (at / "empty.toml").write_text('name = "Empty"\n')
    return at


def test_what_a_source_holds(folder: Path) -> None:
    found = check_site(load_site("prova", folder))
    (one,) = found.sources
    assert found.ok and not one.error
    assert one.resources == {"Observation": 6, "Patient": 1}
    assert (one.first, one.last) == ("2021-03-01", "2999-01-01")
    assert one.refused == {"Q-JSON": 1}
    assert one.undeclared == {"http://lab.example/codes": 1}
    assert one.clock.offsets == {"+01:00": 1, "none": 1} and one.clock.dates_only == 4 and one.clock.in_the_future == 1
    assert one.clock.newest_change == "2024-06-01T10:00:00Z"
    systems = {system.system: (system.records, system.mapped) for system in one.systems}
    assert systems["http://loinc.org"] == (5, 4)
    said = "\n".join(one.next)
    for word in (
        "http://lab.example/codes",
        "code_systems",
        "Q-JSON",
        "future",
        "no offset",
        "palmares vocab unmapped",
    ):
        assert word in said
    assert any("list of known identifiers" in sentence for sentence in found.next)
    assert any("linkage" in sentence for sentence in found.next)
    assert len(found.key) == 8


def test_nothing_of_a_patient_is_shown(folder: Path) -> None:
    found = check_site(load_site("prova", folder))
    text = "\n".join(lines(found)) + repr(found)
    for secret in (NAME, "RSSMRA71E01F205E", "0012345", "Segreta", "1961-05-17", "1234567", "a@b.it"):
        assert secret not in text


def test_a_source_that_fails_does_not_stop_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALMARES_SITES", str(folder))
    done = CliRunner().invoke(app, ["site", "check", "failing", "--json"])
    assert done.exit_code == 3
    answer = json.loads(done.output)
    assert [bool(one["error"]) for one in answer["sources"]] == [True, False]
    assert "E-SRC-04" in answer["sources"][0]["error"]
    done = CliRunner().invoke(app, ["site", "check", "failing", "--source", "2"])
    assert done.exit_code == 0 and "FAILED" not in done.output and "source 2: fhir_files" in done.output
    assert CliRunner().invoke(app, ["site", "check", "failing", "--source", "3"]).exit_code != 0


def test_a_site_without_sources_and_without_a_key(folder: Path) -> None:
    found = check_site(load_site("empty", folder))
    assert not found.ok
    assert any("no source" in sentence for sentence in found.next) and any(
        "no key" in sentence for sentence in found.next
    )


def test_the_list_of_known_identifiers_is_collected(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALMARES_SITES", str(folder))
    out = tmp_path / "known.csv"
    done = CliRunner().invoke(app, ["site", "identifiers", "prova", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert NAME not in done.output
    known: dict[str, set[str]] = {}
    for one in read_known(out):
        known.setdefault(one.kind, set()).add(one.value)
    assert known == {
        "name": {f"{NAME} Maria"},
        "codice-fiscale": {"RSSMRA71E01F205E"},
        "record-number": {"0012345"},
        "address": {"Via Segreta 3"},
        "telephone": {"333 1234567"},
        "e-mail": {"a@b.it"},
    }
    folder_out = tmp_path / "leaving"
    folder_out.mkdir()
    (folder_out / "a.csv").write_text(f"x,y\n1,{NAME}\n")
    done = CliRunner().invoke(app, ["site", "phi-check", str(folder_out), "--identifiers", str(out)])
    assert done.exit_code == 5 and NAME not in done.output and "a.csv\ty\tname\t1" in done.output
    (folder_out / "a.csv").write_text("x,y\n1,2\n")
    answer: dict[str, Any] = json.loads(
        CliRunner().invoke(app, ["site", "phi-check", str(folder_out), "--identifiers", str(out), "--json"]).output
    )
    assert answer["clean"] and answer["identifiers"] == 6
    assert CliRunner().invoke(app, ["site", "phi-check", str(folder_out)]).exit_code != 0


def test_a_system_that_the_site_has_mapped_is_declared(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "_systems.csv").write_text("file,system\nlab.csv,http://lab.example/codes\n")
    (tmp_path / "codes" / "lab.csv").write_text("sourceCode,mappingStatus,conceptId\nEMO,APPROVED,36203168\n")
    (tmp_path / "prova.toml").write_text(
        f'codes = "codes"\nkey_file = "{folder / "prova.key"}"\n[[source]]\nkind = "fhir_files"\npath = "{folder / "fhir"}"\n'
    )
    (one,) = check_site(load_site("prova", tmp_path)).sources
    assert one.undeclared == {}
    assert {system.system: system.mapped for system in one.systems}["http://lab.example/codes"] == 1
