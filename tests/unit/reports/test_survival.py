"""The survival report: what it estimates is what lifelines estimates, what it shows hides small cells, what it cannot say it refuses."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described
from omop_etl.reports.survival import SurvivalReport, report
from omop_etl.reports.survival import estimates as e
from omop_etl.reports.survival.design import column, design, differences, stabilised_weights
from omop_etl.reports.survival.imputing import PosteriorLinear, imputed
from omop_etl.reports.survival.report import Flow, Shown
from omop_etl.reports.survival.settings import load
from tests.report_helpers import ARMS, RATIOS, baseline, release, times

SETTINGS = load("palmares2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("reports") / "release", patients=420)


@pytest.fixture(scope="module")
def done(place: Path) -> tuple[SurvivalReport, Path]:
    out = place.parent / "report"
    return report(place, out, imputations=2), out


def rows(patients: int = 900, seed: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = baseline(patients, rng)
    found = frame.merge(times(frame, rng), on="patient")
    return found[found["at_risk"]]


# ---- the folder


def test_the_folder_is_complete_and_described(done: tuple[SurvivalReport, Path]) -> None:
    result, out = done
    names = {path.name for path in out.iterdir()}
    assert names == {
        "report.html", "results.json", "cox.csv", "balance.csv", "survival.csv", "at_risk.csv", "manifest.json"
    }  # fmt: skip
    assert set(json.loads((out / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    assert (result.analysis, result.endpoint) == ("all-comers", "RWPFS")
    assert set(result.hazard_ratios) == {"ribociclib", "abemaciclib"}
    assert set(result.hazard_ratios["abemaciclib"]) == {"unadjusted", "adjusted", "weighted"}


class Read(HTMLParser):
    """What a page asks for, and what stands beside its pictures and tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_opens_from_disk_and_can_be_read_without_seeing(done: tuple[SurvivalReport, Path]) -> None:
    text = (done[1] / "report.html").read_text(encoding="utf-8")
    page = Read()
    page.feed(text)
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and "link" not in tags
    pictures = [about for tag, about in page.tags if tag == "img"]
    assert len(pictures) == 4
    assert all(
        (about["src"] or "").startswith("data:image/svg+xml;base64,") and len(about["alt"] or "") > 30
        for about in pictures
    )
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert tags.count("caption") == tags.count("table") >= 7
    assert all(about.get("scope") in ("row", "col") for tag, about in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1


def test_the_same_release_and_seed_give_the_same_bytes(place: Path, done: tuple[SurvivalReport, Path]) -> None:
    again = place.parent / "again"
    report(place, again, imputations=2)
    for path in done[1].iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_no_small_number_is_shown(done: tuple[SurvivalReport, Path]) -> None:
    _, out = done
    numbers = [row["at_risk"] for row in csv.DictReader((out / "at_risk.csv").read_text().splitlines())]
    assert "*" in numbers
    assert all(number in ("*", "0") or int(number) >= 10 for number in numbers)
    assert all(
        one["events"] == "*" or one["events"] >= 10 for one in json.loads((out / "results.json").read_text())["arms"]
    )


def test_who_consented_after_the_end_is_left_out_and_counted(place: Path, done: tuple[SurvivalReport, Path]) -> None:
    said = json.loads((done[1] / "results.json").read_text())
    frame = pd.read_parquet(place / "time_to_event.parquet")
    never = int((~frame[frame["PARAMCD"] == "RWPFS"]["at_risk"]).sum())
    shown = never if never == 0 or never >= 10 else "*"
    assert shown in said["left_out"].values()
    sizes = pd.read_parquet(place / "baseline.parquet")["index_drug"].value_counts()
    gone = {
        arm["arm"]: arm["patients"] if arm["patients"] == "*" else int(sizes[arm["arm"]]) - arm["patients"]
        for arm in said["arms"]
    }
    # where the few that were left out of an arm would follow from table one, its number is hidden
    assert all(one == "*" or one == 0 or one >= 10 for one in gone.values())
    assert said["patients"] == ("*" if "*" in gone.values() else 420 - never)


def test_the_few_left_out_of_one_arm_do_not_follow_from_all_that_were_left_out() -> None:
    # 12 of a and 2 of b: a's number and 14 left out would say 2
    flow = Flow({"a": 88, "b": 98, "c": 50}, {"withheld": {"a": 12, "b": 2}, "late": {}})
    shown = flow.shown(10)
    assert flow.sizes == {"a": 100, "b": 100, "c": 50}
    assert shown.patients == {"a": 88, "b": "*", "c": 50}
    assert (shown.total, shown.left_out["withheld"]) == ("*", "*")
    # two reasons: 3 and 12, and all 15 of one arm
    flow = Flow({"a": 85, "b": 50}, {"withheld": {"a": 3}, "late": {"a": 12}})
    assert flow.shown(10) == Shown({"a": 85, "b": 50}, 135, {"withheld": "*", "late": "*"})
    flow = Flow({"a": 85, "b": 50}, {"withheld": {"a": 15}, "late": {}})
    assert flow.shown(10) == Shown({"a": 85, "b": 50}, 135, {"withheld": 15, "late": 0})


def test_an_analysis_has_the_endpoint_whose_time_it_is(place: Path, tmp_path: Path) -> None:
    found = report(place, tmp_path / "out", analysis="beyond-progression", imputations=2)
    assert found.endpoint == "RWPFSBP"
    assert found.patients == "*" or int(found.patients) < 500


# ---- what is estimated


def test_adjusted_and_weighted_undo_the_planted_confounding() -> None:
    plan = design(rows(2000), SETTINGS)
    frame = imputed(plan, SETTINGS, imputations=2, seed=1)[0]
    true = np.log(RATIOS["abemaciclib"])
    crude, _ = e.cox(frame, plan.treatments, stratified=False)
    adjusted, variance = e.cox(frame, [*plan.treatments, *plan.columns], stratified=False)
    weighted, _ = e.cox(frame, plan.treatments, stratified=False, weights=stabilised_weights(frame, plan, SETTINGS))
    place = plan.treatments.index(column("abemaciclib"))
    assert abs(crude[place] - true) > 0.15
    assert abs(adjusted[place] - true) < 2.5 * np.sqrt(variance[place])
    assert abs(weighted[place] - true) < abs(crude[place] - true) / 2


def test_one_complete_frame_is_what_lifelines_says(place: Path) -> None:
    plan = design(rows().dropna(subset=["ki67_percent"]).query("histology != 'unspecified'"), SETTINGS)
    (frame,) = imputed(plan, SETTINGS, imputations=5, seed=1)
    columns = [*plan.treatments, *plan.columns]
    found = e.ratios(columns, columns, [e.cox(frame, columns)])
    plain = CoxPHFitter().fit(
        frame[[*columns, "time", "event", "entry", "strata"]], "time", "event", entry_col="entry", strata=["strata"]
    )
    assert [one.ratio for one in found] == pytest.approx(list(plain.hazard_ratios_[columns]))
    bounds = plain.confidence_intervals_.loc[columns]
    assert [np.log(one.low) for one in found] == pytest.approx(list(bounds.iloc[:, 0]))
    # a fit that begins where another ended ends in the same place
    again, _ = e.cox(frame, columns, begin=np.asarray(plain.params_[columns]) * 1.1)
    assert again == pytest.approx(plain.params_[columns].to_numpy(), abs=1e-5)


def test_rubins_rules() -> None:
    mean, error, df = e.pooled(np.array([[1.0], [3.0]]), np.array([[0.5], [1.5]]))
    assert mean == pytest.approx([2.0])
    assert error == pytest.approx([np.sqrt(1.0 + 1.5 * 2.0)])  # within 1, between 2
    assert df == pytest.approx([(1 + 1.0 / (1.5 * 2.0)) ** 2])
    mean, error, df = e.pooled(np.array([[1.0]]), np.array([[0.25]]))
    assert (mean[0], error[0], df[0]) == (1.0, 0.5, np.inf)


def test_what_is_filled_in_varies_and_what_was_known_stays() -> None:
    plan = design(rows(), SETTINGS)
    frames = imputed(plan, SETTINGS, imputations=3, seed=4)
    gone = plan.frame["ki67_percent"].isna()
    assert 0.05 < gone.mean() < 0.15
    for frame in frames:
        assert not frame[plan.columns].isna().any(axis=None)
        pd.testing.assert_frame_equal(frame.loc[~gone, ["ki67_percent"]], plan.frame.loc[~gone, ["ki67_percent"]])
    assert not np.allclose(frames[0].loc[gone, "ki67_percent"], frames[1].loc[gone, "ki67_percent"])
    again = imputed(plan, SETTINGS, imputations=3, seed=4)
    assert all(one.equals(other) for one, other in zip(frames, again, strict=True))


def test_the_parameters_of_an_equation_are_drawn_from_their_posterior() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = 1 + 2 * x[:, 0] + rng.normal(size=400)
    drawn = np.array([PosteriorLinear(random_state=seed).fit(x, y).coefficients_ for seed in range(400)])
    # mean 2, spread 1 / sqrt(400): as least squares has them
    assert drawn[:, 1].mean() == pytest.approx(2, abs=0.15)
    assert drawn[:, 1].std() == pytest.approx(0.05, rel=0.2)
    value, spread = PosteriorLinear(random_state=1).fit(x, y).predict(x, return_std=True)
    assert value.shape == spread.shape == (400,)


def test_weights_balance_the_arms() -> None:
    plan = design(rows(2000), SETTINGS)
    frame = imputed(plan, SETTINGS, imputations=2, seed=1)[0]
    weights = stabilised_weights(frame, plan, SETTINGS)
    before, after = differences(frame, plan), differences(frame, plan, weights)
    assert before["endocrine_sensitivity: resistant"] > 0.5
    assert after["endocrine_sensitivity: resistant"] < 0.1
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_hazards_that_cross_are_told() -> None:
    found = rows(900)
    # of abemaciclib every other patient at once, and then nobody for years
    place = np.flatnonzero(found["index_drug"] == "abemaciclib")
    for every, days, event in ((place[::2], 20, 1), (place[1::2], 1700, 0)):
        found.iloc[every, found.columns.get_loc("AVAL")] = days + np.arange(len(every)) % 9
        found.iloc[every, found.columns.get_loc("event")] = event
    found["entry_day"] = pd.array([pd.NA] * len(found), dtype="Int64")
    plan = design(found, SETTINGS)
    frame = imputed(plan, SETTINGS, imputations=2, seed=1)[0]
    p = {name: p for name, _, p in e.proportionality(frame, plan)}
    assert p["abemaciclib"] < 0.01


def test_a_curve_ends_where_few_are_at_risk_and_late_entry_counts() -> None:
    part = pd.DataFrame(
        {"time": [10.0 * n for n in range(1, 61)], "event": [1] * 60, "entry": [0.0] * 50 + [300.0] * 10}
    )
    found = e.curve(part, "x", [0, 6, 12, 18], days_per_month=30.4375, threshold=10, size=60, step=0.5)
    last = max(month for month, *_ in found.points)
    followed = ((part["time"] >= last * 30.4375) & (part["entry"] <= last * 30.4375)).sum()
    assert followed >= 10 and last < 18
    assert found.at_risk[0] == 50  # ten enter later
    assert found.median[0] is not None


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([100, 60, 55, 12, 4, 0], [100, 60, None, 12, None, 0]),
        ([100, 90, 110, 112], [100, 90, 110, None]),
        ([95, 3], [None, None]),
    ],
)
def test_numbers_at_risk_and_their_steps_are_never_small(numbers: list[int], shown: list[int | None]) -> None:
    assert e.hidden(numbers, 100, 10) == shown


