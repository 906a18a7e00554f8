"""What becomes of every R4 element of the resources that the mapping reads: used, or left out with a reason. Nothing else.

accounts(flow) -> {resource: [Account]}     every element, in FHIR's order
problems(flow) -> [sentence]                what contradicts `mappings/conformance/left_out.toml`, empty when nothing does
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.knowledge import mappings_folder, table
from fhir_adapters.views.elements import Element, elements
from omop_etl.cdm import tables as cdm_tables
from omop_etl.conformance.elements import Reading, children, known, taken_apart
from omop_etl.conformance.flow import Flow, Resource
from omop_etl.conformance.queries import Origin

FILE = "conformance/left_out.toml"
ANY = "*"
_NOT_TYPES = ("kinds", "tables", "columns", "no_home", "loss")
# data types whose parts are accounted for once, for every place where they stand
DATA_TYPES = (
    "CodeableConcept",
    "Coding",
    "Identifier",
    "Meta",
    "Period",
    "Quantity",
    "Range",
    "Ratio",
    "Reference",
)


@dataclass(frozen=True)
class Reason:
    """Why an element is left out. `key` is where the reason stands: table and name."""

    kind: str
    why: str
    key: tuple[str, str]


@dataclass(frozen=True)
class Account:
    """One element. `used`: the columns of the view that read it and are used; without any there should be a `reason`."""

    path: str
    used: frozenset[Origin]
    reason: Reason | None
    only_there: bool = False


@dataclass(frozen=True)
class LeftOut:
    """The file: `kinds` of reasons, `reasons` by table and name, resource types without a home, CDM tables that are not filled,
    columns of filled ones that are, losses in general.
    """

    kinds: Mapping[str, str]
    reasons: Mapping[tuple[str, str], Reason]
    no_home: Mapping[str, Reason]
    tables: Mapping[str, str]
    columns: Mapping[str, str]
    losses: Sequence[Mapping[str, str]]

    def reason(self, owners: Sequence[tuple[str, str]]) -> Reason | None:
        """The nearest of the reasons."""
        return next((self.reasons[one] for one in owners if one in self.reasons), None)


def left_out() -> LeftOut:
    """The file in use."""
    return _left_out(mappings_folder() / FILE)


@cache
def _left_out(file: Path) -> LeftOut:
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    reasons = {
        (owner, name): _reason(text, (owner, name))
        for owner, entries in content.items()
        if owner not in _NOT_TYPES
        for names, text in entries.items()
        for name in _names(names)
    }
    no_home = {
        name: _reason(group["why"], ("no_home", name)) for group in content["no_home"] for name in group["resources"]
    }
    return LeftOut(
        content["kinds"], reasons, no_home, _each(content["tables"]), _each(content["columns"]), content["loss"]
    )


def _each(entries: Mapping[str, str]) -> dict[str, str]:
    return {name: text for names, text in entries.items() for name in _names(names)}


def _names(names: str) -> list[str]:
    return [one.strip() for one in names.split(",")]


def _reason(text: str, key: tuple[str, str]) -> Reason:
    kind, _, why = text.partition(": ")
    return Reason(kind, why, key)


def accounts(flow: Flow) -> dict[str, list[Account]]:
    """Resource type → what becomes of each element; a part of the resource's own structure is taken apart where some of it is used."""
    return {name: _of_resource(resource, flow.used(name)) for name, resource in flow.resources.items()}


def _of_resource(resource: Resource, used: frozenset[Origin]) -> list[Account]:
    by_path: dict[str, set[Origin]] = {}
    for origin in used:
        for path in resource.elements([origin]):
            by_path.setdefault(path, set()).add(origin)
    return list(_below(resource, by_path, "", resource.recipe.resource_type))


def _below(resource: Resource, by_path: Mapping[str, set[Origin]], path: str, owner: str) -> Iterator[Account]:
    type_ = resource.recipe.resource_type
    for at, one in children(type_, path):
        within = [name for name in by_path if name.startswith(f"{at}.")]
        if within and taken_apart(one.type):
            yield from _below(resource, by_path, at, one.type)
            continue
        origins = frozenset().union(*(by_path[name] for name in (at, *within) if name in by_path))
        reason = None if origins else left_out().reason(_owners(type_, at, owner, one))
        yield Account(at, origins, reason, bool(origins) and all(_only_there(resource, at, each) for each in origins))


def _owners(resource: str, path: str, owner: str, one: Element) -> list[tuple[str, str]]:
    return [(resource, path), (owner, one.name), (ANY, path), (ANY, one.name)]


