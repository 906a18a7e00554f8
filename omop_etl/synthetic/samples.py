"""Biopsies and their receptor findings: the usual ones, and the planned ones at the edges of criteria 3, 4 and 5."""

import random
from collections.abc import Callable
from datetime import date, timedelta

from omop_etl.synthetic.dates import between, days_after
from omop_etl.synthetic.disease import pick
from omop_etl.synthetic.model import History, Sample
from omop_etl.synthetic.parameters import Parameters

_PRIMARY, _METASTASIS = 0, 1  # places in History.diagnoses


class Biopsies:
    """Takes samples for one history."""

    def __init__(self, history: History, rng: random.Random, parameters: Parameters) -> None:
        self.history, self.rng, self.parameters = history, rng, parameters

    def take(self, day: date, origin: str, **findings: object) -> Sample:
        """A sample with the usual findings of this patient, but for those given."""
        rng, disease = self.rng, self.parameters["disease"]
        limit = disease["low_pgr_below"]
        ihc = pick(rng, disease["ihc"])
        low, high = disease["ki67"]["low"], disease["ki67"]["high"]
        values: dict[str, object] = {
            "er": min(100, max(15, int(rng.gauss(88, 14)))),
            "pgr": between(rng, 0, limit - 1) if self.history.low_pgr else between(rng, limit, 100),
            "ki67": min(high, max(low, int(rng.gammavariate(disease["ki67"]["shape"], disease["ki67"]["scale"])))),
            "grade": int(pick(rng, disease["grade"])),
            "ihc": ihc,
            "ish": "not-amplified" if ihc == "2+" else None,
        }
        if findings.get("ihc") is not None:
            values["ish"] = None
        diagnosis = _PRIMARY if origin == "primary" or self.local else _METASTASIS
        return Sample(day, origin, diagnosis, **(values | findings))  # type: ignore[arg-type]

    @property
    def local(self) -> bool:
        """Locally advanced disease: there is no metastasis to take a sample from."""
        return len(self.history.diagnoses) < 2 or self.history.diagnoses[1].site == "locally-advanced"


def draw_samples(history: History, rng: random.Random, parameters: Parameters) -> None:
    """Fill `history.samples` and name the one that criterion 3 must choose (None: there is none in time)."""
    biopsies = Biopsies(history, rng, parameters)
    plan = history.scenario.samples
    if plan is None:
        _usual(biopsies)
    else:
        if biopsies.local and len(history.diagnoses) > 1:
            history.diagnoses[1].site = "bone"  # a planned metastatic sample needs a metastasis
        _PLANS[plan](biopsies)


def rebiopsy(history: History, day: date, rng: random.Random, parameters: Parameters) -> None:
    """A sample at a progression: on record, and never the one of criterion 3 (it is too late for it)."""
    biopsies = Biopsies(history, rng, parameters)
    if not biopsies.local and history.scenario.samples != "none":
        history.samples.append(biopsies.take(day, "metastatic", er=rng.choice([0, 5, 70, 90, 95])))


def _usual(biopsies: Biopsies) -> None:
    history, rng, disease = biopsies.history, biopsies.rng, biopsies.parameters["disease"]
    chance = disease["metastatic_biopsy"]["de_novo" if history.de_novo else "relapse"]
    primary = rng.random() < disease["primary_sample"]
    metastatic = (not primary or rng.random() < chance) and not biopsies.local
    if primary or not metastatic:
        _add(biopsies, biopsies.take(history.primary, "primary"))
    if metastatic:
        _add(biopsies, biopsies.take(_metastatic_day(biopsies), "metastatic"), choose=True)


def _metastatic_day(biopsies: Biopsies) -> date:
    advanced = biopsies.history.advanced or biopsies.history.anchor
    return days_after(advanced, between(biopsies.rng, 0, 20))


def _add(biopsies: Biopsies, sample: Sample, *, choose: bool | None = None) -> None:
    """Record a sample; it is chosen when it says so, or when nothing was chosen so far and it does not decline."""
    history = biopsies.history
    history.samples.append(sample)
    if choose or (choose is None and history.chosen is None):
        history.chosen = len(history.samples) - 1


