"""Lines and endpoints as they truly are, stated from how a history was built and not from what a hospital wrote down.

Every segment carries the line for which the generator gave it; the windows are those of synthetic.toml, `[study]`, which
restates the protocol, so that the truth does not lean on the code under test.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from omop_etl.synthetic.model import History, Line, Segment
from omop_etl.synthetic.parameters import Parameters

NO_LINE = ("lhrh", "bone")
PARTNERS = ("ai", "serm", "serd")


@dataclass(frozen=True)
class TrueLine:
    """A line: what began it (`regimen`) and all that was given in it (`drugs`), each sorted."""

    number: int
    start: date
    end: date | None
    regimen: tuple[str, ...]
    drugs: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class TrueEndpoint:
    """An endpoint by its code: `event` is what happened, else `censored` says what the last day is."""

    paramcd: str
    start: date
    end: date
    event: str | None
    censored: str | None


def true_lines(history: History, parameters: Parameters) -> list[TrueLine]:
    """The lines of what is known of a history."""
    drugs = [segment for segment in history.segments if parameters["drug"][segment.drug]["class"] not in NO_LINE]
    lines = _split(history, drugs, parameters)
    found = []
    for line, following in pairwise([*lines, None]):
        assert line is not None
        before = following.start if following else date.max
        found.append(_line(line, before, drugs, history, parameters))
    return found


def _split(history: History, drugs: list[Segment], parameters: Parameters) -> list[Line]:
    """The lines by number, as the rules have them where the generator did not think of one.

    Endocrine therapy that came a day too late for the regimen begins a line of its own; so does a drug that was swapped
    after a progression; a candidate's endocrine therapy alone is a first line.
    """
    lines = sorted(history.lines, key=lambda line: line.number)
    first = min((segment for segment in drugs if segment.line > 0), key=lambda segment: segment.start, default=None)
    if not lines and first:
        lines = [Line(1, first.start, None, (first.drug,))]
    study, starts = parameters["study"], [line.start for line in lines]
    late = study["et_days_after"] + 1
    for line, before in zip(lines, [*starts[1:], date.max][: len(lines)], strict=True):
        seen: set[str] = set()
        after = line.start
        for segment in sorted(drugs, key=lambda segment: segment.start):
            if not line.start <= segment.start < before or segment.line <= 0:
                continue
            new = segment.drug not in seen and any(after < one.day <= segment.start for one in history.progressions)
            too_late = history.scenario.endocrine == "from-day-29" and line.start == history.index
            if new or (too_late and (segment.start - line.start).days == late):
                starts.append(segment.start)
                after = segment.start
            seen.add(segment.drug)
    return [Line(number, start, None, ()) for number, start in enumerate(sorted(set(starts)), 1)]


def _line(line: Line, before: date, drugs: list[Segment], history: History, parameters: Parameters) -> TrueLine:
    study = parameters["study"]
    holds_index = history.index is not None and line.start <= history.index < before
    window = (history.index if holds_index and history.index else line.start) + timedelta(days=study["et_days_after"])
    begun = [segment for segment in drugs if line.start <= segment.start < before]
    first = {segment.drug for segment in begun if segment.start <= window}
    # what was begun earlier and goes on: a lead-in, adjuvant therapy that is simply continued, a CDK4/6 inhibitor
    carried = [
        segment
        for segment in drugs
        if segment.start < line.start
        and (segment.end is None or segment.end > line.start + timedelta(days=study["et_days_after"]))
    ]
    if holds_index and not any(parameters["drug"][drug]["class"] in PARTNERS for drug in first | _names(carried)):
        assert history.index is not None
        earliest = history.index - timedelta(days=study["et_days_before"])
        carried += [
            segment
            for segment in drugs
            if segment.start < line.start
            and parameters["drug"][segment.drug]["class"] in PARTNERS
            and (segment.end is None or segment.end >= earliest)
        ]
    ends = [segment.end for segment in begun + carried]
    last = None if None in ends else max((end for end in ends if end), default=None)
    end, reason = last, None
    if last is not None:
        stopped = {segment.stop_reason for segment in begun + carried if segment.end == last and segment.stop_reason}
        reason = min((str(one) for one in stopped), default="not-recorded")
    if before != date.max and (end is None or end >= before):
        end, reason = before - timedelta(days=1), "next-line"
    if history.death and (end is None or end > history.death):
        end, reason = history.death, "death"
    return TrueLine(
        line.number,
        line.start,
        end,
        tuple(sorted(first | _names(carried))),
        tuple(sorted(_names(begun) | _names(carried))),
        reason,
    )


def _names(segments: Iterable[Segment]) -> set[str]:
    return {segment.drug for segment in segments}


def true_endpoints(
    history: History, last_activity: date, parameters: Parameters, lines: list[TrueLine]
) -> list[TrueEndpoint]:
    """Every endpoint and variant of one who began a CDK4/6 inhibitor; `last_activity` is the last day of any record."""
    if history.index is None:
        return []
    index, study = history.index, parameters["study"]
    holder = max((line for line in lines if line.start <= index), key=lambda line: line.number, default=None)
    following = next((line.start for line in lines if holder and line.number > holder.number), None)
    progression = next((one.day for one in history.progressions if one.day > index), None)
    found = []
    for gap, suffixes in ((study["assessment_gap_days"], ("RWPFS", "RWPFSNLC", "RWPFSNLE")),
                          (study["assessment_gap_sensitivity_days"], ("RWPFS180", "RWPF180C", "RWPF180E"))):  # fmt: skip
        for name, rule in zip(suffixes, ("follow", "censor", "event"), strict=True):
            found.append(_progression_free(name, index, progression, following, rule, gap, history, study))
    beyond = _beyond(progression, holder, following, last_activity, history, study)
    if beyond is not None:
        found.append(beyond)
    table = parameters["drug"]
    # a CDK4/6 inhibitor that is another one, begun in a later line, is not that of day 0
    until, seen = date.max, {drug for drug in (holder.drugs if holder else ()) if table[drug]["class"] == "cdk46"}
    for line in lines:
        if holder and line.number > holder.number:
            if not seen & set(line.regimen):
                until = line.start
                break
            seen |= {drug for drug in line.drugs if table[drug]["class"] == "cdk46"}
    doses = [
        segment
        for segment in history.segments
        if table[segment.drug]["class"] == "cdk46" and index <= segment.start < until
    ]
    last_dose = max(doses, key=lambda segment: segment.end or date.max)
    # the last day of one dose before the next is no stop
    stopped = last_dose.end if last_dose.stop_reason else None
    chemotherapy = [x.start for x in history.segments if x.start >= index and table[x.drug]["class"] == "chemotherapy"]
    conjugate = [x.start for x in history.segments if x.start >= index and table[x.drug]["class"] == "adc"]
    for name, event, day in (
        ("RWOS", "death", None),
        ("TTD", "discontinuation", stopped),
        ("TTNT", "next-line", following),
        ("TTC", "chemotherapy", min(chemotherapy, default=None)),
        ("TTCADC", "chemotherapy", min(chemotherapy + conjugate, default=None)),
    ):
        if history.death and history.death <= (day or date.max):
            found.append(TrueEndpoint(name, index, history.death, "death", None))
        elif day:
            found.append(TrueEndpoint(name, index, day, event, None))
        else:
            found.append(TrueEndpoint(name, index, last_activity, None, "last-activity"))
    return found


def _progression_free(
    name: str,
    start: date,
    progression: date | None,
    following: date | None,
    rule: str,
    gap: int,
    history: History,
    study: dict[str, Any],
) -> TrueEndpoint:
    assert history.index is not None
    looks = sorted({one.day for one in history.assessments if one.day > history.index and one.day >= start})
    missed = [one for one, after in pairwise(looks) if (after - one).days > gap]
    if missed:
        end, why = missed[0], "gap-in-assessments"
    elif looks:
        end, why = looks[-1], "last-assessment"
    else:
        due = history.index + timedelta(days=study["first_assessment_days"])
        end, why = (history.death if history.death and history.death <= due else history.index), "never-assessed"
    begun = following if rule != "follow" and following and following <= end else None
    if progression and progression <= end and progression <= (begun or date.max):
        return TrueEndpoint(name, start, progression, "progression", None)
    if begun:
        return TrueEndpoint(name, start, begun, *(("new-line", None) if rule == "event" else (None, "new-line")))
    if history.death and history.death <= end + timedelta(days=study["death_after_assessment_days"]):
        return TrueEndpoint(name, start, history.death, "death", None)
    return TrueEndpoint(name, start, end, None, why)


def _beyond(
    progression: date | None,
    line: TrueLine | None,
    following: date | None,
    last_activity: date,
    history: History,
    study: dict[str, Any],
) -> TrueEndpoint | None:
    """From the first progression to the one at which the same drugs were stopped for good."""
    if progression is None or line is None or (following and progression >= following):
        return None
    grace = timedelta(days=study["beyond_progression_days"])
    if (line.end or last_activity) <= progression + grace:
        return None
    stops = [
        one.day for one in history.progressions if one.day > progression and line.end and line.end <= one.day + grace
    ]
    gap = study["assessment_gap_days"]
    return _progression_free("RWPFSBP", progression, min(stops, default=None), None, "follow", gap, history, study)
