"""The machine-learning report: patients apart, nothing from after the decision, the same every time, and no model on a few."""

import csv
import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.reports.ml import learning, report
from omop_etl.reports.ml import settings as settings_module
from omop_etl.reports.ml.learning import Learnt, learn
from omop_etl.reports.ml.settings import Settings, load
from tests.report_helpers import baseline, lines, release

# the study's own question, with smaller models and fewer draws
SMALL = replace(
    load("palmares2"),
    models={
        "random-survival-forest": {"n_estimators": 10, "min_samples_leaf": 30},
        "gradient-boosted-survival": {"n_estimators": 20, "max_depth": 2, "subsample": 0.7},
    },
    values=load("palmares2").values | {"bootstraps": 12},
)


def rows(patients: int = 500, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    found = lines(baseline(patients, rng), rng)
    return found.assign(days=found["pfs_days"].clip(lower=0.5).astype(float), event=found["pfs_event"])


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    return learn(rows(), SMALL, days_per_month=30.4375, seed=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(import_module("omop_etl.reports.ml.report"), "load", lambda study: SMALL)
    return SMALL


def test_no_feature_of_the_study_is_known_only_after_the_decision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = load("palmares2")
    assert not {"end_reason", "pfs_days", "ttnt_event", "next_regimen", "treatment_days", "flags", "drugs"} & set(
        found.features
    )
    folder = tmp_path / "studies" / "palmares2" / "reports"
    folder.mkdir(parents=True)
    leaking = 'outcome = "pfs"\n[settings]\n[models]\n[features]\nnumber = ["os_days"]\ncategory = []\n'
    (folder / "ml.toml").write_text(leaking, encoding="utf-8")
    monkeypatch.setattr(settings_module, "mappings_folder", lambda: tmp_path)
    with pytest.raises(PalmaresError, match=r"E-STUDY-03 .*os_days is known after the decision"):
        load("palmares2")


def test_what_was_planted_is_told_better_than_by_chance_and_than_without_covariates(learnt: Learnt) -> None:
    by = {(one.model, one.measure, one.month): one for one in learnt.measures}
    for model in SMALL.models:
        assert by[model, "auc", 12.0].value > 0.6
        assert by[model, "auc", 12.0].low < by[model, "auc", 12.0].value < by[model, "auc", 12.0].high
        assert by[model, "brier", 12.0].value < by[learning.NULL, "brier", 12.0].value
        assert 0.55 < by[model, "concordance", None].value < 0.9
    assert learnt.months == (6.0, 12.0, 24.0)


def test_a_patient_is_on_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    found = rows(300)

    class Watched:
        """The real preparation, which also notes whose lines it was given."""

        def __init__(self, settings: Settings) -> None:
            self.real = PREPARATION(settings)

        def fit_transform(self, frame: pd.DataFrame) -> np.ndarray:
            seen.append(set(found.loc[frame.index, "patient"]))
            return self.real.fit_transform(frame)

        def transform(self, frame: pd.DataFrame) -> np.ndarray:
            seen.append(set(found.loc[frame.index, "patient"]))
            return self.real.transform(frame)

    monkeypatch.setattr(learning, "preparation", Watched)
    learn(found, SMALL, days_per_month=30.4375, seed=1)
    teach, test = seen
    assert not teach & test
    assert len(teach | test) == 300
    assert 0.25 < len(test) / 300 < 0.35


PREPARATION = learning.preparation


def test_the_same_rows_and_seed_give_the_same_numbers_another_seed_others(learnt: Learnt) -> None:
    assert learn(rows(), SMALL, days_per_month=30.4375, seed=1) == learnt
    assert learn(rows(), SMALL, days_per_month=30.4375, seed=2) != learnt


def test_calibration_groups_hold_every_test_line(learnt: Learnt) -> None:
    for model in SMALL.models:
        groups = [one for one in learnt.groups if one.model == model]
        assert [one.number for one in groups] == [1, 2, 3, 4, 5]
        assert sum(one.lines for one in groups) == learnt.sizes["lines to test on"]
        predicted = [one.predicted for one in groups]
        assert predicted == sorted(predicted)
        assert all(0 <= one.low <= one.observed <= one.high <= 1 for one in groups)


def test_the_report_is_whole_readable_and_the_same_every_time(small: Settings, tmp_path: Path) -> None:
    place = release(tmp_path / "release", patients=400)
    found = report(place, tmp_path / "one")
    report(place, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "report.html", "results.json", "performance.csv", "calibration.csv", "manifest.json"
    }  # fmt: skip
    text = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert text.count("<img alt=") == 2 and "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert set(found.concordance) == set(SMALL.models)
    assert (found.lines, found.patients) == (800, 400)
    written = list(csv.DictReader((tmp_path / "one" / "performance.csv").read_text().splitlines()))
    assert len(written) == len(json.loads((tmp_path / "one" / "results.json").read_text())["measures"])


def test_the_few_lines_that_were_left_out_do_not_follow_from_a_difference(small: Settings, tmp_path: Path) -> None:
    place = release(tmp_path / "release", patients=400)
    frame = pd.read_parquet(place / "lines.parquet")
    frame.loc[[5, 6, 7], "entry_day"] = frame.loc[[5, 6, 7], "pfs_days"] + 1
    frame.to_parquet(place / "lines.parquet", index=False)
    assert report(place, tmp_path / "out").lines == "*"
    said = json.loads((tmp_path / "out" / "results.json").read_text())
    assert said["left_out"]["lines that ended before the consent"] == "*"
    assert said["sizes"]["lines to learn from"] == "*"
    assert "from * lines" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_late_entry_is_said_with_its_number(small: Settings, tmp_path: Path) -> None:
    place = release(tmp_path / "release", patients=400)
    frame = pd.read_parquet(place / "lines.parquet")
    frame["entry_day"] = pd.array([pd.NA] * len(frame), dtype="Int64")
    long = frame.index[frame["pfs_days"] > 50][:40]
    frame.loc[long, "entry_day"] = 30
    frame.to_parquet(place / "lines.parquet", index=False)
    report(place, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["late_entry"] == 40
    assert "counts from its start (40 lines)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    frame.loc[long[3:], "entry_day"] = pd.NA
    frame = frame[frame["patient"] != frame["patient"].iloc[0]]  # one patient has no line
    frame.to_parquet(place / "lines.parquet", index=False)
    found = report(place, tmp_path / "again")
    said = json.loads((tmp_path / "again" / "results.json").read_text())
    assert (said["late_entry"], said["sizes"]["patients to learn from"], found.patients) == ("*", "*", "*")


@pytest.mark.parametrize(
    ("analysis", "outcome", "code"),
    [
        ("few", None, "E-REPORT-02"),
        ("nobody", None, "E-REPORT-02"),
        ("unheard-of", None, "E-COHORT-02"),
        ("all-comers", "happiness", "E-REPORT-01"),
        ("all-comers", "os", "E-REPORT-01"),
    ],
)
def test_too_few_and_unknown_are_numbered_errors(
    small: Settings, tmp_path: Path, analysis: str, outcome: str | None, code: str
) -> None:
    place = release(tmp_path / "release", patients=120)
    with pytest.raises(PalmaresError, match=code):
        report(place, tmp_path / "out", analysis=analysis, outcome=outcome)
    assert not (tmp_path / "out").exists()


def test_categories_that_nobody_taught_and_empty_columns_are_borne() -> None:
    found = rows(300)
    found["hemoglobin"] = np.nan
    found["ecog"] = [None] * len(found)
    found.loc[found["patient"].isin(sorted(set(found["patient"]))[:20]), "histology"] = "never seen before"
    assert learn(found, SMALL, days_per_month=30.4375, seed=4).measures
