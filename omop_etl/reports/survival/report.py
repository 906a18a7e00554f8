"""The survival report of a lock or a release: numbers, tables, pictures, one page."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts.small_cells import HIDDEN, protect
from omop_etl.derive.rules import load_rules
from omop_etl.publish import privacy
from omop_etl.reports.page import Page
from omop_etl.reports.released import Released, open_released
from omop_etl.reports.survival import estimates, pictures
from omop_etl.reports.survival.design import Design, design, differences, stabilised_weights
from omop_etl.reports.survival.estimates import Curve, Ratio
from omop_etl.reports.survival.settings import Settings, load

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Progress = Callable[[str], None]
WORDS = {"unadjusted": "Unadjusted", "adjusted": "Adjusted (Cox)", "weighted": "Weighted (IPTW)"}


@dataclass(frozen=True)
class SurvivalReport:
    """What was reported: the analysis and endpoint, patients and events as they may be shown, hazard ratios of the arms."""

    analysis: str
    endpoint: str
    patients: int | str
    events: int | str
    hazard_ratios: dict[str, dict[str, str]]
    out: str


@dataclass(frozen=True)
class Results:
    """Everything that is estimated of one analysis and endpoint."""

    curves: list[Curve]
    ratios: dict[str, list[Ratio]]
    before: dict[str, float]
    after: dict[str, float]
    effective: dict[str, float]
    proportionality: list[tuple[str, float, float]]
    follow_up: float | None
    imputations: int


def report(
    folder: Path,
    out: Path,
    *,
    analysis: str = "all-comers",
    endpoint: str | None = None,
    imputations: int | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> SurvivalReport:
    """Report on a lock or release folder: curves, Cox, weighting, balance, proportionality; whole or not at all.

    `analysis` names who is looked at, `endpoint` a PARAMCD (default: that of the analysis). The same folder, settings and seed
    give the same bytes. Raises E-REPORT-01 (nothing to report on), -02 (too few), -03 (no convergence), E-COHORT-02 (no such
    analysis), E-PUBLISH-01 (a date would be shown), E-DISK-01 and -02.
    """
    say = progress or (lambda _: None)
    source = open_released(folder)
    settings = load(source.study)
    rules = load_rules(source.study)
    threshold = rules.study.thresholds["public"]
    month = float(rules.parameters["days_per_month"])
    code = endpoint or settings.endpoint_of(analysis)
    params = {one.paramcd: one.param for one in rules.endpoints}
    if code not in params:
        raise PalmaresError("E-REPORT-01", code, detail="there are " + ", ".join(params))
    say("read the datasets")
    rows, flow = _rows(source, settings, analysis, code)
    plan = design(rows, settings)
    found = estimate(
        plan, settings, days_per_month=month, threshold=threshold, imputations=imputations, seed=seed, sizes=flow.sizes,
        progress=say,
    )  # fmt: skip
    say("write the report")
    shown = flow.shown(threshold)
    with whole_folder(Path(out)) as partial:
        about: dict[str, Any] = {
            "source": source.name,
            "study": source.study,
            "analysis": analysis,
            "endpoint": code,
            "endpoint_name": params[code],
            "patients": shown.total,
            "left_out": shown.left_out,
            "arms": _arms(found.curves, shown.patients, threshold),
            "reference": settings.reference,
            "strata": settings.strata,
            "imputations": found.imputations,
            "seed": seed,
            "missing_share": {name: _share(share, len(plan.frame), threshold) for name, share in plan.missing.items()},
            "notes": list(plan.notes),
        }
        _write(partial, about, plan, found, settings, threshold)
        page = _page(about, plan, found, settings, threshold)
        (partial / "report.html").write_text(page, encoding="utf-8")
        manifest = {"format": 1, "code_version": __version__} | about | {"files": described(partial)}
        (partial / "manifest.json").write_text(
            json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        privacy.check(partial)
    arms = dict(zip(plan.treatments, plan.arms[1:], strict=True))
    said = {
        arms[one.term]: {
            kind: _ratio(again) for kind, several in found.ratios.items() for again in several if again.term == one.term
        }
        for one in found.ratios["adjusted"]
        if one.term in arms
    }
    total = sum(one.events for one in found.curves)
    events = "*" if any(one["events"] == "*" for one in about["arms"]) else total
    return SurvivalReport(analysis, code, about["patients"], events, said, str(out))


@dataclass(frozen=True)
class Shown:
    """The patients of each arm, of all, and those left out by why, as they may be shown."""

    patients: dict[str, int | str]
    total: int | str
    left_out: dict[str, int | str]


@dataclass(frozen=True)
class Flow:
    """Of each arm the patients who are in, and those who had to be left out, by why."""

    kept: dict[str, int]
    left_out: dict[str, dict[str, int]]

    @property
    def sizes(self) -> dict[str, int]:
        """The arms as table one has them."""
        return {arm: n + sum(gone.get(arm, 0) for gone in self.left_out.values()) for arm, n in self.kept.items()}

    def shown(self, threshold: int) -> Shown:
        """The size of each arm stands in table one: what was left out of one must not follow from a difference.

        An arm's number at risk at day 0 is the number of its patients: where few were left out both are hidden, else neither.
        """
        arms = list(self.kept)
        why = list(self.left_out)
        wide = len(arms)
        leaves = [*self.kept.values(), *(self.left_out[one].get(arm, 0) for one in why for arm in arms)]
        rows = [list(range(wide * place, wide * (place + 1))) for place in range(1 + len(why))]
        columns = [list(range(place, len(leaves), wide)) for place in range(wide)]
        gone = [sum(leaves[leaf] for leaf in column[1:]) for column in columns]
        few = [0 < n < threshold for n in gone]
        # printed: each arm unless few are gone, all who are in, each reason; the sizes are known
        sums = [[place] for place in range(wide) if not few[place]]
        fixed = set(range(len(sums)))
        sums += rows
        known = len(sums)
        sums += [*columns, list(range(len(leaves)))]
        fixed |= {known + n for n in range(wide + 1)}
        hidden = protect(leaves, sums, threshold=threshold, fixed=fixed)[known - len(rows) : known]
        totals = [sum(leaves[leaf] for leaf in row) for row in rows]
        said = [HIDDEN if is_hidden else total for is_hidden, total in zip(hidden, totals, strict=True)]
        patients = {arm: HIDDEN if few[place] else self.kept[arm] for place, arm in enumerate(arms)}
        return Shown(patients, said[0], dict(zip(why, said[1:], strict=True)))


def _rows(source: Released, settings: Settings, analysis: str, code: str) -> "tuple[pd.DataFrame, Flow]":
    """The rows of one analysis and endpoint, and of each arm who is in and who had to be left out of it, by why."""
    columns = ("patient", settings.strata, settings.treatment, *(one.name for one in settings.covariates))
    baseline = source.frame("baseline", columns)
    baseline = baseline[baseline["patient"].isin(source.members(analysis))]
    times = source.frame("time_to_event", ("patient", "PARAMCD", "AVAL", "event", "entry_day", "at_risk"))
    times = times[times["PARAMCD"].astype(str) == code]
    rows = baseline.merge(times, on="patient", how="left", validate="one_to_one")
    without, untreated = rows["AVAL"].isna(), rows[settings.treatment].isna()
    late = ~(rows["at_risk"].astype("boolean").fillna(True).astype(bool)) & ~without
    reasons = {
        "no such endpoint (withheld, or it does not apply)": without,
        "treatment not known": untreated & ~without,
        "consented on the day of the end or later: never under observation while at risk": late & ~untreated,
    }
    in_it = ~(without | untreated | late)
    kept = rows[in_it].sort_values("patient")
    if kept.empty:
        raise PalmaresError("E-REPORT-02", analysis, detail="nobody has this endpoint")
    arm = rows[settings.treatment].astype(str)

    def by_arm(who: "pd.Series") -> dict[str, int]:
        return {str(name): int(n) for name, n in arm[who].value_counts().items()}

    inside = by_arm(in_it)
    return kept, Flow(
        {name: inside.get(name, 0) for name in sorted(arm.unique())},
        {why: by_arm(who) for why, who in reasons.items()},
    )


def estimate(
    plan: Design,
    settings: Settings,
    *,
    days_per_month: float,
    threshold: int,
    imputations: int | None = None,
    seed: int = 1,
    sizes: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Results:
    """Every estimate of a design. Raises E-REPORT-03 where a model does not converge."""
    import numpy as np

    say = progress or (lambda _: None)
    wanted = imputations or int(settings.number("imputations"))
    from omop_etl.reports.survival.imputing import imputed

    say("fill in what is missing")
    frames = imputed(plan, settings, imputations=wanted, seed=seed)
    columns, labels = [*plan.treatments, *plan.columns], [*plan.arms[1:], *(one.label for one in plan.terms)]
    adjusted: list[tuple[np.ndarray, np.ndarray]] = []
    weighted: list[tuple[np.ndarray, np.ndarray]] = []
    after: list[dict[str, float]] = []
    weights: list[np.ndarray] = []
    for number, frame in enumerate(frames, 1):
        say(f"fit the models, {number} of {len(frames)}")
        # the last fit is where the next one begins
        adjusted.append(estimates.cox(frame, columns, begin=adjusted[-1][0] if adjusted else None))
        own = stabilised_weights(frame, plan, settings)
        weighted.append(estimates.cox(frame, plan.treatments, weights=own, begin=weighted[-1][0] if weighted else None))
        after.append(differences(frame, plan, own))
        weights.append(own)
    say("curves, balance, proportionality")
    months = [int(month) for month in settings.values["months"]]
    return Results(
        curves=[
            estimates.curve(
                part,
                arm,
                months,
                days_per_month=days_per_month,
                threshold=threshold,
                size=(sizes or {}).get(arm, len(part)),
                step=settings.number("curve_step"),
            )
            for arm in plan.arms
            for part in (plan.frame[plan.frame["arm"] == arm],)
        ],
        ratios={
            "unadjusted": estimates.ratios(
                plan.treatments, plan.arms[1:], [estimates.cox(plan.frame, plan.treatments)]
            ),
            "adjusted": estimates.ratios(columns, labels, adjusted),
            "weighted": estimates.ratios(plan.treatments, plan.arms[1:], weighted),
        },
        before=_mean([differences(frame, plan) for frame in frames]),
        after=_mean(after),
        effective=_effective(plan, np.mean(weights, axis=0)),
        proportionality=estimates.proportionality(frames[0], plan),
        follow_up=estimates.follow_up(plan.frame, days_per_month=days_per_month),
        imputations=len(frames),
    )


def _mean(several: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in several) / len(several) for name in several[0]}


def _effective(plan: Design, weights: "np.ndarray") -> dict[str, float]:
    """Of each arm the number of equally weighted patients that would say as much (Kish)."""
    found = {}
    for arm in plan.arms:
        own = weights[(plan.frame["arm"] == arm).to_numpy()]
        found[arm] = float(own.sum() ** 2 / (own**2).sum())
    return found


# ---- what may be shown, and how


def _arms(curves: Sequence[Curve], patients: Mapping[str, int | str], threshold: int) -> list[dict[str, Any]]:
    """Patients and events of each arm; events are hidden where they, or those without one, are few."""
    return [
        {
            "arm": one.arm,
            "patients": patients[one.arm],
            "events": one.events
            if all(n == 0 or n >= threshold for n in (one.events, one.patients - one.events))
            else "*",
            "median_months": None if one.median[0] is None else round(one.median[0], 1),
            "median_low": None if one.median[1] is None else round(one.median[1], 1),
            "median_high": None if one.median[2] is None else round(one.median[2], 1),
        }
        for one in curves
    ]


def _share(share: float, patients: int, threshold: int) -> float | None:
    """A share of missing values; none where those with or without a value are few."""
    count = round(share * patients)
    return round(share, 3) if all(n == 0 or n >= threshold for n in (count, patients - count)) else None


def _ratio(one: Ratio) -> str:
    return f"{one.ratio:.2f} ({one.low:.2f}-{one.high:.2f})"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _median(arm: dict[str, Any]) -> str:
    if arm["median_months"] is None:
        return "not reached"
    low, high = (("-" if arm[key] is None else f"{arm[key]:.1f}") for key in ("median_low", "median_high"))
    return f"{arm['median_months']:.1f} ({low} to {high})"


def _shown(number: int | None) -> int | str:
    return "*" if number is None else number


def _write(
    folder: Path, about: dict[str, Any], plan: Design, found: Results, settings: Settings, threshold: int
) -> None:
    """The numbers of the report, for machines."""
    months = [int(month) for month in settings.values["months"]]
    results = about | {
        "small_cells": threshold,
        "median_follow_up_months": None if found.follow_up is None else round(found.follow_up, 1),
        "hazard_ratios": {kind: [asdict(one) for one in several] for kind, several in found.ratios.items()},
        "balance": [
            {"term": one.name, "label": one.label, "before": found.before[one.name], "after": found.after[one.name]}
            for one in plan.terms
        ],
        "effective_patients": {arm: round(size, 1) for arm, size in found.effective.items()},
        "proportional_hazards": [{"term": name, "chi_square": c, "p": p} for name, c, p in found.proportionality],
    }
    text = json.dumps(_plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    _csv(
        folder / "cox.csv",
        ("model", "term", "hazard_ratio", "low", "high", "p"),
        [
            (kind, one.label, f"{one.ratio:.4f}", f"{one.low:.4f}", f"{one.high:.4f}", f"{one.p:.3g}")
            for kind, several in found.ratios.items()
            for one in several
        ],
    )
    _csv(
        folder / "balance.csv",
        ("term", "before", "after"),
        [(one.label, f"{found.before[one.name]:.4f}", f"{found.after[one.name]:.4f}") for one in plan.terms],
    )
    _csv(
        folder / "survival.csv",
        ("arm", "month", "survival", "low", "high"),
        [
            (one.arm, m, f"{s:.4f}", f"{low:.4f}", f"{high:.4f}")
            for one in found.curves
            for m, s, low, high in one.points
        ],
    )
    _csv(
        folder / "at_risk.csv",
        ("arm", "month", "at_risk"),
        [(one.arm, m, _shown(n)) for one in found.curves for m, n in zip(months, one.at_risk, strict=True)],
    )


def _plain(value: Any) -> Any:
    """JSON has no infinity: infinitely many degrees of freedom are null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        out = csv.writer(lines, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def _page(about: dict[str, Any], plan: Design, found: Results, settings: Settings, threshold: int) -> str:
    page = Page(f"{about['endpoint_name']}: {about['analysis'].replace('-', ' ')}")
    page.say(
        f"{about['source']}: {_thousands(about['patients'])} patients, by {settings.treatment}. Median follow-up "
        + ("is not reached." if found.follow_up is None else f"{found.follow_up:.1f} months (reverse Kaplan-Meier).")
    )
    page.notes(
        [
            "An observational comparison: adjustment and weighting answer for what was recorded, not for what was not.",
            f"{settings.strata} is a stratum of every model; patients who consented after the start enter on that day (delayed entry).",
            f"Missing covariates: {found.imputations} imputations, pooled by Rubin's rules.",
            f"* is a number below {threshold}, or one that would give such a number away; a curve ends where fewer are at risk.",
            *(f"{name}: {count} left out" for name, count in about["left_out"].items() if count),
            *about["notes"],
        ]
    )
    page.heading("Survival")
    page.table(
        "Patients, events, median",
        ("arm", "patients", "events", "median in months (95 % CI)"),
        [(one["arm"], one["patients"], one["events"], _median(one)) for one in about["arms"]],
    )
    page.picture(
        pictures.survival(found.curves, about["endpoint_name"]),
        "Kaplan-Meier curves: " + "; ".join(f"{one['arm']}, median {_median(one)} months" for one in about["arms"]),
        "Kaplan-Meier estimates with 95 % confidence bands.",
    )
    months = [int(month) for month in settings.values["months"]]
    page.table(
        "Patients at risk, by month",
        ("arm", *months),
        [(one.arm, *(_shown(n) for n in one.at_risk)) for one in found.curves],
    )
    landmarks = [float(month) for month in settings.values["landmarks"]]
    page.table(
        "Survival at landmarks",
        ("arm", *(f"{month:g} months" for month in landmarks)),
        [(one.arm, *(_at(one, month) for month in landmarks)) for one in found.curves],
    )
    page.heading("Hazard ratios")
    page.table(
        f"Hazard ratio against {settings.reference} (95 % CI)",
        ("arm", *WORDS.values()),
        [
            (arm, *(_ratio(next(one for one in found.ratios[kind] if one.term == term)) for kind in WORDS))
            for arm, term in zip(plan.arms[1:], plan.treatments, strict=True)
        ],
    )
    page.picture(
        pictures.forest(found.ratios, plan, WORDS),
        "Hazard ratios of the arms, unadjusted, adjusted and weighted; the numbers stand in the table above.",
        f"Hazard ratios against {settings.reference} with 95 % confidence intervals.",
    )
    page.table(
        "Cox model: every term",
        ("term", "hazard ratio (95 % CI)", "p"),
        [(one.label, _ratio(one), _p(one.p)) for one in found.ratios["adjusted"]],
    )
    page.heading("Weighting and balance")
    limit = settings.number("balance")
    worse = [one.label for one in plan.terms if found.after[one.name] > limit]
    page.say(
        "Stabilised inverse probability of treatment weights; the largest standardised mean difference between two arms, "
        + (
            "all balanced after weighting."
            if not worse
            else f"above {limit:g} after weighting: " + ", ".join(worse) + "."
        )
    )
    page.picture(
        pictures.balance(plan, found.before, found.after, limit),
        "Standardised mean differences before and after weighting; the numbers stand in the table below.",
        f"Balance before and after weighting; the line is at {limit:g}.",
    )
    page.table(
        "Standardised mean differences",
        ("term", "before", "after"),
        [(one.label, f"{found.before[one.name]:.3f}", f"{found.after[one.name]:.3f}") for one in plan.terms],
    )
    page.table(
        "Effective patients after weighting",
        ("arm", "patients", "effective"),
        [(one["arm"], one["patients"], f"{found.effective[one['arm']]:.0f}") for one in about["arms"]],
    )
    page.heading("Proportional hazards")
    page.say("Scaled Schoenfeld residuals against the rank of time; small p values speak against proportional hazards.")
    page.table(
        "Test of proportional hazards",
        ("term", "chi-square", "p"),
        [(name, f"{chi:.2f}", _p(p)) for name, chi, p in found.proportionality],
    )
    page.picture(
        pictures.log_log(found.curves),
        "Logarithm of the cumulative hazard against the logarithm of time, by arm: parallel where hazards are proportional.",
        "log(-log S(t)) by arm.",
    )
    page.heading("Missing data")
    page.table(
        "Share of patients without a value",
        ("covariate", "missing"),
        [(name, "*" if share is None else f"{share:.1%}") for name, share in about["missing_share"].items()],
    )
    return page.html()


def _thousands(number: int | str) -> str:
    return f"{number:,}" if isinstance(number, int) else number


def _at(one: Curve, month: float) -> str:
    found = next((point for point in one.points if point[0] == month), None)
    return "*" if found is None else f"{found[1]:.2f} ({found[2]:.2f}-{found[3]:.2f})"
