"""The column map of a `tables` source: its TOML read and checked, and one cell read as the map says."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import LinkageKey

LINKAGE_SYSTEM = "urn:palmares:linkage-token"  # the identifier system that mapping reads the token from
_NO_CODES = ("Rossi", "ROSSI", "rossi", "Maria Rossi", "via Roma 1", "RSSMRA80A41H501X", "a@b.it")
KINDS = frozenset(["date", "month", "number", "list", "pattern", "boolean", "linkage"])
_DATE = re.compile(r"(?:(?:(\d{1,2})[/.-])?(\d{1,2})[/.-])?(\d{4})")
_ISO = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?(?:[T ]00:00(?::00(?:\.0+)?)?)?")
_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?")
_POINT = re.compile(r"[+-]?\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}\.\d{3}")


class Wrong(NamedTuple):
    """One line of the report; `reason` is a code of reasons.csv."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True)
class ColumnMap:
    """A whole map. Titles of columns are compared in lower case without blanks around them."""

    tables: "tuple[Table, ...]"
    missing: frozenset[str]
    ignore: frozenset[str]
    yes: frozenset[str]
    no: frozenset[str]
    encoding: str = ""
    delimiter: str = ""

    @property
    def links(self) -> bool:
        """Whether a column holds the codice fiscale."""
        return any(fill.kind == "linkage" for table in self.tables for recipe in table.recipes for fill in recipe.fills)

    def is_missing(self, cell: Any) -> bool:
        """Empty, or one of the map's words for missing."""
        return cell is None or str(cell).strip().lower() in self.missing


@dataclass(frozen=True)
class Table:
    """One table: files by a glob (and a sheet), or a query."""

    name: str
    file: str
    sheet: str
    query: str
    recipes: "tuple[Recipe, ...]"
    columns: frozenset[str]


@dataclass(frozen=True)
class Recipe:
    """One resource of a row: made when one of the columns `when` holds something, or always when there are none."""

    name: str
    type: str
    subject: str
    patient: str
    id: tuple[str, ...]
    when: tuple[str, ...]
    fixed: str
    fills: "tuple[Fill, ...]"


@dataclass(frozen=True)
class Fill:
    """One column and the element that it fills."""

    column: str
    path: tuple[str | int, ...]
    kind: str
    required: bool
    missing: frozenset[str]
    values: Mapping[str, Any]
    pattern: re.Pattern[str] | None

    def read(self, cell: Any, mapping: ColumnMap, linkage: LinkageKey | None) -> tuple[Any, str]:
        """The cell's value for FHIR (None when missing or wrong) and the reason when it is wrong, else ''."""
        if mapping.is_missing(cell) or str(cell).strip().lower() in self.missing:
            return None, ""
        text = str(cell).strip()
        if self.kind in ("date", "month"):
            day = _day(cell, text)
            return (None, "T-DATE") if day is None else (day[:7] if self.kind == "month" else day, "")
        if self.kind == "number":
            number = _number(cell, text)
            return number, "T-NUMBER" if number is None else ""
        if self.kind == "boolean":
            word = text.lower()
            return (True, "") if word in mapping.yes else (False, "") if word in mapping.no else (None, "T-VALUE")
        if self.kind == "list":
            value = self.values.get(text.lower())
            return value, "T-VALUE" if value is None else ""
        if self.kind == "linkage":
            if linkage is None:
                raise PalmaresError("E-KEY-01", LinkageKey.variable)
            try:
                return {"system": LINKAGE_SYSTEM, "value": linkage.token(text)}, ""
            except ValueError:
                return None, "T-FISCAL-CODE"
        return (text, "") if self.pattern is not None and self.pattern.fullmatch(text) else (None, "T-VALUE")


def _day(cell: Any, text: str) -> str | None:
    """ISO text, as precise as the cell is: day first, as Italy writes; a date of a spreadsheet or database as it is."""
    if isinstance(cell, datetime | date):
        return cell.isoformat()[:10]
    if match := _ISO.fullmatch(text):
        year, month, day = match.groups()
    elif match := _DATE.fullmatch(text):
        day, month, year = match.groups()
    else:
        return None
    try:
        date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    return "-".join([year, *(f"{int(part):02}" for part in (month, day) if part)])


