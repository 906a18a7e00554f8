"""The column map of a `tables` source: its TOML read and checked, and one cell read as the map says."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from fhir_adapters.births import birth_date
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import LinkageKey

LINKAGE_SYSTEM = "urn:palmares:linkage-token"  # the identifier system that mapping reads the token from
_NO_CODES = ("Rossi", "ROSSI", "rossi", "Maria Rossi", "via Roma 1", "RSSMRA80A41H501X", "a@b.it")
KINDS = frozenset(
    ["date", "month", "datetime", "instant", "number", "quantity", "list", "pattern", "boolean", "linkage", "reference"]
)
_DATE_TIME = re.compile(r"(.{6,10}?)[T ]\s*(\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:\.\d+)?)?(Z|[+-]\d{2}(?::?\d{2})?)?")
_COMPARED = re.compile(r"(<=|>=|<|>|≤|≥)?\s*([^<>=≤≥\s][^<>=≤≥]*)")
IDENTIFYING = frozenset(
    ["name", "address", "telephone", "e-mail", "codice-fiscale", "record-number", "accession-number"]
)
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
    digits: int = 0
    zone: str = "UTC"
    identifying: Mapping[str, str] = field(default_factory=dict)

    @property
    def links(self) -> bool:
        """Whether a column holds the codice fiscale."""
        return any(fill.kind == "linkage" for table in self.tables for recipe in table.recipes for fill in recipe.fills)

    def is_missing(self, cell: Any) -> bool:
        """Empty, or one of the map's words for missing."""
        return cell is None or str(cell).strip().lower() in self.missing


@dataclass(frozen=True)
class Table:
    """One table: files by a glob (and a sheet), a query, or a form of a REDCap project.

    `where`: only rows whose cell, in lower case, is one of these. `updated`: the column that says when a row was last changed.
    `exported`: `name` or `file`, where the day of a repeated export stands.
    """

    name: str
    file: str
    sheet: str
    query: str
    recipes: "tuple[Recipe, ...]"
    columns: frozenset[str]
    where: "Mapping[str, frozenset[str]]" = field(default_factory=dict)
    updated: str = ""
    exported: str = ""
    form: str = ""
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One resource of a row: made when one of the columns `when` holds something that is not in `unless`, or always when
    there are none. `name` tells it apart in ids, and lets other resources refer to it."""

    name: str
    type: str
    subject: str
    patient: str
    id: tuple[str, ...]
    when: tuple[str, ...]
    unless: frozenset[str]
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
    unit: str = ""
    resource: str = ""  # of a reference: the name of the recipe that it points to
    columns: tuple[str, ...] = ()  # of a reference: the columns whose cells name the one that is meant

    def read(self, cell: Any, mapping: ColumnMap, linkage: LinkageKey | None) -> tuple[Any, str]:
        """The cell's value for FHIR (None when missing or wrong) and the reason when it is wrong, else ''."""
        if mapping.is_missing(cell) or str(cell).strip().lower() in self.missing:
            return None, ""
        text = str(cell).strip()
        if self.kind in ("date", "month"):
            day = _day(cell, text)
            return (None, "T-DATE") if day is None else (birth_date(day) if self.kind == "month" else day, "")
        if self.kind in ("datetime", "instant"):
            when = _moment(cell, text, mapping.zone, whole=self.kind == "instant")
            return when, "T-DATE" if when is None else ""
        if self.kind == "quantity":
            quantity = _quantity(cell, text, self.unit)
            return quantity, "T-NUMBER" if quantity is None else ""
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


def _moment(cell: Any, text: str, zone: str, *, whole: bool) -> str | None:
    """A dateTime: of the zone where the cell names no offset; a day alone where there is no time (its start for `whole`)."""
    if isinstance(cell, datetime):
        local = cell
    else:
        found = None if isinstance(cell, date) else _DATE_TIME.fullmatch(text)
        day = _day(cell, found.group(1) if found else text)
        if day is None or (found and len(day) < 10):
            return None
        if not found and (not whole or len(day) < 10):
            return None if whole else day
        hour, minute, second, offset = found.groups()[1:] if found else ("0", "0", None, None)
        try:
            local = datetime.fromisoformat(f"{day}T{int(hour):02}:{int(minute):02}:{int(second or 0):02}{offset or ''}")
        except ValueError:
            return None
    aware = local if local.tzinfo else local.replace(tzinfo=ZoneInfo(zone))
    return aware.isoformat(timespec="milliseconds" if whole and aware.microsecond else "seconds")


