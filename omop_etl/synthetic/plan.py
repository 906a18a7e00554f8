"""Which humans go to which sites, in which role, and how each site writes. Drawn once, before any site is generated."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from omop_etl.synthetic.history import Human
from omop_etl.synthetic.parameters import USUAL, Parameters, Scenario

WAYS = ("files", "server", "bulk", "tables", "hl7v2")  # how a site's data come: hl7v2 with the rest as tables
FHIR_WAYS = frozenset(
    ["files", "server", "bulk"]
)  # a server's resources lie in files here: nothing else is the same everywhere
MIXED = "mixed"  # each site in the way that its profile names

SHARE_OF_SCENARIOS = 0.25  # in a run too small for the quotas, at most so many patients are scenarios


@dataclass(frozen=True)
class Registration:
    """A human registered at a site. `role` single, first, second; `kind` is that of the pair (None: one site)."""

    number: int
    human: Human
    role: str = "single"
    kind: str | None = None
    pair: int | None = None


@dataclass
class SitePlan:
    """A site: its id, its kind (clean, ordinary, blocked), its profile, the day it extracts, its patients."""

    id: str
    kind: str
    profile: dict[str, Any]
    extracted: date
    registrations: list[Registration] = field(default_factory=list)

    @property
    def way(self) -> str:
        """How its data come: one of WAYS."""
        return str(self.profile["way"])


def plan_sites(
    sites: int, patients: int, seed: int, dirty: bool, parameters: Parameters, formats: str = "files"
) -> list[SitePlan]:
    """Every site with its registrations; `patients` counts registrations, so a human of two sites counts twice."""
    rng = random.Random(f"{seed}/plan")
    plans = [_site(place, sites, rng, dirty, parameters) for place in range(sites)]
    if formats != MIXED:
        for plan in plans:
            plan.profile = plan.profile | {"way": formats}
    sizes = _sizes(plans, patients, parameters)
    free = [(place, number) for place, size in enumerate(sizes) for number in range(size)]
    open_places = [slot for slot in free if plans[slot[0]].kind != "blocked"]
    rng.shuffle(open_places)
    taken: dict[tuple[int, int], Registration] = {}
    keys = (f"H{number:06}" for number in range(1, patients + 1))
    if sites > 1:
        _pair_up(plans, open_places, taken, keys, patients, rng, parameters)
    _place_scenarios(plans, open_places, taken, keys, patients, rng, parameters)
    for slot in free:
        if slot not in taken:
            taken[slot] = Registration(slot[1], Human(next(keys), USUAL, tidy=plans[slot[0]].kind == "clean"))
    for slot in free:
        plans[slot[0]].registrations.append(taken[slot])
    return plans


def _site(place: int, sites: int, rng: random.Random, dirty: bool, parameters: Parameters) -> SitePlan:
    profiles = parameters.tables["profile"]
    middle = profiles[1:-1]
    kind = "ordinary"
    if sites > 1 and place == 0:
        kind = "clean"
    elif dirty and sites > 2 and place == sites - 1:
        kind = "blocked"
    shift = 0 if sites == 1 else 1
    profile = {"clean": profiles[0], "blocked": profiles[-1]}.get(kind) or middle[(place - shift) % len(middle)]
    if not dirty:
        profile = profile | {"local": []}
    low, high = parameters["hospital"]["days_after_cut_off"]
    late = rng.randint(low, high)
    extracted = parameters["study"]["cut_off"] + timedelta(days=0 if kind == "clean" else late)
    return SitePlan(f"site{place + 1:02}", kind, profile, extracted)


def _sizes(plans: list[SitePlan], patients: int, parameters: Parameters) -> list[int]:
    """Unequal sizes that add up, each at least 1: geometric from the largest to the smallest, by largest remainder."""
    table = parameters["hospital"]
    steps = max(len(plans) - 1, 1)
    # an odd stride mixes large and small; the clean site is of middling size
    order = [(place * 5 + len(plans) // 2) % len(plans) for place in range(len(plans))]
    if len(set(order)) < len(plans):
        order = list(range(len(plans)))
    weights = [table["size_ratio"] ** (-place / steps) for place in order]
    for place, plan in enumerate(plans):
        if plan.kind == "blocked":
            weights[place] = table["blocked_share"] * min(weights)
    spare = patients - len(plans)
    exact = [spare * weight / sum(weights) for weight in weights]
    sizes = [int(value) for value in exact]
    rest = sorted(range(len(plans)), key=lambda place: (sizes[place] - exact[place], place))
    for place in rest[: spare - sum(sizes)]:
        sizes[place] += 1
    return [size + 1 for size in sizes]


def _pair_up(
    plans: list[SitePlan],
    slots: list[tuple[int, int]],
    taken: dict[tuple[int, int], Registration],
    keys: Iterator[str],
    patients: int,
    rng: random.Random,
    parameters: Parameters,
) -> None:
    """Humans of two sites: two open places of different sites each; doubtful pairs never at the clean site."""
    table = parameters["pair"]
    years = table["birth_years"]
    number = 0
    for kind, per_300 in table["pairs_per_300"].items():
        count = max(1, round(per_300 * patients / 300)) if patients >= 60 else 0
        for _ in range(count):
            allowed = [slot for slot in slots if kind == "linked" or plans[slot[0]].kind != "clean"]
            first = allowed[0] if allowed else None
            second = next((slot for slot in allowed if first and slot[0] != first[0]), None)
            if first is None or second is None:
                return
            birth = None
            if kind == "link-review":  # a birth month that no one else has
                birth = date(years[number // 12 % len(years)], number % 12 + 1, rng.randint(1, 28))
                number += 1
            span = (table["index"]["from"], table["index"]["to"])
            course = "long-then-death" if kind == "deaths-conflict" else "long"
            scenario = Scenario(f"pair: {kind}", disease="de-novo", course=course)
            tidy = "clean" in (plans[first[0]].kind, plans[second[0]].kind)
            human = Human(next(keys), scenario, birth, span, tidy)
            pair = len({entry.pair for entry in taken.values() if entry.pair is not None}) + 1
            for slot, role in ((first, "first"), (second, "second")):
                taken[slot] = Registration(slot[1], human, role, kind, pair)
                slots.remove(slot)


def _place_scenarios(
    plans: list[SitePlan],
    slots: list[tuple[int, int]],
    taken: dict[tuple[int, int], Registration],
    keys: Iterator[str],
    patients: int,
    rng: random.Random,
    parameters: Parameters,
) -> None:
    """Each scenario as often as its quota says, at open places; what the clean site must not have goes elsewhere."""
    most = len(slots) if patients >= 300 else int(len(slots) * SHARE_OF_SCENARIOS)
    wanted: list[Scenario] = []
    for scenario in parameters.scenarios:
        wanted += [scenario] * max(1, round(scenario.per_300 * patients / 300))
    if len(wanted) > most:  # spread what fits over the whole list
        wanted = [wanted[place * len(wanted) // most] for place in range(most)]
    for scenario in wanted:
        fit = [slot for slot in slots if scenario.clean or plans[slot[0]].kind != "clean"]
        if not fit:
            continue
        slot = rng.choice(fit)
        slots.remove(slot)
        taken[slot] = Registration(slot[1], Human(next(keys), scenario, tidy=plans[slot[0]].kind == "clean"))
