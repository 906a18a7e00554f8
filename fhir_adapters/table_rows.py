"""Rows of a table → FHIR as JSON text, column by column: what a cell becomes is found once per different cell.

A resource's text is put together from fragments: for each set of cells that hold something the recipe has one template, made
from the resource itself (`fixed` and the elements) and cut where the values stand.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from fhir_adapters.column_map import ColumnMap, Fill, Recipe, Table, Wrong
from fhir_adapters.errors import PalmaresError
from fhir_adapters.record_numbers import record_number

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import LinkageKey, SiteKey

Row = tuple[int, list[Any] | None]  # row number as a spreadsheet counts it; None: the row cannot be read
_ROWS = 5000  # read at a time
_MOST = 100_000  # different cells remembered of a column
_MARK = "\ue000"  # in a template, around the number of a value; a private-use character that no map holds
_CUT = re.compile(f'"{_MARK}(\\d+){_MARK}"')
_ID, _SUBJECT, _UPDATED, _FIRST = range(4)  # numbers of values in a template; the fills follow


Template = tuple[str, Callable[[Sequence[Any]], Any]]  # a text with %s where values stand, and what picks those


class _Memo(dict[Any, Any]):
    """What a cell becomes, found when it is first met."""

    def __init__(self, find: Callable[[Any], Any]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, cell: Any) -> Any:
        if len(self) >= _MOST:
            self.clear()
        found = self[cell] = self._find(cell)
        return found

    def all(self, cells: Sequence[Any]) -> list[Any]:
        """One after the other. A workbook's or database's cells have types, and 1, 1.0 and True are one key: not remembered."""
        if all(type(cell) is str or cell is None for cell in cells):
            return [self[cell] for cell in cells]
        return [self[cell] if type(cell) is str or cell is None else self._find(cell) for cell in cells]


@dataclass
class Converted:
    """What became of some rows: `made` (type, id and JSON), what was wrong, and the rows of which nothing was made."""

    made: list[tuple[str, str, str]] = field(default_factory=list)
    wrongs: list[Wrong] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)


class Converter:
    """The rows of one table. `newest`: the latest cell of the table's `updated` column that was met, for the next run."""

    def __init__(
        self,
        table: Table,
        mapping: ColumnMap,
        name: str,
        key: "SiteKey",
        linkage: "LinkageKey | None",
        updated: str = "",
    ) -> None:
        self.table, self.mapping, self.name, self.key, self.linkage = table, mapping, name, key, linkage
        self._updated = updated
        self._present = _Memo(lambda cell: not mapping.is_missing(cell))
        self._persons = _Memo(self._person)
        self._changed = Fill(table.updated, (), "instant", False, frozenset(), {}, None)
        self._moments = _Memo(lambda cell: self._changed.read(cell, mapping, None))
        self._plans = [_Plan(recipe, self) for recipe in table.recipes]
        self.newest: tuple[str, Any] | None = None

    def convert(self, rows: Iterator[Row]) -> Iterator[Converted]:
        """All rows; the first is the header. Raises E-TAB-02 when the header does not fit."""
        places, width, wrongs = self._header(rows)
        yield Converted(wrongs=wrongs)
        while chunk := list(islice(rows, _ROWS)):
            yield self._chunk(chunk, places, width)

    def _header(self, rows: Iterator[Row]) -> tuple[dict[str, int], int, list[Wrong]]:
        table = self.table
        _, header = next(rows, (1, None))
        if not header or not any(header):
            raise PalmaresError("E-TAB-02", self.name, detail="it is empty or has no header")
        titles = [str(title or "").strip().lower() for title in header]
        places = {title: place for place, title in enumerate(titles)}
        if twice := sorted(title for title in table.columns if titles.count(title) > 1):
            raise PalmaresError("E-TAB-02", self.name, detail=f"two columns are called {twice[0]}")
        # an unknown title is told by its place: without a header the first row would hold a patient
        known = table.columns | self.mapping.ignore
        wrongs = [Wrong(1, f"#{n}", "T-COLUMN") for n, title in enumerate(titles, 1) if title and title not in known]
        wrongs += [Wrong(1, column, "T-NO-COLUMN") for column in sorted(table.columns - places.keys())]
        if not any(column in places for column in table.columns):
            raise PalmaresError("E-TAB-02", self.name, detail="it has none of the columns that the map names")
        return places, len(titles), wrongs

    def _chunk(self, chunk: list[Row], places: Mapping[str, int], width: int) -> Converted:
        done = Converted()
        numbers: list[int] = []
        whole: list[list[Any]] = []
        for number, cells in chunk:
            if cells is not None and len(cells) > width and not any(cell not in (None, "") for cell in cells[width:]):
                cells = cells[:width]  # empty cells to the right of the header
            if cells is None or len(cells) > width:
                done.wrongs.append(Wrong(number, "", "T-ROW"))
                done.empty.append(number)
            elif any(cell not in (None, "") for cell in cells):
                numbers.append(number)
                whole.append(cells if len(cells) == width else cells + [None] * (width - len(cells)))
        if not whole:
            return done
        turned = list(zip(*whole, strict=True))
        columns = {title: turned[place] for title, place in places.items()}
        numbers, columns = self._chosen(numbers, columns)
        if not numbers:
            return done
        absent = (None,) * len(numbers)
        updated = self._moments_of(columns, numbers, absent, done)
        made = bytearray(len(numbers))
        for plan in self._plans:
            plan.make(columns, numbers, absent, updated, done, made)
        done.wrongs.sort(key=lambda wrong: wrong.row)  # stable: within a row as the map lists them
        done.empty += [number for number, one in zip(numbers, made, strict=True) if not one]
        return done

    def _chosen(
        self, numbers: list[int], columns: dict[str, tuple[Any, ...]]
    ) -> tuple[list[int], dict[str, tuple[Any, ...]]]:
        """The rows that the table's `where` lets in."""
        if not self.table.where:
            return numbers, columns
        keep = [True] * len(numbers)
        for column, words in self.table.where.items():
            for place, cell in enumerate(columns.get(column, (None,) * len(numbers))):
                keep[place] = keep[place] and ("" if cell is None else str(cell).strip().lower()) in words
        return (
            [number for number, one in zip(numbers, keep, strict=True) if one],
            {
                title: tuple(cell for cell, one in zip(cells, keep, strict=True) if one)
                for title, cells in columns.items()
            },
        )

    def _moments_of(
        self, columns: Mapping[str, tuple[Any, ...]], numbers: list[int], absent: tuple[None, ...], done: Converted
    ) -> list[str]:
        """When each row was last changed, as JSON text; '' where nobody says."""
        if not self.table.updated:
            return [json.dumps(self._updated) if self._updated else ""] * len(numbers)
        texts = []
        for number, cell, (moment, reason) in zip(
            numbers,
            columns.get(self.table.updated, absent),
            self._moments.all(columns.get(self.table.updated, absent)),
            strict=True,
        ):
            if reason:
                done.wrongs.append(Wrong(number, self.table.updated, reason))
            if moment and (self.newest is None or _instant(moment) > _instant(self.newest[0])):
                self.newest = moment, cell
            texts.append(json.dumps(moment or self._updated) if moment or self._updated else "")
        return texts

    def _person(self, cell: Any) -> tuple[str, str] | None:
        """The record number as its pseudonym takes it, and the pseudonym."""
        if self.mapping.is_missing(cell):
            return None
        who = record_number(_cell(cell), self.mapping.digits)
        return (who, self.key.pseudonym("patient", who)) if who else None

    def present(self, cells: Sequence[Any]) -> list[bool]:
        """Which cells hold something."""
        found: list[bool] = self._present.all(cells)
        return found

    def persons(self, cells: Sequence[Any]) -> list[tuple[str, str] | None]:
        """Record numbers and pseudonyms."""
        found: list[tuple[str, str] | None] = self._persons.all(cells)
        return found


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


