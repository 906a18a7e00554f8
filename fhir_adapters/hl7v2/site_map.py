"""What codes mean: the lists of `tables.csv`, and what a hospital adds to them in the TOML of its source.

A code passes when its system is declared and the code has that system's form; a text passes when it stands in a list. There is
no other way for a text into FHIR.
"""

import csv
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.column_map import code_pattern
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_elements import forms
from fhir_adapters.hl7v2.message import Components, part

_SNOMED = "http://snomed.info/sct"  # its codes have a check digit
_SECTIONS = frozenset(["systems", "units", "values", "routes"])


@cache
def tables() -> Mapping[str, Mapping[str, tuple[str, str]]]:
    """list → code → its target and what else is said of it."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    with (Path(__file__).parent / "tables.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row["list"], {})[row["code"]] = (row["target"], row["more"])
    return found


def target(name: str, code: str) -> str:
    """What a code of a list stands for, '' when the list does not know it."""
    return tables()[name].get(code, ("", ""))[0]


@dataclass(frozen=True)
class SiteMap:
    """`systems`: name in the messages → address and form of its codes; `units`: text → UCUM; `values`: code of the
    observation → text in lower case → coding."""

    systems: Mapping[str, tuple[str, re.Pattern[str]]]
    units: Mapping[str, str]
    values: Mapping[str, Mapping[str, Mapping[str, str]]]
    routes: Mapping[str, Mapping[str, str]]

    def coding(self, code: str, system: str) -> dict[str, str] | None:
        """The coding, or None when the system is not declared or the code has not its form."""
        known = self.systems.get(system.upper())
        if not known or not known[1].fullmatch(code) or (known[0] == _SNOMED and not forms()["SNOMED"].fits(code)):
            return None
        return {"system": known[0], "code": code}

    def codings(self, components: Components) -> list[dict[str, str]]:
        """The codings of a CE or CWE: its first and its alternate triplet, as far as they pass."""
        found = [self.coding(part(components, place), part(components, place + 2)) for place in (1, 4)]
        return [one for one in found if one]

    def word(self, observation: str, text: str) -> dict[str, str] | None:
        """The coding of an answer in words: of this observation's list, else of the common words."""
        text = text.strip().lower()
        found = self.values.get(observation, {}).get(text)
        if found:
            return dict(found)
        common = tables()["word"].get(text)
        return {"system": common[1], "code": common[0]} if common else None


def read_site_map(path: Path | None) -> SiteMap:
    """The common lists, with those of the hospital's file over them. Raises E-MSG-01."""
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PalmaresError("E-MSG-01", "map", detail=type(error).__name__) from None
    if unknown := sorted(document.keys() - _SECTIONS):
        raise PalmaresError("E-MSG-01", "map", detail=f"it has a section that is none: {unknown[0]}")
    try:
        systems = {
            name.upper(): (address, re.compile(form, re.ASCII)) for name, (address, form) in tables()["system"].items()
        }
        systems |= {
            name.upper(): (_text(entry["system"]), _form(entry)) for name, entry in document.get("systems", {}).items()
        }
        units = {code: unit for code, (unit, _) in tables()["unit"].items()}
        units |= {str(unit): str(unit) for unit in list(units.values())}
        units |= {name: _text(unit) for name, unit in document.get("units", {}).items()}
        routes = {code: {"system": system, "code": found} for code, (found, system) in tables()["route"].items()}
        routes |= {name.upper(): _coding(entry) for name, entry in document.get("routes", {}).items()}
        values = {
            observation: {text.strip().lower(): _coding(entry) for text, entry in answers.items()}
            for observation, answers in document.get("values", {}).items()
        }
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise PalmaresError("E-MSG-01", "map", detail=f"{type(error).__name__} {error}") from None
    return SiteMap(systems, units, values, routes)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is expected")
    return value


def _form(entry: Mapping[str, Any]) -> re.Pattern[str]:
    """The form of a system's codes: its pattern, or just the codes that are listed."""
    if "codes" in entry:
        return re.compile("|".join(re.escape(_text(code)) for code in entry["codes"]) or "(?!)")
    return code_pattern(_text(entry["pattern"]))


def _coding(entry: Mapping[str, str]) -> dict[str, str]:
    return {"system": _text(entry["system"]), "code": _text(entry["code"])}
