"""Lines, endpoints, resistance and eras again, in plain Python: reads like the protocol, one patient at a time.

The production path is the SQL of the study's `derive/`. This is its second implementation: property tests hold the two
against each other on random histories, and the specs for clinicians run on both. It knows no concept ids and no windows:
drug classes and parameters come from the study's rules.
"""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise

from omop_etl.derive.rules import EndpointRule, Rules

NEVER = date(9999, 12, 31)
PARTNERS = ("aromatase-inhibitor", "tamoxifen", "fulvestrant", "oral-serd")
REASONS = ("progression", "death", "toxicity", "patient-choice", "other")


@dataclass(frozen=True)
class Given:
    """One drug from its first day to its last (None: no end is known), why it was stopped, its concept set, class and kind."""

    drug: str
    drug_class: str | None
    start: date
    end: date | None = None
    stop: str | None = None
    line_class: str = ""
    kind: str = ""
    given_to: date | None = None  # up to this day it was given in any case; None: no end is known
    month_only: bool = False  # `start` is the first day of a month: no more is known


@dataclass(frozen=True)
class Patient:
    """What is known of one patient up to the cut-off. `assessments` are (day, response), `declared` (day, number)."""

    advanced: date | None = None
    primary: date | None = None
    index: date | None = None
    drugs: tuple[Given, ...] = ()
    assessments: tuple[tuple[date, str], ...] = ()
    death: date | None = None
    last_contact: date | None = None
    declared: tuple[tuple[date, int], ...] = ()
    consent: date | None = None
    in_doubt: str | None = None  # why the day of death cannot be believed: then it ends nothing

    def believed(self) -> "Patient":
        """The patient without a death that is in doubt: one before day 0, or on which the sites disagree."""
        if self.death and self.index and self.death < self.index:
            return replace(self, death=None, in_doubt="death-before-index")
        return replace(self, death=None) if self.in_doubt else self


@dataclass
class Line:
    """A line of therapy. `anchor` is the day from which its 28 days count; `since` the progression after which this line or one
    before it began: a drug without a known end that was begun earlier is no longer given."""

    number: int
    start: date
    anchor: date
    since: date = date.min
    declared: bool = False
    before: date | None = None  # the first day of the next line
    drugs: list[tuple[Given, bool]] = field(default_factory=list)  # each with: it belongs to the regimen
    end: date | None = None
    reason: str | None = None
    index: bool = False
    flags: list[str] = field(default_factory=list)

    @property
    def regimen(self) -> str:
        return "+".join(sorted({drug.drug for drug, of_regimen in self.drugs if of_regimen}))


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of one patient: `event` is what happened, or `censored` what the last day is."""

    paramcd: str
    start: date
    end: date
    event: str | None
    censored: str | None
    entry_day: int | None = None
    flags: tuple[str, ...] = ()


def days(rules: Rules, name: str) -> timedelta:
    return timedelta(days=int(rules.parameters[name]))


# ---- Systemic antineoplastic drugs: what line_classes.csv lists; LHRH analogues and bone agents are never a line
def antineoplastics(patient: Patient, rules: Rules) -> list[Given]:
    """The drugs that make lines, begun before death; a last dose without a reason to stop shortly before the end is no stop."""
    known = []
    for drug in patient.drugs:
        entry = rules.line_class(drug.drug_class, drug.drug)
        if entry and (patient.death is None or drug.start <= patient.death):
            end = max(drug.end, drug.start) if drug.end else None
            stop = rules.stops.get((drug.stop or "").strip().lower())
            known.append(
                Given(
                    drug.drug,
                    drug.drug_class,
                    drug.start,
                    end,
                    stop,
                    entry.line_class,
                    entry.kind,
                    end,
                    drug.month_only,
                )
            )
    seen = patient.death or patient.last_contact
    last = {drug.drug: max(one.start for one in known if one.drug == drug.drug) for drug in known}
    return [
        replace(drug, end=None)
        if drug.stop is None
        and drug.start == last[drug.drug]
        and drug.end is not None
        and seen is not None
        and drug.end >= seen - days(rules, "still_given_days")
        else drug
        for drug in known
    ]


def assessments(patient: Patient) -> list[tuple[date, str]]:
    return sorted(one for one in set(patient.assessments) if one[0] <= (patient.death or NEVER))


def progressions(patient: Patient) -> list[date]:
    """As declared by the physician."""
    return sorted({day for day, response in assessments(patient) if response == "PD"})


# ---- Lines of therapy
def lines(patient: Patient, rules: Rules, *, with_declared: bool = True) -> list[Line]:
    """The patient's lines. A line declared by the site wins; without `with_declared` the rule alone speaks."""
    if patient.advanced is None:
        return []
    patient = patient.believed()
    drugs = antineoplastics(patient, rules)
    declared = [(day, number) for day, number in counting(patient)] if with_declared else []
    found: list[Line] = []
    while (following := _next(found[-1] if found else None, patient, drugs, declared, rules)) is not None:
        if found:
            found[-1].before = following.start
        found.append(following)
    for line in found:
        _fill(line, patient, drugs, rules)
    return found


