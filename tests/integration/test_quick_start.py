"""The quick start runs as it stands, on a release as it is; and what a report says of too few."""

import io
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.reports.survival import report
from tests.cohort_helpers import patient
from tests.publish_helpers import released
from tests.warehouses import Event

ROOT = Path(__file__).resolve().parents[2]


def course(person: int, chance: random.Random) -> list[Event]:
    """One eligible patient: assessments, a progression, perhaps on with the same drugs, later lines, consent, death."""
    index = date(2019, 1, 1) + timedelta(days=chance.randrange(1300))
    drug = chance.choice(["palbociclib", "ribociclib", "abemaciclib"])

    def on(days: int) -> str:
        return (index + timedelta(days=days)).isoformat()

    found = [one for one in patient(person, f"s0{person % 3 + 1}", drug, index) if one.event not in (drug, "letrozole")]
    progression = int(chance.expovariate(1 / 600)) + 40
    beyond = chance.random() < 0.3
    stop = progression + (200 if beyond else 0)
    found += [Event(person, name, on(0), on(stop), site=f"s0{person % 3 + 1}") for name in (drug, "letrozole")]
    found += [
        Event(person, "SD", on(day), site=f"s0{person % 3 + 1}") for day in range(80, stop, 80) if day != progression
    ]
    found += [Event(person, "PD", on(day), site=f"s0{person % 3 + 1}") for day in {progression, stop}]
    found.append(Event(person, "capecitabine", on(stop + 9), on(stop + 150), site=f"s0{person % 3 + 1}"))
    if chance.random() < 0.3:
        found.append(Event(person, "letrozole", on(-900), on(-35), site=f"s0{person % 3 + 1}"))
    if chance.random() < 0.3:
        found.append(Event(person, "death", on(stop + chance.randrange(20, 300)), site=f"s0{person % 3 + 1}"))
    return found


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release where the quick start looks for one."""
    folder = tmp_path_factory.mktemp("consumers")
    chance = random.Random(3)
    place = folder / "demo" / "workspace" / "centre" / "release"
    (folder / "made").mkdir()
    made = released([one for person in range(1, 141) for one in course(person, chance)], folder / "made")
    shutil.copytree(made, place)
    return place


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.filterwarnings("ignore")
def test_every_python_block_of_the_quick_start_runs_in_order(release: Path) -> None:
    found = blocks("quick-start.md")
    assert len(found) >= 9
    names: dict[str, object] = {}
    said = io.StringIO()
    with inside(release.parents[3]), redirect_stdout(said):
        for number, block in enumerate(found, 1):
            exec(compile(block, f"quick-start.md, block {number}", "exec"), names)  # noqa: S102  (our own page)
    assert "palbociclib" in said.getvalue() and "resistant" in said.getvalue()


def test_the_report_reads_a_release_as_it_is_and_refuses_a_few_of_it(release: Path, tmp_path: Path) -> None:
    made = report(release, tmp_path / "out", imputations=2)
    assert set(made.hazard_ratios) == {"ribociclib", "abemaciclib"}
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    with pytest.raises(PalmaresError, match="E-REPORT-02"):
        report(release, tmp_path / "few", analysis="beyond-progression", imputations=2)
    with pytest.raises(PalmaresError, match="E-REPORT-02"):
        report(release, tmp_path / "none", analysis="visceral", imputations=2)


def test_membership_and_endpoints_fit_each_other(release: Path) -> None:
    members = pd.read_parquet(release / "analyses.parquet")
    times = pd.read_parquet(release / "time_to_event.parquet")
    beyond = set(members.query("analysis == 'beyond-progression' and member == True")["patient"])
    assert beyond == set(times.query("PARAMCD == 'RWPFSBP'")["patient"])
    start = members.query("analysis == 'beyond-progression' and member == True").set_index("patient")["start_day"]
    begun = times.query("PARAMCD == 'RWPFSBP'").set_index("patient")["STARTDT"]
    assert (start.astype(int).sort_index() == begun.astype(int).sort_index()).all()