def _number(cell: Any, text: str) -> float | int | None:
    """Decimal comma or point; `1.234` may be either a thousand or a fraction, so it is none."""
    if isinstance(cell, bool) or not text.isascii():
        return None
    if not isinstance(cell, str):
        return cell if isinstance(cell, int) else float(text) if _POINT.fullmatch(text) else None
    if _THOUSANDS.fullmatch(text):
        return None
    if _COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif not _POINT.fullmatch(text):
        return None
    return float(text) if "." in text else int(text)


def read_map(path: Path) -> ColumnMap:
    """The map of a TOML file. Raises E-TAB-01, naming the table and what is wrong in it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PalmaresError("E-TAB-01", "map", detail=type(error).__name__) from None
    try:
        lists = {
            name: {str(source).strip().lower(): value for source, value in entries.items()}
            for name, entries in document.get("lists", {}).items()
        }
        tables = tuple(_table(table, number, lists) for number, table in enumerate(document["table"], start=1))
        return ColumnMap(
            tables=tables,
            missing=_words(document.get("missing", [])) | {""},
            ignore=_words(document.get("ignore", [])),
            yes=_words(document.get("yes", [])),
            no=_words(document.get("no", [])),
            encoding=document.get("encoding", ""),
            delimiter=document.get("delimiter", ""),
        )
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise PalmaresError("E-TAB-01", "map", detail=f"{type(error).__name__} {error}") from None


def _words(words: list[Any]) -> frozenset[str]:
    return frozenset(str(word).strip().lower() for word in words)


def _table(settings: Mapping[str, Any], number: int, lists: Mapping[str, Mapping[str, Any]]) -> Table:
    if bool(settings.get("file")) == bool(settings.get("query")):
        raise ValueError(f"table {number} names both or neither of file and query")
    recipes = []
    for place, recipe in enumerate(settings["resource"], start=1):
        for turn in recipe.get("repeat", [""]):
            recipes.append(_recipe(recipe, f"{settings.get('name', number)}/{place}/{turn}", str(turn), lists))
    columns = {fill.column for recipe in recipes for fill in recipe.fills}
    for recipe in recipes:
        columns |= {recipe.patient, *recipe.id, *recipe.when}
    return Table(
        name=f"table {number}",
        file=settings.get("file", ""),
        sheet=settings.get("sheet", ""),
        query=settings.get("query", ""),
        recipes=tuple(recipes),
        columns=frozenset(columns),
    )


def code_pattern(text: str) -> re.Pattern[str]:
    """A pattern of codes. One that a name, an address or a codice fiscale matches would let free text through.

    Raises ValueError for such a one, re.error for one that is none.
    """
    pattern = re.compile(text, re.ASCII)
    if any(pattern.fullmatch(sample) for sample in _NO_CODES):
        raise ValueError(
            "pattern: a name, an address or a codice fiscale would match; use a list, or a narrower pattern"
        )
    return pattern


def _recipe(settings: Mapping[str, Any], name: str, turn: str, lists: Mapping[str, Mapping[str, Any]]) -> Recipe:
    def column(title: str) -> str:
        return title.replace("{n}", turn).strip().lower()

    fills = []
    for fill in settings.get("fill", []):
        kind = fill["as"]
        if kind not in KINDS:
            raise ValueError(f"no kind of value is called {kind}")
        fills.append(
            Fill(
                column=column(fill["column"]),
                path=tuple(
                    int(step) if step.isdigit() else step for step in re.findall(r"[A-Za-z]+|\d+", fill["element"])
                ),
                kind=kind,
                required=fill.get("required", False),
                missing=_words(fill.get("missing", [])),
                values=lists[fill["list"]] if kind == "list" else {},
                pattern=code_pattern(fill["pattern"]) if kind == "pattern" else None,
            )
        )
    patient = column(settings["patient"])
    when = tuple(map(column, settings.get("when", [])))
    fixed = json.dumps({"resourceType": settings["type"], **settings.get("fixed", {})})
    return Recipe(
        name=name,
        type=settings["type"],
        subject=settings.get("subject", "subject"),
        patient=patient,
        id=tuple(map(column, settings.get("id", []))),
        when=when,
        fixed=fixed,
        fills=tuple(fills),
    )
