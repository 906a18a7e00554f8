"""FHIRPath syntax tree → SQL value, with each element that is used marked as read.

A path over single elements becomes plain struct access; lists become list functions only where an element repeats. Nothing here
unnests or joins: that is left to `selects`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fhir_adapters.views import moments
from fhir_adapters.views.elements import (
    INTEGERS,
    NUMBERS,
    STORAGE,
    TIMES,
    Element,
    Read,
    choices,
    element,
    is_a,
    is_resource,
    known_type,
)
from fhir_adapters.views.errors import PathError
from fhir_adapters.views.parser import Binary, Call, Index, Literal, Name, Node, TypeTest, Unary, Variable
from fhir_adapters.views.values import EMPTY, Value, as_list, bound, cast, fresh, present, quote, single, typed

_STRINGS = {"string", "code", "id", "markdown", "uri", "url", "canonical", "oid", "uuid", "base64Binary", "xhtml"}
# FHIRPath's decimals have steps of 10^-8: rounding to them hides binary fractions (0.1 + 0.2 = 0.3)
_DECIMALS = 8


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its focus, the resource around it, `%rowIndex`, `$index` and the view's constants.

    `blank` tells that the innermost iteration is a forEachOrNull, whose `%rowIndex` is 0 in the row without an element.
    """

    this: Value
    resource: Value
    row_index: str
    constants: dict[str, Literal]
    index: str = ""
    blank: bool = False

    def at(self, this: Value, index: str = "") -> "Scope":
        """The same place with another focus."""
        return replace(self, this=this, index=index)


def compile_node(node: Node, scope: Scope) -> Value:
    """The SQL value of an expression. Raises PathError."""
    match node:
        case Literal():
            return _literal(node)
        case Variable():
            return _variable(node, scope)
        case Name(None, name) if name[0].isupper() and is_a(scope.this.type, name):
            return scope.this
        case Name(base, name):
            return member(compile_node(base, scope) if base else scope.this, name)
        case Index(base, position):
            return _at(compile_node(base, scope), _integer(position, scope))
        case Call(base, name, arguments):
            function = _FUNCTIONS.get(name)
            if function is None:
                raise PathError(f"the function {name}() is not supported")
            least, most, body = function
            if not least <= len(arguments) <= most:
                raise PathError(f"{name}() takes {least if least == most else f'{least} to {most}'} arguments")
            return body(compile_node(base, scope) if base else scope.this, arguments, scope)
        case TypeTest(operator, operand, type_):
            value = of_type(compile_node(operand, scope), _known(type_))
            return value if operator == "as" else _boolean(_exists(value))
        case Unary(operator, operand):
            number = _number(compile_node(operand, scope), operator)
            return replace(number, sql=f"(-{number.sql})") if operator == "-" else number
        case Binary(operator, left, right):
            return _binary(operator, left, right, scope)
    raise AssertionError(node)


def boolean_of(node: Node, scope: Scope) -> str:
    """SQL of an expression where a boolean is expected; a single item that is no boolean counts as true (FHIRPath 4.5)."""
    return _as_boolean(compile_node(node, scope))


# --- leaves ------------------------------------------------------------------------------------------------------------------


def _literal(node: Literal) -> Value:
    match node.value:
        case None:
            return EMPTY
        case bool(value):
            return Value(node.type, "true" if value else "false")
        case str(value):
            return Value(node.type, quote(value))
        case value if node.type == "decimal":
            return Value(node.type, f"CAST({value!r} AS DOUBLE)")
        case value:
            return Value(node.type, repr(value))


def _variable(node: Variable, scope: Scope) -> Value:
    if not node.external:
        if node.name == "this":
            return scope.this
        if node.name == "index" and scope.index:
            return Value("integer", scope.index)
        raise PathError(f"${node.name} is not defined here")
    if node.name == "rowIndex":
        return Value("integer", scope.row_index)
    if node.name in ("resource", "rootResource", "context"):
        return scope.resource
    if node.name in _SYSTEMS:
        return Value("string", quote(_SYSTEMS[node.name]))
    if node.name not in scope.constants:
        raise PathError(f"%{node.name} is not defined: the view has no constant of this name")
    return _literal(scope.constants[node.name])


