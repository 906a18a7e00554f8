"""From the first diagnosis to the advanced disease: who the patient is, how the tumour came, what adjuvant therapy was given."""

import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

from omop_etl.synthetic.dates import add_months, between, day_between, days_after
from omop_etl.synthetic.model import Diagnosis, History, Operation, Segment
from omop_etl.synthetic.parameters import Parameters

Way = Callable[[History, date, random.Random, Parameters], None]

FIVE_YEARS = 1826  # days of a full adjuvant endocrine therapy


def pick(rng: random.Random, weights: Mapping[Any, float]) -> Any:
    """One key, with a chance proportional to its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def draw_person(history: History, rng: random.Random, parameters: Parameters, reserved: date | None) -> None:
    """Sex, birth and menopause. `reserved` is the birth date of a human whose birth month nobody else may share."""
    disease = parameters["disease"]
    history.sex = "male" if rng.random() < disease["male"] else "female"
    age = disease["age"]
    years = min(max(rng.gauss(age["mean"], age["sd"]), age["low"]), age["high"])
    birth = history.anchor - timedelta(days=int(years * 365.25))
    if birth.year in parameters["pair"]["birth_years"]:
        birth -= timedelta(days=366)
    if reserved is not None:
        birth, history.sex = reserved, "female"
    history.birth = birth
    at_index = (history.anchor - birth).days / 365.25
    draw = rng.random()
    rule = disease["menopause"]
    if history.sex == "male":
        history.menopause = None
    elif at_index < 50:
        history.menopause = "pre" if draw < rule["pre_below_50"] else "peri"
    elif at_index < 55:
        pre, peri = rule["pre_50_to_54"], rule["peri_50_to_54"]
        history.menopause = "pre" if draw < pre else "peri" if draw < pre + peri else "post"
    else:
        history.menopause = "post"
    history.ecog = int(pick(rng, disease["ecog"]))


def draw_disease(history: History, rng: random.Random, parameters: Parameters) -> None:
    """How the disease came: de novo or relapse, endocrine resistance, histology, metastatic sites, adjuvant therapy."""
    disease = parameters["disease"]
    plan = history.scenario.disease
    calm = history.scenario.before is not None  # a planned story before index has no room for resistance as well
    way = rng.random()
    if plan is None:
        if calm:
            way *= 1 - disease["resistant"]
        if way < disease["de_novo"]:
            plan = "de-novo"
        elif way < 1 - disease["resistant"]:
            plan = "relapse" if rng.random() > disease["sensitive_without_adjuvant_et"] else "relapse-without-et"
        else:
            plan = "resistant"
    histology = rng.random()
    history.histology = (
        "lobular"
        if histology < disease["lobular"]
        else "nst"
        if histology < disease["lobular"] + disease["nst"]
        else "other"
    )
    if history.tidy and history.histology == "other":
        history.histology = "nst"
    history.low_pgr = rng.random() < disease["low_pgr"]

    gap = disease["days_advanced_to_index"]
    wait = between(rng, gap["low"], gap["high"])
    advanced = history.anchor - timedelta(days=history.lead + (wait // 3 + 1 if history.lead else wait))
    sites = _sites(rng, disease, history.tidy)
    history.diagnoses = [Diagnosis("primary", date.min)]
    if history.scenario.start != "never-advanced":
        history.advanced = advanced
        history.diagnoses += [Diagnosis(site, advanced) for site in sites]
    _WAYS[plan](history, advanced, rng, parameters)
    history.diagnoses[0].day = history.primary


def _sites(rng: random.Random, disease: dict[str, Any], tidy: bool) -> list[str]:
    """Where the disease has spread at the advanced diagnosis."""
    draw = rng.random()
    edges = [disease["bone_only"], disease["locally_advanced"], disease["unspecified_site"]]
    for site, edge in zip(("bone", "locally-advanced", "unspecified"), accumulate(edges), strict=True):
        if draw < edge:
            return ["bone" if tidy else site]
    sites = ["liver"] if rng.random() < disease["liver"] / (1 - sum(edges)) else []
    sites += [site for site, chance in disease["other_sites"].items() if rng.random() < chance]
    return sites if sites not in ([], ["bone"]) else [*sites, "node"]


def _de_novo(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    days = parameters["disease"]["days_primary_to_advanced_de_novo"]
    history.de_novo = True
    history.primary = advanced - timedelta(days=between(rng, days["low"], days["high"]))


def _relapse(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    # adjuvant ET ended more than twelve months before the relapse: sensitive
    end = advanced - timedelta(days=between(rng, 380, 2900))
    _adjuvant(history, end - timedelta(days=FIVE_YEARS), end, None, rng, parameters)


def _relapse_without_et(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    history.primary = advanced - timedelta(days=between(rng, 900, 5000))
    _operate(history, history.primary, advanced, rng, parameters)


def _resistant(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    if rng.random() < parameters["disease"]["resistant_primary"]:
        history.resistance = "primary"  # relapse in the first two years of adjuvant ET
        start = advanced - timedelta(days=between(rng, 90, 720))
        end = advanced - timedelta(days=between(rng, 0, 15))
        _adjuvant(history, start, end, "progression", rng, parameters)
    elif rng.random() < 0.5:
        history.resistance = "secondary"  # relapse on adjuvant ET after two years
        start = advanced - timedelta(days=between(rng, 740, FIVE_YEARS))
        end = advanced - timedelta(days=between(rng, 0, 15))
        _adjuvant(history, start, end, "progression", rng, parameters)
    else:
        history.resistance = "secondary"  # relapse within twelve months of its end
        end = advanced - timedelta(days=between(rng, 30, 350))
        _adjuvant(history, end - timedelta(days=FIVE_YEARS), end, None, rng, parameters)


def _relapse_days_before(days: int) -> Way:
    """Relapse on adjuvant ET so many days before the index; the ET ends on the day of the relapse."""

    def way(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
        end = history.anchor - timedelta(days=days)
        history.advanced = end
        for diagnosis in history.diagnoses[1:]:
            diagnosis.day = end
        history.resistance = "secondary"
        _adjuvant(history, end - timedelta(days=between(rng, 800, 1700)), end, "progression", rng, parameters)

    return way


def _adjuvant_goes_on(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    # relapse on adjuvant ET, which is simply continued together with the CDK4/6 inhibitor
    history.resistance = "secondary"
    start = history.anchor - timedelta(days=1500)
    _adjuvant(history, start, history.anchor + timedelta(days=200), "other", rng, parameters, drug="letrozole")


def _adjuvant_cdk46(history: History, advanced: date, rng: random.Random, parameters: Parameters) -> None:
    # two years of adjuvant abemaciclib would be the norm; it ended early or in time, and always before the relapse
    start = advanced - timedelta(days=between(rng, 560, 800))
    end = start + timedelta(days=between(rng, 300, 520))
    # ESO-ESMO: a relapse in the first two years of adjuvant ET is primary resistance
    history.resistance = "primary" if advanced < add_months(start, 24) else "secondary"
    _adjuvant(history, start, advanced - timedelta(days=1), "progression", rng, parameters)
    drug = parameters["drug"]["abemaciclib"]
    history.segments.append(Segment("abemaciclib", start, end, drug["doses"][0], 0, "other"))


def _adjuvant(
    history: History,
    start: date,
    end: date,
    reason: str | None,
    rng: random.Random,
    parameters: Parameters,
    drug: str | None = None,
) -> None:
    """Primary diagnosis, surgery, chemotherapy and radiotherapy before adjuvant ET from `start` to `end`."""
    history.primary = start - timedelta(days=between(rng, 120, 260))
    _operate(history, history.primary, start, rng, parameters)
    tamoxifen = rng.random() < parameters["disease"]["adjuvant_tamoxifen"]
    drug = drug or ("tamoxifen" if tamoxifen else pick(rng, parameters["partner"]["ai"]))
    history.segments.append(Segment(drug, start, end, parameters["drug"][drug]["doses"][0], 0, reason))


def _operate(history: History, primary: date, before: date, rng: random.Random, parameters: Parameters) -> None:
    disease = parameters["disease"]
    table = parameters["drug"]
    surgery = days_after(primary, between(rng, 15, 40))
    history.operations.append(Operation("surgery", surgery))
    history.stays.append((surgery - timedelta(days=1), days_after(surgery, 2)))
    if rng.random() < disease["adjuvant_chemotherapy"]:
        begin = days_after(surgery, 20)
        stop = min(days_after(begin, 50), before - timedelta(days=1))
        for drug in ("epirubicin", "cyclophosphamide"):
            history.segments.append(Segment(drug, begin, stop, table[drug]["doses"][0], 0))
    if rng.random() < disease["adjuvant_radiotherapy"]:
        begin = day_between(rng, days_after(surgery, 40), days_after(surgery, 70))
        history.operations.append(Operation("radiotherapy", begin, days_after(begin, 25)))


_WAYS: dict[str, Way] = {
    "de-novo": _de_novo,
    "relapse": _relapse,
    "relapse-without-et": _relapse_without_et,
    "resistant": _resistant,
    "adjuvant-cdk46": _adjuvant_cdk46,
    "adjuvant-goes-on": _adjuvant_goes_on,
    "relapse-90-days-before": _relapse_days_before(90),
    "relapse-91-days-before": _relapse_days_before(91),
}