def counting(patient: Patient) -> list[tuple[date, int]]:
    """The declarations that count: from line 1 on, in advanced disease, numbers and days rising together."""
    kept: list[tuple[date, int]] = []
    highest_number, latest_day = 0, date.min
    for day, number in sorted(set(patient.declared)):
        if (
            patient.advanced
            and number >= 1
            and day >= patient.advanced
            and number > highest_number
            and day > latest_day
        ):
            kept.append((day, number))
        highest_number, latest_day = max(highest_number, number), max(latest_day, day)
    return kept


def _next(
    line: Line | None, patient: Patient, drugs: list[Given], declared: list[tuple[date, int]], rules: Rules
) -> Line | None:
    """The line after `line` (None: the first one), by the site's word where it has one, else by the rule."""
    number, start = (line.number, line.start) if line else (0, date.min)
    said = next(((day, n) for day, n in declared if n > number and day > start), None)
    ruled = next(
        (
            drug.start
            for drug in sorted(drugs, key=lambda one: one.start)
            if patient.advanced
            and drug.start >= patient.advanced
            and drug.start > start
            and (line is None or begins_a_new_line(drug, line, drugs, patient, rules))
        ),
        None,
    )
    by_site = said is not None and (ruled is None or said[1] == number + 1 or said[0] <= ruled)
    day = said[0] if by_site and said else ruled
    if day is None:
        return None
    progressed = [one for one in progressions(patient) if line is not None and line.start < one <= day]
    return Line(
        number=said[1] if by_site and said else number + 1,
        start=day,
        anchor=anchor(day, drugs, patient, rules),
        since=progressed[-1] if progressed else line.since if line else date.min,
        declared=by_site,
    )


def anchor(day: date, drugs: list[Given], patient: Patient, rules: Rules) -> date:
    """Endocrine therapy alone that leads in to a CDK4/6 inhibitor: the line's days count from the latter."""
    later = [drug for drug in drugs if drug.start >= day]
    cdk46 = min((drug.start for drug in later if drug.kind == "cdk46"), default=None)
    other = min((drug.start for drug in later if drug.kind not in ("cdk46", "endocrine")), default=NEVER)
    if cdk46 is None or cdk46 > day + days(rules, "lead_in_days") or other < cdk46:
        return day
    return day if any(day < one <= cdk46 for one in progressions(patient)) else cdk46


def belongs(drug: Given, line: Line, rules: Rules) -> bool:
    """Begun in the line, or carried into it: still given more than 28 days into it."""
    if drug.start >= line.start:
        return True
    if drug.given_to is None:
        return drug.start >= line.since
    return drug.given_to > line.start + days(rules, "regimen_days")


