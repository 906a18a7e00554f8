"""What is estimated: curves, hazard ratios, their pooling over imputations, and whether hazards are proportional."""

import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from omop_etl.reports.survival.design import Design

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Ratio:
    """A hazard ratio with its 95 % interval, its p value and the degrees of freedom behind them."""

    term: str
    label: str
    ratio: float
    low: float
    high: float
    p: float
    log_se: float
    df: float


def pooled(estimates: "np.ndarray", variances: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Mean, standard error and degrees of freedom over imputations (rows) by Rubin's rules (Rubin 1987, 3.1).

    With one imputation the error is its own and the degrees are infinite.
    """
    import numpy as np

    m = len(estimates)
    mean, within = estimates.mean(axis=0), variances.mean(axis=0)
    if m == 1:
        return mean, np.sqrt(within), np.full(mean.shape, np.inf)
    between = estimates.var(axis=0, ddof=1)
    total = within + (1 + 1 / m) * between
    with np.errstate(divide="ignore"):
        df = (m - 1) * (1 + within / ((1 + 1 / m) * between)) ** 2
    return mean, np.sqrt(total), df


def ratios(names: Sequence[str], labels: Sequence[str], fits: "Sequence[tuple[np.ndarray, np.ndarray]]") -> list[Ratio]:
    """Pooled hazard ratios of fits, each the log ratios and their variances in the order of `names`."""
    import numpy as np
    from scipy import stats

    mean, error, df = pooled(np.array([one[0] for one in fits]), np.array([one[1] for one in fits]))
    # infinitely many degrees of freedom are the normal distribution
    edge = np.where(np.isinf(df), stats.norm.ppf(0.975), stats.t.ppf(0.975, np.where(np.isinf(df), 1, df)))
    p = np.where(
        np.isinf(df),
        2 * stats.norm.sf(abs(mean / error)),
        2 * stats.t.sf(abs(mean / error), np.where(np.isinf(df), 1, df)),
    )
    return [
        Ratio(
            name, label, float(np.exp(mean[i])), float(np.exp(mean[i] - edge[i] * error[i])),
            float(np.exp(mean[i] + edge[i] * error[i])), float(p[i]), float(error[i]), float(df[i]),
        )
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    ]  # fmt: skip


@contextmanager
def _sound(what: str) -> "Iterator[None]":
    """A model that does not converge is an error, not a number. Raises E-REPORT-03."""
    import numpy as np
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", category=ConvergenceWarning)
            yield
    except (ConvergenceError, ConvergenceWarning, np.linalg.LinAlgError, ZeroDivisionError):
        raise PalmaresError("E-REPORT-03", what) from None


def cox(
    frame: "pd.DataFrame",
    columns: Sequence[str],
    *,
    stratified: bool = True,
    weights: "np.ndarray | None" = None,
    begin: "np.ndarray | None" = None,
) -> "tuple[np.ndarray, np.ndarray]":
    """Log hazard ratios of the columns and their variances, by lifelines; with delayed entry where someone entered late, and
    with the sandwich variance where weighted. Raises E-REPORT-03."""
    model = fitted(frame, columns, stratified=stratified, weights=weights, begin=begin)
    return model.params_[list(columns)].to_numpy(), model.standard_errors_[list(columns)].to_numpy() ** 2


def fitted(
    frame: "pd.DataFrame",
    columns: Sequence[str],
    *,
    stratified: bool = True,
    delayed: bool = True,
    weights: "np.ndarray | None" = None,
    begin: "np.ndarray | None" = None,
) -> Any:
    """The fitted lifelines model; `begin` is where its search begins."""
    from lifelines import CoxPHFitter

    late = delayed and bool((frame["entry"] > 0).any())
    kept = frame[[*columns, "time", "event", *(["strata"] if stratified else []), *(["entry"] if late else [])]]
    more: dict[str, Any] = {"strata": ["strata"]} if stratified else {}
    if late:
        more["entry_col"] = "entry"
    if weights is not None:
        kept = kept.assign(weight=weights)
        more |= {"weights_col": "weight", "robust": True}
    # lifelines searches on columns of unit spread, and goes on in place
    start = None if begin is None else begin * kept[list(columns)].std(ddof=0).to_numpy()
    with _sound("Cox regression"):
        return CoxPHFitter().fit(kept, duration_col="time", event_col="event", initial_point=start, **more)


def proportionality(frame: "pd.DataFrame", design: Design) -> list[tuple[str, float, float]]:
    """Of each arm and term the test of proportional hazards by scaled Schoenfeld residuals over the ranks of time (Grambsch and
    Therneau, Biometrika 1994): label, chi-square, p. lifelines has these residuals without delayed entry only."""
    from lifelines.statistics import proportional_hazard_test

    columns = [*design.treatments, *design.columns]
    model = fitted(frame, columns, delayed=False)
    with _sound("test of proportional hazards"):
        found = proportional_hazard_test(
            model, frame[[*columns, "time", "event", "strata"]], time_transform="rank"
        ).summary
    labels = dict(zip(design.treatments, design.arms[1:], strict=True)) | {one.name: one.label for one in design.terms}
    return [(labels[name], float(row["test_statistic"]), float(row["p"])) for name, row in found.iterrows()]


@dataclass(frozen=True)
class Curve:
    """Survival of one arm on a grid of months, as long as enough are at risk: (month, survival, low, high). `median` is None
    where it is not reached. `size` are the patients of the arm in the analysis, also those that had to be left out."""

    arm: str
    points: tuple[tuple[float, float, float, float], ...]
    median: tuple[float | None, float | None, float | None]
    at_risk: tuple[int | None, ...]
    patients: int
    events: int
    size: int


def curve(
    part: "pd.DataFrame",
    arm: str,
    months: Sequence[int],
    *,
    days_per_month: float,
    threshold: int,
    size: int,
    step: float,
) -> Curve:
    """Kaplan-Meier of one arm with delayed entry. Where fewer than `threshold` are at risk nothing is shown.

    `size` is the arm's size as it is known from elsewhere: how many were left out must not follow from a difference.
    """
    import numpy as np
    from lifelines import KaplanMeierFitter
    from lifelines.utils import median_survival_times

    time, entry = part["time"] / days_per_month, part["entry"] / days_per_month
    with _sound("Kaplan-Meier"):
        fit = KaplanMeierFitter().fit(time, part["event"], entry=entry if (entry > 0).any() else None)
    grid = np.arange(0, max(months) + step / 2, step)
    followed = ((time.to_numpy()[:, None] >= grid) & (entry.to_numpy()[:, None] <= grid)).sum(axis=0)
    few = np.nonzero(followed < threshold)[0]
    shown = grid[: few[0]] if len(few) else grid
    survival = fit.predict(shown).to_numpy() if len(shown) else np.array([])
    steps = fit.confidence_interval_survival_function_
    places = np.searchsorted(steps.index.to_numpy(), shown, side="right") - 1
    band = steps.to_numpy()[places]
    points = tuple(
        (float(m), float(s), float(b[0]), float(b[1])) for m, s, b in zip(shown, survival, band, strict=True)
    )
    reach = float(shown[-1]) if len(shown) else 0.0
    interval = median_survival_times(steps).to_numpy().ravel()
    median = tuple(
        float(one) if np.isfinite(one) and one <= reach else None for one in (fit.median_survival_time_, *interval)
    )
    numbers = [int(((time >= month) & (entry <= month)).sum()) for month in months]
    return Curve(
        arm, points, (median[0], median[1], median[2]), tuple(hidden(numbers, size, threshold)),
        len(part), int(part["event"].sum()), size,
    )  # fmt: skip


def hidden(numbers: Sequence[int], size: int, threshold: int) -> list[int | None]:
    """Numbers at risk as they may be shown: none below the threshold but zero, and none whose step from the last one shown is.

    With late entry they may rise: the size of an effective step either way would tell of as few.
    """
    shown: list[int | None] = []
    last = size
    for number in numbers:
        step = abs(number - last)
        keep = (number == 0 or number >= threshold) and (step == 0 or step >= threshold)
        shown.append(number if keep else None)
        last = number if keep else last
    return shown


def follow_up(frame: "pd.DataFrame", *, days_per_month: float) -> float | None:
    """Median follow-up in months by the reverse Kaplan-Meier method (Schemper and Smith, Control Clin Trials 1996)."""
    import math

    from lifelines import KaplanMeierFitter

    with _sound("follow-up"):
        fit = KaplanMeierFitter().fit(frame["time"] / days_per_month, 1 - frame["event"])
    found = float(fit.median_survival_time_)
    return found if math.isfinite(found) else None
