"""FHIRPath's operators on values: equality, order, membership, arithmetic (hl7.org/fhirpath, "Operations")."""

from fhir_adapters.views import moments
from fhir_adapters.views.elements import INTEGERS, NUMBERS, TIMES
from fhir_adapters.views.errors import PathError
from fhir_adapters.views.navigation import exists
from fhir_adapters.views.values import EMPTY, Value, as_list, bound, fresh, single, typed

STRINGS = {"string", "code", "id", "markdown", "uri", "url", "canonical", "oid", "uuid", "base64Binary", "xhtml"}
# FHIRPath's decimals have steps of 10^-8: rounding to them hides binary fractions (0.1 + 0.2 = 0.3)
_DECIMALS = 8


def boolean(sql: str) -> Value:
    """A boolean of this SQL."""
    return Value("boolean", sql)


def as_boolean(value: Value) -> str:
    """SQL of a value where a boolean is expected; a single item that is no boolean counts as true (FHIRPath 4.5)."""
    if value.type == "boolean":
        return single(typed(value))
    if value.type == "empty":
        return "CAST(NULL AS BOOLEAN)"
    return f"(CASE WHEN {exists(value)} THEN true END)"


def text(value: Value) -> str:
    """SQL of the single item as text."""
    if not value.primitive and value.type != "empty":
        raise PathError(f"a string is needed, not {value.type}")
    value = typed(value)
    sql = single(value)
    return sql if value.type in STRINGS | TIMES else f"CAST({sql} AS VARCHAR)"


def number(value: Value, what: str) -> Value:
    """The single item as a number; `what` needs it."""
    if value.type == "empty":
        return Value("integer", "CAST(NULL AS INTEGER)")
    if value.type not in NUMBERS:
        raise PathError(f"'{what}' needs a number, not {value.type}")
    value = typed(value)
    return Value(value.type, single(value))


def operate(operator: str, a_value: Value, b_value: Value) -> Value:
    """The value of a binary operator that is no boolean connective. Raises PathError when the types do not suit it."""
    match operator:
        case "=":
            return boolean(_equal(a_value, b_value))
        case "!=":
            return boolean(f"(NOT {_equal(a_value, b_value)})")
        case "<" | "<=" | ">" | ">=":
            return boolean(_ordered(operator, a_value, b_value))
        case "in":
            return boolean(_contained(a_value, b_value))
        case "contains":
            return boolean(_contained(b_value, a_value))
        case "|":
            return union(a_value, b_value)
        case "&":
            return Value("string", "(" + " || ".join(f"coalesce({text(one)}, '')" for one in (a_value, b_value)) + ")")
        case "+" if a_value.type in STRINGS or b_value.type in STRINGS:
            if not {a_value.type, b_value.type} <= STRINGS | {"empty"}:
                raise PathError(f"'+' between {a_value.type} and {b_value.type}")
            return Value("string", f"({text(a_value)} || {text(b_value)})")
        case "+" | "-" | "*" | "/" | "div" | "mod":
            return _arithmetic(operator, number(a_value, operator), number(b_value, operator))
    raise PathError(f"the operator '{operator}' is not supported")


def _arithmetic(operator: str, a: Value, b: Value) -> Value:
    whole = a.type in INTEGERS and b.type in INTEGERS
    if operator == "div":
        return Value("integer", f"CAST(trunc(CAST({a.sql} AS DOUBLE) / nullif({b.sql}, 0)) AS BIGINT)")
    if operator == "mod":
        rest = f"({a.sql} % nullif({b.sql}, 0))"
        return Value("integer", rest) if whole else Value("decimal", f"round({rest}, {_DECIMALS})")
    if operator == "/":
        return Value("decimal", f"round(CAST({a.sql} AS DOUBLE) / nullif({b.sql}, 0), {_DECIMALS})")
    if whole:
        return Value("integer", f"(CAST({a.sql} AS BIGINT) {operator} {b.sql})")
    return Value("decimal", f"round({a.sql} {operator} {b.sql}, {_DECIMALS})")