def begins_a_new_line(drug: Given, line: Line, drugs: list[Given], patient: Patient, rules: Rules) -> bool:
    """Rule 3, for a drug begun while `line` runs."""
    day = drug.start
    progressed = any(line.start < one <= day for one in progressions(patient))
    earlier = [one for one in drugs if one.start < day]
    of_line = [one for one in earlier if belongs(one, line, rules)]
    new_drug = drug.drug not in {one.drug for one in of_line}
    new_class = drug.line_class not in {one.line_class for one in of_line}
    # (a) a new antineoplastic after a progression
    if new_drug and progressed:
        return True
    # (b) a drug of a new class more than 28 days in, without a toxicity reason
    if new_class and day > line.anchor + days(rules, "regimen_days"):
        maintenance = drug.kind == "endocrine" and _chemotherapy_before(day, line, drugs) and not progressed
        if not maintenance and not _toxicity_before(day, line, drugs, rules):
            return True
    # (c) restart after a gap of more than 90 days that holds a progression
    return not new_drug and _restarts(drug, earlier, rules) and _gap_holds(drug, earlier, progressions(patient))


def _chemotherapy_before(day: date, line: Line, drugs: list[Given]) -> bool:
    return any(one.kind == "chemotherapy" and line.start <= one.start < day for one in drugs)


def _toxicity_before(day: date, line: Line, drugs: list[Given], rules: Rules) -> bool:
    return any(
        one.stop == "toxicity" and one.end and max(line.start, day - days(rules, "toxicity_days")) <= one.end <= day
        for one in drugs
    )


def _restarts(drug: Given, earlier: list[Given], rules: Rules) -> bool:
    """After a gap of more than 90 days without this drug."""
    same = [one.given_to for one in earlier if one.drug == drug.drug]
    ends = [end for end in same if end is not None]
    return bool(same) and len(ends) == len(same) and drug.start - max(ends) > days(rules, "restart_gap_days")


def _gap_holds(drug: Given, earlier: list[Given], progressed: list[date]) -> bool:
    last = max(one.given_to for one in earlier if one.drug == drug.drug and one.given_to)
    return any(last <= day <= drug.start for day in progressed)


def _fill(line: Line, patient: Patient, drugs: list[Given], rules: Rules) -> None:
    """Regimen, end and its reason, flags."""
    before = line.before or NEVER
    line.index = patient.index is not None and line.start <= patient.index < before
    window = line.anchor + days(rules, "regimen_days")
    begun = [(drug, drug.start <= window) for drug in drugs if line.start <= drug.start < before]
    carried = [(drug, True) for drug in drugs if drug.start < line.start and belongs(drug, line, rules)]
    line.drugs = begun + carried
    if line.index and not any(of_regimen and drug.drug_class in PARTNERS for drug, of_regimen in line.drugs):
        assert patient.index is not None
        earliest = patient.index - days(rules, "partner_days_before_index")
        line.drugs += [
            (drug, True)
            for drug in drugs
            if drug.start < line.start
            and drug.drug_class in PARTNERS
            and (drug.given_to is None or drug.given_to >= earliest)
        ]
    ends = [drug.end for drug, _ in line.drugs]
    goes_on = None in ends
    last = max((end for end in ends if end), default=None)
    stops = [
        None if goes_on else last,
        line.before - timedelta(days=1) if line.before else None,
        patient.death,
        line.start if not line.drugs else None,
    ]
    line.end = min((day for day in stops if day), default=None)
    line.reason = _reason(line, patient, goes_on, last)
    line.flags = _flags(line, patient, drugs, begun, rules)


def _reason(line: Line, patient: Patient, goes_on: bool, last: date | None) -> str | None:
    if line.end is None:
        return None
    reasons = [(drug.end, drug.stop) for drug, _ in line.drugs if drug.stop and drug.end]
    latest = max((end for end, _ in reasons), default=None)
    if not goes_on and last == line.end == latest:
        return min((stop for end, stop in reasons if end == latest), key=REASONS.index)
    if line.end == patient.death:
        return "death"
    return "next-line" if line.before and line.end == line.before - timedelta(days=1) else "not-recorded"


