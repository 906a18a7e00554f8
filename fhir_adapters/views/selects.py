"""ViewDefinition → DuckDB SQL: the selects as one chain of unnests over the source.

Each iteration (`forEach`, `forEachOrNull`, `repeat`) and each `unionAll` adds one unnest to the chain: siblings multiply, as the
specification's cross join does, and the source is read once. In a branch of a union the other branches' lists are `[NULL]`.
A place where no element is (the row of an empty forEachOrNull, the other branches) has an `alive` condition that is false there.

The definition is compiled twice: once to learn what it reads, once to write the SQL that knows it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_adapters.views.complex import complex_column, complex_type
from fhir_adapters.views.elements import NUMBERS, STORAGE, Read, is_resource, known_type
from fhir_adapters.views.errors import PATH, PathError, wrong
from fhir_adapters.views.expressions import compile_node
from fhir_adapters.views.parser import Literal, parse
from fhir_adapters.views.values import PLACE, Scope, Value, as_list, fresh, quote, restart_names, single, typed

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ITERATIONS = ("forEach", "forEachOrNull", "repeat")
_ANYWHERE = {"id", "extension", "modifierExtension"}
_SELECT_KEYS = {"column", "select", "unionAll", *_ITERATIONS} | _ANYWHERE
_COLUMN_KEYS = {"path", "name", "type", "collection", "description", "tag"} | _ANYWHERE
_ROOT = "_r"
_BELOW = "\1"  # in a link of the chain: the relation that it builds on


@dataclass(frozen=True)
class CompiledView:
    """A view as SQL.

    `names` and `types` are the columns in order and their FHIR types; `collections` those that are lists. `columns` is what the
    source must have: top-level element → DuckDB type, pruned to the paths used (`resourceType` is always among them).
    """

    name: str
    resource: str
    names: list[str]
    types: dict[str, str]
    collections: frozenset[str]
    columns: dict[str, str]
    _outer: str
    _inner: str

    def sql(self, source: str, keep: Sequence[str] = ()) -> str:
        """A SELECT over `source`, the text of a relation or table function that has `columns`.

        `keep` names further columns of the source (such as `filename`) that are passed through after the view's own.
        """
        more = "".join(f', {_ROOT}."{name}"' for name in keep)
        return self._outer.replace("\0", more) + self._inner.replace("\0", source)


@dataclass(frozen=True)
class _Column:
    name: str
    type: str
    collection: bool
    sql: str
    place: str


@dataclass
class _Compiler:
    view: dict[str, Any]
    resource: str
    read: Read
    constants: dict[str, Literal]
    chain: list[str] = field(default_factory=list)

    def next_name(self, letter: str) -> str:
        return f"__{letter}{len(self.chain)}"

    # --- paths ---

    def value(self, path: object, place: str, scope: Scope) -> Value:
        if not isinstance(path, str) or not path.strip():
            wrong(place, "a FHIRPath expression is needed here")
        PLACE.set(place)
        try:
            return compile_node(parse(path), scope)
        except PathError as error:
            wrong(place, str(error), PATH)

    # --- rows ---

    def select(self, node: Any, place: str, scope: Scope, alive: str) -> list[_Column]:
        """Add the iterations of a select to the chain; its columns, in order."""
        _known_keys(node, _SELECT_KEYS, place)
        iterations = [key for key in _ITERATIONS if key in node]
        if len(iterations) > 1:
            wrong(place, f"only one of {' and '.join(iterations)} can stand in a select")
        if not any(key in node for key in ("column", "select", "unionAll")):
            wrong(place, "a select needs column, select or unionAll")
        if iterations:
            scope, alive = self.iterate(iterations[0], node, f"{place}.{iterations[0]}", scope, alive)
        columns = [
            self.column(one, f"{place}.column[{n}]", scope, alive) for n, one in enumerate(_list(node, "column", place))
        ]
        for n, one in enumerate(_list(node, "select", place)):
            columns += self.select(one, f"{place}.select[{n}]", scope, alive)
        branches = _list(node, "unionAll", place)
        if branches:
            columns += self.union(branches, f"{place}.unionAll", scope, alive)
        return columns

    def iterate(self, kind: str, node: Any, place: str, scope: Scope, alive: str) -> tuple[Scope, str]:
        """One row for each item of a path; the scope of the item and the condition that there is one."""
        path = node[kind]
        value = self.repeat(path, place, scope) if kind == "repeat" else self.value(path, place, scope)
        try:
            items = as_list(value) if value.type != "empty" else "CAST([] AS VARCHAR[])"
        except PathError as error:
            wrong(place, str(error), PATH)
        if kind == "forEachOrNull":
            there = f"len({items}) > 0" + (f" AND {alive}" if alive else "")
            items = f"CASE WHEN {there} THEN {items} ELSE [NULL] END"
        elif alive:
            items = f"CASE WHEN {alive} THEN {items} ELSE [NULL] END"
        item, index = self.next_name("e"), self.next_name("i")
        uses_index = _mentions_row_index(node)
        if uses_index:
            held = self.next_name("l")
            self.chain.append(f'SELECT *, {items} AS "{held}" FROM {_BELOW} AS {_ROOT}')
            items = f'{_ROOT}."{held}"'
        subscript = f', generate_subscripts({items}, 1) - 1 AS "{index}"' if uses_index else ""
        self.chain.append(f'SELECT *, unnest({items}) AS "{item}"{subscript} FROM {_BELOW} AS {_ROOT}')
        sql = f'{_ROOT}."{item}"'
        focus = replace(value, guard="") if value.root else Value(value.type, sql, text=value.text, read=value.read)
        row_index = f'{_ROOT}."{index}"' if uses_index else "0"
        inner = replace(scope, this=focus, context=focus, row_index=row_index, blank=kind == "forEachOrNull")
        return inner, f"{sql} IS NOT NULL" if alive or kind == "forEachOrNull" else ""

    def repeat(self, paths: Any, place: str, scope: Scope) -> Value:
        """The items of the paths, of those items in turn, and so on, depth first, as one list of structs.

        The items contain themselves, so they are read as JSON and taken apart level by level in a recursive query.
        """
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            wrong(place, "a list of FHIRPath expressions is needed here")
        PLACE.set(place)
        shared = Read()
        types: set[str] = set()
        misses: list[tuple[int, str]] = []

        def children(focus: Value) -> dict[int, str]:
            """The items of each path that the focus has, by the path's number."""
            found = {}
            for n, path in enumerate(paths):
                try:
                    value = compile_node(parse(path), scope.at(focus))
                    if value.read is None or value.root or value.choice:
                        raise PathError("repeat needs a path to elements that have children")
                    value.read.merge(shared)
                    value.read.raw = True
                    found[n] = as_list(value)
                    types.add(value.type)
                except PathError as error:
                    misses.append((n, str(error)))  # a path may lead on from the items only, or from the start only
            return found

        walk = fresh()
        start = children(scope.this)
        onward = children(Value(next(iter(types), ""), f"{walk}.found.node", read=shared)) if start else {}
        for n, message in misses:
            if n not in start and n not in onward:
                wrong(f"{place}[{n}]", message, PATH)
        if len(types) > 1:
            wrong(place, f"the paths lead to elements of different types: {', '.join(sorted(types))}", PATH)
        # the place of an item: (path, position) pairs from the start; their order is depth first
        sql = f"WITH RECURSIVE {walk} AS (SELECT unnest({_entries(start, 'CAST([] AS BIGINT[])')}) AS found"
        if onward:
            sql += f" UNION ALL SELECT unnest({_entries(onward, f'{walk}.found.place')}) AS found FROM {walk}"
        sql = f"({sql}) SELECT list(found.node ORDER BY found.place) FROM {walk})"
        return Value(types.pop(), sql, many=True, read=shared)

    def union(self, branches: list[Any], place: str, scope: Scope, alive: str) -> list[_Column]:
        """The rows of every branch; a branch number tells them apart."""
        number = self.next_name("b")
        numbers = "[" + ", ".join(str(n) for n in range(len(branches))) + "]"
        if alive:
            numbers = f"CASE WHEN {alive} THEN {numbers} ELSE [NULL] END"
        self.chain.append(f'SELECT *, unnest({numbers}) AS "{number}" FROM {_BELOW} AS {_ROOT}')
        sql = f'{_ROOT}."{number}"'
        scope = replace(scope, blank=False)
        columns = [self.select(one, f"{place}[{n}]", scope, f"{sql} = {n}") for n, one in enumerate(branches)]
        first = columns[0]
        for n, others in enumerate(columns[1:], 1):
            if [one.name for one in others] != [one.name for one in first]:
                wrong(f"{place}[{n}]", "the columns are not those of the first branch, in the same order")
        return [_merge([branch[n] for branch in columns], sql, place) for n in range(len(first))]

    def column(self, node: Any, place: str, scope: Scope, alive: str) -> _Column:
        _known_keys(node, _COLUMN_KEYS, place)
        name = node.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            wrong(f"{place}.name", "a name of letters, digits and underscores that begins with a letter is needed here")
        collection = node.get("collection", False)
        if not isinstance(collection, bool):
            wrong(f"{place}.collection", "true or false is needed here")
        declared = node.get("type")
        if declared is not None:
            if not isinstance(declared, str):
                wrong(f"{place}.type", "the name of a FHIR type is needed here")
            declared = declared.rpartition("/")[2].removeprefix("System.")
            declared = (
                declared[0].lower() + declared[1:] if declared[:1].lower() + declared[1:] in STORAGE else declared
            )
            if not known_type(declared) and declared not in ("BackboneElement", "Element"):
                wrong(f"{place}.type", f"'{declared}' is no type of FHIR R4")
        value = self.value(node.get("path"), f"{place}.path", scope)
        try:
            if value.choice or value.root:
                single(value)  # says why it is no value
            if value.type in STORAGE or value.type == "empty":
                type_, sql = _primitive_column(value, declared, collection, name)
            else:
                type_ = complex_type(value, declared, f"{place}.type")
                sql = complex_column(value, node, collection, place)
        except PathError as error:
            wrong(f"{place}.path", str(error), PATH)
        if alive and not (scope.blank and _mentions_row_index(node.get("path"))):
            sql = f"CASE WHEN {alive} THEN {sql} END"
        return _Column(name, type_, collection, sql, place)


