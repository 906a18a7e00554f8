"""The newest word stands, whatever the order: the folder against the obvious way, which sorts first and then applies."""

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.hl7v2.folding import Folder
from fhir_adapters.hl7v2.reading import Told

TIMES = ["", "2023-01-01T00:00:00Z", "2023-01-02T00:00:00Z", "2023-01-03T00:00:00Z"]
ELEMENTS: dict[str, list[dict[str, Any] | None]] = {
    "status": [{"status": "in-progress"}, {"status": "finished"}],
    "status-of-class": [{"status": "planned"}],
    "start": [{"period": {"start": "2023-01-01"}}, {"period": {"start": "2023-01-02"}}, None],
    "end": [{"period": {"end": "2023-01-09"}}, None],
    "class": [{"class": {"code": "IMP"}}, {"class": {"code": "AMB"}}],
}
ONE = st.tuples(
    st.booleans(),
    st.sampled_from(TIMES),
    st.sampled_from(["a", "b"]),
    st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in ELEMENTS.items()}),
)
Message = tuple[bool, str, str, dict[str, dict[str, Any] | None]]


def plainly(messages: list[tuple[int, Message]]) -> dict[str, dict[str, Any]]:
    """Sort by who tells, when, and place; apply one after the other."""
    held: dict[str, dict[str, Any]] = {}
    for _, (_, _, name, elements) in sorted(messages, key=lambda one: (one[1][0], one[1][1], one[0])):
        held.setdefault(name, {}).update(elements)
    resources = {}
    for name, elements in held.items():
        resource: dict[str, Any] = {}
        for element in ("status-of-class", "status", "class"):
            resource |= elements.get(element) or {}
        periods = [(elements.get(element) or {}).get("period", {}) for element in ("start", "end")]
        if any(periods):
            resource["period"] = periods[0] | periods[1]
        resource.setdefault("status", "unknown")
        resource.setdefault("class", {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"})
        touched = max(one[1][1] for one in messages if one[1][2] == name)
        resources[name] = resource | ({"meta": {"lastUpdated": touched}} if touched else {})
    return resources


@settings(max_examples=150)
@given(st.lists(ONE, max_size=8), st.randoms(use_true_random=False))
def test_in_any_order_the_same(messages: list[Message], chance: Any) -> None:
    placed = list(zip(count(1), messages))
    shuffled = placed.copy()
    chance.shuffle(shuffled)
    folder = Folder()
    first = 0
    for place, (master, touched, name, elements) in shuffled:
        first += folder.take([Told("Encounter", name, elements)], master=master, touched=touched, place=place, new=True)
    found = {one.pop("id"): one for one in folder.resources()}
    assert first == len(found)
    for resource in found.values():
        assert resource.pop("resourceType") == "Encounter"
    assert found == plainly(placed)