def _flags(
    line: Line, patient: Patient, drugs: list[Given], begun: list[tuple[Given, bool]], rules: Rules
) -> list[str]:
    flags = ["lead-in"] if line.anchor > line.start else []
    window = line.anchor + days(rules, "regimen_days")
    later = [drug for drug, _ in begun if drug.start > line.start]

    def earlier(drug: Given) -> list[Given]:
        return [one for one in drugs if one.start < drug.start]

    def of_new_class(drug: Given) -> bool:
        return drug.start > window and drug.line_class not in {
            one.line_class for one in earlier(drug) if belongs(one, line, rules)
        }

    if any(
        _restarts(drug, earlier(drug), rules)
        and any(one.drug == drug.drug and one.start >= line.start for one in earlier(drug))
        for drug in later
    ):
        flags.append("gap")
    of_line = begun + [(drug, True) for drug in drugs if drug.start < line.start and belongs(drug, line, rules)]
    if len({drug.drug for drug, _ in of_line if drug.kind == "cdk46"}) > 1:
        flags.append("cdk46-switch")
    if len({drug.drug for drug, _ in of_line if drug.drug_class == "aromatase-inhibitor"}) > 1:
        flags.append("ai-swap")
    if any(of_new_class(drug) and _toxicity_before(drug.start, line, drugs, rules) for drug in later):
        flags.append("toxicity-switch")
    if any(
        of_new_class(drug) and drug.kind == "endocrine" and _chemotherapy_before(drug.start, line, drugs)
        for drug in later
    ):
        flags.append("maintenance")
    grace = days(rules, "beyond_progression_days")
    end = line.end or patient.last_contact or line.start  # one that goes on is known to do so up to the last contact
    if any(line.start < day < (line.before or NEVER) and day + grace < end for day in progressions(patient)):
        flags.append("beyond-progression")
    regimen = {drug.drug for drug, of_regimen in of_line if of_regimen}
    last_days = [max(drug.end or NEVER for drug, _ in of_line if drug.drug == name) for name in regimen]
    if last_days and min(last_days) != NEVER and min(last_days) + grace < end:
        flags.append("dropped-drug")
    if line.declared:
        flags.append("declared")
    if any(drug.drug_class is None and line.start <= drug.start < (line.before or NEVER) for drug in patient.drugs):
        flags.append("unmapped-drug")
    return flags


# ---- Endpoints: day 0 is the index date
def endpoints(patient: Patient, rules: Rules) -> list[Endpoint]:
    """Every endpoint and variant of endpoints.csv; none where the day of death is in doubt."""
    patient = patient.believed()
    if patient.index is None or patient.last_contact is None or patient.in_doubt:
        return []
    found = []
    for rule in rules.endpoints:
        one = _endpoint(patient, rule, rules)
        if one is not None:
            found.append(_entered(one, patient, rules))
    return found


def _endpoint(patient: Patient, rule: EndpointRule, rules: Rules) -> Endpoint | None:
    assert patient.index is not None and patient.last_contact is not None
    of_patient = lines(patient, rules)
    line = next((one for one in of_patient if one.index), None)
    if line is not None:
        next_line = line.before
    else:
        next_line = min((one.start for one in of_patient if one.start > patient.index), default=None)
    if rule.kind == "progression":
        return rwpfs(patient, patient.index, after_day_0(patient), next_line, rule, rules)
    if rule.kind == "beyond-progression":
        return beyond_progression(patient, line, next_line, rule, rules)
    if rule.kind == "discontinuation":
        day = last_cdk46_dose(patient, of_patient, rules)
    elif rule.kind == "next-line":
        day = next_line
    elif rule.kind == "chemotherapy":
        kinds = ("chemotherapy", "antibody-drug-conjugate") if rule.adc_is_chemotherapy else ("chemotherapy",)
        given = antineoplastics(patient, rules)
        day = min((drug.start for drug in given if drug.kind in kinds and drug.start >= patient.index), default=None)
    else:
        day = None
    if patient.death and patient.death <= (day or NEVER):
        return Endpoint(rule.paramcd, patient.index, patient.death, "death", None)
    if day:
        return Endpoint(rule.paramcd, patient.index, day, rule.kind, None)
    return Endpoint(rule.paramcd, patient.index, patient.last_contact, None, "last-activity")


