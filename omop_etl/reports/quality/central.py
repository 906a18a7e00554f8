"""The checks that need more than one site, or more than one submission: funnel, recency, duplicates, drift, losses, lateness.

Each rule takes what the sites sent and gives, per site, a numerator, a denominator and a verdict. The numbers stand in
thresholds.toml ([central] and the levels), the words in checks.toml (the checks with `place = "centre"`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from omop_etl.gates.definitions import Check, Definitions
from omop_etl.gates.profile import NOT_KNOWN, late
from omop_etl.reports.quality.shape import Drift, Duplicates, Funnel, FunnelLimit, FunnelPoint, Recency

# the code of each rule's check; a funnel's by the events that it counts
FUNNELS = {"progression": "C-FUNNEL-01", "death": "C-FUNNEL-02"}
RECENCY, DUPLICATE, DEATH, SHRINK, LATE = "C-CONTACT-01", "C-DUPLICATE-01", "C-DEATH-01", "C-SHRINK-01", "C-LATE-01"
LINE = "C-LINE-01"
DRIFT = {"previous": "C-DRIFT-01", "others": "C-DRIFT-02"}
_PER = 100.0  # rates are per 100 person-years
_SMALLEST = 0.5  # half a person where a category has nobody: the index is finite


@dataclass(frozen=True)
class Found:
    """What one rule says of one site."""

    site: str
    code: str
    numerator: int
    denominator: int
    verdict: str
    words: str
    variable: str = ""


@dataclass
class SiteState:
    """What the centre knows of a site: the profile of the submission that counts now, and of the one before it."""

    site: str
    extracted_to: str | None
    profile: Mapping[str, Any] | None
    previous: Mapping[str, Any] | None = None
    persons: int = 0


@dataclass
class Central:
    """The answers of all rules."""

    found: list[Found] = field(default_factory=list)
    funnels: list[Funnel] = field(default_factory=list)
    recency: list[Recency] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    duplicates: list[Duplicates] = field(default_factory=list)


def checks_by_code(defined: Definitions) -> dict[str, Check]:
    """The checks that run at the centre."""
    return {check.code: check for check in defined.at("centre") if check.central}


def central(
    sites: Sequence[SiteState],
    defined: Definitions,
    *,
    cut_off: date | None,
    twins: Sequence[tuple[str, str, int, int]] = (),
    lines: Sequence[tuple[str, int, int]] = (),
) -> Central:
    """Every rule on every site. `twins` is (site, other site, persons known at both, of them with another date of death), `lines` (site,
    persons whose lines are out of order, persons with lines)."""
    answers, checks = Central(), checks_by_code(defined)
    for measure in FUNNELS:
        _funnel(answers, sites, measure, defined, checks)
    _recency(answers, sites, defined, checks)
    _twins(answers, sites, twins, checks)
    for state in sites:
        _drift(answers, state, sites, defined)
        _shrink(answers, state, defined)
    _late(answers, sites, defined, cut_off)
    for site, n, of in lines:
        answers.found.append(Found(site, LINE, n, of, checks[LINE].verdict(n, of), f"{n} of {of} persons with lines"))
    return answers


# ------------------------------------------------------------------ the funnel


def poisson_limits(expected: float, percent: float) -> tuple[float, float]:
    """Between which counts a Poisson count with this expectation lies in `percent` of cases: exact, by the inverse distribution."""
    from scipy.stats import poisson

    tail = (1 - percent / 100) / 2
    if expected <= 0:
        return 0.0, 0.0
    return float(poisson.ppf(tail, expected)), float(poisson.ppf(1 - tail, expected))


def _funnel(
    answers: Central, sites: Sequence[SiteState], measure: str, defined: Definitions, checks: Mapping[str, Check]
) -> None:
    code, percent, least = FUNNELS[measure], defined.central["funnel_percent"], defined.central["funnel_least"]
    known = [(state.site, state.profile["follow_up"][measure]) for state in sites if state.profile]
    events = sum(one["events"] for _, one in known)
    years = sum(one["person_years"] for _, one in known)
    rate = events / years if years else None
    points: list[FunnelPoint] = []
    for site, one in known:
        expected = (rate or 0.0) * one["person_years"]
        low, high = poisson_limits(expected, percent)
        outside = -1 if one["events"] < low else 1 if one["events"] > high else 0
        judged = len(known) > 1 and expected >= least
        verdict = "WARN" if outside and judged else "PASS"
        per = _PER / one["person_years"] if one["person_years"] else 0.0
        points.append(
            {
                "site": site,
                "events": one["events"],
                "person_years": one["person_years"],
                "rate": round(one["events"] * per, 3) if per else None,
                "low": round(low * per, 3),
                "high": round(high * per, 3),
                "outside": outside if judged else 0,  # type: ignore[typeddict-item]
                "verdict": verdict,  # type: ignore[typeddict-item]
            }
        )
        words = f"{one['events']} where {low:.0f} to {high:.0f} are expected"
        found = one["events"] if verdict == "WARN" else 0
        answers.found.append(Found(site, code, found, one["events"] or round(expected), verdict, words))
    answers.funnels.append(
        {
            "code": code,
            "measure": measure,
            "title": checks[code].title,
            "rate": round(rate * _PER, 3) if rate is not None else None,
            "points": points,
            "limits": _limits(rate, [one["person_years"] for one in points], percent),
        }
    )


def _limits(rate: float | None, years: Sequence[float], percent: float) -> list[FunnelLimit]:
    """The limits from a tenth of the smallest site to a little more than the largest, for the lines of the figure."""
    if not rate or not any(years):
        return []
    low, high = max(min(one for one in years if one) / 2, 1.0), max(years) * 1.1
    found: list[FunnelLimit] = []
    for step in range(41):
        at = low + (high - low) * step / 40
        inner, outer = poisson_limits(rate * at, 95.0), poisson_limits(rate * at, percent)
        found.append(
            {
                "person_years": round(at, 2),
                "low_95": round(inner[0] * _PER / at, 3),
                "high_95": round(inner[1] * _PER / at, 3),
                "low_998": round(outer[0] * _PER / at, 3),
                "high_998": round(outer[1] * _PER / at, 3),
            }
        )
    return found


# ------------------------------------------------------------------ recency, lateness, losses


def _recency(answers: Central, sites: Sequence[SiteState], defined: Definitions, checks: Mapping[str, Check]) -> None:
    months = int(defined.words["recency_months"])
    for state in sites:
        if not state.profile:
            continue
        one = state.profile["recency"]
        n = late(one, months)
        verdict = checks[RECENCY].verdict(n, one["alive"])
        low, middle, high = one["quartiles"]
        answers.recency.append(
            {
                "site": state.site,
                "patients": one["alive"] + one["dead"],
                "dead": one["dead"],
                "alive": one["alive"],
                "late": n,
                "late_share": n / one["alive"] if one["alive"] else None,
                "verdict": verdict,  # type: ignore[typeddict-item]
                "median_months": middle,
                "quartiles_months": (low, high) if low is not None else None,
                "histogram": one["histogram"],
            }
        )
        answers.found.append(Found(state.site, RECENCY, n, one["alive"], verdict, f"{n} of {one['alive']} who live"))


def _late(answers: Central, sites: Sequence[SiteState], defined: Definitions, cut_off: date | None) -> None:
    """How many days before the cut-off (or the newest site's extraction, where that is earlier) a site's data end."""
    ends = {state.site: date.fromisoformat(state.extracted_to) for state in sites if state.extracted_to}
    if not ends:
        return
    newest = max(ends.values())
    until = min(newest, cut_off) if cut_off else newest
    most = int(defined.central["late_days"])
    for site, end in ends.items():
        days = max((until - end).days, 0)
        verdict = "WARN" if days > most else "PASS"
        answers.found.append(
            Found(site, LATE, days if verdict == "WARN" else 0, max(days, most), verdict, f"{days} days")
        )


def _shrink(answers: Central, state: SiteState, defined: Definitions) -> None:
    if not state.profile or not state.previous:
        return
    now, before = int(state.profile["analysable"]), int(state.previous["analysable"])
    lost = max(before - now, 0)
    verdict = "WARN" if before and 100 * lost / before > defined.central["shrink_percent"] else "PASS"
    words = f"{now} patients on a CDK4/6 inhibitor, {before} before"
    answers.found.append(Found(state.site, SHRINK, lost, before, verdict, words))


# ------------------------------------------------------------------ two sites


def _twins(
    answers: Central,
    sites: Sequence[SiteState],
    twins: Sequence[tuple[str, str, int, int]],
    checks: Mapping[str, Check],
) -> None:
    for site, other, persons, _ in twins:
        answers.duplicates.append({"site": site, "other": other, "persons": persons})
    for state in sites:
        own = [one for one in twins if state.site in one[:2]]
        for code, at in ((DUPLICATE, 2), (DEATH, 3)):
            n = sum(int(one[at]) for one in own)
            verdict = checks[code].verdict(n, max(state.persons, n))
            answers.found.append(Found(state.site, code, n, max(state.persons, n), verdict, f"{n} persons"))


# ------------------------------------------------------------------ drift


def stability(here: Mapping[str, float], there: Mapping[str, float]) -> tuple[float, float]:
    """How far two distributions of counts lie apart: the population stability index, and how often chance alone gives as much
    (chi-square of the two rows of counts). A category that nobody has on one side counts half a person.

    >>> stability({"a": 50, "b": 50}, {"a": 500, "b": 500})[0]
    0.0
    """
    names = sorted(name for name in {**here, **there} if here.get(name, 0) + there.get(name, 0))
    n, m = sum(here.values()), sum(there.values())
    if not n or not m or len(names) < 2:
        return 0.0, 1.0
    index = 0.0
    for name in names:
        p, q = max(here.get(name, 0), _SMALLEST) / n, max(there.get(name, 0), _SMALLEST) / m
        index += (p - q) * math.log(p / q)
    from scipy.stats import chi2_contingency

    table = [[side.get(name, 0) for name in names] for side in (here, there)]
    return round(index, 4), float(chi2_contingency(table, correction=False).pvalue)


def _drift(answers: Central, state: SiteState, sites: Sequence[SiteState], defined: Definitions) -> None:
    if not state.profile:
        return
    for variable, counts in state.profile["variables"].items():
        if state.previous:
            _moved(
                answers,
                state.site,
                variable,
                "previous",
                counts,
                state.previous["variables"].get(variable, {}),
                defined,
            )
        others: dict[str, int] = {}
        for other in sites:
            if other.site != state.site and other.profile:
                for name, n in other.profile["variables"].get(variable, {}).items():
                    others[name] = others.get(name, 0) + n
        _moved(answers, state.site, variable, "others", counts, others, defined)


def _moved(
    answers: Central,
    site: str,
    variable: str,
    against: str,
    here: Mapping[str, int],
    there: Mapping[str, int],
    defined: Definitions,
) -> None:
    bounds, n, m = defined.central, sum(here.values()), sum(there.values())
    if min(n, m) < bounds["drift_least"]:
        return
    index, p_value = stability(here, there)
    moved = index > bounds["drift_index"] and p_value < bounds["drift_p"]
    reported = against == "others"
    verdict = "WARN" if moved and not reported else "PASS"
    answers.drift.append(
        {
            "site": site,
            "code": f"{DRIFT[against]}-{variable}",
            "variable": variable,
            "against": against,  # type: ignore[typeddict-item]
            "index": index,
            "p_value": float(f"{p_value:.3g}"),
            "verdict": verdict,  # type: ignore[typeddict-item]
            "here": {name: round(count / n, 4) for name, count in here.items()},
            "there": {name: round(count / m, 4) for name, count in there.items()},
            "n_here": n,
            "n_there": m,
        }
    )
    words = f"{variable}: index {index:.2f}, by chance in {p_value:.2g}; not known {_share(here)} here, {_share(there)} there"
    answers.found.append(Found(site, DRIFT[against], n if moved else 0, n, verdict, words, variable))


def _share(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{100 * counts.get(NOT_KNOWN, 0) / total:.0f} %" if total else "–"
