"""Columns of a complex type: an extension of ours to SQL on FHIR, for mappings that look at every coding of a concept.

A column whose `type` is complex yields a STRUCT, with `collection` a list of them. Its fields are those of the FHIR type (without
ids, extensions, contained resources, and without a type inside itself), or those that the tag `palmares/fields` names by
their JSON paths: `"tag": [{"name": "palmares/fields", "value": "system,code,userSelected"}]`. Fields stand in FHIR's order and
stay as they are read: each leaf is VARCHAR.
"""

from typing import Any

from fhir_adapters.views.elements import STORAGE, Read, element, elements, is_a
from fhir_adapters.views.errors import PathError, wrong
from fhir_adapters.views.navigation import unpacked
from fhir_adapters.views.values import Value, as_list, fresh, quote, single

FIELDS_TAG = "palmares/fields"
_LEFT_OUT = {"id", "extension", "modifierExtension", "contained"}


def complex_type(value: Value, declared: str | None, place: str) -> str:
    """The FHIR type of the column. The specification wants it declared, and wrong ones reported."""
    if declared is None:
        wrong(place, f"the path leads to {value.type}, which is not primitive: its type must be declared")
    if "." in value.type and declared in ("BackboneElement", "Element"):
        return value.type
    if not is_a(value.type, declared):
        wrong(place, f"the path leads to {value.type}, not to {declared}")
    return declared


def complex_column(value: Value, node: dict[str, Any], collection: bool, place: str) -> str:
    """SQL of the struct, or list of structs, of a column."""
    assert value.read is not None
    wanted = Read()
    fields = next((tag.get("value") for tag in node.get("tag", []) if tag.get("name") == FIELDS_TAG), None)
    if fields is None:
        _mark_all(value.type, wanted, value.read, (value.type,))
    else:
        for path in str(fields).split(","):
            _mark(value.type, wanted, value.read, path.strip(), f"{place}.tag")
    sql = f"coalesce({as_list(value)}, [])" if collection else single(value)
    if value.read.structure() == wanted.structure():
        return sql
    many = Read(many=collection, fields=value.read.fields)
    return _project(sql, many, Read(many=collection, fields=wanted.fields))


def _mark(type_: str, wanted: Read, read: Read, path: str, place: str) -> None:
    """Mark one dotted path of JSON names as read and wanted."""
    name, _, rest = path.partition(".")
    one = element(type_, name)
    if one is None:
        wrong(place, f"{type_} has no element '{name}'")
    leaf = one.type in STORAGE
    if leaf == bool(rest):
        wrong(place, f"'{name}' {'has no elements' if leaf else 'needs one of its elements'}: {one.type}")
    try:
        inner = [tree.child(name, many=one.many, leaf=leaf, rank=one.rank) for tree in (wanted, read)]
    except ValueError:
        raise PathError(f"'{name}' is used as two types that read differently") from None
    if rest:
        _mark(one.type, inner[0], inner[1], rest, place)


def _mark_all(type_: str, wanted: Read, read: Read, above: tuple[str, ...]) -> None:
    for one in elements(type_):
        if one.name in _LEFT_OUT or one.type in above or one.type in ("Extension", "Resource"):
            continue
        leaf = one.type in STORAGE
        inner = [tree.child(one.name, many=one.many, leaf=leaf, rank=one.rank) for tree in (wanted, read)]
        if not leaf:
            _mark_all(one.type, inner[0], inner[1], (*above, one.type))


def _project(sql: str, read: Read, wanted: Read) -> str:
    """The struct with only the wanted fields, out of one that other columns read more of."""
    if read.raw:
        sql = unpacked(sql, read)
    elif read.leaf or (read.structure() == wanted.structure()):
        return sql
    if read.many:
        x = fresh()
        return f"list_transform({sql}, lambda {x}: {_packed(x, read, wanted)})"
    return _packed(sql, read, wanted)


def _packed(sql: str, read: Read, wanted: Read) -> str:
    fields = ", ".join(
        f"{quote(name)}: {_project(f'struct_extract({sql}, {quote(name)})', read.fields[name], one)}"
        for name, one in wanted.ordered()
    )
    return f"(CASE WHEN {sql} IS NOT NULL THEN {{{fields}}} END)"