def last_cdk46_dose(patient: Patient, of_patient: list[Line], rules: Rules) -> date | None:
    """Of the CDK4/6 inhibitor of day 0, which is followed into every next line whose regimen holds it; None: still given.

    Where a line without it began it was stopped by then, whether the stop was recorded or not."""
    assert patient.index is not None
    until = NEVER
    index = next((line.number for line in of_patient if line.index), None)
    for line in of_patient:
        earlier = {
            drug.drug
            for before in of_patient
            if index is not None and index <= before.number < line.number
            for drug, _ in before.drugs
        }
        continued = any(drug.kind == "cdk46" and of_regimen and drug.drug in earlier for drug, of_regimen in line.drugs)
        if line.start > patient.index and not continued:
            until = line.start
            break
    stopped = None if until == NEVER else until - timedelta(days=1)
    doses = [
        drug.end or (stopped and (drug.given_to or stopped))
        for drug in antineoplastics(patient, rules)
        if drug.kind == "cdk46" and patient.index <= drug.start < until
    ]
    return None if None in doses else max((end for end in doses if end), default=None)


def after_day_0(patient: Patient) -> date | None:
    """The first progression after day 0; on day 0 it is what the treatment was begun for."""
    return next((day for day in progressions(patient) if patient.index and day > patient.index), None)


def end_of_progression_follow_up(patient: Patient, start: date, gap: int, rules: Rules) -> tuple[date, str]:
    """The last assessment before a gap of more than so many days, else the last one."""
    assert patient.index is not None
    looks = sorted({day for day, _ in assessments(patient) if day > patient.index and day >= start})
    if not looks:
        # nobody was assessed yet: a death before one was due is an event
        due = patient.index + days(rules, "first_assessment_days")
        return (patient.death if patient.death and patient.death <= due else patient.index), "never-assessed"
    for day, following in pairwise(looks):
        if (following - day).days > gap:
            return day, "gap-in-assessments"
    return looks[-1], "last-assessment"


def rwpfs(
    patient: Patient,
    start: date,
    progression: date | None,
    next_line: date | None,
    rule: EndpointRule,
    rules: Rules,
) -> Endpoint:
    """First progression on or before the end of progression follow-up: event. Else death within 30 days after it: event.
    Else censored there, not at last contact. A new line without progression is followed, censors, or is an event."""
    end, why = end_of_progression_follow_up(patient, start, rule.gap_days or 0, rules)
    new_line = next_line if rule.new_line != "follow" else None
    if progression and progression <= end and progression <= (new_line or NEVER):
        return Endpoint(rule.paramcd, start, progression, "progression", None)
    if new_line and new_line <= end:
        is_event = rule.new_line == "event"
        return Endpoint(
            rule.paramcd, start, new_line, "new-line" if is_event else None, None if is_event else "new-line"
        )
    if patient.death and patient.death <= end + days(rules, "death_after_assessment_days"):
        return Endpoint(rule.paramcd, start, patient.death, "death", None)
    return Endpoint(rule.paramcd, start, end, None, why)


def beyond_progression(
    patient: Patient, line: Line | None, next_line: date | None, rule: EndpointRule, rules: Rules
) -> Endpoint | None:
    """From the first progression with the same drugs continued to the progression of the definitive stop, or death."""
    first, grace = after_day_0(patient), days(rules, "beyond_progression_days")
    if (
        line is None
        or first is None
        or first >= (next_line or NEVER)
        or first + grace >= (line.end or patient.last_contact or first)
    ):
        return None
    later = [day for day in progressions(patient) if day > first and line.end is not None and line.end <= day + grace]
    return rwpfs(patient, first, min(later, default=None), None, rule, rules)


def _entered(one: Endpoint, patient: Patient, rules: Rules) -> Endpoint:
    """With the day of entry of a patient who consented after the start, and what is to be looked at."""
    entry = (patient.consent - one.start).days if patient.consent and patient.consent > one.start else None
    lasted = (one.end - one.start).days
    flags = []
    early = int(rules.parameters["early_progression_days"])
    if one.event == "progression" and one.paramcd != "RWPFSBP" and lasted <= early:
        flags.append("early-progression")
    if entry is not None and entry > lasted:
        flags.append("entry-after-end")
    return Endpoint(one.paramcd, one.start, one.end, one.event, one.censored, entry, tuple(flags))


