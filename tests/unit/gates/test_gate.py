"""The gate as a whole, through Great Expectations: its folder, its words, its silence about patients."""

import json
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.gates import GateJob, Refusal, Verdict, gate, gate_many, read_verdict
from tests import slices
from tests.slices import clean_rows, write_slice

SURNAME, PSEUDONYM, PLANTED_ID = "Rossiplanted", "c0ffee00" * 4, 8_123_456_789_012_345


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> tuple[Path, Verdict]:
    """A gate over a slice that breaks checks of each kind, with planted values in the rows that break them."""
    home = tmp_path_factory.mktemp("bad")
    rows = clean_rows(persons=3)
    rows["death"] += [rows["death"][0] | {"person_id": one["person_id"]} for one in rows["person"][1:]]
    for one in rows["death"]:
        one["death_date"] = date(2020, 2, 29)
    rows["person"][0] |= {"person_source_value": PSEUDONYM, "year_of_birth": 1867, "ethnicity_source_value": SURNAME}
    rows["measurement"][0] |= {
        "measurement_id": PLANTED_ID,
        "value_as_number": 777.125,
        "value_source_value": SURNAME,
        "measurement_source_value": SURNAME * 9,
        "unit_concept_id": 2_000_000_777,
        "visit_occurrence_id": PLANTED_ID,
    }
    write_slice(home / "slice", rows)
    return home / "gate", gate(home / "slice", home / "gate", site="prova", vocabulary=vocabulary)


def test_a_clean_slice_passes(gated: tuple[Path, Path, Verdict]) -> None:
    _, folder, verdict = gated
    assert (verdict.verdict, verdict.messages) == ("PASS", [])
    assert verdict.counts == {"PASS": sum(verdict.counts.values()), "WARN": 0, "BLOCK": 0}
    assert {path.name for path in folder.iterdir()} == {
        "verdict.json",
        "checks.parquet",
        "dqd_results.json",
        "rejects",
        "data_docs",
    }
    borne = {path.stem for path in (folder / "rejects").iterdir()}
    assert "G-UNMAPPED-measurement.measurement_concept_id" in borne, "violations that are borne are listed too"


def test_the_verdict_is_kept_with_numerator_denominator_and_threshold(bad: tuple[Path, Verdict]) -> None:
    folder, verdict = bad
    document = read_verdict(folder)
    assert document["verdict"] == verdict.verdict == "BLOCK"
    assert document["slice_sha256"] == verdict.slice_sha256
    checks = {check["code"]: check for check in document["checks"]}
    death = checks["G-DEATH-02"]
    assert (death["numerator"], death["denominator"], death["threshold"]) == (3, 3, 20)
    assert (death["severity"], death["verdict"], death["category"]) == ("BLOCK", "BLOCK", "Plausibility")
    kept = checks["G-DEATH-01"]
    assert (kept["numerator"], kept["denominator"], kept["threshold"], kept["verdict"]) == (0, 3, 0, "PASS")
    table = duckdb.sql(f"SELECT code, numerator, denominator, verdict FROM '{folder}/checks.parquet'").fetchall()
    assert table == [
        tuple(check[key] for key in ("code", "numerator", "denominator", "verdict")) for check in document["checks"]
    ]
    assert {"table", "column", "title", "message"} <= set(death)


def test_a_message_says_number_object_count_rule_and_next_command(bad: tuple[Path, Verdict]) -> None:
    folder, verdict = bad
    death = next(message for message in verdict.messages if message.startswith("G-DEATH-02"))
    assert death == (
        "G-DEATH-02 death: 3 persons with events after death (100 % of 3; BLOCK above 20 %). "
        "See rejects/G-DEATH-02.parquet or run: palmares explain G-DEATH-02"
    )
    for message in verdict.messages:
        code = message.split(" ", 1)[0]
        assert message.endswith(f"palmares explain {code}")
        assert (folder / "rejects" / f"{code}.parquet").is_file() or "See rejects" not in message


def test_rejects_name_the_rows(bad: tuple[Path, Verdict]) -> None:
    folder, _ = bad
    rows = duckdb.sql(
        f"SELECT * FROM '{folder}/rejects/G-REFERENCE-measurement.visit_occurrence_id.parquet'"
    ).fetchall()
    assert rows == [("measurement", PLANTED_ID)]
    for path in (folder / "rejects").iterdir():
        assert duckdb.sql(f"SELECT * FROM '{path}'").columns == ["cdm_table", "cdm_id"]


