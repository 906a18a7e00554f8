"""Learning and testing: patients apart, preparation learnt on those who teach, every number with its interval."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from omop_etl.reports.ml.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NULL = "no-covariates"


@dataclass(frozen=True)
class Measure:
    """One number of one model: auc, brier (at a month), concordance, mean-auc or integrated-brier; with a 95 % bootstrap interval."""

    model: str
    measure: str
    month: float | None
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Of a group of test lines with like predictions: the mean predicted chance of no event, and what was observed."""

    model: str
    number: int
    lines: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Learnt:
    """What came of it, and on how many lines and patients it stands."""

    measures: tuple[Measure, ...]
    groups: tuple[Group, ...]
    months: tuple[float, ...]
    sizes: Mapping[str, int]


def learn(rows: "pd.DataFrame", settings: Settings, *, days_per_month: float, seed: int) -> Learnt:
    """Split the patients, learn on the one part, test on the other. `rows` have patient, days, event and the features.

    Raises E-REPORT-02 when either part has too few events. The same rows and seed give the same numbers.
    """
    import numpy as np
    from sklearn.model_selection import GroupShuffleSplit
    from sksurv.util import Surv

    split = GroupShuffleSplit(n_splits=1, test_size=float(settings.values["test_share"]), random_state=seed)
    least = int(settings.values["least_events"])
    if rows["patient"].nunique() < 2:
        raise PalmaresError("E-REPORT-02", "lines", detail="fewer than two patients")
    teach, test = (rows.iloc[places] for places in next(split.split(rows, groups=rows["patient"])))
    for part in (teach, test):
        if int(part["event"].sum()) < least:
            raise PalmaresError("E-REPORT-02", "lines", detail=f"fewer than {least} events to learn from or to test on")
    outcome = {
        name: Surv.from_arrays(part["event"].astype(bool), part["days"].astype(float) / days_per_month)
        for name, part in (("teach", teach), ("test", test))
    }
    months = _months(settings, outcome)
    prepare = preparation(settings)
    taught, asked = (
        prepare.fit_transform(teach[list(settings.features)]),
        prepare.transform(test[list(settings.features)]),
    )
    calibration = min(float(settings.values["calibration_month"]), months[-1])
    grid = np.unique([*months, calibration])
    chances = {NULL: _without(outcome["teach"], len(test), grid)}
    risks = {}
    for name, model in models(settings, seed).items():
        model.fit(taught, outcome["teach"])
        risks[name] = model.predict(asked)
        chances[name] = np.vstack([one(grid) for one in model.predict_survival_function(asked)])
    own = {name: chance[:, np.searchsorted(grid, months)] for name, chance in chances.items()}
    measures = _measures(
        outcome, risks, own, months, test["patient"].to_numpy(), draws=int(settings.values["bootstraps"]), seed=seed
    )
    at = int(np.searchsorted(grid, calibration))
    groups = [
        one
        for name in risks
        for one in _calibration(
            name, chances[name][:, at], outcome["test"], calibration, int(settings.values["calibration_groups"])
        )
    ]
    sizes = {
        "lines to learn from": len(teach), "lines to test on": len(test),
        "patients to learn from": teach["patient"].nunique(), "patients to test on": test["patient"].nunique(),
        "events to learn from": int(teach["event"].sum()), "events to test on": int(test["event"].sum()),
    }  # fmt: skip
    return Learnt(tuple(measures), tuple(groups), tuple(months), sizes)


def preparation(settings: Settings) -> Any:
    """Numbers filled with the median and a mark that they were missing, categories as indicators; rare ones are one."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    numbers = make_pipeline(
        FunctionTransformer(as_numbers), SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    )
    categories = make_pipeline(
        FunctionTransformer(as_words),
        OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=int(settings.values["least_category"]),
            sparse_output=False,
        ),
    )
    return make_column_transformer((numbers, list(settings.numbers)), (categories, list(settings.categories)))


def as_numbers(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Nullable integers as floats."""
    return frame.astype("Float64").astype(float)