class _Plan:
    """A recipe made ready: its columns' memos and its templates."""

    def __init__(self, recipe: Recipe, converter: Converter) -> None:
        self.recipe, self.converter = recipe, converter
        self._fills = [(fill, _Memo(self._reader(fill))) for fill in recipe.fills]
        self._templates: dict[tuple[Any, ...], Template] = {}
        self._plain = all(fill.path for fill in recipe.fills)
        self._unless = _Memo(lambda cell: str(cell).strip().lower() in recipe.unless)

    def _reader(self, fill: Fill) -> Callable[[Any], tuple[str | None, str]]:
        mapping, linkage = self.converter.mapping, self.converter.linkage

        def read(cell: Any) -> tuple[str | None, str]:
            value, reason = fill.read(cell, mapping, linkage)
            return (None if value is None else _text(value)), reason

        return read

    def make(
        self,
        columns: Mapping[str, tuple[Any, ...]],
        numbers: list[int],
        absent: tuple[None, ...],
        updated: list[str],
        done: Converted,
        made: bytearray,
    ) -> None:
        """Every resource of this recipe among the rows."""
        recipe, converter = self.recipe, self.converter
        wanted = self._wanted(columns, absent)
        if wanted is not None and not any(wanted):
            return
        persons = converter.persons(columns.get(recipe.patient, absent))
        chosen = [
            place for place, person in enumerate(persons) if person is not None and (wanted is None or wanted[place])
        ]
        done.wrongs += [
            Wrong(numbers[place], recipe.patient, "T-REQUIRED")
            for place, person in enumerate(persons)
            if person is None and (wanted is None or wanted[place])
        ]
        ids = [columns.get(column, absent) for column in recipe.id]
        read = [self._read(fill, memo, columns, absent, persons) for fill, memo in self._fills]
        chosen = self._sound(chosen, read, numbers, done)
        texts = [[text for text, _ in column] for column in read]
        is_patient, kind, name = recipe.type == "Patient", recipe.type, recipe.name
        pseudonym, append, templates = converter.key.pseudonym, done.made.append, self._templates
        for place in chosen:
            found = persons[place]
            assert found is not None  # by the choice above
            who, person = found
            if is_patient:
                identifier = person
            else:
                parts = [name, who]
                for column in ids:
                    parts.append(_cell(column[place]))
                identifier = pseudonym("table-row", "\0".join(parts))
            values = [f'"{identifier}"', f'"Patient/{person}"', updated[place], *[column[place] for column in texts]]
            held = tuple(map(bool, values)) if self._plain else self._held(values)
            template = templates.get(held)
            if template is None:
                template = templates[held] = self._template(values)
            append((kind, identifier, template[0] % template[1](values)))
            made[place] = 1

    def _sound(
        self, chosen: list[int], read: list[list[tuple[str | None, str]]], numbers: list[int], done: Converted
    ) -> list[int]:
        """The rows that have all that is required; what is wrong in any is reported."""
        lacking: set[int] = set()
        for fill, column in zip(self.recipe.fills, read, strict=True):
            for place in chosen:
                text, reason = column[place]
                if reason or (text is None and fill.required):
                    where = fill.column or fill.columns[0]
                    done.wrongs.append(Wrong(numbers[place], where, reason or "T-REQUIRED"))
                    if text is None and fill.required:
                        lacking.add(place)
        return [place for place in chosen if place not in lacking] if lacking else chosen

    def _wanted(self, columns: Mapping[str, tuple[Any, ...]], absent: tuple[None, ...]) -> list[bool] | None:
        """For which rows one of the columns `when` holds something that counts; None: for all."""
        recipe = self.recipe
        if not recipe.when:
            return None
        wanted = [False] * len(absent)
        for column in recipe.when:
            cells = columns.get(column, absent)
            present = self.converter.present(cells)
            if recipe.unless:
                present = [one and not other for one, other in zip(present, self._unless.all(cells), strict=True)]
            wanted = [one or other for one, other in zip(wanted, present, strict=True)]
        return wanted

    def _read(
        self,
        fill: Fill,
        memo: _Memo,
        columns: Mapping[str, tuple[Any, ...]],
        absent: tuple[None, ...],
        persons: list[tuple[str, str] | None],
    ) -> list[tuple[str | None, str]]:
        if fill.kind != "reference":
            found: list[tuple[str | None, str]] = memo.all(columns.get(fill.column, absent))
            return found
        kind = self._type_of(fill.resource)
        named = list(zip(*(columns.get(column, absent) for column in fill.columns), strict=True)) or [()] * len(absent)
        pseudonym, is_missing = self.converter.key.pseudonym, self.converter.mapping.is_missing
        references: list[tuple[str | None, str]] = []
        for person, cells in zip(persons, named, strict=True):
            if person is None or any(map(is_missing, cells)):
                references.append((None, ""))
                continue
            parts = [fill.resource, person[0], *map(_cell, cells)]
            references.append((f'"{kind}/{pseudonym("table-row", chr(0).join(parts))}"', ""))
        return references

    def _type_of(self, name: str) -> str:
        tables = self.converter.mapping.tables
        return next(one.type for table in tables for one in table.recipes if one.name == name)

    def _held(self, values: Sequence[str | None]) -> tuple[Any, ...]:
        """Which values are there; of a list whose entries add elements, which entry."""
        fills = self.recipe.fills
        return tuple(
            value if number >= _FIRST and not fills[number - _FIRST].path else bool(value)
            for number, value in enumerate(values)
        )

    def _template(self, texts: Sequence[str | None]) -> "Template":
        recipe = self.recipe
        resource: dict[str, Any] = json.loads(recipe.fixed)
        resource["id"] = _mark(_ID)
        if texts[_UPDATED]:
            resource["meta"] = {**resource.get("meta", {}), "lastUpdated": _mark(_UPDATED)}
        if recipe.type != "Patient":
            resource[recipe.subject] = {"reference": _mark(_SUBJECT)}
        for number, (fill, text) in enumerate(zip(recipe.fills, texts[_FIRST:], strict=True), start=_FIRST):
            if text is None:
                continue
            if fill.path:
                put(resource, fill.path, _mark(number))
            else:
                resource |= json.loads(text)
        pieces = _CUT.split(_text(resource))
        numbers = [int(one) for one in pieces[1::2]]
        return "%s".join(piece.replace("%", "%%") for piece in pieces[::2]), itemgetter(*numbers)