def _kind(a: Value, b: Value, operator: str) -> str:
    """What two operands are compared as: number, boolean, moment or string."""
    kinds = set()
    for value in (a, b):
        if value.choice:
            raise PathError(f"{value.choice[0]}[x] has several types: choose one with .ofType() before '{operator}'")
        if value.type in NUMBERS:
            kinds.add("number")
        elif value.type == "boolean":
            kinds.add("boolean")
        elif value.type in TIMES:
            kinds.add("moment")
        elif value.type in STRINGS:
            kinds.add("string")
        else:
            raise PathError(f"'{operator}' compares primitives, not {value.type}")
    if kinds == {"moment", "string"}:
        return "moment"
    if len(kinds) > 1:
        raise PathError(f"'{operator}' between {a.type} and {b.type}")
    return kinds.pop()


def _moment_types(a: Value, b: Value) -> tuple[str, str]:
    a_type = a.type if a.type in TIMES else b.type
    b_type = b.type if b.type in TIMES else a.type
    if (a_type == "time") != (b_type == "time"):
        raise PathError(f"{a_type} and {b_type} cannot be compared")
    return a_type, b_type


def _moments_compared(operator: str, x: str, x_type: str, y: str, y_type: str) -> str:
    return bound(x, lambda a: bound(y, lambda b: moments.compare(operator, a, x_type, b, y_type, fresh())))


def _equal(a: Value, b: Value) -> str:
    """FHIRPath's `=`: empty when one side is, false when the counts differ, else item by item in order."""
    if "empty" in (a.type, b.type):
        return "CAST(NULL AS BOOLEAN)"
    kind = _kind(a, b, "=")
    a, b = typed(a), typed(b)
    a_type, b_type = _moment_types(a, b) if kind == "moment" else ("", "")

    def same(x: str, y: str) -> str:
        return _moments_compared("=", x, a_type, y, b_type) if kind == "moment" else f"({x} = {y})"

    if not a.many and not b.many:
        return same(a.sql, b.sql)
    xs, ys = as_list(a), as_list(b)
    if not (a.many and b.many):
        items, one = (xs, b.sql) if a.many else (ys, a.sql)
        equal = same(f"{items}[1]", one) if a.many else same(one, f"{items}[1]")
        return f"(CASE WHEN len({items}) > 1 AND {one} IS NOT NULL THEN false ELSE {equal} END)"
    i = fresh()
    pairs = f"list_transform(range(1, len({xs}) + 1), lambda {i}: {same(f'{xs}[{i}]', f'{ys}[{i}]')})"
    return (
        f"(CASE WHEN coalesce(len({xs}), 0) = 0 OR coalesce(len({ys}), 0) = 0 THEN NULL"
        f" WHEN len({xs}) <> len({ys}) THEN false ELSE list_bool_and({pairs}) END)"
    )


def _ordered(operator: str, a: Value, b: Value) -> str:
    if "empty" in (a.type, b.type):
        return "CAST(NULL AS BOOLEAN)"
    kind = _kind(a, b, operator)
    if kind == "boolean":
        raise PathError(f"'{operator}' has no meaning for booleans")
    x, y = single(typed(a)), single(typed(b))
    if kind == "moment":
        a_type, b_type = _moment_types(a, b)
        return _moments_compared(operator, x, a_type, y, b_type)
    return f"({x} {operator} {y})"


def _contained(item: Value, items: Value) -> str:
    if item.type == "empty":
        return "CAST(NULL AS BOOLEAN)"
    if items.type == "empty":
        return "false"
    _kind(item, items, "in")
    x = single(typed(item))
    return f"(CASE WHEN {x} IS NOT NULL THEN coalesce(list_contains({as_list(typed(items))}, {x}), false) END)"


def union(a: Value, b: Value) -> Value:
    """The distinct items of both, in order of their first appearance."""
    if a.type == b.type == "empty":
        return EMPTY
    if a.type == "empty":
        a, b = b, a
    if b.type != "empty":
        _kind(a, b, "|")
    lists = [f"coalesce({as_list(typed(one))}, [])" for one in (a, b) if one.type != "empty"]
    items = f"list_concat({', '.join(lists)})" if len(lists) == 2 else lists[0]
    x, i = fresh(), fresh()
    sql = f"list_filter({items}, lambda {x}, {i}: list_position({items}, {x}) = {i})"
    return Value(a.type, sql, True, read=a.read)
