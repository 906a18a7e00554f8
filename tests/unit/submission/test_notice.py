"""After a BLOCK the centre learns that a site is blocked, in numbers, and nothing else leaves."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.cli import main
from omop_etl.config import load_site
from omop_etl.gates import Verdict, gate
from omop_etl.onboarding import Known, write_known
from omop_etl.stages import CentrePlace, SitePlace, arrived
from omop_etl.stages import receive as receive_stage
from omop_etl.stages import submit as submit_stage
from omop_etl.submission import receive, submit
from omop_etl.submission.history import history
from omop_etl.submission.notice import NOTICE, beside, notices, read_notice
from tests.slices import clean_rows, write_slice

Gated = tuple[Path, Path, Verdict]
Blocked = tuple[Path, Path]


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Blocked:
    """A slice of `prova` that the gate blocks, and its gate."""
    folder = tmp_path_factory.mktemp("blocked")
    rows = clean_rows()
    rows["person"][0]["gender_concept_id"] = None
    write_slice(folder / "slice", rows)
    assert gate(folder / "slice", folder / "gate", site="prova", vocabulary=vocabulary).verdict == "BLOCK"
    return folder / "slice", folder / "gate"


@pytest.fixture
def told(blocked: Blocked, tmp_path: Path) -> Path:
    """A notice folder that a test may tamper with."""
    with pytest.raises(PalmaresError, match="E-GATE-01"):
        submit(*blocked, tmp_path / "sent" / "submission")
    return tmp_path / "sent" / "notice"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def when(folder: Path, moment: datetime) -> None:
    """The same, told at another time."""
    said = json.loads((folder / NOTICE).read_text())
    (folder / NOTICE).write_text(json.dumps(said | {"received_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}))


# ------------------------------------------------------------------ the hospital


def test_a_block_leaves_a_notice_and_nothing_else(told: Path) -> None:
    assert set(content(told.parent)) == {"notice/notice.json"}
    said = read_notice(told / NOTICE)
    assert (said["site"], said["verdict"], said["counts"]["BLOCK"], said["persons"]) == ("prova", "BLOCK", 1, 4)
    assert [one["code"] for one in said["checks"] if one["verdict"] == "BLOCK"] == [
        "G-REQUIRED-person.gender_concept_id"
    ]


def test_it_holds_numbers_and_nothing_of_a_patient(told: Path, blocked: Blocked) -> None:
    text = (told / NOTICE).read_text()
    rows = clean_rows()
    for table, ids in (
        ("person", "person_id"),
        ("measurement", "measurement_id"),
        ("visit_occurrence", "visit_occurrence_id"),
    ):
        assert [row[ids] for row in rows[table] if re.search(rf"\b{row[ids]}\b", text) and row[ids] > 10_000] == []
    assert [row["person_source_value"] for row in rows["person"] if row["person_source_value"] in text] == []
    dates = set(re.findall(r"\d{4}-\d\d-\d\d", text))
    said = json.loads(text)
    assert dates == {said["received_at"][:10], said["extracted_to"]}, "when it was told, and how far the data reach"
    verdict = json.loads((blocked[1] / "verdict.json").read_text())
    assert {one["message"] for one in verdict["checks"] if one["message"] in text} == set()


def test_the_same_run_told_again_leaves_it_as_it_is(told: Path, blocked: Blocked) -> None:
    when(told, datetime(2025, 3, 1, tzinfo=UTC))
    before = content(told)
    with pytest.raises(PalmaresError, match="E-GATE-01"):
        submit(*blocked, told.parent / "submission")
    assert content(told) == before


def test_whole_or_not_at_all(told: Path, blocked: Blocked, monkeypatch: pytest.MonkeyPatch) -> None:
    when(told, datetime(2025, 3, 1, tzinfo=UTC))
    said = json.loads((told / NOTICE).read_text())
    (told / NOTICE).write_text(json.dumps(said | {"number": "0" * 16}))
    before = content(told.parent)
    full = OSError(28, "No space left on device")

    def fail(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise full

    with monkeypatch.context() as patch, pytest.raises(PalmaresError, match="E-DISK-01"):
        patch.setattr(Path, "write_text", fail)
        submit(*blocked, told.parent / "submission")
    assert content(told.parent) == before


def test_the_previous_submission_stays_and_the_next_one_takes_it_back(
    gated: Gated, blocked: Blocked, tmp_path: Path
) -> None:
    out = tmp_path / "submission"
    submit(gated[0], gated[1], out)
    before = content(out)
    with pytest.raises(PalmaresError, match="E-GATE-01"):
        submit(*blocked, out)
    assert content(out) == before
    assert beside(out).is_dir()
    submit(gated[0], gated[1], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission"]


def test_another_sites_notice_is_not_taken_back(gated: Gated, told: Path) -> None:
    said = json.loads((told / NOTICE).read_text())
    (told / NOTICE).write_text(json.dumps(said | {"site": "altra"}))
    submit(gated[0], gated[1], told.parent / "submission")
    assert (told / NOTICE).is_file()
    (told / NOTICE).write_text("no json")
    submit(gated[0], gated[1], told.parent / "submission")
    assert not told.exists(), "what does not read says nothing to anybody"


@pytest.mark.parametrize("out", ["submission", "work/site01"])
def test_where_it_lies(out: str) -> None:
    assert beside(Path(out)) == Path({"submission": "notice", "work/site01": "work/site01-notice"}[out])


def place(blocked: Blocked, folder: Path, known: list[Known] | None) -> SitePlace:
    folder.mkdir()
    toml = 'name = "Prova"\n'
    if known is not None:
        write_known(known, folder / "known.csv")
        toml += 'identifiers = "known.csv"\n'
    (folder / "prova.toml").write_text(toml + '[[source]]\nkind = "fhir_files"\npath = "x"\n')
    where = SitePlace(folder / "home", load_site("prova", folder))
    shutil.copytree(blocked[0], where.slice)
    shutil.copytree(blocked[1], where.gate)
    return where


def test_the_stage_tells_it_and_searches_it_first(blocked: Blocked, tmp_path: Path) -> None:
    for name, known in (("without", None), ("harmless", [Known("name", "Antonietta Zuccarelli")])):
        where = place(blocked, tmp_path / name, known)
        with pytest.raises(PalmaresError, match="E-GATE-01"):
            submit_stage(where)
        assert read_notice(where.notice / NOTICE)["site"] == "prova"
        assert not where.submission.exists()
        assert arrived(where.home) == [where.notice]


def test_a_notice_in_which_an_identifier_stands_does_not_leave(blocked: Blocked, tmp_path: Path) -> None:
    """The search goes through the file itself: here through a number that only the notice has."""
    looked: list[str] = []

    def search(files: Any) -> None:
        looked.extend(path.read_text() for path in files)
        raise PalmaresError("E-PHI-01", "prova", count=1)

    with pytest.raises(PalmaresError, match="E-PHI-01"):
        submit(*blocked, tmp_path / "submission", search=search)
    assert '"verdict": "BLOCK"' in looked[0]
    assert list(tmp_path.iterdir()) == []
    title = json.loads(looked[0])["checks"][0]["title"]
    where = place(blocked, tmp_path / "named", [Known("name", title)])
    with pytest.raises(PalmaresError, match="E-PHI-01"):
        submit_stage(where)
    assert not where.notice.exists()


def test_the_command_does_the_same(
    blocked: Blocked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["palmares", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    out = tmp_path / "submission"
    assert run("submit", "--slice", blocked[0], "--gate", blocked[1], "--out", out) != 0
    assert "E-GATE-01" in capsys.readouterr().err
    assert (
        run("receive", "--submission", tmp_path / "notice", "--intake", tmp_path / "centre" / "intake", "--json") == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["verdict"] == "BLOCK"
    assert list(notices(tmp_path / "centre" / "intake")) == ["prova"]
    assert not (tmp_path / "centre" / "intake").exists(), "nothing of it is in the intake"


# ------------------------------------------------------------------ the centre


def test_it_is_kept_beside_the_intake_and_the_submission_stays(gated: Gated, told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    submit(gated[0], gated[1], tmp_path / "first")
    receive(tmp_path / "first", intake)
    before = content(intake)
    when(told, datetime.now(UTC) + timedelta(minutes=1))
    receipt = receive(told, intake)
    assert (receipt.site, receipt.verdict, receipt.files, receipt.already) == ("prova", "BLOCK", 1, False)
    assert content(intake) == before
    assert notices(intake)["prova"] == json.loads((told / NOTICE).read_text())
    runs = history(intake)["prova"]
    assert [one["verdict"] for one in runs] == ["PASS", "BLOCK"]
    assert runs[1]["said_at"] == notices(intake)["prova"]["received_at"]

    everything = content(tmp_path / "centre")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "centre").rglob("*")}
    assert receive(told, intake).already
    assert receive(tmp_path / "first", intake).already, "what was sent before it does not take it back"
    assert content(tmp_path / "centre") == everything
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "centre").rglob("*")} == times


def test_a_later_submission_takes_it_back(gated: Gated, told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    when(told, datetime.now(UTC) - timedelta(minutes=1))
    receive(told, intake)
    submit(gated[0], gated[1], tmp_path / "later")
    receive(tmp_path / "later", intake)
    assert notices(intake) == {}
    assert [one["verdict"] for one in history(intake)["prova"]] == ["BLOCK", "PASS"]
    with pytest.raises(PalmaresError, match="E-RECEIVE-07"):
        receive(told, intake)
    assert notices(intake) == {}


def test_told_and_mended_within_a_second(gated: Gated, told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    submit(gated[0], gated[1], tmp_path / "later")
    when(told, datetime.fromisoformat(json.loads((tmp_path / "later" / "submission.json").read_text())["made_at"]))
    receive(told, intake)
    receive(tmp_path / "later", intake)
    assert notices(intake) == {}


def test_a_run_that_was_killed_before_it_was_remembered(told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    receive(told, intake)
    shutil.rmtree(tmp_path / "centre" / "history")
    assert receive(told, intake).already
    assert [one["verdict"] for one in history(intake)["prova"]] == ["BLOCK"]


def test_a_damaged_intake_refuses_no_notice(gated: Gated, told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    submit(gated[0], gated[1], tmp_path / "first")
    receive(tmp_path / "first", intake)
    (intake / "prova" / "submission.json").write_text("{")
    receive(told, intake)
    assert list(notices(intake)) == ["prova"]


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, Change] = {
    "format": lambda said: said.update(format=2),
    "site-up": lambda said: said.update(site="../prova"),
    "site-absolute": lambda said: said.update(site="/etc/x"),
    "site-empty": lambda said: said.update(site=""),
    "site-line": lambda said: said.update(site="prova\n"),
    "site-number": lambda said: said.update(site=7),
    "number": lambda said: said.update(number="../../../x"),
    "when": lambda said: said.update(received_at="yesterday"),
    "day": lambda said: said.update(extracted_to="2024-13-01"),
    "verdict": lambda said: said.update(verdict="WARN"),
    "counts": lambda said: said["counts"].update(BLOCK=-1),
    "counts-name": lambda said: said["counts"].update(ROSSI=1),
    "persons": lambda said: said.update(persons="4"),
    "rows": lambda said: said.update(rows=True),
    "more": lambda said: said.update(patients=["x"]),
    "less": lambda said: said.pop("profile"),
    "profile": lambda said: said.update(profile=["x"]),
    "profile-words": lambda said: said["profile"].update(note="Maria Rossi"),
    "no-check": lambda said: said.update(checks=[]),
    "no-block": lambda said: [one.update(verdict="WARN") for one in said["checks"]],
    "twice": lambda said: said["checks"].append(said["checks"][0]),
    "check-more": lambda said: said["checks"][0].update(message="Maria Rossi"),
    "check-code": lambda said: said["checks"][0].update(code="<script>"),
    "check-title": lambda said: said["checks"][0].update(title="x" * 1000),
    "check-numerator": lambda said: said["checks"][0].update(numerator=1.5),
    "check-denominator": lambda said: said["checks"][0].update(denominator=None),
    "check-warn": lambda said: said["checks"][0].update(warn="0"),
    "check-verdict": lambda said: said["checks"][0].update(verdict="RED"),
    "check-severity": lambda said: said["checks"][0].update(severity=None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_refused(name: str, told: Path, tmp_path: Path) -> None:
    said = json.loads((told / NOTICE).read_text())
    WRONG[name](said)
    (told / NOTICE).write_text(json.dumps(said))
    refused(told, tmp_path, "E-RECEIVE-06")


def refused(told: Path, tmp_path: Path, code: str) -> None:
    before = content(tmp_path)
    with pytest.raises(PalmaresError, match=code) as raised:
        receive(told, tmp_path / "centre" / "intake")
    assert "Rossi" not in str(raised.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", "no json", "{", "[" * 100_000, "\udce9"])
def test_what_is_no_notice(text: str, told: Path, tmp_path: Path) -> None:
    (told / NOTICE).write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(told, tmp_path, "E-RECEIVE-06")


def test_too_large_a_link_or_not_alone(told: Path, tmp_path: Path) -> None:
    text = (told / NOTICE).read_text()
    (told / NOTICE).write_text(text + " " * 5_000_000)
    refused(told, tmp_path, "E-RECEIVE-06")
    (told / NOTICE).write_text(text)
    (told / "person.parquet").write_text("x")
    refused(told, tmp_path, "E-RECEIVE-04")
    (told / "person.parquet").unlink()
    (told / NOTICE).rename(tmp_path / "elsewhere.json")
    (told / NOTICE).symlink_to(tmp_path / "elsewhere.json")
    refused(told, tmp_path, "E-RECEIVE-06")
    (told / NOTICE).unlink()
    refused(told, tmp_path, "E-RECEIVE-01")


def test_the_stage_holds_the_site_against_the_folder_it_came_in(told: Path, tmp_path: Path) -> None:
    for name, code in (("altra", "E-RECEIVE-06"), ("prova", None)):
        came = tmp_path / "home" / "sites" / name / "notice"
        shutil.copytree(told, came)
        centre = CentrePlace(tmp_path / "home")
        if code:
            with pytest.raises(PalmaresError, match=code):
                receive_stage(centre, came)
        else:
            assert receive_stage(centre, came)["verdict"] == "BLOCK"
        assert list(notices(centre.intake)) == ([] if code else ["prova"])


def test_one_that_the_centre_keeps_and_cannot_read_is_not_passed_over(told: Path, tmp_path: Path) -> None:
    intake = tmp_path / "centre" / "intake"
    receive(told, intake)
    kept = tmp_path / "centre" / "notices" / "prova.json"
    kept.rename(kept.with_name("altra.json"))
    with pytest.raises(PalmaresError, match="E-RECEIVE-06"):
        notices(intake)
    kept.with_name("altra.json").write_text("no json")
    with pytest.raises(PalmaresError, match="E-RECEIVE-06"):
        notices(intake)