def _mark(number: int) -> str:
    return f"{_MARK}{number}{_MARK}"


def _cell(cell: Any) -> str:
    """A cell as an id has it: a spreadsheet's 123.0 is 123, a database's 123.00 too."""
    if isinstance(cell, float | Decimal) and _is_whole(cell):
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _is_whole(number: float | Decimal) -> bool:
    """Not a fraction, and a number at all."""
    return math.isfinite(number) and number == int(number)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def put(resource: dict[str, Any], path: Sequence[str | int], value: Any) -> None:
    """Put a value where a path of names and places leads, making what is missing on the way."""
    place: Any = resource
    for step, following in zip(path, [*path[1:], None], strict=True):
        if following is None:
            content = value
        else:
            content = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            while len(place) <= step:
                place.append({})
            if following is None or not place[step]:
                place[step] = content
        elif following is None or step not in place:
            place[step] = content
        place = place[step]


def zoned(mapping: ColumnMap, zone: str) -> ColumnMap:
    """The map with the zone of times without an offset."""
    return replace(mapping, zone=zone)


# --- is the map's FHIR sound? -------------------------------------------------------------------------------------------

_SAMPLES: Mapping[str, Any] = {
    "date": "2020-01-01",
    "month": "2020-01",
    "datetime": "2020-01-01T08:00:00+01:00",
    "instant": "2020-01-01T08:00:00+01:00",
    "number": 1,
    "quantity": {"value": 1},
    "boolean": True,
    "pattern": "A",
    "linkage": {"system": "urn:palmares:linkage-token", "value": "0"},
}