def _only_there(resource: Resource, path: str, origin: Origin) -> bool:
    reading = resource.readings[origin.column]
    above = known(reading.resource, path)
    whole = bool(reading.base) and not origin.fields and above is not None and taken_apart(above.type)
    return reading.only_there or whole


def parts(flow: Flow) -> list[tuple[str, str, bool, Reason | None]]:
    """Parts of the common data types: type, part, whether some view reads it anywhere, and the reason where none does."""
    read: set[tuple[str, str]] = set()
    for resource in flow.resources.values():
        for reading in resource.readings.values():
            read |= _parts_read(reading)
    found = []
    for type_ in DATA_TYPES:
        for one in elements(type_):
            used = (type_, one.name) in read
            reason = None if used else left_out().reason([(type_, one.name), (ANY, one.name)])
            found.append((type_, one.name, used, reason))
    return found


def _parts_read(reading: Reading) -> set[tuple[str, str]]:
    found = set()
    for path in reading.paths:
        type_ = reading.resource
        for name in path:
            one = next((each for each in elements(type_) if each.name == name), None)
            if one is None:
                break
            found.add((type_, name))
            type_ = one.type
    return found


def problems(flow: Flow) -> list[str]:
    """What is not accounted for, or accounted for twice."""
    known_, said, asked = left_out(), list[str](), set[tuple[str, str]]()
    used_paths: set[tuple[str, str]] = set()
    for name, listed in accounts(flow).items():
        for one in listed:
            if not one.used and one.reason is None:
                said.append(f"{name}.{one.path}: no view reads it, or nothing is done with it, and no reason is given")
            if one.reason is not None:
                asked.add(one.reason.key)
            else:
                used_paths.add((name, one.path))
    for type_, part, used, reason in parts(flow):
        if reason is not None:
            asked.add(reason.key)
        elif not used:
            said.append(f"{type_}.{part}: no view reads it, and no reason is given")
    for owner, path in sorted(known_.reasons.keys() - asked):
        what = "the mapping uses it" if (owner, path) in used_paths else "there is no such element to give a reason for"
        said.append(f"{FILE}: [{owner}] {path}: {what}")
    said += [
        f"{FILE}: '{one.kind}' is no kind of reason" for one in _all_reasons(known_) if one.kind not in known_.kinds
    ]
    said += _types(flow, known_) + _tables(flow, known_) + _columns(flow, known_)
    return said


def _all_reasons(known_: LeftOut) -> list[Reason]:
    return [*known_.reasons.values(), *known_.no_home.values()]


def _types(flow: Flow, known_: LeftOut) -> list[str]:
    types = {row["resource_type"] for row in table("codes", "fhir", "resource_types.csv")}
    said = [
        f"{one}: no view reads it, and no reason is given"
        for one in types - flow.resources.keys() - known_.no_home.keys()
    ]
    said += [f"{FILE}: no_home: {one} is read" for one in known_.no_home.keys() & flow.resources.keys()]
    said += [f"{FILE}: no_home: {one} is no resource type" for one in known_.no_home.keys() - types]
    return sorted(said)


def _tables(flow: Flow, known_: LeftOut) -> list[str]:
    names, filled = {name for name, one in cdm_tables().items() if one.schema != "vocab"}, set(flow.tables)
    said = [f"{one}: no file fills it, and no reason is given" for one in names - filled - known_.tables.keys()]
    said += [f"{FILE}: tables: {one} is filled" for one in known_.tables.keys() & filled]
    said += [f"{FILE}: tables: {one} is no table" for one in known_.tables.keys() - names]
    return sorted(said)


def _columns(flow: Flow, known_: LeftOut) -> list[str]:
    """Columns that never hold what a patient's record says, and nobody says why."""
    bare, said = set[str](), list[str]()
    for table_ in flow.tables.values():
        for one in table_.columns:
            name = f"{table_.name}.{one.name}"
            if not one.clause.expression:
                said.append(f"omop/{table_.name}.sql: {one.name} has no line")
            if one.empty or one.clause.expression == "0":
                bare.add(name)
                if not one.clause.comment and name not in known_.columns:
                    said.append(
                        f"{name}: always {'empty' if one.empty else '0'}, with no comment beside it and no reason"
                    )
    return said + [f"{FILE}: columns: {one} is filled, or there is none" for one in known_.columns.keys() - bare]


def why(entry: Any) -> str:
    """A reason in words, with its kind."""
    return f"{entry.kind}: {entry.why}" if isinstance(entry, Reason) else "**no reason is given**"