def _entries(lists: dict[int, str], before: str) -> str:
    """The items of several paths as one list of {node, place}."""
    parts = []
    for n, items in lists.items():
        x, i = fresh(), fresh()
        entry = f"{{'node': {x}, 'place': list_concat({before}, [{n}, {i}])}}"
        parts.append(f"coalesce(list_transform({items}, lambda {x}, {i}: {entry}), [])")
    return parts[0] if len(parts) == 1 else f"list_concat({', '.join(parts)})"


def _fits(type_: str, declared: str) -> bool:
    """Whether values of a primitive type can stand in a column declared otherwise: numbers as numbers, all as text."""
    if STORAGE.get(declared) == "VARCHAR":
        return True
    return declared == type_ or (declared in NUMBERS and type_ in NUMBERS)


def _primitive_column(value: Value, declared: str | None, collection: bool, name: str) -> tuple[str, str]:
    if declared is not None and value.type != "empty" and not _fits(value.type, declared):
        raise PathError(f"the path leads to {value.type}, not to {declared}")
    type_ = declared or ("string" if value.type == "empty" else value.type)
    storage = STORAGE.get(type_, "VARCHAR")
    # a leaf is cast to its own storage, and every text is VARCHAR; a computed number may be wider than its column
    exact = STORAGE.get(value.type) == storage and (value.text or storage in ("VARCHAR", "BOOLEAN"))
    value = typed(value)
    if collection:
        sql = "[]" if value.type == "empty" else f"coalesce({as_list(value)}, [])"
        return type_, sql if exact else f"TRY_CAST({sql} AS {storage}[])"
    sql = single(value)
    return type_, sql if exact else f"TRY_CAST({sql} AS {storage})"


