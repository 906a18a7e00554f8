"""What analysts run, on a release as it is: every Python block of the quick start, lifelines, scikit-survival, the reports."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.ensemble import RandomSurvivalForest
from sksurv.util import Surv

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts import run as run_cohort
from omop_etl.publish import release as publish
from omop_etl.reports.survival import report
from tests.derive_truth import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two synthetic hospitals, where the quick start looks for one."""
    folder = tmp_path_factory.mktemp("consumers")
    run(folder, sites=2, patients=180, dirty=False, seed=4, jobs=2)
    run_cohort(folder / "warehouse.duckdb", folder / "cohort", derived=folder / "derived")
    place = folder / "demo" / "workspace" / "centre" / "release"
    publish(folder / "warehouse.duckdb", folder / "cohort", place, derived=folder / "derived")
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


@pytest.mark.filterwarnings("ignore")
def test_lifelines_takes_the_files_as_they_are(release: Path) -> None:
    times = pd.read_parquet(release / "time_to_event.parquet")
    baseline = pd.read_parquet(release / "baseline.parquet")
    rows = times.query("PARAMCD == 'RWOS'").merge(baseline, on="patient")
    rows = rows.assign(AVAL=rows["AVAL"].clip(lower=0.5))
    fit = CoxPHFitter(penalizer=0.1).fit(
        rows[["AVAL", "event", "index_drug", "age_at_index", "de_novo", "metastatic_sites"]].dropna(),
        "AVAL",
        "event",
        formula="index_drug + age_at_index + de_novo + metastatic_sites",
    )
    assert np.isfinite(fit.params_).all()
    # and CSV, by those who do not read Parquet
    again = pd.read_csv(release / "time_to_event.csv")
    assert (again["AVAL"] == times["AVAL"]).all() and (again["event"] == times["event"]).all()


def test_scikit_survival_takes_the_files_as_they_are(release: Path) -> None:
    lines = pd.read_parquet(release / "lines.parquet")
    y = Surv.from_dataframe("pfs_event", "pfs_days", lines.astype({"pfs_event": bool, "pfs_days": float}))
    X = lines[["line_number", "age_at_start", "progressions", "days_advanced_to_start"]].to_numpy(dtype=float)
    forest = RandomSurvivalForest(n_estimators=10, random_state=1).fit(X, y)
    assert 0.4 < forest.score(X, y) <= 1


def test_a_release_of_a_few_gives_a_numbered_error_not_a_nonsense_fit(release: Path, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-REPORT-02"):
        report(release, tmp_path / "out", imputations=2)


def test_membership_and_endpoints_fit_each_other(release: Path) -> None:
    members = pd.read_parquet(release / "analyses.parquet")
    times = pd.read_parquet(release / "time_to_event.parquet")
    beyond = set(members.query("analysis == 'beyond-progression' and member == True")["patient"])
    assert beyond == set(times.query("PARAMCD == 'RWPFSBP'")["patient"])
    start = members.query("analysis == 'beyond-progression' and member == True").set_index("patient")["start_day"]
    begun = times.query("PARAMCD == 'RWPFSBP'").set_index("patient")["STARTDT"]
    assert (start.astype(int).sort_index() == begun.astype(int).sort_index()).all()
