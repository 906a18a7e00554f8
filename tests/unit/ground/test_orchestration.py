"""What a run's report says of its sites: each failure until what failed begins again."""

import json
from pathlib import Path

import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.orchestration import report_sites, site_lines


def log(home: Path, *events: str) -> Path:
    """A log of "<stage> <subject> <state>"."""
    names = ("stage", "subject", "state")
    lines = [dict(zip(names, event.split(), strict=True)) for event in events]
    for line in lines:
        line |= {"error": "E-SRC-02"} if line["state"] == "failed" else {}
    (home / "events.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return home


@pytest.mark.parametrize(
    ("events", "failed"),
    [
        (["land s1 begun", "land s1 done"], ""),
        # the site goes on without the source, and the report says so
        (["extract s1/2 begun", "extract s1/2 failed", "land s1 begun", "land s1 done"], "extract: E-SRC-02"),
        (["extract s1/2 failed", "land s1 begun", "extract s1/2 begun", "extract s1/2 done", "land s1 begun"], ""),
        (["extract s1/2 failed", "extract s1/1 begun", "extract s1/1 done"], "extract: E-SRC-02"),
        # another try that goes well
        (["submit s1 begun", "submit s1 failed", "submit s1 begun", "submit s1 done"], ""),
        (["extract s1/1 failed", "gate s1 failed"], "extract: E-SRC-02; gate: E-SRC-02"),
        (["gate s1 failed", "land s1 begun", "land s1 done"], ""),
        (["gate s11 failed"], ""),
    ],
)
def test_what_failed_is_said_until_it_begins_again(tmp_path: Path, events: list[str], failed: str) -> None:
    home = log(tmp_path, *events)
    assert [line["failed"] for line in site_lines(home, ["s1"])] == [failed]
    if failed:
        with pytest.raises(PalmaresError, match="E-RUN-01 s1"):
            report_sites(home, ["s1"])
    else:
        report_sites(home, ["s1"])
