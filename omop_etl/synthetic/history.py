"""One human from beginning to end, and what a hospital can know of it on a given day."""

import copy
import random
from dataclasses import dataclass, replace
from datetime import date, timedelta

from omop_etl.synthetic.calibration import Calibration
from omop_etl.synthetic.course import Course, mark_gap
from omop_etl.synthetic.dates import add_months, between, day_between, days_after
from omop_etl.synthetic.disease import draw_disease, draw_person, pick
from omop_etl.synthetic.model import History
from omop_etl.synthetic.parameters import CRITERIA, Parameters, Scenario
from omop_etl.synthetic.samples import draw_samples
from omop_etl.synthetic.treatment import Prescriber, before_index, draw_index_drug, draw_lead

HORIZON = timedelta(days=180)  # histories run on after the cut-off, as hospitals extract later


@dataclass(frozen=True)
class Human:
    """Who is to be simulated: a key and the scenario.

    `birth` and `span` (of the index day) are for humans of two sites. `tidy`: of the clean site, so without what makes a
    record incomplete (a histology that no code tells, no metastatic site, loss to follow-up, a missed assessment).
    """

    key: str
    scenario: Scenario
    birth: date | None = None
    span: tuple[date, date] | None = None
    tidy: bool = False


def simulate(human: Human, seed: int, parameters: Parameters, calibration: Calibration) -> History:
    """The history of one human; the same for every site that asks."""
    rng = random.Random(f"{seed}/{human.key}")
    history = History(human.key, human.scenario, "female", date.min, _index_day(human, rng, parameters), human.tidy)
    draw_person(history, rng, parameters, human.birth)
    if human.scenario.start is None:
        draw_lead(history, rng, parameters)
    draw_disease(history, rng, parameters)
    horizon = parameters["study"]["cut_off"] + HORIZON
    if history.scenario.start is None:
        line = before_index(history, rng, parameters)
        draw_index_drug(history, rng, parameters, calibration)
        draw_samples(history, rng, parameters)
        Course(history, rng, parameters, calibration, horizon).run(line)
        if rng.random() < parameters["course"]["assessment_gap"] and not human.tidy:
            mark_gap(history, rng, parameters["study"]["assessment_gap_days"])
    else:
        draw_samples(history, rng, parameters)
        _not_started(history, rng, parameters)
    _sort(history)
    history.answers = _answers(history, parameters)
    return history


def _index_day(human: Human, rng: random.Random, parameters: Parameters) -> date:
    study, span = parameters["study"], human.scenario.index
    year = int(pick(rng, parameters["index_year"]))
    day = day_between(rng, date(year, 1, 1), min(date(year, 12, 31), study["last_index"]))
    if "on" in span:
        return span["on"]
    if "from" in span:
        return day_between(rng, span["from"], span["to"])
    if human.span is not None:
        return day_between(rng, *human.span)
    if human.scenario.start == "candidate" or human.scenario.start == "candidate-on-et":
        return study["cut_off"] - timedelta(days=between(rng, 40, 200))
    return day


def _not_started(history: History, rng: random.Random, parameters: Parameters) -> None:
    """Registered, but no CDK4/6 inhibitor: follow-up visits, and for some endocrine therapy alone."""
    history.chosen = None
    prescriber = Prescriber(history, rng, parameters)
    if history.scenario.start == "candidate-on-et":
        prescriber.give("letrozole", history.anchor, None, 1)
    if history.menopause == "pre":
        prescriber.give(pick(rng, parameters["partner"]["lhrh"]), history.anchor, None, 1)
    day = days_after(history.anchor, 30)
    while day < parameters["study"]["cut_off"]:
        history.visits.append(day)
        day = days_after(day, between(rng, 80, 110))


def _sort(history: History) -> None:
    history.assessments.sort(key=lambda assessment: assessment.day)
    history.progressions.sort(key=lambda progression: progression.day)
    history.lines.sort(key=lambda line: line.number)
    history.segments.sort(key=lambda segment: (segment.start, segment.drug))


def _answers(history: History, parameters: Parameters) -> dict[str, str]:
    """The ten answers: the ordinary ones of this history, and those that its scenario says differ."""
    answers = dict.fromkeys(CRITERIA, "UNKNOWN no-index")
    answers |= {"advanced-disease": "PASS advanced-dated", "one-person": "PASS single-site"}
    if history.index is not None:
        lead_in = any(
            segment.line == 1 and segment.start < history.index and history.scenario.before in (None, "lead-in-90")
            for segment in history.segments
        )
        answers |= {
            "index": "PASS cdk46-started",
            "first-line": "PASS et-lead-in" if lead_in else "PASS first-line",
            "with-et": "PASS with-et",
            "no-adjuvant-cdk46": "PASS no-adjuvant-cdk46",
            "follow-up": "PASS potential-follow-up",
        }
        if history.chosen is not None:
            sample = history.samples[history.chosen]
            low = max(sample.er or 0, sample.pgr or 0) <= 10
            answers |= {
                "receptor-sample": f"PASS sample-{sample.origin}",
                "hr-positive": "PASS hr-low" if low else "PASS hr-positive",
                "her2-negative": {
                    "0": "PASS ihc-0",
                    "1+": "PASS ihc-1",
                    "2+": "PASS ihc-2-not-amplified",
                }.get(sample.ihc or "", ""),
            }
    return answers | history.scenario.expect


def follow_up_day(history: History, parameters: Parameters) -> date | None:
    """The day on which criterion 9 asks the cut-off to be reached."""
    return add_months(history.index, parameters["study"]["follow_up_months"]) if history.index else None


def known(history: History, first: date, last: date) -> History:
    """What is known of the events from `first` to `last` (both included); what goes on at `last` has no end yet.

    Diagnoses and samples before `first` are kept: they are history that every hospital writes down.
    """
    seen = copy.copy(history)
    seen.diagnoses = [item for item in history.diagnoses if item.day <= last]
    seen.samples = [item for item in history.samples if item.day <= last]
    seen.segments = [
        replace(
            item,
            start=max(item.start, first),
            end=item.end if item.end and item.end <= last else None,
            stop_reason=item.stop_reason if item.end and item.end <= last else None,
        )
        for item in history.segments
        if item.start <= last and (item.end is None or item.end >= first)
    ]
    seen.assessments = [item for item in history.assessments if first <= item.day <= last]
    seen.progressions = [item for item in history.progressions if first <= item.day <= last]
    seen.operations = [
        replace(item, last=item.last if item.last and item.last <= last else None)
        for item in history.operations
        if first <= item.day <= last
    ]
    seen.visits = [item for item in history.visits if first <= item <= last]
    seen.stays = [item for item in history.stays if first <= item[0] and item[1] <= last]
    seen.lines = [
        replace(item, end=item.end if item.end and item.end <= last else None)
        for item in history.lines
        if item.start <= last
    ]
    seen.death = history.death if history.death and history.death <= last else None
    return seen