def _single(**findings: object) -> Callable[[Biopsies], None]:
    """A plan with one sample, of the primary, with these findings."""

    def plan(biopsies: Biopsies) -> None:
        _add(biopsies, biopsies.take(biopsies.history.primary, "primary", **findings))

    return plan


def _none(biopsies: Biopsies) -> None:
    """No sample was ever taken down."""


def _only_at_31(biopsies: Biopsies) -> None:
    _only_late(biopsies, 31)


def _only_late(biopsies: Biopsies, days: int | None = None) -> None:
    study = biopsies.parameters["study"]
    latest = min(120, (study["cut_off"] - biopsies.history.anchor).days - 10)
    late = days or between(biopsies.rng, study["sample_days_after_index"] + 5, latest)
    _add(biopsies, biopsies.take(days_after(biopsies.history.anchor, late), "metastatic"), choose=False)


def _metastatic_at_30(biopsies: Biopsies) -> None:
    days = biopsies.parameters["study"]["sample_days_after_index"]
    _add(biopsies, biopsies.take(biopsies.history.primary, "primary"))
    _add(biopsies, biopsies.take(days_after(biopsies.history.anchor, days), "metastatic"), choose=True)


def _two_metastatic(biopsies: Biopsies) -> None:
    first = biopsies.history.advanced or biopsies.history.anchor
    _add(biopsies, biopsies.take(first, "metastatic", er=0, pgr=0))
    later = days_after(biopsies.history.anchor, 5)
    _add(biopsies, biopsies.take(later, "metastatic", er=80, pgr=30), choose=True)


def _two_metastatic_her2(biopsies: Biopsies) -> None:
    first = biopsies.history.advanced or biopsies.history.anchor
    _add(biopsies, biopsies.take(first, "metastatic", ihc="3+"))
    _add(biopsies, biopsies.take(days_after(biopsies.history.anchor, 5), "metastatic", ihc="1+"), choose=True)


def _discordant_her2(biopsies: Biopsies) -> None:
    _add(biopsies, biopsies.take(biopsies.history.primary, "primary", ihc="3+"))
    _add(biopsies, biopsies.take(_metastatic_day(biopsies), "metastatic", ihc="0"), choose=True)


def _discordant_hr(biopsies: Biopsies) -> None:
    _add(biopsies, biopsies.take(biopsies.history.primary, "primary", er=90))
    _add(biopsies, biopsies.take(_metastatic_day(biopsies), "metastatic", er=0, pgr=0), choose=True)


def _primary_after_metastatic(biopsies: Biopsies) -> None:
    day = (biopsies.history.advanced or biopsies.history.anchor) + timedelta(days=2)
    _add(biopsies, biopsies.take(day, "metastatic", ihc="0"), choose=True)
    _add(biopsies, biopsies.take(days_after(biopsies.history.anchor, 10), "primary", ihc="3+"), choose=False)


_PLANS = {
    "none": _none,
    "only-at-31": _only_at_31,
    "only-late": _only_late,
    "metastatic-at-30": _metastatic_at_30,
    "two-metastatic": _two_metastatic,
    "two-metastatic-her2": _two_metastatic_her2,
    "discordant-her2": _discordant_her2,
    "discordant-hr": _discordant_hr,
    "primary-after-metastatic": _primary_after_metastatic,
    "er-exactly-1": _single(er=1, pgr=0),
    "er-exactly-10": _single(er=10, pgr=5),
    "pgr-low-only": _single(er=0, pgr=5),
    "hr-negative": _single(er=0, pgr=0),
    "er-below-1": _single(er=1, er_below=True, pgr=0),
    "er-missing": _single(er=None, pgr=0),
    "er-pgr-missing": _single(er=None, pgr=None),
    "ihc-3": _single(ihc="3+"),
    "ihc-2-amplified": _single(ihc="2+", ish="amplified"),
    "ish-missing": _single(ihc="2+"),
    "ish-not-performed": _single(ihc="2+", ish="not-performed"),
    "her2-missing": _single(ihc=None, ish=None),
    "ihc-low-amplified": _single(ihc="1+", ish="amplified"),
}