_SYSTEMS = {"ucum": "http://unitsofmeasure.org", "sct": "http://snomed.info/sct", "loinc": "http://loinc.org"}


# --- navigation --------------------------------------------------------------------------------------------------------------


def member(base: Value, name: str) -> Value:
    """The children of this FHIRPath name."""
    if base is EMPTY or base.type == "empty":
        return EMPTY
    if base.choice:
        raise PathError(f"{base.choice[0]}[x] has several types: choose one with .ofType() before .{name}")
    if base.primitive:
        if name == "extension":
            return _primitive_extensions(base)
        raise PathError(f"{base.type} has no element '{name}'")
    one = element(base.type, name)
    if one and one.choice:
        raise PathError(f"{name}: in FHIRPath write {one.choice}.ofType({one.type})")
    if one:
        return step(base, one)
    alternatives = choices(base.type, name)
    if not alternatives:
        raise PathError(f"{base.type} has no element '{name}'")
    if len(alternatives) == 1:
        return step(base, alternatives[0])
    return replace(base, choice=(name, tuple(alternatives)))


def step(base: Value, one: Element) -> Value:
    """The children of one JSON name, marked as read."""
    leaf = one.type in STORAGE
    assert base.read is not None
    try:
        read = base.read.child(one.name, many=one.many, leaf=leaf, rank=one.rank)
    except ValueError:
        raise PathError(f"'{one.name}' is used as two types that read differently") from None

    def get(parent: str) -> str:
        sql = f'_r."{one.name}"' if base.root else f"struct_extract({parent}, {quote(one.name)})"
        if base.guard:
            sql = f"(CASE WHEN {base.guard} THEN {sql} END)"
        if read.raw:
            sql = _unpacked(sql, read)
        elif leaf and one.many:
            x = fresh()  # a repeating primitive may hold null where it has only extensions
            sql = f"list_filter({sql}, lambda {x}: {x} IS NOT NULL)"
        return sql

    origin = (base, one.name, one.many) if leaf else None
    made = Value(one.type, "", one.many, text=leaf, read=None if leaf else read, origin=origin)
    if not base.many:
        return replace(made, sql=get(base.sql))
    inner = base.item
    if not one.many:
        return replace(made, sql=base.sql, many=True, item=lambda it: get(inner(it) if inner else it))
    x = fresh()
    return replace(made, sql=f"flatten(list_transform({base.sql}, lambda {x}: {get(inner(x) if inner else x)}))")


def _unpacked(sql: str, read: Read) -> str:
    """JSON as the struct of what is read of it."""
    form = quote(read.structure())
    if not read.many:
        return f"from_json({sql}, {form})"
    x = fresh()
    return f"list_transform({sql}, lambda {x}: from_json({x}, {form}))"


def _primitive_extensions(value: Value) -> Value:
    """The extensions of a primitive, which FHIR's JSON keeps beside it as `_name`."""
    if value.origin is None:
        raise PathError("only an element has extensions")
    parent, name, many = value.origin
    beside = step(parent, Element(f"_{name}", "Element", many, "", 0))
    return member(beside, "extension")


def of_type(value: Value, type_: str) -> Value:
    """The items of a type."""
    if value.choice:
        name, alternatives = value.choice
        found = [one for one in alternatives if one.type == type_]
        # FHIR's later versions add types to a choice: what the instance has decides
        one = found[0] if found else Element(name + type_[0].upper() + type_[1:], type_, False, name, 1000)
        return step(replace(value, choice=None), one)
    if value.type in ("Resource", "DomainResource") and is_resource(type_):
        kind = Element("resourceType", "code", False, "", -1)
        if value.many:
            x, items = fresh(), as_list(value)
            found_type = step(Value("Resource", x, read=value.read), kind).sql
            return Value(
                type_, f"list_filter({items}, lambda {x}: {found_type} = {quote(type_)})", True, read=value.read
            )
        sql = f"(CASE WHEN {step(value, kind).sql} = {quote(type_)} THEN {value.sql} END)"
        return replace(value, type=type_, sql=sql)
    return value if is_a(value.type, type_) else EMPTY


def _known(name: str) -> str:
    name = name[0].lower() + name[1:] if name[0].isupper() and name[0].lower() + name[1:] in STORAGE else name
    if not known_type(name):
        raise PathError(f"'{name}' is no type of FHIR R4")
    return name


