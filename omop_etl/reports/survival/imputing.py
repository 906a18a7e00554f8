"""Missing covariates, filled in from their posterior by chained equations, so many times.

scikit-learn's IterativeImputer walks the chain. Its usual estimator (BayesianRidge) shrinks what predicts little, and draws every
row by itself: both make the filled-in covariate unrelated to the outcome, and the intervals too narrow. The one here draws
the parameters of each equation once, under a flat prior, as multiple imputation asks for (Rubin 1987, 5.3; van Buuren,
Flexible Imputation of Missing Data, 3.2).
"""

from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator, RegressorMixin

from omop_etl.reports.survival.design import Design
from omop_etl.reports.survival.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RIDGE = (
    1e-6  # of the diagonal: two covariates may say the same; it keeps the equations solvable and changes nothing else
)


class PosteriorLinear(RegressorMixin, BaseEstimator):
    """A linear equation whose coefficients and spread are one draw from their posterior under a flat prior."""

    def __init__(self, random_state: Any = None) -> None:
        self.random_state = random_state

    def __sklearn_clone__(self) -> "PosteriorLinear":
        """One for each equation of the chain, all drawing from one stream: a copy of the stream would draw alike again."""
        return PosteriorLinear(self.random_state)

    def fit(self, X: "np.ndarray", y: "np.ndarray") -> "PosteriorLinear":
        """Least squares, then one draw: the variance from a scaled inverse chi-square, the coefficients given it."""
        import numpy as np
        from sklearn.utils import check_random_state

        rng = check_random_state(self.random_state)
        self.centre_ = X.mean(axis=0)
        design = np.column_stack([np.ones(len(X)), X - self.centre_])
        cross = design.T @ design
        cross += np.diag(RIDGE * np.diag(cross))
        inverse = np.linalg.inv(cross)
        mean = inverse @ design.T @ y
        rest = y - design @ mean
        df = max(len(y) - design.shape[1], 1)
        self.sigma_ = float(np.sqrt(rest @ rest / rng.chisquare(df)))
        self.coefficients_ = mean + self.sigma_ * np.linalg.cholesky((inverse + inverse.T) / 2) @ rng.normal(
            size=len(mean)
        )
        return self

    def predict(self, X: "np.ndarray", return_std: bool = False) -> Any:
        """The equation's value for each row, and the spread around it."""
        import numpy as np

        value = self.coefficients_[0] + (X - self.centre_) @ self.coefficients_[1:]
        return (value, np.full(len(X), self.sigma_)) if return_std else value


def imputed(design: Design, settings: Settings, *, imputations: int, seed: int) -> "list[pd.DataFrame]":
    """The frame with its missing covariates filled in, so many times; one frame where nothing is missing.

    The equations hold arms, event and the Nelson-Aalen estimate of the cumulative hazard beside the covariates (White and
    Royston, Stat Med 2009). Categories stay as they are drawn, not rounded: rounding biases a model that is linear in them
    (Horton, Lipsitz and Parzen, Am Stat 2003). Same seed, same frames.
    """
    import numpy as np
    from lifelines import NelsonAalenFitter
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (sklearn asks for it)
    from sklearn.impute import IterativeImputer

    frame, columns = design.frame, design.columns
    if not frame[columns].isna().any(axis=None):
        return [frame]
    hazard = NelsonAalenFitter().fit(frame["time"], frame["event"], entry=frame["entry"])
    around = frame[[*columns, *design.treatments, "event"]].copy()
    around["hazard"] = hazard.predict(frame["time"]).to_numpy()
    made = []
    for number in range(imputations):
        filler = IterativeImputer(
            estimator=PosteriorLinear(np.random.RandomState(seed * 1000 + number)),
            sample_posterior=True,
            max_iter=int(settings.number("imputation_rounds")),
            random_state=seed * 1000 + number,
            skip_complete=True,
        )
        filled = filler.fit_transform(around.to_numpy())
        made.append(frame.assign(**{name: filled[:, place] for place, name in enumerate(columns)}))
    return made
