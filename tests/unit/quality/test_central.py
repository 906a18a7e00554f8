"""The rules of the centre: each finds what is planted for it, none speaks where there is nothing; the limits are exact."""

import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omop_etl.gates.definitions import definitions
from omop_etl.reports.quality.central import Central, SiteState, central, poisson_limits, stability

CUT_OFF = date(2025, 1, 1)


def profile(
    *,
    progressions: int = 30,
    deaths: int = 10,
    years: float = 100.0,
    analysable: int = 60,
    months: list[int] | None = None,
    er: dict[str, int] | None = None,
) -> dict[str, Any]:
    histogram = [0] * 37
    for month in months or [1] * 40:
        histogram[month] += 1
    return {
        "analysable": analysable,
        "variables": {"er": er or {"50-100 %": 50, "below 1 %": 2, "not known": 3}},
        "follow_up": {
            "progression": {"events": progressions, "person_years": years},
            "death": {"events": deaths, "person_years": years},
        },
        "recency": {"alive": sum(histogram), "dead": deaths, "histogram": histogram, "quartiles": [1.0, 2.0, 3.0]},
    }


def sites(**changed: Any) -> list[SiteState]:
    """Six sites that are alike; `changed` is of the first."""
    states = [SiteState(f"site{n}", "2025-01-01", profile(), None, 60) for n in range(1, 7)]
    for key, value in changed.items():
        setattr(states[0], key, value)
    return states


def broken(answers: Central) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in answers.found:
        if one.verdict != "PASS":
            found.setdefault(one.site, set()).add(one.code)
    return found


def run(states: list[SiteState], **more: Any) -> Central:
    return central(states, definitions(), cut_off=CUT_OFF, **more)


def test_sites_that_are_alike_raise_nothing() -> None:
    answers = run(sites(previous=profile()))
    assert broken(answers) == {}
    assert {funnel["measure"] for funnel in answers.funnels} == {"progression", "death"}
    assert len(answers.funnels[0]["points"]) == 6
    assert len(answers.recency) == 6


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"profile": profile(progressions=6)}, "C-FUNNEL-01"),
        ({"profile": profile(progressions=70)}, "C-FUNNEL-01"),
        ({"profile": profile(deaths=0)}, "C-FUNNEL-02"),
        ({"profile": profile(months=[1] * 30 + [9] * 6)}, "C-CONTACT-01"),
        ({"extracted_to": "2024-09-01"}, "C-LATE-01"),
        ({"previous": profile(analysable=80)}, "C-SHRINK-01"),
        ({"previous": profile(er={"50-100 %": 5, "not known": 50})}, "C-DRIFT-01"),
    ],
)
def test_each_rule_finds_what_is_planted_and_only_there(changed: dict[str, Any], code: str) -> None:
    assert broken(run(sites(**changed))) == {"site1": {code}}


def test_another_mix_of_patients_is_shown_and_no_warning() -> None:
    answers = run(sites(profile=profile(er={"50-100 %": 5, "not known": 50})))
    assert broken(answers) == {}
    found = [one for one in answers.found if one.code == "C-DRIFT-02" and one.numerator]
    assert [one.site for one in found] == ["site1"]
    assert {one["against"] for one in answers.drift} == {"others"}


def test_what_is_few_is_not_judged() -> None:
    few = profile(progressions=2, deaths=1, years=3.0, analysable=4, er={"50-100 %": 1, "not known": 3}, months=[1] * 3)
    assert broken(run(sites(profile=few, previous=few))) == {}
    assert (
        broken(
            central([SiteState("one", "2025-01-01", profile(progressions=500), None, 9)], definitions(), cut_off=None)
        )
        == {}
    )


def test_two_sites_with_one_patient() -> None:
    answers = run(sites(), twins=[("site2", "site5", 3, 0), ("site2", "site6", 2, 1)])
    assert broken(answers) == {
        "site2": {"C-DUPLICATE-01", "C-DEATH-01"},
        "site5": {"C-DUPLICATE-01"},
        "site6": {"C-DUPLICATE-01", "C-DEATH-01"},
    }
    assert [one["persons"] for one in answers.duplicates] == [3, 2]


def test_lines_out_of_order() -> None:
    assert broken(run(sites(), lines=[("site1", 0, 40), ("site2", 1, 40)])) == {"site2": {"C-LINE-01"}}


def test_a_site_without_a_profile_is_left_out_and_stops_nobody() -> None:
    states = sites(profile=None, previous=profile())
    answers = run(states)
    assert broken(answers) == {}
    assert {point["site"] for point in answers.funnels[0]["points"]} == {f"site{n}" for n in range(2, 7)}


@given(st.floats(0.1, 5_000), st.sampled_from([95.0, 99.8]))
def test_the_limits_hold_what_they_say(expected: float, percent: float) -> None:
    """Exact: between the limits lies at least that share, and one count narrower on either side would not leave both tails."""
    low, high = poisson_limits(expected, percent)
    assert low <= expected <= high + 1
    tail = (1 - percent / 100) / 2
    assert cumulative(int(low) - 1, expected) <= tail + 1e-9
    assert cumulative(int(high), expected) >= 1 - tail - 1e-9
    assert cumulative(int(high) - 1, expected) <= 1 - tail + 1e-9


def cumulative(count: int, expected: float) -> float:
    """P(X <= count) by summing the terms: another way than the library's."""
    if count < 0:
        return 0.0
    return math.fsum(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(count + 1))


groups = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 400), min_size=2)


@given(groups, groups)
def test_the_index_is_a_distance(here: dict[str, int], there: dict[str, int]) -> None:
    index, p_value = stability(here, there)
    assert index >= 0
    assert 0 <= p_value <= 1
    assert index == pytest.approx(stability(there, here)[0], abs=1e-3)
    if sum(here.values()):
        assert stability(here, here)[0] == 0
