"""The compiler against the specification's processing model, on views and resources that Hypothesis makes up."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.views import evaluate
from tests import views_helpers as model

# for each kind of node: single values, collections, and the paths to other nodes with their kind
LANGUAGE: dict[str, tuple[list[str], list[str], list[tuple[str, str]]]] = {
    "Patient": (
        ["id", "gender", "maritalStatus.text"],
        ["name.family", "name.given", "contact.telecom.value", "contact.name.family"],
        [
            ("name", "HumanName"),
            ("contact", "contact"),
            ("telecom", "ContactPoint"),
            ("contact.telecom", "ContactPoint"),
            ("name.given", "text"),
        ],
    ),
    "HumanName": (["use", "family"], ["given"], [("given", "text")]),
    "contact": (
        ["gender", "name.family"],
        ["telecom.value", "name.given"],
        [("telecom", "ContactPoint"), ("name", "HumanName"), ("name.given", "text")],
    ),
    "ContactPoint": (["system", "value"], [], []),
    "text": (["$this"], [], []),
}
words = st.sampled_from(["a", "b", "c"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


points = st.lists(some(system=words, value=words), min_size=1, max_size=2)
human_names = some(use=words, family=words, given=st.lists(words, min_size=1, max_size=2))
patients = st.fixed_dictionaries(
    {"resourceType": st.just("Patient"), "id": words},
    optional={
        "gender": words,
        "maritalStatus": some(text=words),
        "name": st.lists(human_names, min_size=1, max_size=3),
        "telecom": points,
        "contact": st.lists(some(gender=words, name=human_names, telecom=points), min_size=1, max_size=2),
    },
)


@st.composite
def selects(
    draw: st.DrawFn, kind: str, prefix: str, depth: int, columns: int | None = None, first: int = 0
) -> dict[str, Any]:
    """A select over a node; with `columns`, one that has just so many text columns, numbered from `first` (a branch)."""
    singles, lists, onward = LANGUAGE[kind]
    made: dict[str, Any] = {}
    if onward and draw(st.booleans()):
        path, kind = draw(st.sampled_from(onward))
        made[draw(st.sampled_from(["forEach", "forEachOrNull"]))] = path
        singles, lists, onward = LANGUAGE[kind]
    single = st.sampled_from([*singles, "'literal'"]).map(lambda path: {"path": path, "type": "string"})
    if columns is not None:
        own = draw(st.integers(0, columns))
        index = st.just({"path": "%rowIndex", "type": "string"})
        made["column"] = [draw(single | index) | {"name": f"{prefix}u{first + n}"} for n in range(own)]
        if own < columns and depth:
            many = draw(st.integers(1, 2))
            inner = [draw(selects(kind, prefix, depth - 1, columns - own, first + own)) for _ in range(many)]
            return made | ({"unionAll": inner} if draw(st.booleans()) else {"select": inner[:1]})
        made["column"] += [draw(single) | {"name": f"{prefix}u{first + n}"} for n in range(own, columns)]
        return made
    several = st.sampled_from(lists or singles).map(lambda path: {"path": path, "type": "string", "collection": True})
    index = st.just({"path": "%rowIndex", "type": "integer"})
    made["column"] = [
        column | {"name": f"{prefix}c{n}"}
        for n, column in enumerate(draw(st.lists(st.one_of(single, several, index), min_size=1, max_size=3)))
    ]
    if depth:
        count = draw(st.integers(0, 2))
        made["select"] = [draw(selects(kind, f"{prefix}s{n}", depth - 1)) for n in range(count)]
        if draw(st.booleans()):
            width = draw(st.integers(1, 2))
            branches = draw(st.integers(1, 3))
            made["unionAll"] = [draw(selects(kind, prefix, 1, width)) for _ in range(branches)]
    return made


def same(view: dict[str, Any], resources: list[dict[str, Any]]) -> None:
    found = evaluate(view, resources)
    expected = [row for resource in resources for row in model.rows({"select": view["select"]}, resource)]
    order = [name for select in view["select"] for name in model.names(select)]
    assert sorted(json.dumps(row, sort_keys=True) for row in found) == sorted(
        json.dumps(row, sort_keys=True) for row in expected
    )
    assert all(list(row) == order for row in found)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(selects("Patient", "p", 2), min_size=1, max_size=2), st.lists(patients, min_size=1, max_size=3))
def test_nested_selects_and_unions(made: list[dict[str, Any]], resources: list[dict[str, Any]]) -> None:
    renamed = [json.loads(json.dumps(one).replace('"name": "p', f'"name": "p{n}')) for n, one in enumerate(made)]
    same({"resource": "Patient", "select": renamed}, resources)


entries = st.deferred(
    lambda: st.fixed_dictionaries(
        {"linkId": words},
        optional={
            "item": st.lists(entries, max_size=2),
            "answer": st.lists(some(valueString=words, item=st.lists(entries, max_size=2)), max_size=2),
        },
    )
)
ways = st.sampled_from([["item"], ["item", "answer.item"], ["answer.item", "item"]])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(entries, max_size=2), ways, ways, st.sampled_from(["plain", "inside", "around", "union"]))
def test_repeat(found: list[dict[str, Any]], way: list[str], other: list[str], form: str) -> None:
    column = [{"name": "link", "path": "linkId"}, {"name": "place", "path": "%rowIndex", "type": "integer"}]
    second = [{"name": "answer", "path": "linkId"}, {"name": "second", "path": "%rowIndex", "type": "integer"}]
    select: dict[str, Any] = {"repeat": way, "column": column}
    if form == "inside":
        select["select"] = [{"forEachOrNull": "answer", "column": second[1:]}]
    elif form == "around":
        select = {"forEach": "item", "column": column, "select": [{"repeat": other, "column": second}]}
    elif form == "union":
        select = {"unionAll": [select, {"repeat": other, "column": column}]}
    resources = [{"resourceType": "QuestionnaireResponse", "id": str(n), "item": found} for n in range(2)]
    same(
        {"resource": "QuestionnaireResponse", "select": [{"column": [{"name": "id", "path": "id"}]}, select]}, resources
    )
