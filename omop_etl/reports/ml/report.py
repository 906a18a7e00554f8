"""The machine-learning report of a lock or a release: numbers, a page, pictures."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts.small_cells import HIDDEN
from omop_etl.derive.rules import load_rules
from omop_etl.publish import privacy
from omop_etl.reports.ml.learning import NULL, Group, Learnt, Measure, learn
from omop_etl.reports.ml.settings import Settings, load
from omop_etl.reports.page import Page
from omop_etl.reports.released import Released, open_released

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Progress = Callable[[str], None]
OUTCOMES = {
    "pfs": "Progression-free survival of the line",
    "ttnt": "Time to the next line or death",
    "os": "Survival from the line",
}
MEASURES = {
    "concordance": "Concordance (Uno)", "mean-auc": "Mean time-dependent AUC", "auc": "Time-dependent AUC", "brier": "Brier score",
    "integrated-brier": "Integrated Brier score",
}  # fmt: skip
INKS = ("#0072B2", "#D55E00", "#009E73")


@dataclass(frozen=True)
class MlReport:
    """What was reported: outcome, lines and patients, and the concordance of each model."""

    analysis: str
    outcome: str
    lines: int | str
    patients: int | str
    concordance: dict[str, str]
    out: str


def report(
    folder: Path,
    out: Path,
    *,
    analysis: str = "all-comers",
    outcome: str | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> MlReport:
    """Learn and test on `lines` of a lock or release folder, and write the report; whole or not at all.

    The same folder, settings and seed give the same bytes. Raises E-REPORT-01 (nothing to report on), -02 (too few),
    E-COHORT-02 (no such analysis), E-STUDY-03 (a feature is known after the decision only), E-DISK-01 and -02.
    """
    say = progress or (lambda _: None)
    source = open_released(folder)
    settings = load(source.study)
    rules = load_rules(source.study)
    threshold = rules.study.thresholds["public"]
    chosen = outcome or settings.outcome
    if chosen not in OUTCOMES:
        raise PalmaresError("E-REPORT-01", chosen, detail="there are " + ", ".join(OUTCOMES))
    say("read the lines")
    rows, left_out, late = _rows(source, settings, analysis, chosen)
    say("learn, test, draw")
    learnt = learn(rows, settings, days_per_month=float(rules.parameters["days_per_month"]), seed=seed)
    # the few that were left out must not follow from how many lines, or patients, a release has
    few = any(0 < n < threshold for n in left_out.values())
    people = int(rows["patient"].nunique())
    few_people = 0 < len(source.members(analysis)) - people < threshold
    sizes: dict[str, int | str] = dict(learnt.sizes)
    if few:
        sizes["lines to learn from"] = HIDDEN
    if few_people:
        sizes["patients to learn from"] = HIDDEN
    about: dict[str, Any] = {
        "source": source.name,
        "study": source.study,
        "analysis": analysis,
        "outcome": chosen,
        "seed": seed,
        "sizes": sizes,
        "left_out": {name: n if n == 0 or n >= threshold else HIDDEN for name, n in left_out.items()},
        # of those that were learnt from and tested on
        "late_entry": late if all(n == 0 or n >= threshold for n in (late, len(rows) - late)) else HIDDEN,
        "features": list(settings.features),
        "models": {name: dict(parameters) for name, parameters in settings.models.items()},
    }
    with whole_folder(Path(out)) as partial:
        _write(partial, about, learnt)
        (partial / "report.html").write_text(_page(about, learnt, settings, threshold), encoding="utf-8")
        manifest = {"format": 1, "code_version": __version__} | about | {"files": described(partial)}
        (partial / "manifest.json").write_text(
            json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        privacy.check(partial)
    concordance = {one.model: _interval(one) for one in learnt.measures if one.measure == "concordance"}
    lines = HIDDEN if few else len(rows)
    return MlReport(analysis, chosen, lines, HIDDEN if few_people else people, concordance, str(out))


def _rows(
    source: Released, settings: Settings, analysis: str, outcome: str
) -> "tuple[pd.DataFrame, dict[str, int], int]":
    """The lines of an analysis with their outcome, how many were left out and why, and of how many the patient entered late."""
    days, event = f"{outcome}_days", f"{outcome}_event"
    rows = source.frame("lines", ("patient", days, event, "entry_day", *settings.features))
    rows = rows[rows["patient"].isin(source.members(analysis))]
    rows = rows.rename(columns={days: "days", event: "event"})
    without = rows["days"].isna() | rows["event"].isna()
    entry, end = (
        rows["entry_day"].astype("Float64").fillna(-1).astype(float),
        rows["days"].astype("Float64").fillna(0).astype(float),
    )
    late = ~without & (entry >= end) & (entry > 0)
    left_out = {
        "lines without this outcome": int(without.sum()),
        "lines that ended before the consent": int(late.sum()),
    }
    kept = rows[~(without | late)].sort_values(["patient", "line_number"])
    if kept.empty:
        raise PalmaresError("E-REPORT-02", analysis, detail="no line has this outcome")
    kept = kept.assign(
        days=kept["days"].astype(float).clip(lower=float(settings.values["zero_days"])), event=kept["event"].astype(int)
    )
    return kept.reset_index(drop=True), left_out, int((kept["entry_day"].fillna(0) > 0).sum())


def _interval(one: Measure) -> str:
    return f"{one.value:.3f}" if math.isnan(one.low) else f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})"


def _thousands(number: int | str) -> str:
    return f"{number:,}" if isinstance(number, int) else number


def _write(folder: Path, about: dict[str, Any], learnt: Learnt) -> None:
    measures = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(one).items()}
        for one in learnt.measures
    ]
    results = about | {
        "months": list(learnt.months),
        "measures": measures,
        "calibration": [asdict(one) for one in learnt.groups],
    }
    (folder / "results.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    _csv(
        folder / "performance.csv",
        ("model", "measure", "month", "value", "low", "high"),
        [
            (
                one.model,
                one.measure,
                "" if one.month is None else f"{one.month:g}",
                *(f"{v:.4f}" for v in (one.value, one.low, one.high)),
            )
            for one in learnt.measures
        ],
    )
    _csv(
        folder / "calibration.csv",
        ("model", "group", "lines", "predicted", "observed", "low", "high"),
        [
            (one.model, one.number, one.lines, *(f"{v:.4f}" for v in (one.predicted, one.observed, one.low, one.high)))
            for one in learnt.groups
        ],
    )


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        out = csv.writer(lines, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def _page(about: dict[str, Any], learnt: Learnt, settings: Settings, threshold: int) -> str:
    sizes = about["sizes"]
    page = Page(f"{OUTCOMES[about['outcome']]}: what can be told when a line is chosen")
    page.say(
        f"{about['source']}, {about['analysis'].replace('-', ' ')}: learnt from {_thousands(sizes['lines to learn from'])} lines of "
        f"{_thousands(sizes['patients to learn from'])} patients, tested on {sizes['lines to test on']:,} lines of "
        f"{sizes['patients to test on']:,} others (seed {about['seed']})."
    )
    page.notes(
        [
            "A patient's lines are all on one side. Only what was known when the line was chosen is a feature.",
            "Prediction is no comparison of treatments: who is given what was not drawn by lot.",
            f"Intervals: {settings.values['bootstraps']} draws of the test patients.",
            "These learners know no delayed entry (left truncation): a line that ended before the consent is left out, one during which "
            f"the patient consented counts from its start ({_thousands(about['late_entry'])} lines). Who consented late had to live until "
            "then: with many such lines outcomes look better than they are.",
            *(f"{name}: {count} left out" for name, count in about["left_out"].items() if count),
        ]
    )
    models = [*settings.models, NULL]
    by = {(one.model, one.measure, one.month): one for one in learnt.measures}

    def cell(model: str, measure: str, month: float | None) -> str:
        found = by.get((model, measure, month))
        return "" if found is None else _interval(found)

    page.heading("How well it can be told")
    page.table(
        "Over all months (95 % interval)",
        ("model", *(MEASURES[name] for name in ("concordance", "mean-auc", "integrated-brier"))),
        [
            (model, *(cell(model, name, None) for name in ("concordance", "mean-auc", "integrated-brier")))
            for model in models
        ],
    )
    for measure in ("auc", "brier"):
        page.table(
            f"{MEASURES[measure]} by month (95 % interval)",
            ("model", *(f"{month:g} months" for month in learnt.months)),
            [
                (model, *(cell(model, measure, month) for month in learnt.months))
                for model in models
                if measure == "brier" or model != NULL
            ],
        )
    page.say(f"{NULL}: the Kaplan-Meier estimate of those who teach, the same for everyone: what a model has to beat.")
    page.picture(
        _performance(learnt, list(settings.models)),
        "Time-dependent AUC of each model by month with its interval; the numbers stand in the table above.",
        "Time-dependent AUC; 0.5 is chance.",
    )
    page.heading("Calibration")
    shown = [one for one in learnt.groups if one.lines >= threshold]
    page.picture(
        _calibration(shown),
        "Predicted against observed chance of no event by groups of test lines; the numbers stand in the table below.",
        f"Predicted and observed at {settings.values['calibration_month']} months; on the line they agree.",
    )
    page.table(
        f"Chance of no event at {settings.values['calibration_month']} months",
        ("model, group", "lines", "predicted", "observed (95 % CI)"),
        [
            (
                f"{one.model}, {one.number}",
                one.lines,
                f"{one.predicted:.2f}",
                f"{one.observed:.2f} ({one.low:.2f}-{one.high:.2f})",
            )
            for one in shown
        ],
    )
    page.heading("What was learnt from")
    page.say(", ".join(settings.features) + ".")
    return page.html()


def _axes(wide: float, tall: float) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, tall), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _performance(learnt: Learnt, models: Sequence[str]) -> "Figure":
    figure, axes = _axes(8, 3.6)
    for place, model in enumerate(models):
        found = [one for one in learnt.measures if (one.model, one.measure) == (model, "auc")]
        months = [float(one.month or 0) + 0.3 * place for one in found]
        below = [max(one.value - one.low, 0) if not math.isnan(one.low) else 0 for one in found]
        above = [max(one.high - one.value, 0) if not math.isnan(one.high) else 0 for one in found]
        axes.errorbar(
            months,
            [one.value for one in found],
            [below, above],
            fmt="os^"[place],
            color=INKS[place],
            label=model,
            capsize=3,
        )
    axes.axhline(0.5, color="#52606d", linewidth=0.8, linestyle="dashed")
    axes.set(xlabel="months", ylabel="AUC", ylim=(0.4, 1))
    axes.set_xticks([float(month) for month in learnt.months])
    axes.legend(frameon=False)
    return figure


def _calibration(groups: Sequence[Group]) -> "Figure":
    figure, axes = _axes(5.2, 5)
    axes.plot([0, 1], [0, 1], color="#52606d", linewidth=0.8, linestyle="dashed")
    for place, model in enumerate(dict.fromkeys(one.model for one in groups)):
        own = [one for one in groups if one.model == model]
        axes.errorbar(
            [one.predicted for one in own],
            [one.observed for one in own],
            [[max(one.observed - one.low, 0) for one in own], [max(one.high - one.observed, 0) for one in own]],
            fmt="os^"[place], color=INKS[place], label=model, capsize=3,
        )  # fmt: skip
    axes.set(xlabel="predicted", ylabel="observed", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    return figure
