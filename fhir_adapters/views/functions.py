"""The functions that views may use: FHIRPath's, FHIR's extension() and SQL on FHIR's getResourceKey() and getReferenceKey()."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fhir_adapters.views import moments
from fhir_adapters.views.elements import INTEGERS, NUMBERS, STORAGE, TIMES, is_resource
from fhir_adapters.views.errors import PathError
from fhir_adapters.views.navigation import exists, item_at, known, member, of_type, picked
from fhir_adapters.views.operators import STRINGS, as_boolean, boolean, number, operate, text, union
from fhir_adapters.views.parser import Literal, Name, Node, Unary
from fhir_adapters.views.values import EMPTY, Scope, Value, as_list, bound, cast, fresh, quote, single, typed


@dataclass(frozen=True)
class Argument:
    """An argument, not evaluated yet: the function says in which scope."""

    node: Node
    compile: Callable[[Node, Scope], Value]

    def value(self, scope: Scope) -> Value:
        """The argument's value with the focus of the scope."""
        return self.compile(self.node, scope)

    def condition(self, scope: Scope) -> str:
        """The argument as SQL of a boolean."""
        return as_boolean(self.value(scope))

    def integer(self, scope: Scope) -> str:
        """The argument as SQL of an integer."""
        return integer(self.value(scope))

    def type(self) -> str:
        """The argument as the name of a FHIR type."""
        match self.node:
            case Name(None, name) | Name(Name(None, "FHIR" | "System"), name) | Literal("string", str(name)):
                return known(name)
        raise PathError("the name of a type expected")


Arguments = tuple[Argument, ...]
Function = Callable[[Value, Arguments, Scope], Value]


def integer(value: Value) -> str:
    """SQL of a value that must be an integer."""
    if value.type not in INTEGERS:
        raise PathError(f"an integer is needed, not {value.type}")
    return number(value, "index").sql


def _filtered(value: Value, criterion: Callable[[Scope], str], scope: Scope) -> Value:
    """The items for which the criterion, with the item as focus, is true."""
    if value.type == "empty":
        return value
    if not value.many:
        condition = criterion(scope.at(value, "0"))
        if value.root:
            return replace(value, guard=f"{value.guard} AND ({condition})" if value.guard else f"({condition})")
        return picked(value, sql=f"(CASE WHEN {condition} THEN {value.sql} END)")
    x, i = fresh(), fresh()
    condition = criterion(scope.at(picked(value, sql=x), f"({i} - 1)"))
    return picked(value, sql=f"list_filter({as_list(value)}, lambda {x}, {i}: {condition})", many=True)


def _where(value: Value, arguments: Arguments, scope: Scope) -> Value:
    return _filtered(value, arguments[0].condition, scope)


def _exists_function(value: Value, arguments: Arguments, scope: Scope) -> Value:
    return boolean(exists(_filtered(value, arguments[0].condition, scope) if arguments else value))


def _empty(value: Value, _: Arguments, __: Scope) -> Value:
    return boolean(f"(NOT {exists(value)})")


def _not(value: Value, _: Arguments, __: Scope) -> Value:
    return boolean(f"(NOT {as_boolean(value)})")


def _all(value: Value, arguments: Arguments, scope: Scope) -> Value:
    def otherwise(focus: Scope) -> str:
        return f"({arguments[0].condition(focus)}) IS NOT TRUE"

    return boolean(f"(NOT {exists(_filtered(value, otherwise, scope))})")


def _first(value: Value, _: Arguments, __: Scope) -> Value:
    return item_at(value, "0") if value.many else value


def _last(value: Value, _: Arguments, __: Scope) -> Value:
    return picked(value, sql=f"{as_list(value)}[-1]") if value.many else value


def _slice(value: Value, begin: str, end: str) -> Value:
    return value if value.type == "empty" else picked(value, sql=f"{as_list(value)}[{begin}:{end}]", many=True)


def _tail(value: Value, _: Arguments, __: Scope) -> Value:
    return _slice(value, "2", "")


def _skip(value: Value, arguments: Arguments, scope: Scope) -> Value:
    return _slice(value, f"greatest({arguments[0].integer(scope)}, 0) + 1", "")


def _take(value: Value, arguments: Arguments, scope: Scope) -> Value:
    return _slice(value, "1", f"greatest({arguments[0].integer(scope)}, 0)")


def _single_function(value: Value, _: Arguments, __: Scope) -> Value:
    return picked(value, sql=single(value)) if value.many else value


def _count(value: Value, _: Arguments, __: Scope) -> Value:
    if value.many:
        return Value("integer", f"coalesce(len({as_list(value)}), 0)")
    return Value("integer", f"CAST({exists(value)} AS INTEGER)")


def _distinct(value: Value, _: Arguments, __: Scope) -> Value:
    return union(value, EMPTY)


def _of_type(value: Value, arguments: Arguments, _: Scope) -> Value:
    return of_type(value, arguments[0].type())


