"""From released rows to the numbers that a model takes: terms against their references, what is missing left missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhir_adapters.errors import PalmaresError
from omop_etl.reports.survival.settings import Covariate, Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Term:
    """One column of a model: of which covariate, which level against which reference, or per how much."""

    name: str
    covariate: str
    label: str


@dataclass(frozen=True)
class Design:
    """`frame` has time (days), event, entry, strata and arm, one column per arm but the reference and one per term, NaN where
    missing. `arms` begins with the reference. `notes` are what a reader must know."""

    frame: "pd.DataFrame"
    arms: tuple[str, ...]
    terms: tuple[Term, ...]
    missing: dict[str, float]
    notes: tuple[str, ...]

    @property
    def treatments(self) -> list[str]:
        """The columns of the arms that are compared with the reference."""
        return [column(arm) for arm in self.arms[1:]]

    @property
    def columns(self) -> list[str]:
        """The columns of the terms."""
        return [one.name for one in self.terms]


def column(arm: str) -> str:
    """The column of an arm."""
    return f"arm: {arm}"


def design(rows: "pd.DataFrame", settings: Settings) -> Design:
    """The design of rows that carry treatment, strata, covariates, AVAL (days), event and entry_day.

    Raises E-REPORT-02 when an arm, or the events for the number of terms, are too few.
    """
    import pandas as pd

    rows = rows.reset_index(drop=True)
    counts = rows[settings.treatment].astype(str).value_counts()
    least = int(settings.number("least_patients"))
    arms = (settings.reference, *sorted(set(counts.index) - {settings.reference}))
    small = [arm for arm in arms if counts.get(arm, 0) < least]
    if small or len(arms) < 2:
        what = f"fewer than {least} patients with {small[0]}" if small else "one arm only"
        raise PalmaresError("E-REPORT-02", settings.treatment, detail=what)
    frame = pd.DataFrame(
        {
            "time": rows["AVAL"].astype(float).clip(lower=settings.number("zero_days")),
            "event": rows["event"].astype(int),
            "entry": rows["entry_day"].astype("Float64").fillna(0.0).astype(float),
            "strata": rows[settings.strata].astype(str),
            "arm": rows[settings.treatment].astype(str),
        }
    )
    for arm in arms[1:]:
        frame[column(arm)] = (frame["arm"] == arm).astype(float)
    terms: list[Term] = []
    notes: list[str] = []
    missing: dict[str, float] = {}
    for one in settings.covariates:
        values, made, said = _number(rows, one) if one.kind == "number" else _category(rows, one, settings)
        missing[one.name] = float(values.isna().any(axis=1).mean()) if len(values.columns) else 0.0
        notes += said
        for term in made:
            known = values[term.name].dropna()
            if known.nunique() < 2:
                notes.append(f"{term.label}: the same for everyone, left out")
            else:
                frame[term.name] = values[term.name]
                terms.append(term)
    events, needed = int(frame["event"].sum()), (len(terms) + len(arms) - 1) * settings.number("events_per_parameter")
    if events < needed:
        raise PalmaresError(
            "E-REPORT-02",
            "events",
            detail=f"fewer than {needed:.0f} events for {len(terms) + len(arms) - 1} parameters",
        )
    return Design(frame, arms, tuple(terms), missing, tuple(notes))


def _number(rows: "pd.DataFrame", one: Covariate) -> "tuple[pd.DataFrame, list[Term], list[str]]":
    label = f"{one.name} (per {one.per:g})"
    values = (rows[one.name].astype("Float64") / one.per).astype(float)
    return values.to_frame(one.name), [Term(one.name, one.name, label)], []


def _category(rows: "pd.DataFrame", one: Covariate, settings: Settings) -> "tuple[pd.DataFrame, list[Term], list[str]]":
    import pandas as pd

    words = rows[one.name].astype("object").map(lambda value: value if pd.isna(value) else str(value))
    words = words.map(lambda value: value.lower() if value in ("True", "False") else value, na_action="ignore")
    words = words.mask(words.isin(one.missing)).replace(dict(one.merge))
    counts = words.value_counts()
    least = settings.number("least_level")
    terms, columns, notes = [], {}, []
    for level in sorted(set(counts.index) - {one.reference}):
        label = one.name if level == "true" else f"{one.name}: {level} (against {one.reference})"
        if counts[level] < least:
            notes.append(f"{label}: fewer than {least:.0f} patients, counted with the reference")
            continue
        name = f"{one.name}: {level}"
        terms.append(Term(name, one.name, label))
        columns[name] = (words == level).astype(float).mask(words.isna())
    return pd.DataFrame(columns, index=rows.index), terms, notes


def stabilised_weights(frame: "pd.DataFrame", design: Design, settings: Settings) -> "np.ndarray":
    """Of each patient the share of the arm over the chance of it given the covariates (multinomial logistic regression),
    truncated at a percentile and its mirror."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    covariates = StandardScaler().fit_transform(frame[design.columns].to_numpy())
    model = LogisticRegression(C=np.inf, max_iter=2000).fit(covariates, frame["arm"])
    chance = model.predict_proba(covariates)
    places = {arm: place for place, arm in enumerate(model.classes_)}
    own = chance[np.arange(len(frame)), [places[arm] for arm in frame["arm"]]]
    share = frame["arm"].map(frame["arm"].value_counts(normalize=True)).to_numpy(dtype=float)
    weights = share / own
    edge = settings.number("weight_percentile")
    low, high = np.percentile(weights, [edge, 100 - edge])
    return np.clip(weights, low, high)


def differences(frame: "pd.DataFrame", design: Design, weights: "np.ndarray | None" = None) -> dict[str, float]:
    """Of each term the largest standardised mean difference between two arms, weighted or not.

    The spread is that of the unweighted arms, so that before and after are held against the same.
    """
    from itertools import combinations

    import numpy as np

    given: Sequence[float] | np.ndarray = np.ones(len(frame)) if weights is None else weights
    found = {}
    arms = {arm: (frame["arm"] == arm).to_numpy() for arm in design.arms}
    for one in design.terms:
        values = frame[one.name].to_numpy()
        means = {arm: float(np.average(values[who], weights=np.asarray(given)[who])) for arm, who in arms.items()}
        spread = {arm: float(np.var(values[who], ddof=1)) for arm, who in arms.items()}
        found[one.name] = max(
            abs(means[a] - means[b]) / max(np.sqrt((spread[a] + spread[b]) / 2), 1e-12)
            for a, b in combinations(design.arms, 2)
        )
    return found
