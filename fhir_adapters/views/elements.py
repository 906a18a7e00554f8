"""FHIR R4's elements as the compiler needs them (from `r4_elements.csv`), and the tree of what a view reads.

Every leaf is read as VARCHAR and cast at the point of use; see `STORAGE` for the DuckDB type that each FHIR primitive gets then.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FACTS = Path(__file__).with_name("r4_elements.csv")

# FHIR primitive → DuckDB type of its values; also System types of FHIRPath, which share the names
STORAGE = {"boolean": "BOOLEAN", "integer": "INTEGER", "positiveInt": "INTEGER", "unsignedInt": "INTEGER"}
STORAGE |= {"integer64": "BIGINT", "decimal": "DOUBLE"}
STORAGE |= dict.fromkeys(("date", "dateTime", "instant", "time"), "VARCHAR")
STORAGE |= dict.fromkeys(("string", "code", "id", "markdown", "xhtml", "base64Binary"), "VARCHAR")
STORAGE |= dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), "VARCHAR")

BOOLEANS = {"boolean"}
INTEGERS = {"integer", "positiveInt", "unsignedInt", "integer64"}
NUMBERS = INTEGERS | {"decimal"}
TIMES = {"date", "dateTime", "instant", "time"}
_SUPERTYPES = {"code": "string", "id": "string", "markdown": "string", "url": "uri", "canonical": "uri", "oid": "uri"}
_SUPERTYPES |= {"uuid": "uri", "positiveInt": "integer", "unsignedInt": "integer"}


@dataclass(frozen=True)
class Element:
    """One element of a type: its JSON name, type, whether it repeats, the FHIRPath name of its choice, its rank in the type."""

    name: str
    type: str
    many: bool
    choice: str
    rank: int


@cache
def _facts() -> tuple[dict[str, dict[str, Element]], dict[str, str]]:
    elements: dict[str, dict[str, Element]] = {}
    bases: dict[str, str] = {}
    with FACTS.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for path, target, many, choice in rows:
            parent, _, name = path.rpartition(".")
            if not parent:
                bases[path] = target
                continue
            siblings = elements.setdefault(parent, {})
            siblings[name] = Element(name, target, bool(many), choice, len(siblings))
    return elements, bases


def known_type(name: str) -> bool:
    """Whether FHIR R4 has a primitive, type, resource or nested element of this name."""
    return name in STORAGE or name in _facts()[0]


def is_resource(name: str) -> bool:
    """Whether the type is a resource that instances can have."""
    bases = _facts()[1]
    base = bases.get(name)
    return name not in ("DomainResource", "Resource") and (base == "DomainResource" or base == "Resource")


def is_a(name: str, ancestor: str) -> bool:
    """Whether a type is the other one or a specialisation of it."""
    bases = _facts()[1]
    while name and name != ancestor:
        name = _SUPERTYPES.get(name) or bases.get(name, "")
    return name == ancestor


def element(parent: str, name: str) -> Element | None:
    """The element of a type by its JSON name."""
    return _facts()[0].get(parent, {}).get(name)


def elements(parent: str) -> list[Element]:
    """All elements of a type, in FHIR's order."""
    return list(_facts()[0].get(parent, {}).values())


def choices(parent: str, name: str) -> list[Element]:
    """The alternatives of a choice element `name[x]`, in FHIR's order."""
    return [one for one in elements(parent) if one.choice == name]


@dataclass
class Read:
    """One element as it is read from JSON, with those of its children that the view uses.

    `raw`: read as JSON, because the element contains itself (`repeat`); its children are then taken out level by level.
    """

    many: bool = False
    leaf: bool = False
    raw: bool = False
    rank: int = 0
    fields: dict[str, "Read"] = field(default_factory=dict)

    def child(self, name: str, *, many: bool, leaf: bool, rank: int) -> "Read":
        """The child of this name, marked as read. Raises ValueError when it is already read in another form."""
        known = self.fields.get(name)
        if known is None:
            known = self.fields[name] = Read(many, leaf, rank=rank)
        elif (known.many, known.leaf) != (many, leaf):
            raise ValueError(name)
        return known

    def merge(self, other: "Read") -> None:
        """Let this element have the very children of `other`."""
        for name, one in self.fields.items():
            other.fields.setdefault(name, one)
        self.fields = other.fields

    def ordered(self) -> Iterator[tuple[str, "Read"]]:
        """The children in FHIR's order; an element of which only the existence matters is read by its id."""
        if not self.fields:
            yield "id", Read(leaf=True)
        yield from sorted(self.fields.items(), key=lambda item: (item[1].rank, item[0]))

    def item_type(self) -> str:
        """The DuckDB type of one such element."""
        if self.leaf:
            return "VARCHAR"
        if self.raw:
            return "JSON"
        return "STRUCT(" + ", ".join(f'"{name}" {one.duckdb()}' for name, one in self.ordered()) + ")"

    def duckdb(self) -> str:
        """The DuckDB type of the element, a list when it repeats."""
        return self.item_type() + ("[]" if self.many else "")

    def structure(self) -> str:
        """The JSON structure that DuckDB's from_json takes for the children."""
        return "{" + ", ".join(f'"{name}": {one._structure()}' for name, one in self.ordered()) + "}"

    def _structure(self) -> str:
        inner = '"VARCHAR"' if self.leaf else '"JSON"' if self.raw else self.structure()
        return f"[{inner}]" if self.many else inner
