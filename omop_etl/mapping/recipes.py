"""The knowledge of `mappings/` as mapping reads it: for each resource type its view and its SQL, for each CDM table its SELECT.

A file of `mappings/events` has sections, each headed `-- ## name`:

    read                 a resource as one row: why it is left out (`reason`), keys of what it refers to, dates, values.
                         From `flat`, the rows of its view; id, key and version are put in front.
    stage <table>        rows below the resource (components, series), from `stage`, what was read
    event …              its clinical records, from `included`: what was read and is not left out, with person, visit, provider
    <row> …              rows of another kind: person, location, care_site, provider, visit, note, death, image …
    focus                records of other resources that are about this one: key, focus_key
    merged               resources without a row of their own, with the reason
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.knowledge import mappings_folder

_SECTION = re.compile(r"^-- ## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """What is known about one resource type. `stage` is the name of its files and of its table of rows as read."""

    stage: str
    resource_type: str
    view: dict[str, Any]
    sections: tuple[tuple[str, str], ...]

    @property
    def read(self) -> str:
        return next(sql for name, sql in self.sections if name == "read")

    def parts(self, word: str) -> list[str]:
        """The SQL of every section whose name begins with this word."""
        return [sql for name, sql in self.sections if name.split()[0] == word]

    def below(self) -> list[tuple[str, str]]:
        """Table and SQL of the rows below the resource."""
        return [(name.split()[1], sql) for name, sql in self.sections if name.split()[0] == "stage"]


def sections(path: Path) -> tuple[tuple[str, str], ...]:
    """The sections of a file of `mappings/events`: name and SQL."""
    pieces = _SECTION.split(path.read_text(encoding="utf-8"))
    return tuple((name.strip(), sql.strip()) for name, sql in zip(pieces[1::2], pieces[2::2], strict=True))


@cache
def _recipes(folder: Path) -> dict[str, Recipe]:
    found = {}
    for path in sorted((folder / "views").glob("*.json")):
        view = json.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe(path.stem, view["resource"], view, sections(folder / "events" / f"{path.stem}.sql"))
        found[recipe.resource_type] = recipe
    return found


def recipes() -> dict[str, Recipe]:
    """Resource type → recipe, for every type that has a view."""
    return _recipes(mappings_folder())


def derived_rows() -> dict[str, str]:
    """Rows that are computed from other rows: name → SQL."""
    return dict(sections(mappings_folder() / "events" / "observation_period.sql"))


def cdm_selects() -> dict[str, str]:
    """CDM table → its SELECT, for every table that mapping fills."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((mappings_folder() / "omop").glob("*.sql"))}