def _type_argument(node: Node) -> str:
    match node:
        case Name(None, name) | Name(Name(None, "FHIR" | "System"), name) | Literal("string", str(name)):
            return _known(name)
    raise PathError("the name of a type expected")


def _at(value: Value, position: str) -> Value:
    if not value.many:
        guarded = f"(CASE WHEN {position} = 0 THEN {value.sql} END)"
        return value if position == "0" else _of(value, sql=guarded)
    where = str(int(position) + 1) if position.isdigit() else f"CASE WHEN {position} >= 0 THEN {position} + 1 END"
    return _of(value, sql=f"{as_list(value)}[{where}]")


def _of(value: Value, *, sql: str, many: bool = False) -> Value:
    """Items of `value` that were picked out by SQL."""
    return Value(value.type, sql, many, text=value.text, read=value.read)


# --- booleans ----------------------------------------------------------------------------------------------------------------


def _boolean(sql: str) -> Value:
    return Value("boolean", sql)


def _as_boolean(value: Value) -> str:
    if value.type == "boolean":
        return single(typed(value))
    if value.type == "empty":
        return "CAST(NULL AS BOOLEAN)"
    return f"(CASE WHEN {_exists(value)} THEN true END)"


def _exists(value: Value) -> str:
    if value.type == "empty":
        return "false"
    if value.choice:
        parent = replace(value, choice=None)
        return "(" + " OR ".join(present(step(parent, one)) for one in value.choice[1]) + ")"
    return present(value)


def _filtered(value: Value, criterion: Node, scope: Scope, keep: str = "{}") -> Value:
    """The items for which the criterion, as it stands in `keep`, is true."""
    if value.type == "empty":
        return value
    if not value.many:
        condition = keep.format(boolean_of(criterion, scope.at(value, "0")))
        if value.root:
            return replace(value, guard=f"{value.guard} AND {condition}" if value.guard else condition)
        return _of(value, sql=f"(CASE WHEN {condition} THEN {value.sql} END)")
    x, i = fresh(), fresh()
    focus = scope.at(Value(value.type, x, text=value.text, read=value.read), f"({i} - 1)")
    condition = keep.format(boolean_of(criterion, focus))
    return _of(value, sql=f"list_filter({as_list(value)}, lambda {x}, {i}: {condition})", many=True)


# --- functions ---------------------------------------------------------------------------------------------------------------

_Arguments = tuple[Node, ...]
_Body = Callable[[Value, _Arguments, Scope], Value]