def check_recipes(mapping: ColumnMap) -> None:
    """Hold every resource that the map can make against FHIR's model. Raises E-TAB-01 with the table, type and element."""
    from fhir_adapters.landing.rules import Identity, resource_types
    from fhir_adapters.validation.model import check

    types = {recipe.name: recipe.type for table in mapping.tables for recipe in table.recipes}
    for table in mapping.tables:
        for recipe in table.recipes:
            if recipe.type not in resource_types():
                raise PalmaresError("E-TAB-01", "map", detail=f"{table.name} makes a type that FHIR R4 does not have")
            for fills in _choices(recipe):
                resource: dict[str, Any] = json.loads(recipe.fixed) | {"id": "a"}
                if recipe.type != "Patient":
                    resource[recipe.subject] = {"reference": "Patient/a"}
                for fill, value in fills:
                    sample: Any = f"{types[fill.resource]}/a" if fill.kind == "reference" else value
                    if fill.path:
                        put(resource, fill.path, sample)
                    else:
                        resource |= sample
                fault = check(resource, Identity(recipe.type, "a"))
                if fault is not None:
                    where = f"{table.name} {recipe.type}" + (f".{fault.element}" if fault.element else "")
                    raise PalmaresError("E-TAB-01", "map", detail=f"{where} would be refused by FHIR ({fault.reason})")


def _choices(recipe: Recipe) -> Iterable[list[tuple[Fill, Any]]]:
    """What the fills may hold: the required ones alone, all of them, and each entry of each list."""
    first = [
        (fill, next(iter(fill.values.values()), None) if fill.kind == "list" else _SAMPLES.get(fill.kind))
        for fill in recipe.fills
    ]
    yield [(fill, value) for fill, value in first if fill.required]
    yield first
    for number, fill in enumerate(recipe.fills):
        seen: list[Any] = []
        for value in fill.values.values():
            if value not in seen[:50]:
                seen.append(value)
                yield [*first[:number], (fill, value), *first[number + 1 :]]
