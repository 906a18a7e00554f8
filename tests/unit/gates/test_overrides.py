"""Overrides: what lets a check through, what does not, and that the centre sees the same."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.config import load_site
from omop_etl.gates import gate, read_verdict
from omop_etl.gates.definitions import definitions
from omop_etl.gates.overrides import applied, messages, read
from omop_etl.submission import receive, submit
from omop_etl.warehouse import build
from tests.slices import clean_rows, write_slice

TODAY = date(2025, 1, 10)
GOOD: dict[str, Any] = {
    "check": "G-DEATH-02",
    "by": "M. Rossi, data manager",
    "reason": "letters are dated by their dispatch",
    "until": date(2025, 3, 31),
}


def taken(**changes: Any) -> Any:
    return read([GOOD | changes], definitions(), "prova", TODAY)[0]


@pytest.mark.parametrize(
    ("changes", "state", "word"),
    [
        ({}, "not needed", ""),
        ({"until": TODAY}, "not needed", ""),
        ({"until": date(2025, 1, 9)}, "expired", "ignored"),
        ({"until": date(2026, 1, 1)}, "refused", "180 days"),
        ({"check": "G-KEY-person.person_id"}, "refused", "files themselves"),
        ({"check": "G-LEDGER"}, "refused", "files themselves"),
        ({"check": "G-DEATH"}, "refused", "G-DEATH"),
        ({"check": "G-BIRTH"}, "not needed", ""),
    ],
)
def test_what_holds_on_this_day(changes: dict[str, Any], state: str, word: str) -> None:
    override = taken(**changes)
    assert override.state == state
    assert word in override.note
    assert bool(messages([override])) == (state in ("expired", "refused"))
    code = {"G-BIRTH": "G-BIRTH-01", "G-LEDGER": "G-LEDGER-01"}.get(override.check, override.check)
    assert (applied([override], code) is not None) == (state == "not needed")


@pytest.mark.parametrize(
    "changes",
    [
        {"check": "G-NOTHING-01"},
        {"check": ""},
        {"by": "  "},
        {"reason": None},
        {"until": "2025-03-31"},
        {"until": None},
        {"verdict": "PASS"},
    ],
)
def test_one_that_is_not_whole_is_a_numbered_error(changes: dict[str, Any]) -> None:
    with pytest.raises(PalmaresError, match="E-GATE-04"):
        taken(**changes)


def test_the_most_exact_one_counts() -> None:
    wide, exact = taken(check="G-BIRTH"), taken(check="G-BIRTH-01")
    assert applied([wide, exact], "G-BIRTH-01") is exact
    assert applied([wide, exact], "G-BIRTH-02") is wide
    assert applied([wide, exact], "G-DEATH-02") is None


def test_they_stand_in_the_sites_toml(tmp_path: Path) -> None:
    (tmp_path / "prova.toml").write_text(
        '[[override]]\ncheck = "G-DEATH-02"\nby = "M. Rossi"\nreason = "known"\nuntil = 2025-03-31\n'
    )
    override = read(load_site("prova", tmp_path).overrides, definitions(), "prova", TODAY)[0]
    assert (override.check, override.until) == ("G-DEATH-02", "2025-03-31")


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Iterator[tuple[Path, Path]]:
    """A slice in which three patients died before their last visit, and the folder of its gates."""
    home = tmp_path_factory.mktemp("overridden")
    rows = clean_rows(persons=3)
    person = [one["person_id"] for one in rows["person"]]
    rows["death"] = [rows["death"][0] | {"person_id": one, "death_date": date(2024, 11, 1)} for one in person]
    yield write_slice(home / "slice", rows), home


def test_a_block_that_is_let_through_is_a_warning_in_view_and_passes_the_centre(
    blocked: tuple[Path, Path], vocabulary: Path
) -> None:
    slice_, home = blocked
    override = GOOD | {"until": date.fromordinal(date.today().toordinal() + 30)}
    verdict = gate(slice_, home / "gate", site="prova", vocabulary=vocabulary, overrides=[override])
    assert verdict.verdict == "WARN"
    document = read_verdict(home / "gate")
    death = next(check for check in document["checks"] if check["code"] == "G-DEATH-02")
    assert (death["verdict"], death["override"], death["threshold"]) == ("WARN", "G-DEATH-02", 20)
    assert "let through by M. Rossi, data manager until" in death["message"]
    assert document["overrides"][0] | {"note": ""} == {
        "check": "G-DEATH-02",
        "by": "M. Rossi, data manager",
        "reason": "letters are dated by their dispatch",
        "until": override["until"].isoformat(),
        "state": "applied",
        "note": "",
    }
    index = (home / "gate" / "data_docs" / "index.html").read_text(encoding="utf-8")
    assert "Let through by M. Rossi, data manager, until" in index
    assert ">BLOCK<" not in index
    submit(slice_, home / "gate", home / "submission")
    assert receive(home / "submission", home / "intake").verdict == "WARN"
    verdict_file = home / "gate" / "verdict.json"
    verdict_file.write_text(json.dumps(document | {"overrides": [document["overrides"][0] | {"until": "2020-01-01"}]}))
    with pytest.raises(PalmaresError, match=r"E-GATE-02.*ended"):
        submit(slice_, home / "gate", home / "late")
    verdict_file.write_text(json.dumps(document | {"overrides": []}))
    submit(slice_, home / "gate", home / "nobody")
    with pytest.raises(PalmaresError, match="E-RECEIVE-05"):
        receive(home / "nobody", home / "intake")


def test_a_blocked_submission_never_touches_the_warehouse(blocked: tuple[Path, Path], vocabulary: Path) -> None:
    """Not through submit, not through receive, not through build, whatever is said of it."""
    slice_, home = blocked
    assert gate(slice_, home / "no", site="prova", vocabulary=vocabulary).verdict == "BLOCK"
    with pytest.raises(PalmaresError, match="E-GATE-01"):
        submit(slice_, home / "no", home / "never")
    assert not (home / "never").exists()
    # someone packs it by hand, and says that it is fine
    document = read_verdict(home / "no")
    (home / "no" / "verdict.json").write_text(json.dumps(document | {"verdict": "WARN"}))
    submit(slice_, home / "no", home / "forced")
    with pytest.raises(PalmaresError, match="E-RECEIVE-05"):
        receive(home / "forced", home / "elsewhere")
    assert not (home / "elsewhere" / "prova").exists()
    with pytest.raises(PalmaresError, match="E-RECEIVE-05"):
        build([home / "forced"], home / "warehouse.duckdb", vocabulary=vocabulary)
    assert not (home / "warehouse.duckdb").exists()