# ---- Endocrine resistance (ESO-ESMO), as far as it is known at day 0
def de_novo(patient: Patient, rules: Rules) -> bool | None:
    if patient.advanced is None or patient.primary is None or patient.primary > patient.advanced:
        return None
    return patient.advanced - patient.primary <= days(rules, "de_novo_days")


def resistance(patient: Patient, rules: Rules) -> str | None:
    """Primary, secondary, one of the two, or none; None where it cannot be told."""
    patient = patient.believed()
    if patient.advanced is None:
        return None
    if _progressed_on_first_line(patient, rules):
        return "primary-resistant"
    new = de_novo(patient, rules)
    if new is not False:
        return "sensitive" if new else None
    adjuvant = [d for d in antineoplastics(patient, rules) if d.kind == "endocrine" and d.start < patient.advanced]
    if not adjuvant:
        return "sensitive"
    on_it = patient.advanced - days(rules, "relapse_on_et_days")
    if any(drug.end is None or drug.end >= on_it for drug in adjuvant):
        months = int(rules.parameters["primary_resistance_months"])
        if patient.advanced < months_later(min(drug.start for drug in adjuvant), months):
            return "primary-resistant"
        # begun in a month in which either may be: which of the two cannot be told
        surely = patient.advanced >= months_later(min(map(latest_start, adjuvant)), months)
        return "secondary-resistant" if surely else "resistant"
    ended = max(drug.end for drug in adjuvant if drug.end)
    year = months_later(ended, int(rules.parameters["secondary_resistance_months"]))
    return "secondary-resistant" if patient.advanced <= year else "sensitive"


def latest_start(drug: Given) -> date:
    """The last day on which it may have been begun."""
    if not drug.month_only:
        return drug.start
    last = drug.start.replace(day=calendar.monthrange(drug.start.year, drug.start.month)[1])
    return max(drug.start, min(last, drug.given_to or NEVER))


def _progressed_on_first_line(patient: Patient, rules: Rules) -> bool:
    """Within 6 months of endocrine therapy alone, before the CDK4/6 inhibitor."""
    first = next((line for line in lines(patient, rules) if line.number == 1), None)
    if first is None or patient.advanced is None:
        return False
    before = patient.index or patient.advanced
    if first.index or first.start >= before or any(drug.kind != "endocrine" for drug, _ in first.drugs):
        return False
    limit = min(before, months_later(first.start, int(rules.parameters["first_line_resistance_months"])))
    return any(first.start < day <= limit for day in progressions(patient))


def months_later(day: date, months: int) -> date:
    """The same day of the month `months` later, or that month's last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


# ---- Eras, by OHDSI's rules
@dataclass(frozen=True)
class Era:
    """One era: its days, how many exposures or occurrences it holds, and for drugs the days without any."""

    start: date
    end: date
    count: int
    gap_days: int


def eras(exposures: Iterable[tuple[date, date]], gap: int) -> list[Era]:
    """The eras of one person and concept: exposures (first day, last day) at most `gap` days apart belong together."""
    found: list[list[tuple[date, date]]] = []
    for start, end in sorted(exposures):
        if found and (start - max(last for _, last in found[-1])).days <= gap:
            found[-1].append((start, end))
        else:
            found.append([(start, end)])
    return [
        Era(
            era[0][0],
            max(end for _, end in era),
            len(era),
            (max(end for _, end in era) - era[0][0]).days - _covered(era),
        )
        for era in found
    ]


def _covered(exposures: Sequence[tuple[date, date]]) -> int:
    """The days from first to last day of each stretch of exposures that overlap or touch."""
    total, start, end = 0, exposures[0][0], exposures[0][1]
    for first, last in exposures[1:]:
        if first > end:
            total, start, end = total + (end - start).days, first, last
        else:
            end = max(end, last)
    return total + (end - start).days
