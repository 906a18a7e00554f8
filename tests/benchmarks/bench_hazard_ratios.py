"""Are the generator's true hazard ratios found again? 95 % intervals over seeds, adjusted, weighted and unadjusted.

    python tests/benchmarks/bench_hazard_ratios.py [--seeds 100] [--patients 4000] [--missing 0.0] [--jobs 2]

Each seed draws patients of its own, as the synthetic hospitals do, straight from their histories: day 0 to the end of rwPFS by the
truth's rule (which the derived endpoint equals, by test), and the covariates as they truly are. Design, imputation, Cox and
weighting are those of `palmares report survival`. --missing empties the histology of so many patients at random, as sites that code by
ICD do; it is then filled in by multiple imputation. The unadjusted estimate is the baseline: it shows the planted confounding.
"""

import argparse
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd

from omop_etl.reports.survival import estimates
from omop_etl.reports.survival.design import column, design, stabilised_weights
from omop_etl.reports.survival.imputing import imputed
from omop_etl.reports.survival.settings import load as load_settings
from omop_etl.synthetic.calibration import calibrate
from omop_etl.synthetic.course_truth import true_endpoints, true_lines
from omop_etl.synthetic.history import Human, known, simulate
from omop_etl.synthetic.model import History
from omop_etl.synthetic.parameters import USUAL, Parameters, load

TRUE = {
    column("abemaciclib"): "abemaciclib", column("ribociclib"): "ribociclib",
    "endocrine_sensitivity: resistant": "resistant", "histology: ILC": "lobular",
}  # fmt: skip
HISTOLOGY = {"nst": "NST", "lobular": "ILC", "other": "other"}


def row(history: History, key: str, parameters: Parameters) -> dict[str, object] | None:
    """One patient as the released datasets have it, at the cut-off."""
    cut_off = parameters["study"]["cut_off"]
    if history.index is None or history.index > cut_off or history.chosen is None:
        return None
    seen = known(history, date.min, min(filter(None, (cut_off, history.lost))))
    lines = true_lines(seen, parameters)
    last = max([seen.index, *(one.day for one in seen.assessments)])
    end = next(one for one in true_endpoints(seen, last, parameters, lines) if one.paramcd == "RWPFS")
    sample = seen.samples[history.chosen] if history.chosen < len(seen.samples) else history.samples[history.chosen]
    sites = {one.site for one in seen.diagnoses[1:] if one.day <= seen.index}
    return {
        "patient": key,
        "site": "one",
        "index_drug": seen.index_drug,
        "AVAL": (end.end - end.start).days,
        "event": int(end.event is not None),
        "entry_day": None,
        "age_at_index": (seen.index - seen.birth).days // 365,
        "menopausal_status": seen.menopause or "not-applicable",
        "ecog": str(seen.ecog),
        "bmi": 25.0,
        "histology": HISTOLOGY[seen.histology],
        "grade": str(sample.grade),
        "pgr_percent": sample.pgr,
        "ki67_percent": sample.ki67,
        "her2_group": "zero" if sample.ihc == "0" else "low",
        "de_novo": seen.de_novo,
        "endocrine_sensitivity": "sensitive" if seen.resistance == "sensitive" else f"{seen.resistance}-resistant",
        "met_liver": "liver" in sites,
        "bone_only": sites == {"bone"},
        "metastatic_sites": len(sites),
        "index_year": seen.index.year,
    }


def one_seed(arguments: tuple[int, int, float]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """The intervals of one seed: by model and term the ratio and its bounds."""
    seed, patients, missing = arguments
    parameters = load()
    calibration = calibrate(parameters)
    found = [
        row(simulate(Human(f"H{number:06}", USUAL), seed, parameters, calibration), f"{number:06}", parameters)
        for number in range(patients)
    ]
    rows = pd.DataFrame([one for one in found if one is not None])
    if missing:
        gone = np.random.default_rng(seed).random(len(rows)) < missing
        rows["histology"] = rows["histology"].mask(gone, "unspecified")
    settings = load_settings("palmares2")
    # everyone has the same: nothing to adjust for
    settings = replace(settings, covariates=tuple(one for one in settings.covariates if one.name != "bmi"))
    plan = design(rows, settings)
    frames = imputed(plan, settings, imputations=int(settings.number("imputations")), seed=seed)
    columns = [*plan.treatments, *plan.columns]
    adjusted = [estimates.cox(frame, columns, stratified=False) for frame in frames]
    weighted = [
        estimates.cox(frame, plan.treatments, stratified=False, weights=stabilised_weights(frame, plan, settings))
        for frame in frames
    ]
    said = {
        "unadjusted": estimates.ratios(
            plan.treatments, plan.arms[1:], [estimates.cox(plan.frame, plan.treatments, stratified=False)]
        ),
        "adjusted": estimates.ratios(columns, columns, adjusted),
        "weighted": estimates.ratios(plan.treatments, plan.arms[1:], weighted),
    }
    return {
        model: {one.term: (one.ratio, one.low, one.high) for one in several if one.term in TRUE}
        for model, several in said.items()
    }


def main() -> int:
    """Print a line per model and ratio; 1 when an adjusted interval covers the truth in fewer than 90 of 100 seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--patients", type=int, default=4000)
    parser.add_argument("--missing", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    truth = load()["course"]["hazard_ratio"]
    started = time.perf_counter()
    with ProcessPoolExecutor(asked.jobs) as pool:
        found = list(pool.map(one_seed, [(seed, asked.patients, asked.missing) for seed in range(asked.seeds)]))
    print(f"{asked.seeds} seeds of {asked.patients} patients, {asked.missing:.0%} without histology")
    print(f"{'model':11} {'ratio':12} {'true':>5} {'mean':>6} {'covered':>8} {'mean z':>7}")
    failed = False
    for model in ("unadjusted", "adjusted", "weighted"):
        for term, word in TRUE.items():
            intervals = [one[model][term] for one in found if term in one[model]]
            if not intervals:
                continue
            true = truth[word]
            covered = sum(low <= true <= high for _, low, high in intervals)
            mean = math.exp(np.mean([math.log(ratio) for ratio, _, _ in intervals]))
            z = np.mean(
                [math.log(ratio / true) / ((math.log(high) - math.log(low)) / 3.92) for ratio, low, high in intervals]
            )
            print(f"{model:11} {word:12} {true:5.2f} {mean:6.3f} {covered:4}/{len(intervals)} {z:7.2f}")
            failed = failed or (model == "adjusted" and covered < 0.9 * len(intervals))
    print(f"{time.perf_counter() - started:.0f} s on {asked.jobs} processes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
