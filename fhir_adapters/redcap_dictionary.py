"""A REDCap project's data dictionary, and a column map held against it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fhir_adapters.column_map import ColumnMap, Recipe, Table, Wrong
from fhir_adapters.errors import PalmaresError

EVENT, INSTRUMENT, INSTANCE = "redcap_event_name", "redcap_repeat_instrument", "redcap_repeat_instance"
_OWN = frozenset(
    [EVENT, INSTRUMENT, INSTANCE, "redcap_data_access_group", "redcap_survey_identifier", "redcap_survey_timestamp"]
)
_CHOICE = re.compile(r"\s*([^,|]*?)\s*,")
_TEXTS = frozenset(["notes", "file", "descriptive", "signature"])  # types of field that no kind of value may read
# the titles of a downloaded dictionary and the names that the API has for them
_TITLES = {
    "variable / field name": "field_name",
    "form name": "form_name",
    "field type": "field_type",
    "choices, calculations, or slider labels": "select_choices_or_calculations",
    "identifier?": "identifier",
}


@dataclass(frozen=True)
class Field:
    """One field: its form, its type, the codes of its choices, whether the project marks it as identifying."""

    name: str
    form: str
    type: str
    choices: tuple[str, ...]
    identifying: bool

    def columns(self) -> tuple[str, ...]:
        """The columns of an export: a checkbox has one for each of its choices."""
        if self.type != "checkbox":
            return (self.name,)
        return tuple(f"{self.name}___{code.lower().replace('-', '_')}" for code in self.choices)


@dataclass(frozen=True)
class Dictionary:
    """The fields in their order; the first one names the record."""

    fields: tuple[Field, ...]

    @property
    def record(self) -> str:
        return self.fields[0].name

    def by_column(self) -> dict[str, Field]:
        """Every column that an export can have, but for REDCap's own."""
        return {column: field for field in self.fields for column in field.columns()}

    def of_form(self, form: str) -> tuple[Field, ...]:
        """The fields of a form, without the one that names the record."""
        return tuple(field for field in self.fields[1:] if field.form == form)


def read_dictionary(rows: Iterable[Mapping[str, Any]]) -> Dictionary:
    """From the API's rows, or a downloaded file's. Raises E-RED-02 when it is none."""
    fields = []
    for row in rows:
        named = {
            _TITLES.get(str(title).strip().lower(), str(title).strip().lower()): value for title, value in row.items()
        }
        name = str(named.get("field_name") or "").strip().lower()
        if not name:
            raise PalmaresError("E-RED-02", "dictionary", detail="a row names no field")
        kind = str(named.get("field_type") or "").strip().lower()
        choices = str(named.get("select_choices_or_calculations") or "")
        codes: tuple[str, ...] = {"yesno": ("1", "0"), "truefalse": ("1", "0")}.get(kind, ())
        if kind in ("radio", "dropdown", "checkbox"):
            codes = tuple(found.group(1) for one in choices.split("|") if (found := _CHOICE.match(one)))
        marked = str(named.get("identifier") or "").strip().lower() == "y"
        fields.append(Field(name, str(named.get("form_name") or "").strip(), kind, codes, marked))
    if not fields:
        raise PalmaresError("E-RED-02", "dictionary", detail="it has no field")
    return Dictionary(tuple(fields))


def fitted(mapping: ColumnMap, dictionary: Dictionary, titles: Iterable[str], missing: Iterable[str]) -> ColumnMap:
    """The map made ready for this project: its declared fields are known, missing data codes are missing, ids tell events and
    instances apart. Raises E-RED-02 for a map that does not fit the dictionary."""
    columns = dictionary.by_column()
    have = frozenset(titles)
    forms = {field.form for field in dictionary.fields}
    tables = []
    for table in mapping.tables:
        if not table.form:
            raise PalmaresError("E-RED-02", table.name, detail="it names no form")
        if table.form not in forms:
            raise PalmaresError("E-RED-02", table.name, detail="the project has no form of this name")
        if unknown := sorted(table.columns - columns.keys() - _OWN):
            raise PalmaresError("E-RED-02", table.name, detail=f"the project has no field called {unknown[0]}")
        for fill in (fill for recipe in table.recipes for fill in recipe.fills if fill.column):
            field = columns.get(fill.column)
            if field and (field.type in _TEXTS or (field.identifying and fill.kind == "pattern")):
                what = "free text or a file" if field.type in _TEXTS else "identifying"
                raise PalmaresError("E-RED-02", table.name, detail=f"{fill.column} is {what}: it may not be read")
        tables.append(replace(table, recipes=tuple(_told_apart(recipe, have) for recipe in table.recipes)))
    return replace(
        mapping,
        tables=tuple(tables),
        missing=mapping.missing | {code.strip().lower() for code in missing},
        # a declared field that the map leaves out is not read; only what the dictionary does not know is told
        ignore=mapping.ignore | columns.keys() | _OWN | {title for title in have if _is_own(title, dictionary)},
    )