# ---- what is refused


@pytest.mark.parametrize(
    ("analysis", "endpoint", "code"),
    [
        ("few", None, "E-REPORT-02"),
        ("nobody", None, "E-REPORT-02"),
        ("unheard-of", None, "E-COHORT-02"),
        ("all-comers", "RWNOT", "E-REPORT-01"),
        ("all-comers", "TTC", "E-REPORT-02"),
    ],
)
def test_too_few_and_unknown_are_numbered_errors(
    place: Path, tmp_path: Path, analysis: str, endpoint: str | None, code: str
) -> None:
    with pytest.raises(PalmaresError, match=code):
        report(place, tmp_path / "out", analysis=analysis, endpoint=endpoint, imputations=2)
    assert not (tmp_path / "out").exists()


def test_what_is_no_release_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(PalmaresError, match="E-REPORT-01"):
        report(tmp_path, tmp_path / "out")
    broken = tmp_path / "broken"
    release(broken, patients=60)
    (broken / "baseline.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PalmaresError, match=r"E-REPORT-01 .*baseline\.parquet"):
        report(broken, tmp_path / "out")
    pd.DataFrame({"patient": ["a"]}).to_parquet(broken / "baseline.parquet")
    with pytest.raises(PalmaresError, match=r"E-REPORT-01 .*no site"):
        report(broken, tmp_path / "out")


def test_a_file_that_is_not_as_released_is_no_source(tmp_path: Path) -> None:
    place = release(tmp_path / "release", patients=60)
    (place / "manifest.json").write_text(json.dumps({"study": "palmares2", "files": described(place)}))
    with pytest.raises(PalmaresError, match="E-REPORT-02"):  # read, and too small
        report(place, tmp_path / "out")
    frame = pd.read_parquet(place / "baseline.parquet")
    frame.assign(age_at_index=frame["age_at_index"] + 1).to_parquet(place / "baseline.parquet", index=False)
    with pytest.raises(PalmaresError, match=r"E-REPORT-01 .*baseline\.parquet.*not those that were released"):
        report(place, tmp_path / "out")


def test_a_lock_is_read_by_its_datasets(place: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock-1"
    lock.mkdir()
    (lock / "datasets").symlink_to(place)
    with pytest.raises(PalmaresError, match="E-REPORT-02"):  # found, read, and too small
        report(lock, tmp_path / "out", analysis="few")


def test_an_arm_of_a_few_is_no_comparison_and_one_arm_none() -> None:
    found = rows(600)
    with pytest.raises(PalmaresError, match=r"E-REPORT-02 index_drug.*one arm only"):
        design(found[found["index_drug"] == ARMS[0]], SETTINGS)
    few = pd.concat([found[found["index_drug"] != ARMS[2]], found[found["index_drug"] == ARMS[2]].head(4)])
    with pytest.raises(PalmaresError, match="fewer than 10 patients with abemaciclib"):
        design(few, SETTINGS)


def test_a_category_of_a_few_is_said_to_count_with_the_reference() -> None:
    found = rows(900)
    found["grade"] = np.where(found["grade"] == "1", "2", found["grade"])
    found.iloc[:3, found.columns.get_loc("grade")] = "1"
    plan = design(found.assign(bone_only=False), SETTINGS)
    assert any("grade: 1" in note and "fewer than 10" in note for note in plan.notes)
    assert "grade: 1" not in plan.columns and "bone_only: true" not in plan.columns


def test_a_model_that_the_data_do_not_determine_is_an_error_not_a_number() -> None:
    plan = design(rows(900), SETTINGS)
    frame = imputed(plan, SETTINGS, imputations=2, seed=1)[0]
    frame = frame.assign(**{"bone_only: true": frame["event"].astype(float)})  # separates the events
    with pytest.raises(PalmaresError, match="E-REPORT-03"):
        e.cox(frame, [*plan.treatments, *plan.columns])


def test_settings_that_do_not_say_what_they_must() -> None:
    with pytest.raises(PalmaresError, match="E-STUDY-03"):
        load("no-such-study")
    assert replace(SETTINGS, endpoints={}).endpoint_of("beyond-progression") == "RWPFS"
