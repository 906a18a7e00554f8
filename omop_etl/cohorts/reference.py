"""Eligibility again, in plain Python: reads like the protocol, one patient at a time, on plain records.

The production path is the SQL of `mappings/studies/palmares2/`. This is its second implementation: property tests hold
the two against each other on random histories near every edge, and the specs for clinicians run on both. It knows the
words of the study (drug classes, markers), no concept ids; windows come from the study's parameters.
"""

import calendar
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

ENDOCRINE = ("aromatase-inhibitor", "tamoxifen", "fulvestrant", "oral-serd")
LATER_ENDOCRINE = ("other-endocrine",)  # a line like the others, but no partner in the sense of criterion 7
TARGETED = ("targeted", "antibody-drug-conjugate")
SCORES = ("0", "negative", "1+", "2+", "3+")

Parameters = Mapping[str, int | str]


@dataclass(frozen=True)
class Drug:
    """A drug given from `start` to `end`; without an end it is still given. `drug_class` is None when no one could map it.

    `month_only`: the start is known to the month only, and stands on its first day.
    """

    drug: str
    drug_class: str | None
    start: date
    end: date | None = None
    month_only: bool = False


@dataclass(frozen=True)
class Receptor:
    """One measurement on a sample. ER and PgR have a percentage with its comparator, HER2 IHC and ISH a word."""

    marker: str
    day: date
    origin: str
    percent: float | None = None
    comparator: str = "="
    word: str | None = None


@dataclass(frozen=True)
class Person:
    """What one site knows of one person. `contacts` are the days of whatever else happened."""

    person_id: int
    site: str
    token: str | None = None
    birth: tuple[int, int | None] = (1960, 6)
    sex: str | None = "F"
    advanced: tuple[date, ...] = ()
    drugs: tuple[Drug, ...] = ()
    receptors: tuple[Receptor, ...] = ()
    progressions: tuple[date, ...] = ()
    death: date | None = None
    contacts: tuple[date, ...] = ()


@dataclass(frozen=True)
class Answer:
    """PASS, FAIL or UNKNOWN, why, and what someone should look at."""

    answer: str
    reason: str
    flag: str | None = None


@dataclass
class Sample:
    """What was measured on one day from one origin."""

    day: date
    origin: str
    receptors: list[Receptor] = field(default_factory=list)

    def of(self, marker: str) -> list[Receptor]:
        return [one for one in self.receptors if one.marker == marker]


def eligibility(persons: Sequence[Person], parameters: Parameters, cut_off: date) -> dict[int, tuple[Answer, ...]]:
    """The answers to criteria 1 to 10, by person id."""
    known = [_up_to(person, cut_off) for person in persons]
    patients = _patients(known)
    return {
        person.person_id: (
            advanced_disease(person),
            index_started(person),
            receptor_sample(person, parameters),
            hr_positive(person, parameters),
            her2_negative(person, parameters),
            first_line(person, parameters),
            with_et(person, parameters),
            no_adjuvant_cdk46(person),
            follow_up(person, patients[person.person_id], parameters, cut_off),
            one_person(person, patients[person.person_id], known, parameters),
        )
        for person in known
    }


NO_INDEX = Answer("UNKNOWN", "no-index")


# ---- 1. Advanced disease diagnosed, with a date
def advanced_disease(person: Person) -> Answer:
    return Answer("PASS", "advanced-dated") if person.advanced else Answer("FAIL", "no-advanced-disease")


# ---- 2. Index: first CDK4/6i for advanced disease; names the index drug and day 0
def index_started(person: Person) -> Answer:
    day = index_date(person)
    if day is None:
        return Answer("FAIL", "not-started")
    two = len({drug.drug for drug in person.drugs if drug.drug_class == "cdk46" and drug.start == day}) > 1
    return Answer("PASS", "cdk46-started", "two-index-drugs" if two else None)


def advanced_date(person: Person) -> date | None:
    return min(person.advanced, default=None)


def index_date(person: Person) -> date | None:
    advanced = advanced_date(person)
    if advanced is None:
        return None
    return min(
        (drug.start for drug in person.drugs if drug.drug_class == "cdk46" and drug.start >= advanced), default=None
    )


