"""The document of all sites: it has its shape, it follows from what was sent, and nothing of a patient stands in it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.gates import GateJob, gate_many
from omop_etl.reports.quality import collect, collect_site, report, report_site, shape
from omop_etl.reports.quality.metrics import metrics
from omop_etl.submission import receive, submit
from omop_etl.submission.history import history, history_of, remember_run
from tests.slices import Rows, clean_rows, write_slice

WHEN = datetime(2025, 2, 1, 12, tzinfo=UTC)


@dataclass
class Centre:
    home: Path
    intake: Path
    data: shape.QualityData


def rows_of(site: str, second: bool) -> Rows:
    """Site `due` has a wrong ER and lacks a grade; in its second submission ER is mended, and there is one patient less."""
    rows = clean_rows(site, persons=3 if second else 4)
    if site == "due":
        person = rows["person"][0]["person_id"]
        for one in rows["measurement"]:
            if one["person_id"] == person and one["measurement_concept_id"] == 36203168 and not second:
                one["value_as_number"] = 101.0
        rows["measurement"] = [
            one for one in rows["measurement"] if (one["person_id"], one["measurement_concept_id"]) != (person, 3047285)
        ]
    return rows


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Iterator[Centre]:
    """Two sites; one of them has submitted twice. Both know one patient."""
    home = tmp_path_factory.mktemp("centre")
    names = [("uno", "a", False), ("due", "a", False), ("due", "b", True)]
    jobs = []
    for site, time, second in names:
        rows = rows_of(site, second)
        links = [
            {"person_id": one["person_id"], "linkage_token": f"{site}-{at}"} for at, one in enumerate(rows["person"])
        ]
        links[0]["linkage_token"] = "one-token-of-two"
        slice_ = write_slice(home / f"{site}-{time}", rows, site=site, links=links)
        jobs.append(GateJob(slice_, home / f"{site}-{time}-gate", site, vocabulary))
    verdicts = gate_many(jobs, processes=1)
    assert [getattr(one, "verdict", one) for one in verdicts] == ["PASS", "WARN", "WARN"]
    for job in jobs:
        packed = home / f"{job.out.name}-packed"
        submit(job.slice_, job.out, packed)
        receive(packed, home / "intake")
    yield Centre(home, home / "intake", collect(home / "intake", made_at=WHEN))


def fits(value: Any, wanted: Any, where: str = "data") -> None:
    """The value has the shape of the type: every key there, none besides, lists and dictionaries looked through."""
    if is_typeddict(wanted):
        hints = get_type_hints(wanted)
        assert isinstance(value, dict), where
        assert set(value) == set(hints), where
        for key, hint in hints.items():
            fits(value[key], hint, f"{where}.{key}")
        return
    origin, parts = getattr(wanted, "__origin__", None), getattr(wanted, "__args__", ())
    if origin is list:
        for one in value:
            fits(one, parts[0], f"{where}[]")
    elif origin is dict:
        for one in value.values():
            fits(one, parts[1], f"{where}{{}}")
    elif type(None) in parts and value is not None and len(parts) == 2:
        fits(value, next(part for part in parts if part is not type(None)), where)
    elif wanted in (int, str, bool):
        assert isinstance(value, wanted), (where, value)


def test_it_has_its_shape(centre: Centre) -> None:
    fits(json.loads(json.dumps(centre.data)), shape.QualityData)


def test_sites_matrix_and_results(centre: Centre) -> None:
    data = centre.data
    assert [(one["site"], one["verdict"], one["persons"]) for one in data["sites"]] == [
        ("due", "WARN", 3),
        ("uno", "PASS", 4),
    ]
    families = {one["code"] for one in data["families"]}
    cells = {(one["site"], one["family"]): one for one in data["matrix"]}
    assert {family for _, family in cells} == families
    assert len(cells) == 2 * len(families) or families - {family for _, family in cells} == set()
    grade = cells["due", "G-COMPLETE-09"]
    assert (grade["verdict"], grade["worst"], grade["broken"]) == ("WARN", "G-COMPLETE-09", 1)
    assert cells["uno", "G-COMPLETE-09"]["verdict"] == "PASS"
    found = {(one["site"], one["code"]): one for one in data["results"]}
    assert found["due", "G-COMPLETE-09"]["numerator"] == 1
    assert found["uno", "C-DUPLICATE-01"]["verdict"] == "WARN"
    for one in data["results"]:
        assert one["verdict"] != "PASS" or one["code"] == one["family"]


def test_completeness_balance_and_recency(centre: Centre) -> None:
    data = centre.data
    known = {(one["site"], one["variable"]): one for one in data["completeness"]}
    assert known["due", "G-COMPLETE-09"]["share"] == pytest.approx(2 / 3, abs=1e-6)
    assert {one["code"] for one in data["variables"]} == {variable for _, variable in known}
    goals = {one["code"]: one["goal"] for one in data["variables"]}
    assert (goals["G-COMPLETE-01"], goals["G-COMPLETE-02"], goals["G-COMPLETE-09"], goals["G-COMPLETE-11"]) == (
        100,
        95,
        90,
        None,
    )
    assert {one["site"] for one in data["recency"]} == {"uno", "due"}
    for one in data["recency"]:
        assert sum(one["histogram"]) == one["alive"]
    assert data["unmapped_codes"][0]["source_code"] == "29593-1"
    assert data["unmapped_codes"][0]["sites"] == ["due", "uno"]
    assert {one["site"]: one["codes"] for one in data["unmapped_sites"]} == {"due": 1, "uno": 1}


def test_what_changed_since_last_time_and_the_trend(centre: Centre) -> None:
    data = centre.data
    points = [(one["site"], one["verdict"], one["persons"], one["analysable"]) for one in data["trend"]]
    assert points == [("due", "WARN", 4, 4), ("due", "WARN", 3, 3), ("uno", "PASS", 4, 4)]
    changes = {(one["kind"], one["code"]): one for one in data["changes"]}
    assert changes["gone", "G-RECEPTOR-01"]["text"] == "WARN before, PASS now"
    assert (changes["count", "persons"]["before"], changes["count", "persons"]["now"]) == (4, 3)
    assert {one["site"] for one in data["changes"]} == {"due"}
    shrunk = [one for one in data["results"] if one["code"] == "C-SHRINK-01" and one["verdict"] == "WARN"]
    assert [(one["site"], one["numerator"], one["denominator"]) for one in shrunk] == [("due", 1, 4)]


def test_what_to_mend_first_and_whether_data_can_be_locked(centre: Centre) -> None:
    data = centre.data
    mine = [one for one in data["mend"] if one["site"] == "due"]
    assert [one["rank"] for one in mine] == list(range(1, len(mine) + 1))
    order = [one["verdict"] for one in mine]
    assert order == sorted(order, key=("BLOCK", "WARN", "PASS").index)
    assert all(one["remedy"].endswith(".") for one in mine)
    conditions = {one["code"]: one for one in data["readiness"]["conditions"]}
    assert not data["readiness"]["ready"]
    assert conditions["R-COMPLETE"]["sites"] == ["due"]
    assert conditions["R-BALANCE"]["met"]
    assert conditions["R-CUTOFF"]["sites"] == ["due", "uno"], "extracted the day before the cut-off"
    assert conditions["R-VERSION"]["met"]


def test_receiving_again_remembers_nothing_twice(centre: Centre) -> None:
    before = history(centre.intake)
    receive(centre.home / "due-b-gate-packed", centre.intake)
    assert history(centre.intake) == before
    (centre.home / "history" / "due" / "20250101T000000Z-abc.json").write_text("no json")
    assert history(centre.intake) == before, "what does not read is left out"


def test_the_same_input_gives_the_same_document(centre: Centre) -> None:
    assert collect(centre.intake, made_at=WHEN) == centre.data


def test_nothing_of_a_patient_stands_in_it(centre: Centre) -> None:
    text = json.dumps(centre.data) + metrics(centre.data)
    rows = rows_of("due", second=True)
    for one in rows["person"]:
        assert str(one["person_id"]) not in text
        assert one["person_source_value"] not in text
    assert "one-token-of-two" not in text, "no linkage token"
    for one in ("2019-05-14", "2021-05-30", "2024-12-02"):
        assert one not in text, "no date of a patient"


def test_metrics_read_as_prometheus_writes_them(centre: Centre) -> None:
    lines = metrics(centre.data).splitlines()
    assert 'palmares_site_verdict{site="due"} 1' in lines
    assert 'palmares_completeness_ratio{site="due",variable="G-COMPLETE-09"} 0.666667' in lines
    assert "palmares_lock_ready 0" in lines
    typed = set()
    for line in lines:
        if line.startswith("# TYPE "):
            assert line.split()[2] not in typed, "a family stands together"
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            assert re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.0-9e]+', line), line
            assert line.split("{")[0].split()[0] in typed


def test_one_hospital_by_itself(centre: Centre, tmp_path: Path) -> None:
    data = collect_site("due", centre.home / "due-b", centre.home / "due-b-gate", made_at=WHEN)
    fits(json.loads(json.dumps(data)), shape.QualityData)
    assert (data["scope"], len(data["sites"]), data["funnels"], data["drift"], data["duplicates"]) == (
        "site",
        1,
        [],
        [],
        [],
    )
    assert not [one for one in data["results"] if one["code"].startswith("C-")]
    said = report_site("due", centre.home / "due-b", centre.home / "due-b-gate", tmp_path / "quality")
    assert said.verdicts == {"PASS": 0, "WARN": 1, "BLOCK": 0}
    assert {path.name for path in (tmp_path / "quality").iterdir()} >= {"data.json", "metrics.prom"}
    fact = json.loads((tmp_path / "quality" / "data.json").read_text())["sites"][0]
    for name in ("data_docs", "dqd_results"):
        assert (tmp_path / "quality" / fact[name]).is_file()


def test_lines_out_of_order_are_laid_at_their_sites_door(centre: Centre, tmp_path: Path) -> None:
    import duckdb

    one, two = (row["person_id"] for row in rows_of("due", second=True)["person"][:2])
    duckdb.sql(
        f"""COPY (SELECT * FROM (VALUES ({one}, 1, NULL::INT, DATE '2020-01-01'), ({one}, 2, NULL, DATE '2021-01-01'),
            ({two}, 1, 2, DATE '2020-01-01'), ({two}, 2, 1, DATE '2021-01-01'), (77, 1, NULL, DATE '2020-01-01'))
            AS t(person_id, line_number, declared_line, start_date)) TO '{tmp_path}/line.parquet'"""
    )
    data = collect(centre.intake, derived=tmp_path, made_at=WHEN)
    found = [one for one in data["results"] if one["code"] == "C-LINE-01"]
    assert [(one["site"], one["numerator"], one["denominator"], one["verdict"]) for one in found] == [
        ("due", 1, 2, "WARN")
    ]
    assert collect(centre.intake, derived=tmp_path / "none", made_at=WHEN) == centre.data


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-QUALITY-01"):
        report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_intake_that_was_damaged_is_named(centre: Centre, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(centre.intake, tmp_path / "intake")
    path = tmp_path / "intake" / "due" / "slice" / "ledger.parquet"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(PalmaresError, match=r"E-SLICE-02.*ledger.parquet"):
        collect(tmp_path / "intake")
    (tmp_path / "intake" / "uno" / "verdict.json").write_text("{}")
    with pytest.raises(PalmaresError, match="E-GATE-02"):
        collect(tmp_path / "intake")
    assert date.fromisoformat(centre.data["cut_off"] or "")


def test_a_hospital_sees_what_changed_since_its_run_before(centre: Centre, tmp_path: Path) -> None:
    runs = tmp_path / "history"
    first, second = (centre.home / f"due-{time}" for time in "ab")
    days = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]

    def of(slice_: Path, at: datetime) -> shape.QualityData:
        return collect_site("due", slice_, centre.home / f"{slice_.name}-gate", made_at=at, history=runs)

    one = of(first, days[0])
    assert (one["changes"], len(one["trend"])) == ([], 1)
    again = of(first, days[1])
    assert (again["changes"], [point["received_at"][:10] for point in again["trend"]]) == ([], ["2025-01-02"]), (
        "one slice, one run"
    )
    two = of(second, days[2])
    assert {("gone", "G-RECEPTOR-01"), ("count", "persons")} <= {(one["kind"], one["code"]) for one in two["changes"]}
    assert [point["verdict"] for point in two["trend"]] == ["WARN", "WARN"]
    three = of(first, days[3])
    assert "new" in {one["kind"] for one in three["changes"]}, "an older slice again is a run of its own"
    assert len(three["trend"]) == 3
    report_site("due", second, centre.home / "due-b-gate", tmp_path / "page", history=runs)
    assert "What changed since the run before" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_two_submissions_of_one_second_keep_their_order(tmp_path: Path) -> None:
    at = datetime(2025, 1, 1, 12, tzinfo=UTC)
    for place, sha in enumerate(("f" * 16, "a" * 16, "c" * 16)):
        verdict: dict[str, Any] = {"slice_sha256": sha, "verdict": "PASS", "checks": []}
        remember_run(tmp_path, "uno", verdict, {}, extracted_to=None, at=at + timedelta(milliseconds=place))
    assert [one["number"][0] for one in history_of(tmp_path)] == ["f", "a", "c"]