def _merge(columns: list[_Column], number: str, place: str) -> _Column:
    """One column out of those of the same name in each branch."""
    first = columns[0]
    types = {STORAGE.get(one.type, one.type) for one in columns}
    numbers = all(one.type in NUMBERS for one in columns)
    if len({one.collection for one in columns}) > 1 or (len(types) > 1 and not numbers):
        wrong(place, f"the branches give the column '{first.name}' different types")
    type_ = "decimal" if numbers and "DOUBLE" in types else first.type
    cases = " ".join(f"WHEN {n} THEN {one.sql}" for n, one in enumerate(columns))
    return _Column(first.name, type_, first.collection, f"CASE {number} {cases} END", first.place)


def _mentions_row_index(node: Any) -> bool:
    """Whether a path, or any path below a part of the definition, uses %rowIndex."""
    if isinstance(node, dict):
        return any(_mentions_row_index(one) for one in node.values())
    if isinstance(node, list):
        return any(_mentions_row_index(one) for one in node)
    return isinstance(node, str) and ("%rowIndex" in node or "%`rowIndex`" in node)


def _known_keys(node: Any, known: set[str], place: str) -> None:
    if not isinstance(node, dict):
        wrong(place, "an object is needed here")
    for key in node:
        if key not in known:
            wrong(f"{place}.{key}", "ViewDefinition has no such element here")


def _list(node: dict[str, Any], key: str, place: str) -> list[Any]:
    value = node.get(key, [])
    if not isinstance(value, list):
        wrong(f"{place}.{key}" if place else key, "a list is needed here")
    return value