def test_no_value_and_no_id_in_what_people_see(bad: tuple[Path, Verdict]) -> None:
    folder, verdict = bad
    planted = [SURNAME, PSEUDONYM, str(PLANTED_ID), "777.125", "1867", "2020-02-29", "2000000777"]
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "rejects":
            text = path.read_bytes().decode("utf-8", "replace")
            assert not [word for word in planted if word in text], path.name
    for path in (folder / "rejects").iterdir():
        text = path.read_bytes()
        assert not [word for word in planted if word.encode() in text], path.name
    assert not [word for word in planted for message in verdict.messages if word in message]


def test_data_docs_open_without_a_network(bad: tuple[Path, Verdict]) -> None:
    docs = bad[0] / "data_docs"
    pages = sorted(docs.rglob("*.html"))
    assert docs / "index.html" in pages
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "<script" not in text
        for link in re.findall(r'href="([^"]+)"', text):
            assert (page.parent / link).resolve().is_file(), (page.name, link)
    index = (docs / "index.html").read_text(encoding="utf-8")
    assert "G-DEATH-02" in index
    assert '<span class="verdict BLOCK">BLOCK</span>' in index
    assert {path.suffix for path in docs.rglob("*") if path.is_file()} == {".html"}


def test_gating_again_says_the_same(gated: tuple[Path, Path, Verdict], vocabulary: Path, tmp_path: Path) -> None:
    slice_, folder, verdict = gated
    assert gate(slice_, tmp_path / "gate", site="prova", vocabulary=vocabulary) == verdict
    for name in ("verdict.json", "checks.parquet"):
        assert (tmp_path / "gate" / name).read_bytes() == (folder / name).read_bytes()


def test_what_cannot_be_gated_leaves_the_old_gate(
    vocabulary: Path, tmp_path: Path, gated: tuple[Path, Path, Verdict]
) -> None:
    shutil.copytree(gated[0], tmp_path / "slice")
    shutil.copytree(gated[1], tmp_path / "gate")
    path = tmp_path / "slice" / "measurement.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(PalmaresError, match="E-SLICE-02") as raised:
        gate(tmp_path / "slice", tmp_path / "gate", site="prova", vocabulary=vocabulary)
    assert raised.value.exit_code == 3
    assert read_verdict(tmp_path / "gate")["verdict"] == "PASS"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_sites_slice(gated: tuple[Path, Path, Verdict], vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-SLICE-04"):
        gate(gated[0], tmp_path / "gate", site="altra", vocabulary=vocabulary)
    assert not (tmp_path / "gate").exists()


def test_no_vocabulary(gated: tuple[Path, Path, Verdict], tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-VOC-01"):
        gate(gated[0], tmp_path / "gate", site="prova", vocabulary=tmp_path)


@pytest.mark.parametrize("text", [None, "no json", "{}", '{"verdict": "PERHAPS", "checks": []}'])
def test_a_verdict_that_does_not_read(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "verdict.json").write_text(text)
    with pytest.raises(PalmaresError, match="E-GATE-02"):
        read_verdict(tmp_path)


@pytest.mark.long
def test_many_sites_in_few_processes(vocabulary: Path, tmp_path: Path) -> None:
    jobs = []
    for site in ("uno", "due"):
        rows = clean_rows(site, persons=1)
        if site == "due":
            rows["measurement"][0]["value_as_number"] = 101.0
        jobs.append(GateJob(write_slice(tmp_path / site, rows, site=site), tmp_path / f"{site}-gate", site, vocabulary))
    jobs.append(GateJob(tmp_path / "none", tmp_path / "none-gate", "none", vocabulary))
    answers = gate_many(jobs, processes=2)
    assert [answer.verdict for answer in answers[:2] if isinstance(answer, Verdict)] == ["PASS", "WARN"]
    assert isinstance(answers[2], Refusal)
    assert (answers[2].site, answers[2].code, answers[2].exit_code) == ("none", "E-SLICE-01", 3)
    assert (tmp_path / "due-gate" / "data_docs" / "index.html").is_file()


def test_great_expectations_is_quiet_and_phones_nobody() -> None:
    code = (
        "import logging, os, socket\n"
        "def refuse(*a, **k): raise AssertionError('the network')\n"
        "socket.socket.connect = refuse\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "import omop_etl.gates.validation\n"
        "assert os.environ['GX_ANALYTICS_ENABLED'] == 'false'\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    # pandas brings numexpr in, which tells at level INFO how many threads it takes
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO:numexpr.")] == []


def test_checks_json_is_plain(gated: tuple[Path, Path, Verdict]) -> None:
    document = json.loads((gated[1] / "verdict.json").read_text())
    assert set(document) == {"site", "verdict", "slice_sha256", "counts", "overrides", "profile", "checks"}
    assert len({check["code"] for check in document["checks"]}) == len(document["checks"])
    assert slices.EXTRACTED_TO.isoformat() not in (gated[1] / "verdict.json").read_text()