def _is(value: Value, arguments: Arguments, _: Scope) -> Value:
    return boolean(exists(of_type(value, arguments[0].type())))


def _extension(value: Value, arguments: Arguments, scope: Scope) -> Value:
    url = arguments[0].value(scope)

    def same(focus: Scope) -> str:
        return as_boolean(operate("=", member(focus.this, "url"), url))

    return _filtered(member(value, "extension"), same, scope)


def _join(value: Value, arguments: Arguments, scope: Scope) -> Value:
    separator = text(arguments[0].value(scope)) if arguments else "''"
    if not value.many:
        return Value("string", f"coalesce({text(value)}, '')")
    if not value.primitive:
        raise PathError(f"join() is for primitives, not for {value.type}")
    x, items = fresh(), as_list(typed(value))
    if STORAGE.get(value.type) != "VARCHAR":
        items = f"list_transform({items}, lambda {x}: CAST({x} AS VARCHAR))"
    return Value("string", f"coalesce(array_to_string({items}, {separator}), '')")


def _iif(_: Value, arguments: Arguments, scope: Scope) -> Value:
    condition = arguments[0].condition(scope)
    yes = typed(arguments[1].value(scope))
    no = typed(arguments[2].value(scope)) if len(arguments) == 3 else EMPTY
    kind = no if yes.type == "empty" else yes
    if "empty" not in (yes.type, no.type) and (not kind.primitive or STORAGE[yes.type] != STORAGE.get(no.type)):
        raise PathError("the two results of iif() must be primitives of one type")
    many = yes.many or no.many
    yes_sql, no_sql = (as_list(one) if many and one.type != "empty" else one.sql for one in (yes, no))
    return Value(kind.type, f"(CASE WHEN {condition} THEN {yes_sql} ELSE {no_sql} END)", many, read=kind.read)


def _select(value: Value, arguments: Arguments, scope: Scope) -> Value:
    if not value.many:
        return arguments[0].value(scope.at(value, "0"))
    x, i = fresh(), fresh()
    inner = typed(arguments[0].value(scope.at(picked(value, sql=x), f"({i} - 1)")))
    sql = f"list_transform({as_list(value)}, lambda {x}, {i}: {as_list(inner) if inner.many else inner.sql})"
    y = fresh()
    sql = f"flatten({sql})" if inner.many else f"list_filter({sql}, lambda {y}: {y} IS NOT NULL)"
    return Value(inner.type, sql, True, read=inner.read)


def _low(value: Value, arguments: Arguments, _: Scope) -> Value:
    return _boundary(value, _precision(arguments), high=False)


def _high(value: Value, arguments: Arguments, _: Scope) -> Value:
    return _boundary(value, _precision(arguments), high=True)


def _precision(arguments: Arguments) -> int | None:
    match [one.node for one in arguments]:
        case []:
            return None
        case [Literal("integer", int(digits))] | [Unary("-", Literal("integer", int(digits)))]:
            return digits if isinstance(arguments[0].node, Literal) else -digits
    raise PathError("the precision of a boundary must be a whole number")


def _boundary(value: Value, precision: int | None, *, high: bool) -> Value:
    name = "highBoundary" if high else "lowBoundary"
    if value.type == "Period":
        return _boundary(member(value, "end" if high else "start"), precision, high=high)
    if value.type == "empty":
        return value
    if value.type in NUMBERS:
        digits = single(value) if value.text else f"CAST({single(value)} AS VARCHAR)"
        return Value("decimal", bound(digits, lambda x: moments.decimal_boundary(x, precision, high=high)))
    if value.type in TIMES:
        type_ = "dateTime" if value.type == "instant" else value.type
        return Value(type_, bound(single(value), lambda x: moments.boundary(x, type_, precision, high=high)))
    raise PathError(f"{name}() is for dates, times, decimals and Periods, not for {value.type}")


_ID = "[A-Za-z0-9.-]{1,64}"


def _resource_key(value: Value, _: Arguments, __: Scope) -> Value:
    if not is_resource(value.type):
        raise PathError(f"getResourceKey() is for a resource, not for {value.type}")
    return member(value, "id")


def _reference_key(value: Value, arguments: Arguments, _: Scope) -> Value:
    """The id that a literal reference ends in, when it is of the type asked for; a key equals the id of the resource."""
    type_ = arguments[0].type() if arguments else ""
    if type_ and not is_resource(type_):
        raise PathError(f"getReferenceKey(): '{type_}' is no resource of FHIR R4")
    if value.type == "empty":
        return value
    if value.type != "Reference":
        raise PathError(f"getReferenceKey() is for a Reference, not for {value.type}")
    reference = member(value, "reference")

    def key(sql: str) -> str:
        before = f"(?:^|/){type_ or '[A-Z][A-Za-z]+'}/"
        slow = f"nullif(regexp_extract({sql}, {quote(before + f'({_ID})(?:/_history/{_ID})?$')}, 1), '')"
        if not type_:
            return slow
        start = quote(type_ + "/")
        rest = f"substr({sql}, {len(type_) + 2})"
        return f"(CASE WHEN starts_with({sql}, {start}) AND NOT contains({rest}, '/') THEN {rest} ELSE {slow} END)"

    if not reference.many:
        return Value("id", key(reference.sql))
    inner = reference.item
    return Value("id", reference.sql, True, item=lambda it: key(inner(it) if inner else it))


