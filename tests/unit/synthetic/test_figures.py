"""The shares of a large population are those of the published figures, within four binomial standard errors."""

import math
from collections.abc import Callable, Iterable
from datetime import date

import pytest

from omop_etl.synthetic.calibration import DRUGS, calibrate, hazard_ratio
from omop_etl.synthetic.history import Human, simulate
from omop_etl.synthetic.model import History
from omop_etl.synthetic.parameters import USUAL, load

SIZE = 4000


@pytest.fixture(scope="module")
def histories() -> list[History]:
    parameters = load()
    calibration = calibrate(parameters)
    return [simulate(Human(f"H{number:06}", USUAL), 7, parameters, calibration) for number in range(SIZE)]


def near(found: float, expected: float, of: int = SIZE) -> bool:
    return abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / of)


def share(histories: Iterable[History], test: Callable[[History], bool]) -> float:
    answers = [test(history) for history in histories]
    return sum(answers) / len(answers)


def test_index_drugs_have_the_published_shares(histories: list[History]) -> None:
    for drug, expected in (("palbociclib", 0.398), ("ribociclib", 0.371), ("abemaciclib", 0.231)):
        assert near(share(histories, lambda history, drug=drug: history.index_drug == drug), expected), drug


def test_disease_has_the_published_shares(histories: list[History]) -> None:
    assert near(share(histories, lambda history: history.resistance != "sensitive"), 0.33)
    assert near(share(histories, lambda history: history.de_novo), 0.336)
    assert near(share(histories, lambda history: history.histology == "lobular"), 0.185)
    assert near(share(histories, lambda history: history.histology == "nst"), 0.747)


def test_partners_follow_sensitivity(histories: list[History]) -> None:
    table = load()["drug"]

    def has(history: History, drug_class: str) -> bool:
        return any(table[x.drug]["class"] == drug_class and x.line == 1 for x in history.segments)

    sensitive = [history for history in histories if history.resistance == "sensitive"]
    resistant = [history for history in histories if history.resistance != "sensitive"]
    assert near(share(sensitive, lambda history: has(history, "ai")), 0.89, len(sensitive))
    assert near(share(resistant, lambda history: has(history, "serd")), 0.71, len(resistant))


def test_placeholders_come_out_as_written(histories: list[History]) -> None:
    women = [history for history in histories if history.sex == "female"]
    assert near(share(women, lambda history: history.menopause == "pre"), 0.20, len(women))
    assert near(share(histories, lambda history: history.ecog == 0), 0.65)
    assert near(share(histories, lambda history: _baseline_sites(history) == {"bone"}), 0.30)
    assert near(share(histories, lambda history: "liver" in _baseline_sites(history)), 0.22)
    low = [history.samples[history.chosen].ihc for history in histories if history.chosen is not None]
    assert near(sum(ihc in ("1+", "2+") for ihc in low) / len(low), 0.60, len(low))


def _baseline_sites(history: History) -> set[str]:
    return {diagnosis.site for diagnosis in history.diagnoses[1:] if diagnosis.day == history.advanced}


def test_abemaciclib_is_channelled_and_palbociclib_came_first(histories: list[History]) -> None:
    def abemaciclib(group: list[History]) -> float:
        return share(group, lambda history: history.index_drug == "abemaciclib")

    for test in (
        lambda history: history.resistance != "sensitive",
        lambda history: "liver" in _baseline_sites(history),
        lambda history: history.histology == "lobular",
        lambda history: history.low_pgr,
    ):
        with_it = [history for history in histories if test(history)]
        without = [history for history in histories if not test(history)]
        assert abemaciclib(with_it) > abemaciclib(without)
    early = [history for history in histories if history.anchor < date(2018, 1, 1)]
    assert share(early, lambda history: history.index_drug == "palbociclib") > 0.85


def test_median_rwpfs_is_the_published_one(histories: list[History]) -> None:
    assert 31.5 < _kaplan_meier_median([_first_event(history) for history in histories]) < 36.7


@pytest.mark.parametrize(
    ("name", "expected"), [("abemaciclib", 0.76), ("ribociclib", 0.83), ("resistant", 1.78), ("lobular", 1.24)]
)
def test_hazard_ratios_are_the_published_ones(histories: list[History], name: str, expected: float) -> None:
    # Weibull of known shape: the rate is events per summed time^shape, each weighted by the other covariates' ratios
    parameters = load()
    shape = parameters["course"]["shape"]
    sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for history in histories:
        traits = {
            "resistant": history.resistance != "sensitive",
            "lobular": history.histology == "lobular",
            **{drug: history.index_drug == drug for drug in DRUGS},
        }
        if name in DRUGS and not (traits[name] or traits["palbociclib"]):
            continue
        ratio = hazard_ratio(parameters, history.index_drug or "", traits["resistant"], traits["lobular"])
        other = ratio / (expected if traits[name] else 1)
        months, event = _first_event(history)
        sums[traits[name]][0] += event
        sums[traits[name]][1] += other * months**shape
    found = (sums[True][0] / sums[True][1]) / (sums[False][0] / sums[False][1])
    error = math.sqrt(1 / sums[True][0] + 1 / sums[False][0])
    assert abs(math.log(found / expected)) < 4 * error


def test_one_in_five_goes_on_beyond_progression(histories: list[History]) -> None:
    progressed = [history for history in histories if history.progressions]
    found = share(progressed, lambda history: history.progressions[0].continued)
    assert near(found, 0.187, len(progressed))


def _first_event(history: History) -> tuple[float, bool]:
    """Months from the index to the first progression or death, or to where nothing more is known."""
    assert history.index is not None
    first = min((x.day for x in history.progressions), default=None) or history.death
    last = history.lost or date(2025, 6, 30)
    event = first is not None and first <= last
    return ((first if event and first else last) - history.index).days / 30.4375, event


def _kaplan_meier_median(times: list[tuple[float, bool]]) -> float:
    surviving, at_risk = 1.0, len(times)
    for months, event in sorted(times):
        if event:
            surviving *= 1 - 1 / at_risk
        at_risk -= 1
        if surviving <= 0.5:
            return months
    return math.inf