def _told_apart(recipe: Recipe, have: frozenset[str]) -> Recipe:
    if recipe.id or recipe.type == "Patient":
        return recipe
    return replace(recipe, id=tuple(column for column in (EVENT, INSTANCE) if column in have))


def _is_own(title: str, dictionary: Dictionary) -> bool:
    """A form's state, its survey's time, or a missing data code of a checkbox."""
    forms = {field.form for field in dictionary.fields}
    checkboxes = {field.name for field in dictionary.fields if field.type == "checkbox"}
    form, _, what = title.rpartition("_")
    return (what in ("complete", "timestamp") and form in forms) or title.partition("___")[0] in checkboxes


def choices_left_out(mapping: ColumnMap, dictionary: Dictionary) -> list[Wrong]:
    """Choices that the project offers and a list of the map does not know."""
    columns = dictionary.by_column()
    wrongs = []
    for table in mapping.tables:
        for fill in (fill for recipe in table.recipes for fill in recipe.fills if fill.kind == "list"):
            field = columns.get(fill.column)
            known = fill.values.keys() | fill.missing | mapping.missing
            if field and field.type != "checkbox" and any(code.lower() not in known for code in field.choices):
                wrongs.append(Wrong(0, fill.column, "T-CHOICE"))
    return wrongs


def rows_of_form(
    table: Table,
    dictionary: Dictionary,
    titles: list[str],
    rows: Iterable[tuple[int, list[Any]]],
    patients: Mapping[str, Mapping[str, str]],
) -> Iterable[tuple[int, list[Any]]]:
    """The rows on which the form was filled in, with the record number of the record where the form does not hold it.

    `patients`: column of the record number → record → number.
    """
    places = {title: place for place, title in enumerate(titles)}
    record = places[dictionary.record]
    instrument, event = places.get(INSTRUMENT), places.get(EVENT)
    fields = [
        (places[column], field.type == "checkbox")
        for field in dictionary.of_form(table.form)
        for column in field.columns()
        if column in places
    ]
    carried = [
        (places[column], patients[column]) for column in {one.patient for one in table.recipes} if column in patients
    ]
    first_form = table.form == dictionary.fields[0].form
    for number, cells in rows:
        if instrument is not None and cells[instrument] not in ("", None, table.form):
            continue
        if event is not None and table.events and cells[event] not in table.events:
            continue
        filled = any(cells[place] not in ("", None) and not (box and str(cells[place]) == "0") for place, box in fields)
        if not filled and not (first_form and not fields):
            continue
        whole = list(cells)
        for place, numbers in carried:
            if whole[place] in ("", None):
                whole[place] = numbers.get(str(cells[record]), "")
        yield number, whole


def patients_of(
    mapping: ColumnMap, dictionary: Dictionary, titles: list[str], rows: Iterable[tuple[int, list[Any]]]
) -> dict[str, dict[str, str]]:
    """Column of the record number → record → number; a record with two different numbers has none."""
    places = {title: place for place, title in enumerate(titles)}
    columns = {recipe.patient for table in mapping.tables for recipe in table.recipes} & places.keys()
    found: dict[str, dict[str, str]] = {column: {} for column in columns}
    for _, cells in rows:
        record = str(cells[places[dictionary.record]])
        for column in columns:
            number = str(cells[places[column]] or "").strip()
            if number and found[column].setdefault(record, number) != number:
                found[column][record] = ""
    return found
