"""Fits what cannot be written down directly: base weights of the index drugs, and the scale of time to progression.

Published are the marginals (drug shares, median rwPFS); the generator draws conditionally (by year, resistance, liver,
histology, PgR). The cells are few, so both are solved exactly over all of them; nothing here is random.
"""

import math
from dataclasses import dataclass
from itertools import product

from omop_etl.synthetic.parameters import Parameters

DRUGS = ("palbociclib", "ribociclib", "abemaciclib")
TRAITS = ("resistant", "liver", "lobular", "low_pgr")


@dataclass(frozen=True)
class Calibration:
    """`base`: weight of each drug before drift and channelling; `scale_months`: Weibull scale at hazard ratio 1."""

    base: dict[str, float]
    scale_months: float


def drug_weights(
    parameters: Parameters, base: dict[str, float], year: int, traits: dict[str, bool]
) -> dict[str, float]:
    """Relative chance of each index drug for a patient who starts in `year` and has these traits."""
    table = parameters["index_drug"]
    weights = {}
    for drug in DRUGS:
        weight = base[drug] * table["drift"][drug][str(year)]
        for trait, odds in table["channelling"].get(drug, {}).items():
            if traits[trait]:
                weight *= odds
        weights[drug] = weight
    return weights


def calibrate(parameters: Parameters) -> Calibration:
    """Base weights that give the published shares, then the scale that gives the published median."""
    disease = parameters["disease"]
    chance = {
        "resistant": disease["resistant"],
        "liver": disease["liver"],
        "lobular": disease["lobular"],
        "low_pgr": disease["low_pgr"],
    }
    years = parameters["index_year"]
    total = sum(years.values())
    cells = []
    for year, values in product(years, product((False, True), repeat=len(TRAITS))):
        traits = dict(zip(TRAITS, values, strict=True))
        share = years[year] / total
        for trait in TRAITS:
            share *= chance[trait] if traits[trait] else 1 - chance[trait]
        cells.append((int(year), traits, share))

    target = parameters["index_drug"]["share"]
    base = dict.fromkeys(DRUGS, 1.0)
    for _ in range(200):
        reached = dict.fromkeys(DRUGS, 0.0)
        for year, traits, share in cells:
            weights = drug_weights(parameters, base, year, traits)
            whole = sum(weights.values())
            for drug in DRUGS:
                reached[drug] += share * weights[drug] / whole
        base = {drug: base[drug] * target[drug] / reached[drug] for drug in DRUGS}

    course = parameters["course"]
    mixture: dict[float, float] = {}
    for year, traits, share in cells:
        weights = drug_weights(parameters, base, year, traits)
        whole = sum(weights.values())
        for drug in DRUGS:
            ratio = hazard_ratio(parameters, drug, traits["resistant"], traits["lobular"])
            mixture[ratio] = mixture.get(ratio, 0.0) + share * weights[drug] / whole
    return Calibration(base, _scale(mixture, course["median_rwpfs_months"], course["shape"]))


def hazard_ratio(parameters: Parameters, drug: str, resistant: bool, lobular: bool) -> float:
    """The product of the published hazard ratios that apply to a patient."""
    ratios = parameters["course"]["hazard_ratio"]
    return ratios[drug] * (ratios["resistant"] if resistant else 1.0) * (ratios["lobular"] if lobular else 1.0)


def _scale(mixture: dict[float, float], median: float, shape: float) -> float:
    """The Weibull scale with which half of the mixture has had its event at the median, by bisection."""
    low, high = median / 20, median * 20
    for _ in range(100):
        scale = math.sqrt(low * high)
        surviving = sum(share * math.exp(-ratio * (median / scale) ** shape) for ratio, share in mixture.items())
        low, high = (scale, high) if surviving < 0.5 else (low, scale)
    return math.sqrt(low * high)
