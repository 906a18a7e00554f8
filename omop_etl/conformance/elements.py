"""Which FHIR R4 elements each column of a view reads, by compiling that column alone.

    column_elements(view) -> {column: Reading}      Reading.elements() -> paths below the resource

A path is written as in a file of FHIR, `onsetPeriod.start`, and goes no deeper than a reader needs: a CodeableConcept, a
Reference or an Extension is one thing, a Quantity or a Period is followed by one part, the parts of a resource's own
structure (a component, a dosage) are named.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from fhir_adapters.views import compile_view
from fhir_adapters.views.elements import Element, element, elements

# data types that are taken apart like a resource's own structure
_TAKEN_APART = frozenset(["Address", "Dosage", "Timing"])
# data types of which one part is named
_IN_PARTS = frozenset(["Age", "Duration", "Meta", "Money", "Period", "Quantity", "Range", "Ratio"])
_FIELDS_TAG = "palmares/fields"
_NAMED_BY = re.compile(r"(?:extension\(|system = )'([^']+)'")

Path = tuple[str, ...]


def taken_apart(type_: str) -> bool:
    """Whether the elements below an element of this type are accounted for one by one."""
    return "." in type_ or type_ in _TAKEN_APART


def spot(resource: str, path: Path) -> str:
    """A path as the pages name it."""
    shown: list[str] = []
    type_ = resource
    for n, name in enumerate(path):
        one = element(type_, name)
        shown.append(name)
        if one is None:
            break
        if not taken_apart(one.type):
            if one.type in _IN_PARTS:
                shown += path[n + 1 : n + 2]
            break
        type_ = one.type
    return ".".join(shown)


def known(resource: str, path: str) -> Element | None:
    """The R4 element at a path of JSON names."""
    type_, found = resource, None
    for name in path.split("."):
        found = element(type_, name)
        if found is None:
            return None
        type_ = found.type
    return found


def children(resource: str, path: str = "") -> list[tuple[str, Element]]:
    """The elements of a resource, or of the element at a path: path and facts, in FHIR's order."""
    above = known(resource, path) if path else None
    prefix, type_ = (f"{path}.", above.type) if above else ("", resource)
    return [(f"{prefix}{one.name}", one) for one in elements(type_)]


@dataclass(frozen=True)
class Reading:
    """What one column of a view reads.

    `base`: how many names of a path lead to the value of a complex column. `which`: of several extensions or identifiers.
    `only_there`: it asks only whether there is one. `first`: it takes the first of several.
    """

    resource: str
    column: str
    path: str
    paths: tuple[Path, ...]
    base: int
    which: str
    only_there: bool
    first: bool

    def elements(self, fields: Path = ()) -> frozenset[str]:
        """The elements read, or those of them that lie below a field of a complex column.

        Of a part of the resource's own structure, such as its components, as a whole it is only used how many there are.
        """
        end = self.base + len(fields)
        above = known(self.resource, ".".join(self.paths[0][: self.base])) if self.base else None
        if above is not None and taken_apart(above.type) and not fields:
            return frozenset([".".join(self.paths[0][: self.base])])
        chosen = [one for one in self.paths if one[self.base : end] == fields] if fields else list(self.paths)
        return frozenset(spot(self.resource, one) for one in chosen or self.paths)

    def shown(self, fields: Path = ()) -> frozenset[str]:
        """The elements, with which of several extensions or identifiers."""
        return frozenset(f"{one} ({self.which})" if self.which else one for one in self.elements(fields))


def column_elements(view: Mapping[str, Any]) -> dict[str, Reading]:
    """Column → what it reads, for every column of a view."""
    return {column["name"]: _reading(view, column, around) for column, around in _columns(view["select"], ())}


def _columns(
    selects: list[dict[str, Any]], around: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Every column with the iterations that it stands in."""
    for select in selects:
        path = select.get("forEach") or select.get("forEachOrNull")
        within = (*around, path) if path else around
        for column in select.get("column", ()):
            yield column, within
        for key in ("select", "unionAll"):
            yield from _columns(select.get(key, []), within)


def _reading(view: Mapping[str, Any], column: dict[str, Any], around: tuple[str, ...]) -> Reading:
    select: dict[str, Any] = {"column": [column]}
    for path in reversed(around):
        select = {"forEach": path, "select": [select]}
    alone = {**view, "select": [select]}
    alone.pop("where", None)
    compiled = compile_view(alone)
    only_there = column["path"].rstrip().endswith("exists()")
    paths = [
        path
        for name, type_ in compiled.columns.items()
        if name != "resourceType"
        for path in _leaves((name,), duckdb.sqltype(type_))
    ]
    if only_there:
        paths = [path[:-1] if path[-1] == "id" and len(path) > 1 else path for path in paths]
    fields = [
        tuple(one.strip().split("."))
        for tag in column.get("tag", ())
        if tag["name"] == _FIELDS_TAG
        for one in tag["value"].split(",")
    ]
    base = min((len(path) - len(one) for path in paths for one in fields if path[-len(one) :] == one), default=0)
    named = [one.rstrip("/").rsplit("/", 1)[-1] for one in _NAMED_BY.findall(column["path"])]
    return Reading(
        view["resource"],
        column["name"],
        column["path"],
        tuple(sorted(paths)),
        base,
        ", ".join(named),
        only_there,
        ".first()" in column["path"],
    )


def _leaves(path: Path, type_: Any) -> Iterator[Path]:
    """The scalars of a DuckDB type, as paths."""
    if type_.id == "list":
        yield from _leaves(path, type_.children[0][1])
    elif type_.id == "struct":
        for name, child in type_.children:
            if name != "resourceType":
                yield from _leaves((*path, name), child)
    else:
        yield path
