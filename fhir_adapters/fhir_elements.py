"""The allow-list of FHIR elements: `fhir_elements.toml`, read and checked. Its comments say what each entry lets through.

A defect in it is a defect of ours, found when it is read.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.allow_list import AllowListError
from fhir_adapters.knowledge import table
from fhir_adapters.views.elements import elements, is_resource

FILE = Path(__file__).with_name("fhir_elements.toml")
KINDS = ("identifying", "free text", "not needed", "technical")
TREATMENTS = frozenset("there linkage month uid region country gtin unit system".split())  # noqa: SIM905
ANY = "any"
WITHHELD = "withheld"  # stands where something was that did not pass
_RULES = frozenset(
    "linkage birth codes extensions extensions_left_out contained urn systems forms screen units regions".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class TypeRule:
    """One type: the paths that pass, how those are treated that are not by their FHIR type, and why each other is left out."""

    name: str
    keep: frozenset[str]
    treated: Mapping[str, str]
    left_out: Mapping[str, str]

    def passes(self, path: str) -> bool:
        """Whether an element passes, itself or some of what it holds."""
        return path in self.keep or any(one.startswith(f"{path}.") for one in self.keep)


@dataclass(frozen=True)
class Form:
    """What the codes of a vocabulary look like."""

    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None

    def fits(self, code: str) -> bool:
        return self.pattern.fullmatch(code) is not None and (self.check is None or self.check(code))


@cache
def document() -> dict[str, Any]:
    """The file as it stands."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@cache
def rules() -> Mapping[str, TypeRule]:
    """Every type of the file, `any` among them. Raises AllowListError."""
    return {name: _rule(name, part) for name, part in document().items() if name not in _RULES}


def resource_types() -> list[str]:
    """The resource types that may pass."""
    return sorted(name for name in rules() if name != ANY and is_resource(name))


def _rule(name: str, part: Mapping[str, Any]) -> TypeRule:
    left_out = {one.strip(): why for names, why in part.get("leave_out", {}).items() for one in names.split(",")}
    keep, treated = frozenset(part["keep"]), dict(part.get("as", {}))
    if both := keep & left_out.keys():
        raise AllowListError(f"fhir_elements.toml: {name}.{min(both)} is both kept and left out")
    for path, how in treated.items():
        if how not in TREATMENTS or path not in keep:
            raise AllowListError(f"fhir_elements.toml: {name}.as.{path}: unknown treatment, or not kept")
    for path, why in left_out.items():
        if why.partition(": ")[0] not in KINDS or not why.partition(": ")[2]:
            raise AllowListError(f"fhir_elements.toml: {name}.leave_out.{path}: no kind of reason")
    return TypeRule(name, keep, treated, left_out)


def reason_of(kind: str) -> str:
    """A kind of reason as a code: `free text` → `free-text`."""
    return kind.partition(":")[0].replace(" ", "-")


def problems() -> list[str]:
    """What the file does not say, or says of elements that R4 does not have; empty when nothing."""
    said = []
    for name, rule in rules().items():
        if name == ANY:
            continue
        asked = set(_paths(name, rule, ""))
        whole = {"language", "text", "extension", *rules()[ANY].keep} if is_resource(name) else {"extension", "id"}
        for path in sorted(asked - whole - rule.left_out.keys()):
            if rule.passes(path):
                continue
            said.append(f"{name}.{path}: neither kept nor left out")
        for path in sorted((rule.keep | rule.left_out.keys()) - asked):
            said.append(f"{name}.{path}: R4 has no such element, or what is above it is decided already")
    return said


def _paths(type_: str, rule: TypeRule, above: str) -> Iterator[str]:
    """Every element on which the file must decide: the resource's own, and those of its parts of which some pass."""
    for one in elements(type_):
        path = f"{above}{one.name}"
        if one.name == "modifierExtension" or (above and one.name in ("id", "extension")):
            continue  # a modifier always passes, as its address
        yield path
        if path not in rule.keep and rule.passes(path):
            yield from _paths(one.type, rule, f"{path}.")


@cache
def codes(path: str) -> frozenset[str]:
    """The codes that an element of type code may have. Raises AllowListError when nobody says them."""
    said = document()["codes"].get(path)
    if said is None:
        said = next((row["codes"] for row in table("codes", "fhir", "required_codes.csv") if row["path"] == path), None)
    if said is None:
        raise AllowListError(f"fhir_elements.toml: no codes for {path}")
    return frozenset(said.split())


@cache
def forms() -> Mapping[str, Form]:
    """Vocabulary → form of its codes."""
    checks = {"verhoeff": verhoeff}
    return {
        name: Form(re.compile(one["pattern"], re.ASCII), checks[one["check"]] if "check" in one else None)
        for name, one in document()["forms"].items()
    }


@cache
def vocabularies() -> Mapping[str, tuple[str, ...]]:
    """System → the vocabularies that it may be, from mappings/codes; the study's own code maps are `declared`."""
    found: dict[str, tuple[str, ...]] = {}
    for row in table("codes", "fhir_systems.csv"):
        name = row["vocabulary_id"]
        name = "RxNorm" if name == "RxNorm Extension" else name if name in forms() or name == "UCUM" else "declared"
        found[row["system"]] = (*found.get(row["system"], ()), name)
    for row in table("codes", "study", "_systems.csv"):
        found.setdefault(row["system"], ("declared",))
    for system in document()["systems"]["known"]:
        found.setdefault(system, ("else",))
    return found


_TIMES = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_TURN = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


@cache
def _turned() -> tuple[tuple[int, ...], ...]:
    turns = [tuple(range(10))]
    for _ in range(7):
        turns.append(tuple(_TURN[digit] for digit in turns[-1]))
    return tuple(turns)


def verhoeff(digits: str) -> bool:
    """Whether the last digit is Verhoeff's check digit of the others, as in every SNOMED CT identifier."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _TIMES[check][_turned()[place % 8][int(digit)]]
    return check == 0


def gtin(digits: str) -> bool:
    """Whether a text is a GTIN: 8, 12, 13 or 14 digits, the last of them the check digit (GS1 General Specifications, 7.9)."""
    if len(digits) not in (8, 12, 13, 14) or not digits.isascii() or not digits.isdigit():
        return False
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits))) % 10 == 0


def rules_hash() -> str:
    """Tells two states of the allow-list apart: what passed under another one is not gone on with."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]
