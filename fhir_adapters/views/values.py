"""What an expression stands for in SQL: a scalar (NULL is FHIRPath's empty) or a list (NULL or [] is empty).

A value from the JSON stays VARCHAR (`text`) until `typed` casts it, so that boundary functions see its precision. The steps of a
path over a list are kept as one function of the item and become one list_transform when the list is needed.
"""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import count

from fhir_adapters.views.elements import BOOLEANS, INTEGERS, STORAGE, Element, Read
from fhir_adapters.views.errors import MANY, PathError
from fhir_adapters.views.parser import Literal

Item = Callable[[str], str]


@dataclass(frozen=True)
class Value:
    """A collection of FHIRPath as SQL.

    `sql` is the scalar, or the list when `many`; `item` then gives the item's SQL from the list element's (None: the element
    itself). `read` is where its children are marked. `choice` holds the alternatives of a `value[x]` that no ofType has
    resolved yet, and `sql`, `item` and `read` are then those of the parent. `origin` is the parent of a primitive (with its
    name and whether it repeats), for its extensions. `root` marks the resource itself; `guard` is then what where() asked of it.
    """

    type: str
    sql: str
    many: bool = False
    item: Item | None = None
    text: bool = False
    read: Read | None = None
    choice: tuple[str, tuple[Element, ...]] | None = None
    origin: tuple["Value", str, bool] | None = None
    root: bool = False
    guard: str = ""

    @property
    def primitive(self) -> bool:
        return self.type in STORAGE


EMPTY = Value("empty", "NULL")


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its focus, where its path began, the resource, `%rowIndex`, `$index`, the constants.

    `blank` tells that the innermost iteration is a forEachOrNull, whose `%rowIndex` is 0 in the row without an element.
    """

    this: Value
    context: Value
    resource: Value
    row_index: str
    constants: dict[str, Literal]
    index: str = ""
    blank: bool = False

    def at(self, this: Value, index: str = "") -> "Scope":
        """The same place with another focus."""
        return replace(self, this=this, index=index)


_names: ContextVar[Iterator[int]] = ContextVar("lambda names")
PLACE: ContextVar[str] = ContextVar("place of the path in the definition", default="")


def fresh() -> str:
    """A name for a lambda's parameter or a query that nothing else in the view has."""
    return f"v{next(_names.get())}"


def restart_names() -> None:
    """Begin the names anew (in this thread), so that the same view gives the same SQL."""
    _names.set(count())


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def bound(sql: str, body: Callable[[str], str], *, longest: int = 120) -> str:
    """SQL of `body` over an expression that it repeats: a long one is written once, as the argument of a lambda."""
    if len(sql) <= longest:
        return body(sql)
    x = fresh()
    return f"list_transform([{sql}], lambda {x}: {body(x)})[1]"


def cast(type_: str, sql: str) -> str:
    """A leaf that was read as VARCHAR, as its FHIR type; NULL where the text is none of that type."""
    if type_ in BOOLEANS:
        return f"(CASE {sql} WHEN 'true' THEN true WHEN 'false' THEN false END)"
    if type_ in INTEGERS:
        # TRY_CAST alone would round 5.5
        return f"(CASE WHEN NOT contains({sql}, '.') THEN TRY_CAST({sql} AS {STORAGE[type_]}) END)"
    if type_ == "decimal":
        # TRY_CAST alone would take 'NaN' and 'Infinity'; every number sorts before ':'
        return f"(CASE WHEN {sql} < ':' THEN TRY_CAST({sql} AS DOUBLE) END)"
    return sql


def typed(value: Value) -> Value:
    """The value with its leaves cast to their type."""
    if not value.text:
        return value
    if not value.many:
        return replace(value, sql=cast(value.type, value.sql), text=False)
    if STORAGE[value.type] == "VARCHAR":
        return replace(value, text=False)
    type_, item = value.type, value.item
    return replace(value, text=False, item=lambda it: cast(type_, item(it) if item else it))


def as_list(value: Value) -> str:
    """The collection as a SQL list without NULLs (NULL when the list itself is absent)."""
    if value.choice:
        raise PathError(f"{value.choice[0]}[x] has several types: choose one with .ofType()")
    if not value.many:
        return f"(CASE WHEN {present(value)} THEN [{value.sql}] END)"
    if value.item is None:
        return value.sql
    x, y = fresh(), fresh()
    return f"list_filter(list_transform({value.sql}, lambda {x}: {value.item(x)}), lambda {y}: {y} IS NOT NULL)"


def present(value: Value) -> str:
    """SQL that is true when the collection has an item; never NULL."""
    if value.choice:
        raise PathError(f"{value.choice[0]}[x] has several types: choose one with .ofType()")
    if value.root:
        return f"({value.guard} IS TRUE)" if value.guard else "true"
    if value.many:
        return f"(coalesce(len({as_list(value)}), 0) > 0)"
    return f"({value.sql} IS NOT NULL)"


def single(value: Value) -> str:
    """The collection as one SQL scalar; several items are an error when the query runs, which names the path's place."""
    if value.choice:
        raise PathError(f"{value.choice[0]}[x] has several types: choose one with .ofType()")
    if value.root:
        raise PathError("the resource itself is no value")
    if not value.many:
        return value.sql
    failure = f"error({quote(f'{MANY}|{PLACE.get()}|')})"
    only = bound(
        as_list(value), lambda items: f"CASE WHEN len({items}) > 1 THEN {failure} ELSE {items}[1] END", longest=800
    )
    return f"({only})"