def index_drug(person: Person) -> str | None:
    day = index_date(person)
    return min((drug.drug for drug in person.drugs if drug.drug_class == "cdk46" and drug.start == day), default=None)


# ---- 3. Receptor sample on or before index + 30 days: the latest metastatic one, else the latest primary one
def receptor_sample(person: Person, parameters: Parameters) -> Answer:
    if index_date(person) is None:
        return NO_INDEX
    chosen = _chosen(person, parameters)
    if chosen is None:
        return Answer("UNKNOWN", "sample-late" if person.receptors else "no-sample")
    flag = "receptor-discordance" if _discordant(person, chosen, parameters) else None
    return Answer("PASS", f"sample-{chosen.origin}", flag)


def _samples(person: Person, parameters: Parameters) -> list[Sample]:
    """The samples that count, in time."""
    index = index_date(person)
    if index is None:
        return []
    latest = index + timedelta(days=_days(parameters, "receptor_days_after_index"))
    samples: dict[tuple[date, str], Sample] = {}
    for one in person.receptors:
        if one.day <= latest:
            samples.setdefault((one.day, one.origin), Sample(one.day, one.origin)).receptors.append(one)
    return sorted(samples.values(), key=lambda sample: (sample.day, sample.origin))


def _chosen(person: Person, parameters: Parameters) -> Sample | None:
    samples = _samples(person, parameters)
    metastatic = [sample for sample in samples if sample.origin == "metastatic"]
    return (metastatic or samples or [None])[-1]  # type: ignore[list-item]


def _discordant(person: Person, chosen: Sample, parameters: Parameters) -> bool:
    samples = _samples(person, parameters)
    hr = {_hr(sample, parameters) for sample in samples} - {None}
    her2 = {_her2(sample) for sample in samples} - {None}
    return len(hr) > 1 or len(her2) > 1 or _contradicts_itself(chosen, parameters)


def _contradicts_itself(sample: Sample, parameters: Parameters) -> bool:
    levels = [{_level(one, parameters) for one in sample.of(marker)} - {None} for marker in ("ER", "PgR")]
    words = [{one.word for one in sample.of(marker)} - {None} for marker in ("HER2 IHC", "HER2 ISH")]
    return any(len(values) > 1 for values in levels) or any(len(values) > 1 for values in words)


# ---- 4. HR positive: ER or PgR at least 1 %; both below FAIL; else UNKNOWN; 1 to 10 % is low
def hr_positive(person: Person, parameters: Parameters) -> Answer:
    if index_date(person) is None:
        return NO_INDEX
    chosen = _chosen(person, parameters)
    positive = _hr(chosen, parameters) if chosen else None
    if chosen is None or positive is None:
        return Answer("UNKNOWN", "hr-unknown")
    if not positive:
        return Answer("FAIL", "hr-negative")
    highest = max(_at_most(one) for marker in ("ER", "PgR") for one in chosen.of(marker) if _percent(one) is not None)
    return Answer("PASS", "hr-low" if highest <= _days(parameters, "receptor_low_percent") else "hr-positive")


def _percent(one: Receptor) -> float | None:
    return one.percent if one.percent is not None and 0 <= one.percent <= 100 else None


def _at_most(one: Receptor) -> float:
    return 100.0 if one.comparator in (">", ">=") else one.percent or 0.0


def _level(one: Receptor, parameters: Parameters) -> int | None:
    """2 surely positive, 0 surely negative, 1 cannot be told, None no value."""
    percent, limit = _percent(one), _days(parameters, "receptor_positive_percent")
    if percent is None:
        return None
    low = percent if one.comparator in ("=", ">", ">=") else 0
    if low >= limit:
        return 2
    if (one.comparator in ("=", "<=") and percent < limit) or (one.comparator == "<" and percent <= limit):
        return 0
    return 1


def _hr(sample: Sample, parameters: Parameters) -> bool | None:
    er, pgr = (
        max((level for one in sample.of(marker) if (level := _level(one, parameters)) is not None), default=None)
        for marker in ("ER", "PgR")
    )
    if er == 2 or pgr == 2:
        return True
    return False if er == 0 and pgr == 0 else None