def _quantity(cell: Any, text: str, unit: str) -> dict[str, Any] | None:
    """A Quantity with the comparator that stands before the number: `< 1`, `≥ 20`."""
    found = _COMPARED.fullmatch(text) if isinstance(cell, str) else None
    sign, rest = found.groups() if found else (None, text)
    number = _number(rest.strip() if isinstance(cell, str) else cell, rest.strip())
    if number is None:
        return None
    quantity: dict[str, Any] = {"value": number}
    if sign:
        quantity["comparator"] = {"≤": "<=", "≥": ">="}.get(sign, sign)
    return quantity | ({"unit": unit, "system": "http://unitsofmeasure.org", "code": unit} if unit else {})


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
        named = {recipe.name: recipe for table in tables for recipe in table.recipes}
        for fill in (fill for table in tables for recipe in table.recipes for fill in recipe.fills):
            if fill.kind == "reference" and len(named[fill.resource].id) != len(fill.columns):
                raise ValueError(f"the reference to {fill.resource} does not name it by as many columns as its id has")
        return ColumnMap(
            tables=tables,
            missing=_words(document.get("missing", [])) | {""},
            ignore=_words(document.get("ignore", [])) | _identifying(document).keys(),
            yes=_words(document.get("yes", [])),
            no=_words(document.get("no", [])),
            encoding=document.get("encoding", ""),
            delimiter=document.get("delimiter", ""),
            digits=_digits(document.get("record_number_digits", 0)),
            identifying=_identifying(document),
        )
    except (KeyError, TypeError, AttributeError, ValueError, re.error) as error:
        raise PalmaresError("E-TAB-01", "map", detail=f"{type(error).__name__} {error}") from None


def _identifying(document: Mapping[str, Any]) -> dict[str, str]:
    """Columns that are never read, and what stands in them: for the hospital's own list of identifiers."""
    found = {_title(column): kind for column, kind in document.get("identifying", {}).items()}
    if wrong := sorted(set(found.values()) - IDENTIFYING):
        raise ValueError(f"nothing that identifies is called {wrong[0]}")
    return found


def _digits(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 32:
        raise ValueError("record_number_digits is no number from 0 to 32")
    return value


def _words(words: list[Any]) -> frozenset[str]:
    return frozenset(str(word).strip().lower() for word in words)


def _table(settings: Mapping[str, Any], number: int, lists: Mapping[str, Mapping[str, Any]]) -> Table:
    if sum(bool(settings.get(name)) for name in ("file", "query", "form")) != 1:
        raise ValueError(f"table {number} names not just one of file, query and form")
    if settings.get("exported", "name") not in ("name", "file"):
        raise ValueError(f"table {number}: exported is name or file")
    recipes = []
    for place, recipe in enumerate(settings["resource"], start=1):
        for turn in recipe.get("repeat", [""]):
            recipes.append(_recipe(recipe, f"{settings.get('name', number)}/{place}/{turn}", str(turn), lists))
    where = {_title(column): _words(words) for column, words in settings.get("where", {}).items()}
    updated = _title(settings.get("updated", ""))
    columns = {column for recipe in recipes for fill in recipe.fills for column in (fill.column, *fill.columns)}
    for recipe in recipes:
        columns |= {recipe.patient, *recipe.id, *recipe.when}
    return Table(
        name=f"table {number}",
        file=settings.get("file", ""),
        sheet=settings.get("sheet", ""),
        query=settings.get("query", ""),
        recipes=tuple(recipes),
        columns=frozenset(columns | where.keys() | {updated}) - {""},
        where=where,
        updated=updated,
        exported=settings.get("exported", ""),
        form=settings.get("form", ""),
        events=tuple(settings.get("events", [])),
    )


def _title(text: str) -> str:
    return str(text).strip().lower()


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
                column=column(fill.get("column", "") if kind == "reference" else fill["column"]),
                path=_path(fill["element"], kind),
                kind=kind,
                required=fill.get("required", False),
                missing=_words(fill.get("missing", [])),
                values=lists[fill["list"]] if kind == "list" else {},
                pattern=code_pattern(fill["pattern"]) if kind == "pattern" else None,
                unit=fill.get("unit", ""),
                resource=fill["resource"].replace("{n}", turn) if kind == "reference" else "",
                columns=tuple(map(column, fill["columns"])) if kind == "reference" else (),
            )
        )
    return Recipe(
        name=settings["name"].replace("{n}", turn) if settings.get("name") else name,
        type=settings["type"],
        subject=settings.get("subject", "subject"),
        patient=column(settings["patient"]),
        id=tuple(map(column, settings.get("id", []))),
        when=tuple(map(column, settings.get("when", []))),
        unless=_words(settings.get("unless", [])),
        fixed=json.dumps({"resourceType": settings["type"], **settings.get("fixed", {})}),
        fills=tuple(fills),
    )


def _path(element: str, kind: str) -> tuple[str | int, ...]:
    """`valueQuantity.value`, `code.coding[0].code`; `.` for a list whose entries add elements to the resource itself."""
    if element == ".":
        if kind != "list":
            raise ValueError("only a list adds elements to the resource itself")
        return ()
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"[A-Za-z]+|\d+", element))
