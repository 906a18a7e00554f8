"""The document of all sites: it has its shape, it follows from what was sent, and nothing of a patient stands in it."""

import json
import re
import shutil
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


# ------------------------------------------------------------------ sites that are blocked


@dataclass
class WithBlocked:
    """What `centre` has, with `due` blocked after its second submission and `tre` before its first."""

    intake: Path
    data: shape.QualityData


def tell(home: Path, site: str, vocabulary: Path, name: str) -> Path:
    """A run of a site that the gate blocks; the folder of its notice."""
    rows = clean_rows(site, persons=5)
    rows["person"][0]["gender_concept_id"] = None
    slice_ = write_slice(home / name, rows, site=site)
    gate_many([GateJob(slice_, home / f"{name}-gate", site, vocabulary)], processes=1)
    with pytest.raises(PalmaresError, match="E-GATE-01"):
        submit(slice_, home / f"{name}-gate", home / f"{name}-packed")
    return home / f"{name}-packed-notice"


@pytest.fixture(scope="module")
def with_blocked(centre: Centre, tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> WithBlocked:
    home = tmp_path_factory.mktemp("blocked")
    for folder in ("intake", "history"):
        shutil.copytree(centre.home / folder, home / folder)
    later = datetime.now(UTC) + timedelta(minutes=1)  # not within the second in which its submission was packed
    for site in ("due", "tre"):
        notice = tell(home, site, vocabulary, f"{site}-c")
        said = json.loads((notice / "notice.json").read_text())
        (notice / "notice.json").write_text(json.dumps(said | {"received_at": f"{later:%Y-%m-%dT%H:%M:%SZ}"}))
        receive(notice, home / "intake")
    return WithBlocked(home / "intake", collect(home / "intake", made_at=WHEN))


BLOCKS = "G-REQUIRED-person.gender_concept_id"


def test_a_blocked_site_is_there_as_block(with_blocked: WithBlocked) -> None:
    data = with_blocked.data
    fits(json.loads(json.dumps(data)), shape.QualityData)
    assert [(one["site"], one["verdict"]) for one in data["sites"]] == [
        ("due", "BLOCK"),
        ("tre", "BLOCK"),
        ("uno", "PASS"),
    ]
    assert data["verdicts"] == {"PASS": 1, "WARN": 0, "BLOCK": 2}
    for site in ("due", "tre"):
        fact = next(one for one in data["sites"] if one["site"] == site)
        assert (fact["blocked"], fact["checks"] > 300, fact["passed"] > 250) == (1, True, True), "counts of its notice"
        first = next(one for one in data["mend"] if one["site"] == site)
        assert (first["rank"], first["verdict"], first["code"]) == (1, "BLOCK", BLOCKS)
        assert first["remedy"].endswith(".")
        cell = next(one for one in data["matrix"] if (one["site"], one["family"]) == (site, "G-REQUIRED"))
        assert (cell["verdict"], cell["worst"]) == ("BLOCK", BLOCKS)
        result = next(one for one in data["results"] if (one["site"], one["code"]) == (site, BLOCKS))
        assert (result["numerator"], result["denominator"], result["table"], result["column"]) == (
            1,
            5,
            "person",
            "gender_concept_id",
        )
        last = [one for one in data["trend"] if one["site"] == site][-1]
        assert (last["verdict"], last["persons"], last["blocked"]) == ("BLOCK", 5, 1)
    said = metrics(data).splitlines()
    assert 'palmares_site_verdict{site="tre"} 2' in said
    assert 'palmares_site_verdict{site="due"} 2' in said
    since = next(line for line in said if line.startswith('palmares_site_blocked_since_seconds{site="tre"}'))
    assert abs(float(since.split()[1]) - datetime.now(UTC).timestamp()) < 600


def test_the_submission_that_stands_keeps_its_figures(centre: Centre, with_blocked: WithBlocked) -> None:
    """What a notice tells changes nothing of what is said of the data that are in the warehouse."""
    data = with_blocked.data
    due = next(one for one in data["sites"] if one["site"] == "due")
    before = next(one for one in centre.data["sites"] if one["site"] == "due")
    for key in ("persons", "analysable", "rows", "unmapped_records", "received_at", "extracted_to", "centre_verdict"):
        assert due[key] == before[key], key  # type: ignore[literal-required]
    assert due["notice"] is not None
    assert (due["notice"]["stands"], due["notice"]["persons"]) == (True, 5)
    for part in ("completeness", "recency", "funnels", "unmapped_sites", "unmapped_codes", "balance", "losses", "drift", "duplicates",
                 "queries", "overrides"):  # fmt: skip
        assert data[part] == centre.data[part], part  # type: ignore[literal-required]
    central = [[one for one in each["results"] if one["code"].startswith("C-")] for each in (data, centre.data)]
    assert central[0] == central[1]
    changes = {(one["kind"], one["code"]): one for one in data["changes"] if one["site"] == "due"}
    assert changes["new", BLOCKS]["text"] == "PASS before, BLOCK now"
    assert (changes["count", "persons"]["before"], changes["count", "persons"]["now"]) == (3, 5)


def test_of_a_site_without_a_slice_there_are_no_data(with_blocked: WithBlocked) -> None:
    data = with_blocked.data
    tre = next(one for one in data["sites"] if one["site"] == "tre")
    assert tre["notice"] is not None and not tre["notice"]["stands"]
    keys = ("persons", "analysable", "rows", "unmapped_records", "quarantined", "centre_verdict", "received_at")
    assert {key: tre[key] for key in keys} == dict.fromkeys(keys)  # type: ignore[literal-required]
    for part in (
        "completeness",
        "recency",
        "unmapped_sites",
        "balance",
        "losses",
        "drift",
        "duplicates",
        "queries",
        "changes",
    ):
        assert [one for one in data[part] if one["site"] == "tre"] == [], part  # type: ignore[literal-required]
    assert [point for funnel in data["funnels"] for point in funnel["points"] if point["site"] == "tre"] == []
    assert not any(line.startswith("palmares_site_persons") and '"tre"' in line for line in metrics(data).splitlines())


def test_a_blocked_site_keeps_the_lock_back(with_blocked: WithBlocked) -> None:
    ready = with_blocked.data["readiness"]
    conditions = {one["code"]: one for one in ready["conditions"]}
    assert conditions["R-BLOCK"]["sites"] == ["due", "tre"]
    assert "tre" in ready["sites_not_ready"]
    assert "tre" not in conditions["R-VERSION"]["sites"], "nothing is known of it but that it is blocked"
    assert conditions["R-VERSION"]["met"]


def test_since_when(with_blocked: WithBlocked, tmp_path: Path) -> None:
    home = tmp_path / "centre"
    shutil.copytree(with_blocked.intake.parent, home)
    notice = json.loads((home / "notices" / "due.json").read_text())
    first = notice["received_at"]
    again = (datetime.fromisoformat(first) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "notice.json").write_text(json.dumps(notice | {"number": "f" * 16, "received_at": again}))
    receive(tmp_path / "again", home / "intake")
    due = next(one for one in collect(home / "intake")["sites"] if one["site"] == "due")
    assert due["notice"] is not None
    assert (due["notice"]["since"], due["notice"]["said_at"], due["notice"]["number"]) == (first, again, "f" * 16)
    shutil.rmtree(home / "history")
    due = next(one for one in collect(home / "intake")["sites"] if one["site"] == "due")
    assert due["notice"] is not None and due["notice"]["since"] == again, "all that is known"


def test_the_next_submission_is_held_against_the_one_before_the_block(
    centre: Centre, with_blocked: WithBlocked, tmp_path: Path
) -> None:
    """A run that was blocked is in the trend, and is no submission."""
    home = tmp_path / "centre"
    shutil.copytree(with_blocked.intake.parent, home)
    packed = centre.home / "due-a-gate-packed"
    shutil.copytree(packed, tmp_path / "packed")
    document = json.loads((packed / "submission.json").read_text())
    later = datetime.now(UTC) + timedelta(days=1)
    (tmp_path / "packed" / "submission.json").write_text(json.dumps(document | {"made_at": later.isoformat()}))
    receive(tmp_path / "packed", home / "intake")
    data = collect(home / "intake")
    due = next(one for one in data["sites"] if one["site"] == "due")
    assert (due["verdict"], due["notice"]) == ("WARN", None)
    persons = [one for one in data["changes"] if (one["site"], one["code"]) == ("due", "persons")]
    assert [(one["before"], one["now"]) for one in persons] == [(3, 4)]


def test_notices_only_still_make_a_page(with_blocked: WithBlocked, tmp_path: Path) -> None:
    home = tmp_path / "centre"
    shutil.copytree(with_blocked.intake.parent / "notices", home / "notices")
    said = report(home / "intake", home / "quality")
    assert (said.verdicts, said.lock_ready) == ({"PASS": 0, "WARN": 0, "BLOCK": 2}, False)
    for language, no_data, blocked in (("", "no data", "Blocked since"), (".it", "nessun dato", "Bloccato dal")):
        for name in ("index", "site-tre", "site-due"):
            text = (home / "quality" / f"{name}{language}.html").read_text()
            assert blocked in text and no_data in text, name
    fits(json.loads((home / "quality" / "data.json").read_text()), shape.QualityData)
    (home / "notices" / "due.json").write_text("no json")
    with pytest.raises(PalmaresError, match="E-RECEIVE-06"):
        report(home / "intake", home / "quality")