# the primitives that a constant may have (ViewDefinition.constant.value[x])
_CONSTANT_TYPES = sorted(set(STORAGE) - {"markdown", "xhtml"})


def _constants(view: dict[str, Any]) -> dict[str, Literal]:
    found: dict[str, Literal] = {}
    for n, node in enumerate(_list(view, "constant", "")):
        place = f"constant[{n}]"
        if not isinstance(node, dict):
            wrong(place, "an object is needed here")
        name = node.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            wrong(f"{place}.name", "a name of letters, digits and underscores that begins with a letter is needed here")
        if name in found:
            wrong(f"{place}.name", f"the constant '{name}' is defined twice")
        types = {f"value{type_[0].upper()}{type_[1:]}": type_ for type_ in _CONSTANT_TYPES}
        given = [key for key in node if key.startswith("value")]
        if len(given) != 1 or given[0] not in types:
            wrong(place, f"the constant '{name}' needs one value of a primitive type, such as valueString")
        type_, value = types[given[0]], node[given[0]]
        storage = STORAGE[type_]
        fits = {
            "BOOLEAN": isinstance(value, bool),
            "DOUBLE": isinstance(value, int | float) and not isinstance(value, bool),
            "VARCHAR": isinstance(value, str),
        }
        if not fits.get(storage, isinstance(value, int) and not isinstance(value, bool)):
            wrong(f"{place}.{given[0]}", f"a {type_} is needed here")
        found[name] = Literal(type_, value)
    return found


def compile_view(view: dict[str, Any]) -> CompiledView:
    """The SQL of a ViewDefinition. Raises PalmaresError E-VIEW-01 or E-VIEW-02 with the place in the definition."""
    if not isinstance(view, dict):
        wrong("", "an object is needed here")
    resource = view.get("resource")
    if not isinstance(resource, str) or not is_resource(resource):
        wrong("resource", "the name of a FHIR R4 resource is needed here")
    name = view.get("name", "")
    if not isinstance(name, str) or (name and not _NAME.fullmatch(name)):
        wrong("name", "a name of letters, digits and underscores that begins with a letter is needed here")
    constants = _constants(view)
    selects = _list(view, "select", "")
    if not selects:
        wrong("select", "at least one select is needed")
    read = Read()
    read.child("resourceType", many=False, leaf=True, rank=-1)
    for _ in range(2):
        restart_names()
        compiler = _Compiler(view, resource, read, constants)
        this = Value(resource, f'{_ROOT}."resourceType"', read=read, root=True)
        scope = Scope(this, this, this, "0", constants)
        filters = [f'{_ROOT}."resourceType" = {quote(resource)}']
        for n, node in enumerate(_list(view, "where", "")):
            filters.append(_filter(compiler, node, f"where[{n}]", scope))
        columns = [
            column for n, node in enumerate(selects) for column in compiler.select(node, f"select[{n}]", scope, "")
        ]
    _unique(columns)
    relation = f"\0 AS {_ROOT} WHERE {' AND '.join(filters)}"
    for link in compiler.chain:
        if relation.startswith("\0"):
            relation = f"(SELECT * FROM {relation})"
        relation = f"({link.replace(_BELOW, relation)})"
    alias = "" if relation.startswith("\0") else f" AS {_ROOT}"
    return CompiledView(
        name=name,
        resource=resource,
        names=[one.name for one in columns],
        types={one.name: one.type for one in columns},
        collections=frozenset(one.name for one in columns if one.collection),
        columns={name: one.duckdb() for name, one in read.ordered()},
        _outer="SELECT " + ", ".join(f'{one.sql} AS "{one.name}"' for one in columns) + "\0",
        _inner=f" FROM {relation}{alias}",
    )


def _filter(compiler: _Compiler, node: Any, place: str, scope: Scope) -> str:
    if not isinstance(node, dict):
        wrong(place, "an object is needed here")
    value = compiler.value(node.get("path"), f"{place}.path", scope)
    if value.type not in ("boolean", "empty"):
        wrong(f"{place}.path", f"a boolean is needed here, the path leads to {value.type}")
    try:
        return single(typed(value)) if value.type == "boolean" else "false"
    except PathError as error:
        wrong(f"{place}.path", str(error), PATH)


def _unique(columns: list[_Column]) -> None:
    seen: set[str] = set()
    for one in columns:
        if one.name in seen:
            wrong(f"{one.place}.name", f"the column '{one.name}' is defined twice")
        seen.add(one.name)