def _where(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _filtered(value, arguments[0], scope)


def _exists_function(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _boolean(_exists(_filtered(value, arguments[0], scope) if arguments else value))


def _empty(value: Value, _: _Arguments, __: Scope) -> Value:
    return _boolean(f"(NOT {_exists(value)})")


def _not(value: Value, _: _Arguments, __: Scope) -> Value:
    return _boolean(f"(NOT {_as_boolean(value)})")


def _all(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _boolean(f"(NOT {_exists(_filtered(value, arguments[0], scope, keep='({}) IS NOT TRUE'))})")


def _first(value: Value, _: _Arguments, __: Scope) -> Value:
    return _at(value, "0") if value.many else value


def _last(value: Value, _: _Arguments, __: Scope) -> Value:
    return _of(value, sql=f"{as_list(value)}[-1]") if value.many else value


def _slice(value: Value, begin: str, end: str) -> Value:
    return value if value.type == "empty" else _of(value, sql=f"{as_list(value)}[{begin}:{end}]", many=True)


def _tail(value: Value, _: _Arguments, __: Scope) -> Value:
    return _slice(value, "2", "")


def _skip(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _slice(value, f"greatest({_integer(arguments[0], scope)}, 0) + 1", "")


def _take(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _slice(value, "1", f"greatest({_integer(arguments[0], scope)}, 0)")


def _single_function(value: Value, _: _Arguments, __: Scope) -> Value:
    return _of(value, sql=single(value)) if value.many else value


def _count(value: Value, _: _Arguments, __: Scope) -> Value:
    if value.many:
        return Value("integer", f"coalesce(len({as_list(value)}), 0)")
    return Value("integer", f"CAST({_exists(value)} AS INTEGER)")


def _distinct(value: Value, _: _Arguments, __: Scope) -> Value:
    return _union(value, EMPTY)


def _of_type(value: Value, arguments: _Arguments, _: Scope) -> Value:
    return of_type(value, _type_argument(arguments[0]))


def _is(value: Value, arguments: _Arguments, _: Scope) -> Value:
    return _boolean(_exists(of_type(value, _type_argument(arguments[0]))))


def _extension(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    return _filtered(member(value, "extension"), Binary("=", Name(None, "url"), arguments[0]), scope)


def _join(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    separator = _text(compile_node(arguments[0], scope)) if arguments else "''"
    if not value.many:
        return Value("string", f"coalesce({_text(value)}, '')")
    x = fresh()
    items = as_list(typed(value))
    if STORAGE.get(value.type) != "VARCHAR":
        items = f"list_transform({items}, lambda {x}: CAST({x} AS VARCHAR))"
    return Value("string", f"coalesce(array_to_string({items}, {separator}), '')")


def _iif(_: Value, arguments: _Arguments, scope: Scope) -> Value:
    condition = boolean_of(arguments[0], scope)
    yes = typed(compile_node(arguments[1], scope))
    no = typed(compile_node(arguments[2], scope)) if len(arguments) == 3 else EMPTY
    kind = no if yes.type == "empty" else yes
    if "empty" not in (yes.type, no.type) and STORAGE.get(yes.type) != STORAGE.get(no.type):
        raise PathError("the two results of iif() are of different types")
    many = yes.many or no.many
    yes_sql, no_sql = (as_list(one) if many and one.type != "empty" else one.sql for one in (yes, no))
    return Value(kind.type, f"(CASE WHEN {condition} THEN {yes_sql} ELSE {no_sql} END)", many, read=kind.read)


def _select(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    if not value.many:
        return compile_node(arguments[0], scope.at(value, "0"))
    x, i = fresh(), fresh()
    inner = typed(
        compile_node(arguments[0], scope.at(Value(value.type, x, text=value.text, read=value.read), f"({i} - 1)"))
    )
    sql = f"list_transform({as_list(value)}, lambda {x}, {i}: {as_list(inner) if inner.many else inner.sql})"
    y = fresh()
    sql = f"flatten({sql})" if inner.many else f"list_filter({sql}, lambda {y}: {y} IS NOT NULL)"
    return Value(inner.type, sql, True, read=inner.read)


def _low(value: Value, _: _Arguments, __: Scope) -> Value:
    return _boundary(value, high=False)


def _high(value: Value, _: _Arguments, __: Scope) -> Value:
    return _boundary(value, high=True)


def _boundary(value: Value, *, high: bool) -> Value:
    name = "highBoundary" if high else "lowBoundary"
    if value.type == "Period":
        return _boundary(member(value, "end" if high else "start"), high=high)
    if value.type == "empty":
        return value
    if value.type in NUMBERS:
        text = single(value) if value.text else f"CAST({single(value)} AS VARCHAR)"
        return Value("decimal", bound(text, lambda x: moments.decimal_boundary(x, high=high)))
    if value.type in TIMES:
        type_ = "dateTime" if value.type == "instant" else value.type
        return Value(type_, bound(single(value), lambda x: moments.boundary(x, type_, high=high)))
    raise PathError(f"{name}() is for dates, times, decimals and Periods, not for {value.type}")


_ID = "[A-Za-z0-9.-]{1,64}"


def _resource_key(value: Value, _: _Arguments, __: Scope) -> Value:
    if not is_resource(value.type):
        raise PathError(f"getResourceKey() is for a resource, not for {value.type}")
    return member(value, "id")


def _reference_key(value: Value, arguments: _Arguments, _: Scope) -> Value:
    """The id that a literal reference ends in, when it is of the type asked for; a key equals the id of the resource."""
    type_ = _type_argument(arguments[0]) if arguments else ""
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


# strings and numbers: one SQL function each


def _text(value: Value) -> str:
    value = typed(value)
    sql = single(value)
    return sql if value.type in _STRINGS | TIMES else f"CAST({sql} AS VARCHAR)"


def _string_function(type_: str, template: str) -> _Body:
    """A function of a string: `{0}` is the input, `{1}`… the arguments as SQL."""

    def body(value: Value, arguments: _Arguments, scope: Scope) -> Value:
        if value.type == "empty":
            return value
        if value.type not in _STRINGS | TIMES:
            raise PathError(f"a string is needed, not {value.type}")
        return Value(type_, template.format(_text(value), *(_text(compile_node(one, scope)) for one in arguments)))

    return body


def _substring(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    text, start = _text(value), _integer(arguments[0], scope)
    length = f", {_integer(arguments[1], scope)}" if len(arguments) == 2 else ""
    inside = f"{start} >= 0 AND {start} < length({text})"
    return Value("string", f"(CASE WHEN {inside} THEN substr({text}, {start} + 1{length}) END)")


def _number_function(type_: str, template: str) -> _Body:
    def body(value: Value, _: _Arguments, __: Scope) -> Value:
        if value.type == "empty":
            return value
        number = _number(value, "a function of a number")
        return Value(type_ or number.type, template.format(number.sql))

    return body


def _round(value: Value, arguments: _Arguments, scope: Scope) -> Value:
    digits = _integer(arguments[0], scope) if arguments else "0"
    return Value("decimal", f"round({_number(value, 'round()').sql}, {digits})")


def _convert(type_: str) -> _Body:
    def body(value: Value, _: _Arguments, __: Scope) -> Value:
        if value.type == "empty":
            return value
        return Value(type_, _text(value) if type_ == "string" else cast(type_, _text(value)))

    return body


_FUNCTIONS: dict[str, tuple[int, int, _Body]] = {
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
    "lowBoundary": (0, 0, _low),
    "highBoundary": (0, 0, _high),
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


# --- operators ---------------------------------------------------------------------------------------------------------------


def _number(value: Value, what: str) -> Value:
    if value.type == "empty":
        return Value("integer", "CAST(NULL AS INTEGER)")
    if value.type not in NUMBERS:
        raise PathError(f"'{what}' needs a number, not {value.type}")
    value = typed(value)
    return Value(value.type, single(value))


def _integer(node: Node, scope: Scope) -> str:
    value = compile_node(node, scope)
    if value.type not in INTEGERS:
        raise PathError(f"an integer is needed, not {value.type}")
    return _number(value, "index").sql


def _binary(operator: str, left: Node, right: Node, scope: Scope) -> Value:
    if operator in ("and", "or", "xor", "implies"):
        a, b = boolean_of(left, scope), boolean_of(right, scope)
        forms = {"and": "({} AND {})", "or": "({} OR {})", "xor": "({} <> {})", "implies": "((NOT {}) OR {})"}
        return _boolean(forms[operator].format(a, b))
    a_value, b_value = compile_node(left, scope), compile_node(right, scope)
    match operator:
        case "=":
            return _boolean(_equal(a_value, b_value))
        case "!=":
            return _boolean(f"(NOT {_equal(a_value, b_value)})")
        case "<" | "<=" | ">" | ">=":
            return _boolean(_ordered(operator, a_value, b_value))
        case "in":
            return _boolean(_contained(a_value, b_value))
        case "contains":
            return _boolean(_contained(b_value, a_value))
        case "|":
            return _union(a_value, b_value)
        case "&":
            return Value("string", "(" + " || ".join(f"coalesce({_text(one)}, '')" for one in (a_value, b_value)) + ")")
        case "+" if a_value.type in _STRINGS or b_value.type in _STRINGS:
            if not {a_value.type, b_value.type} <= _STRINGS | {"empty"}:
                raise PathError(f"'+' between {a_value.type} and {b_value.type}")
            return Value("string", f"({_text(a_value)} || {_text(b_value)})")
        case "+" | "-" | "*" | "/" | "div" | "mod":
            return _arithmetic(operator, _number(a_value, operator), _number(b_value, operator))
    raise PathError(f"the operator '{operator}' is not supported")


def _arithmetic(operator: str, a: Value, b: Value) -> Value:
    whole = a.type in INTEGERS and b.type in INTEGERS
    if operator == "div":
        return Value("integer", f"CAST(trunc(CAST({a.sql} AS DOUBLE) / nullif({b.sql}, 0)) AS BIGINT)")
    if operator == "mod":
        return Value("integer" if whole else "decimal", f"({a.sql} % nullif({b.sql}, 0))")
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
        elif value.type in _STRINGS:
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


def _union(a: Value, b: Value) -> Value:
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