# ---- 5. HER2 negative: IHC 0 or 1+ PASS (amplified: adjudicate); 2+ by ISH; 3+ FAIL
def her2_negative(person: Person, parameters: Parameters) -> Answer:
    if index_date(person) is None:
        return NO_INDEX
    chosen = _chosen(person, parameters)
    ihc, ish = _ihc(chosen), _ish(chosen)
    if ihc == "3+":
        return Answer("FAIL", "ihc-3")
    if ihc == "2+":
        if ish is None:
            return Answer("UNKNOWN", "ish-missing")
        return Answer("FAIL", "ihc-2-amplified") if ish == "amplified" else Answer("PASS", "ihc-2-not-amplified")
    if ihc is None:
        return Answer("UNKNOWN", "her2-unknown")
    if ish == "amplified":
        return Answer("PASS", "ihc-low-amplified")
    return Answer("PASS", {"0": "ihc-0", "1+": "ihc-1", "negative": "ihc-negative"}[ihc])


def _ihc(sample: Sample | None) -> str | None:
    """The highest score of the sample."""
    words = [one.word for one in sample.of("HER2 IHC") if one.word] if sample else []
    return max(words, key=SCORES.index, default=None)


def _ish(sample: Sample | None) -> str | None:
    words = {one.word for one in sample.of("HER2 ISH") if one.word} if sample else set()
    return "amplified" if "amplified" in words else next(iter(words), None)


def _her2(sample: Sample) -> bool | None:
    ihc, ish = _ihc(sample), _ish(sample)
    if ihc == "2+":
        return None if ish is None else ish == "amplified"
    return None if ihc is None else ihc == "3+"


# ---- 6. First line: no earlier systemic antineoplastic line for advanced disease; ET alone may lead in for 90 days
def first_line(person: Person, parameters: Parameters) -> Answer:
    index, advanced = index_date(person), advanced_date(person)
    if index is None or advanced is None:
        return NO_INDEX
    before = [drug for drug in person.drugs if advanced <= drug.start < index]
    flag = "unmapped-drug" if any(drug.drug_class is None for drug in before) else None
    if any(drug.drug_class == "chemotherapy" for drug in before):
        return Answer("FAIL", "induction-chemotherapy", flag)
    if any(drug.drug_class in TARGETED for drug in before):
        return Answer("FAIL", "prior-line", flag)
    endocrine = [drug.start for drug in before if drug.drug_class in ENDOCRINE + LATER_ENDOCRINE]
    if not endocrine:
        return Answer("PASS", "first-line", flag)
    lead_in = min(endocrine)
    if any(lead_in < day <= index for day in person.progressions):
        return Answer("FAIL", "progression-in-lead-in", flag)
    if (index - lead_in).days > _days(parameters, "lead_in_days"):
        return Answer("FAIL", "lead-in-too-long", flag)
    return Answer("PASS", "et-lead-in", flag)


# ---- 7. With ET, active within index - 90 to + 28 days; an LHRH analogue alone does not count
def with_et(person: Person, parameters: Parameters) -> Answer:
    index = index_date(person)
    if index is None:
        return NO_INDEX
    first = index - timedelta(days=_days(parameters, "partner_days_before_index"))
    last = index + timedelta(days=_days(parameters, "partner_days_after_index"))
    partner = any(
        drug.drug_class in ENDOCRINE and drug.start <= last and (drug.end is None or drug.end >= first)
        for drug in person.drugs
    )
    return Answer("PASS", "with-et") if partner else Answer("FAIL", "no-et")


# ---- 8. No CDK4/6i for localised disease, ever
def no_adjuvant_cdk46(person: Person) -> Answer:
    advanced = advanced_date(person)
    if index_date(person) is None or advanced is None:
        return NO_INDEX
    adjuvant = any(drug.drug_class == "cdk46" and drug.start < advanced for drug in person.drugs)
    return Answer("FAIL", "adjuvant-cdk46") if adjuvant else Answer("PASS", "no-adjuvant-cdk46")


# ---- 9. Follow-up: index + 3 calendar months, clipped to the month's end, not later than the cut-off; equality passes
def follow_up(person: Person, patient: Sequence[Person], parameters: Parameters, cut_off: date) -> Answer:
    index = index_date(person)
    if index is None:
        return NO_INDEX
    flag = "death-before-index" if any(one.death and one.death < index for one in patient) else None
    end = months_later(index, _days(parameters, "follow_up_months"))
    if end > cut_off:
        return Answer("FAIL", "cut-off-too-early", flag)
    if parameters["follow_up_rule"] == "observed" and last_seen(patient) < end:
        return Answer("FAIL", "observed-too-short", flag)
    return Answer("PASS", "potential-follow-up", flag)