def _string_function(type_: str, template: str) -> Function:
    """A function of a string: `{0}` is the input, `{1}`… the arguments as SQL."""

    def body(value: Value, arguments: Arguments, scope: Scope) -> Value:
        if value.type == "empty":
            return value
        if value.type not in STRINGS | TIMES:
            raise PathError(f"a string is needed, not {value.type}")
        return Value(type_, template.format(text(value), *(text(one.value(scope)) for one in arguments)))

    return body


def _substring(value: Value, arguments: Arguments, scope: Scope) -> Value:
    whole, start = text(value), arguments[0].integer(scope)
    length = f", {arguments[1].integer(scope)}" if len(arguments) == 2 else ""
    inside = f"{start} >= 0 AND {start} < length({whole})"
    return Value("string", f"(CASE WHEN {inside} THEN substr({whole}, {start} + 1{length}) END)")


def _number_function(type_: str, template: str) -> Function:
    def body(value: Value, _: Arguments, __: Scope) -> Value:
        if value.type == "empty":
            return value
        one = number(value, "a function of a number")
        return Value(type_ or one.type, template.format(one.sql))

    return body


def _round(value: Value, arguments: Arguments, scope: Scope) -> Value:
    digits = arguments[0].integer(scope) if arguments else "0"
    return Value("decimal", f"round({number(value, 'round()').sql}, {digits})")


def _convert(type_: str) -> Function:
    def body(value: Value, _: Arguments, __: Scope) -> Value:
        if value.type == "empty":
            return value
        return Value(type_, text(value) if type_ == "string" else cast(type_, text(value)))

    return body


FUNCTIONS: dict[str, tuple[int, int, Function]] = {
    "where": (1, 1, _where),
    "exists": (0, 1, _exists_function),
    "empty": (0, 0, _empty),
    "not": (0, 0, _not),
    "all": (1, 1, _all),
    "first": (0, 0, _first),
    "last": (0, 0, _last),
    "tail": (0, 0, _tail),
    "skip": (1, 1, _skip),
    "take": (1, 1, _take),
    "single": (0, 0, _single_function),
    "count": (0, 0, _count),
    "distinct": (0, 0, _distinct),
    "hasValue": (0, 0, _exists_function),
    "ofType": (1, 1, _of_type),
    "as": (1, 1, _of_type),
    "is": (1, 1, _is),
    "extension": (1, 1, _extension),
    "join": (0, 1, _join),
    "iif": (2, 3, _iif),
    "select": (1, 1, _select),
    "lowBoundary": (0, 1, _low),
    "highBoundary": (0, 1, _high),
    "getResourceKey": (0, 0, _resource_key),
    "getReferenceKey": (0, 1, _reference_key),
    "startsWith": (1, 1, _string_function("boolean", "starts_with({0}, {1})")),
    "endsWith": (1, 1, _string_function("boolean", "ends_with({0}, {1})")),
    "contains": (1, 1, _string_function("boolean", "contains({0}, {1})")),
    "matches": (1, 1, _string_function("boolean", "regexp_matches({0}, {1})")),
    "replace": (2, 2, _string_function("string", "replace({0}, {1}, {2})")),
    "replaceMatches": (2, 2, _string_function("string", "regexp_replace({0}, {1}, {2}, 'g')")),
    "upper": (0, 0, _string_function("string", "upper({0})")),
    "lower": (0, 0, _string_function("string", "lower({0})")),
    "trim": (0, 0, _string_function("string", "trim({0})")),
    "length": (0, 0, _string_function("integer", "length({0})")),
    "indexOf": (1, 1, _string_function("integer", "(strpos({0}, {1}) - 1)")),
    "substring": (1, 2, _substring),
    "abs": (0, 0, _number_function("", "abs({0})")),
    "ceiling": (0, 0, _number_function("integer", "CAST(ceil({0}) AS BIGINT)")),
    "floor": (0, 0, _number_function("integer", "CAST(floor({0}) AS BIGINT)")),
    "truncate": (0, 0, _number_function("integer", "CAST(trunc({0}) AS BIGINT)")),
    "round": (0, 1, _round),
    "toString": (0, 0, _convert("string")),
    "toInteger": (0, 0, _convert("integer")),
    "toDecimal": (0, 0, _convert("decimal")),
    "toBoolean": (0, 0, _convert("boolean")),
}
