"""Who takes a release as it is: lifelines, scikit-survival, a table of features, a MEDS reader and the MEDS schemas."""

import json
import random
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.cohort_helpers import INDEX, patient
from tests.publish_helpers import released
from tests.warehouses import Event


def on(days: int) -> str:
    return (INDEX + timedelta(days=days)).isoformat()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and twenty eligible patients with assessments, progressions, later lines and deaths, released."""
    chance = random.Random(3)
    what = []
    for person in range(1, 121):
        drug = chance.choice(["palbociclib", "ribociclib", "abemaciclib"])
        what += patient(person, drug=drug, er=str(chance.randrange(5, 100)))
        progression = int(chance.expovariate(1 / (500 if drug == "palbociclib" else 800))) + 20
        what += [Event(person, "SD", on(day)) for day in range(80, min(progression, 1200), 80)]
        if progression < 1200:
            what += [Event(person, "PD", on(progression)), Event(person, "capecitabine", on(progression + 9))]
            if chance.random() < 0.6:
                what.append(Event(person, "death", on(progression + chance.randrange(20, 90))))
        if chance.random() < 0.4:
            what.append(Event(person, "consent", on(chance.randrange(5, 60))))
        what.append(Event(person, "visit", on(min(progression + 100, 1250))))
    return released(what, tmp_path_factory.mktemp("cohort"))


def test_lifelines_takes_the_files_as_they_are(cohort: Path) -> None:
    from lifelines import CoxPHFitter, KaplanMeierFitter

    times = pd.read_parquet(cohort / "time_to_event.parquet").query("PARAMCD == 'RWPFS' and at_risk")
    baseline = pd.read_parquet(cohort / "baseline.parquet")
    rows = times.merge(baseline, on="patient")
    fitted = CoxPHFitter().fit(
        rows[["AVAL", "event", "index_drug", "er_percent", "age_at_index"]],
        "AVAL",
        "event",
        formula="index_drug + er_percent + age_at_index",
    )
    assert {"index_drug[T.ribociclib]", "index_drug[T.abemaciclib]"} <= set(fitted.params_.index)
    entered = KaplanMeierFitter().fit(rows["AVAL"], rows["event"], entry=rows["entry_day"].fillna(0).astype(float))
    assert 0 < entered.median_survival_time_ < rows["AVAL"].max()


def test_scikit_survival_takes_the_files_as_they_are(cohort: Path) -> None:
    from sksurv.ensemble import RandomSurvivalForest
    from sksurv.preprocessing import OneHotEncoder
    from sksurv.util import Surv

    lines = pd.read_parquet(cohort / "lines.parquet").dropna(subset=["ttnt_days"])
    y = Surv.from_dataframe("ttnt_event", "ttnt_days", lines.astype({"ttnt_event": bool, "ttnt_days": float}))
    x = OneHotEncoder().fit_transform(lines[["histology", "her2_group"]])
    x = x.join(lines[["age_at_start", "previous_lines", "er_percent", "prior_cdk46"]].astype(float))
    forest = RandomSurvivalForest(n_estimators=5, random_state=1).fit(x, y)
    assert 0.4 < forest.score(x, y) <= 1


def test_features_become_a_table_in_one_line(cohort: Path) -> None:
    features = pd.read_parquet(cohort / "features.parquet").query("landmark == 'day-0'")
    wide = features.pivot(index="patient", columns="feature", values="value")
    assert len(wide) == len(pd.read_parquet(cohort / "baseline.parquet"))
    assert wide["er_percent"].notna().all()


def test_a_meds_reader_takes_the_folder_as_it_is(cohort: Path, tmp_path: Path) -> None:
    import meds_reader

    converted = tmp_path / "converted"
    done = subprocess.run(
        [Path(sys.executable).parent / "meds_reader_convert", cohort / "meds", converted, "--num_threads", "1"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    database = meds_reader.SubjectDatabase(str(converted))
    baseline = pd.read_parquet(cohort / "baseline.parquet")
    assert set(database) == {int(one[:13], 16) for one in baseline["patient"]}
    times = pd.read_parquet(cohort / "time_to_event.parquet").query("PARAMCD == 'RWOS'").set_index("patient")
    for one in baseline["patient"]:
        events = database[int(one[:13], 16)].events
        moments = [event.time for event in events if event.time is not None]
        assert moments == sorted(moments)
        index = next(event.time for event in events if event.code == "PALMARES//INDEX")
        assert (index.year, index.month, index.day) == (2000, 1, 1)
        died = [event.time for event in events if event.code == "MEDS_DEATH"]
        assert len(died) == times.loc[one, "event"]
        if died:
            assert (died[0] - index).days == times.loc[one, "AVAL"]
        birth = next(event.time for event in events if event.code == "MEDS_BIRTH")
        age = baseline.set_index("patient").loc[one, "age_at_index"]
        assert (index - birth).days == int(365.25 * age)


def test_meds_passes_its_own_schemas(cohort: Path) -> None:
    import meds
    import pyarrow.parquet as pq

    folder = cohort / "meds"
    files = sorted((folder / "data").glob("*.parquet"))
    codes = set()
    for file in files:
        table = pq.read_table(file)
        meds.DataSchema.validate(table)
        codes |= set(table["code"].to_pylist())
        subjects = table["subject_id"].to_pylist()
        assert len({one for one, before in zip(subjects, [None, *subjects], strict=False) if one != before}) == len(
            set(subjects)
        )
    described = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(described)
    assert set(described["code"].to_pylist()) == codes
    splits = pq.read_table(folder / meds.subject_splits_filepath)
    meds.SubjectSplitSchema.validate(splits)
    assert set(splits["split"].to_pylist()) == {meds.train_split, meds.tuning_split, meds.held_out_split}
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text()))


def test_no_real_moment_stands_in_meds(cohort: Path) -> None:
    times = duckdb.sql(f"SELECT time FROM '{cohort}/meds/data/*.parquet' WHERE time IS NOT NULL").df()["time"]
    # day 0 of everyone is 2021-06-01: nothing of 2021 to 2025 is left, two decades lie between
    assert times.max() < pd.Timestamp("2000-01-01") + pd.Timedelta(days=1400)
    assert date(2021, 6, 1) not in set(times.dt.date)