def as_words(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Every value as a word; missing is a word of its own."""
    return frame.astype("object").map(str, na_action="ignore").fillna("missing")


def models(settings: Settings, seed: int) -> dict[str, Any]:
    """The models by name."""
    from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest

    known = {
        "random-survival-forest": RandomSurvivalForest,
        "gradient-boosted-survival": GradientBoostingSurvivalAnalysis,
    }
    return {name: known[name](random_state=seed, **parameters) for name, parameters in settings.models.items()}


def _months(settings: Settings, outcome: Mapping[str, "np.ndarray"]) -> list[float]:
    """The months at which both parts still have somebody followed: later ones say nothing."""
    last = min(float(part["time"][part["event"]].max()) for part in outcome.values())
    found = [float(month) for month in settings.values["months"] if float(month) < last]
    if not found:
        raise PalmaresError("E-REPORT-02", "lines", detail="nobody is followed long enough")
    return found


def _without(taught: "np.ndarray", size: int, grid: "np.ndarray") -> "np.ndarray":
    """The chance of no event without any feature: what a model has to beat."""
    import numpy as np
    from sksurv.nonparametric import kaplan_meier_estimator

    times, chance = kaplan_meier_estimator(taught["event"], taught["time"])
    places = np.searchsorted(times, grid, side="right") - 1
    return np.tile(np.where(places < 0, 1.0, chance[places]), (size, 1))


def _scores(
    taught: "np.ndarray",
    tested: "np.ndarray",
    risks: Mapping[str, "np.ndarray"],
    chances: Mapping[str, "np.ndarray"],
    months: Sequence[float],
) -> dict[tuple[str, str, float | None], float]:
    import numpy as np
    from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc

    found: dict[tuple[str, str, float | None], float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, risk in risks.items():
            areas, mean = cumulative_dynamic_auc(taught, tested, risk, months)
            found |= {
                (name, "auc", month): float(area) for month, area in zip(months, np.atleast_1d(areas), strict=True)
            }
            found[name, "mean-auc", None] = float(mean)
            found[name, "concordance", None] = float(concordance_index_ipcw(taught, tested, risk, tau=months[-1])[0])
        for name, chance in chances.items():
            _, scores = brier_score(taught, tested, chance, months)
            found |= {(name, "brier", month): float(score) for month, score in zip(months, scores, strict=True)}
            found[name, "integrated-brier", None] = float(
                np.trapezoid(scores, months) / (months[-1] - months[0]) if len(months) > 1 else scores[0]
            )
    return found


def _measures(
    outcome: Mapping[str, "np.ndarray"],
    risks: Mapping[str, "np.ndarray"],
    chances: Mapping[str, "np.ndarray"],
    months: Sequence[float],
    patients: "np.ndarray",
    *,
    draws: int,
    seed: int,
) -> list[Measure]:
    """Each number, and its interval from draws of test patients: the lines of one patient come and go together."""
    import numpy as np

    taught, tested = outcome["teach"], outcome["test"]
    # nobody of the test part may be followed longer than the censoring of the other can tell
    within = tested["time"] < float(taught["time"].max())
    places = np.nonzero(within)[0]
    exact = _scores(taught, tested[places], _at(risks, places), _at(chances, places), months)
    rng = np.random.default_rng(seed)
    names, of = np.unique(patients[places], return_inverse=True)
    lines_of = [places[of == number] for number in range(len(names))]
    drawn: dict[tuple[str, str, float | None], list[float]] = {key: [] for key in exact}
    for _ in range(draws):
        chosen = np.concatenate([lines_of[number] for number in rng.integers(0, len(names), len(names))])
        try:
            again = _scores(taught, tested[chosen], _at(risks, chosen), _at(chances, chosen), months)
        except ValueError:  # a draw in which nobody is followed up to a month says nothing of it
            continue
        for key, value in again.items():
            if np.isfinite(value):
                drawn[key].append(value)
    measures = []
    for (model, measure, month), value in exact.items():
        several = drawn[model, measure, month]
        low, high = np.percentile(several, [2.5, 97.5]) if several else (float("nan"), float("nan"))
        measures.append(Measure(model, measure, month, value, float(low), float(high)))
    return measures


def _at(arrays: Mapping[str, "np.ndarray"], places: "np.ndarray") -> dict[str, "np.ndarray"]:
    return {name: one[places] for name, one in arrays.items()}


def _calibration(name: str, chance: "np.ndarray", tested: "np.ndarray", month: float, wanted: int) -> list[Group]:
    """Test lines in groups of equal size by predicted chance; observed by Kaplan-Meier within each."""
    import numpy as np
    from sksurv.nonparametric import kaplan_meier_estimator

    order = np.argsort(chance, kind="stable")
    groups = []
    for number, places in enumerate(np.array_split(order, wanted), 1):
        part = tested[places]
        times, survival, band = kaplan_meier_estimator(part["event"], part["time"], conf_type="log-log")
        place = int(np.searchsorted(times, month, side="right")) - 1
        if place < 0:
            observed, low, high = 1.0, 1.0, 1.0
        else:
            observed, low, high = float(survival[place]), float(band[0][place]), float(band[1][place])
        groups.append(Group(name, number, len(places), float(chance[places].mean()), observed, low, high))
    return groups