def months_later(day: date, months: int) -> date:
    """The same day of the month `months` later, or that month's last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def last_seen(patient: Sequence[Person]) -> date:
    """Death, else the latest day on which anything happened, at any of the patient's sites."""
    deaths = [person.death for person in patient if person.death]
    return min(deaths) if deaths else max(day for person in patient for day in _days_of(person))


def _days_of(person: Person) -> Iterable[date]:
    yield from person.contacts
    yield from person.advanced
    yield from person.progressions
    yield from (one.day for one in person.receptors)
    for drug in person.drugs:
        yield drug.start
        if drug.end:
            yield drug.end


# ---- 10. Same patient at two sites: baseline from the initiating site; conflicting deaths and look-alikes are UNKNOWN
def one_person(person: Person, patient: Sequence[Person], persons: Sequence[Person], parameters: Parameters) -> Answer:
    if len({one.death for one in patient if one.death}) > 1:
        return Answer("UNKNOWN", "deaths-conflict")
    if any(_look_alike(person, other, parameters) for other in persons):
        return Answer("UNKNOWN", "link-review")
    if len(patient) == 1:
        return Answer("PASS", "single-site")
    never = date.max
    first = min(
        patient, key=lambda one: (index_date(one) or never, advanced_date(one) or never, one.site, one.person_id)
    )
    return Answer("PASS", "initiating-site") if first is person else Answer("FAIL", "duplicate-of-other-site")


def _patients(persons: Sequence[Person]) -> dict[int, list[Person]]:
    """For each person id the persons who are the same patient by equal tokens, itself included."""
    return {
        person.person_id: [
            other for other in persons if other is person or (person.token and other.token == person.token)
        ]
        for person in persons
    }


def _look_alike(one: Person, other: Person, parameters: Parameters) -> bool:
    if one.site == other.site or (one.token and other.token) or one.birth[1] is None or one.sex is None:
        return False
    starts, diagnoses = (index_date(one), index_date(other)), (advanced_date(one), advanced_date(other))
    if None in starts or None in diagnoses:
        return False
    return (
        (one.birth, one.sex, index_drug(one)) == (other.birth, other.sex, index_drug(other))
        and _apart(starts) <= _days(parameters, "link_start_days")
        and _apart(diagnoses) <= _days(parameters, "link_diagnosis_days")
    )


def _apart(days: tuple[date | None, date | None]) -> int:
    one, other = days
    return abs((one - other).days) if one and other else 0


# ---- Nothing dated after the cut-off enters
def _up_to(person: Person, cut_off: date) -> Person:
    """The person as the cut-off sees them: later events do not exist, a drug that runs over it is still given."""
    advanced = min((day for day in person.advanced if day <= cut_off), default=None)
    return Person(
        person_id=person.person_id,
        site=person.site,
        token=person.token,
        birth=person.birth,
        sex=person.sex,
        advanced=tuple(day for day in person.advanced if day <= cut_off),
        drugs=tuple(
            Drug(
                drug.drug,
                drug.drug_class,
                _begun(drug, advanced),
                drug.end if drug.end and drug.end <= cut_off else None,
            )
            for drug in person.drugs
            if drug.start <= cut_off
        ),
        receptors=tuple(one for one in person.receptors if one.day <= cut_off),
        progressions=tuple(day for day in person.progressions if day <= cut_off),
        death=person.death if person.death and person.death <= cut_off else None,
        contacts=tuple(day for day in person.contacts if day <= cut_off),
    )


def _begun(drug: Drug, advanced: date | None) -> date:
    """Known to the month only, a drug in the month of the advanced diagnosis was begun for it, unless it ended before."""
    if advanced is None or not drug.month_only or (drug.end and drug.end < advanced):
        return drug.start
    same_month = (drug.start.year, drug.start.month) == (advanced.year, advanced.month)
    return max(drug.start, advanced) if same_month else drug.start


def _days(parameters: Parameters, name: str) -> int:
    return int(parameters[name])
