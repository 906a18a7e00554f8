"""FHIRPath syntax tree → SQL value, with each element that is used marked as read.

A path over single elements becomes plain struct access; lists become list functions only where an element repeats. Nothing here
unnests or joins: that is left to `selects`.
"""

from dataclasses import replace

from fhir_adapters.views.elements import is_a
from fhir_adapters.views.errors import PathError
from fhir_adapters.views.functions import FUNCTIONS, Argument, integer
from fhir_adapters.views.navigation import exists, item_at, known, member, of_type
from fhir_adapters.views.operators import as_boolean, boolean, number, operate
from fhir_adapters.views.parser import Binary, Call, Index, Literal, Name, Node, TypeTest, Unary, Variable
from fhir_adapters.views.values import EMPTY, Scope, Value, quote

_CONNECTIVES = {"and": "({} AND {})", "or": "({} OR {})", "xor": "({} <> {})", "implies": "((NOT {}) OR {})"}
# the code systems that FHIR's own FHIRPath variables name (hl7.org/fhir/R4/fhirpath.html, "variables")
_SYSTEMS = {"ucum": "http://unitsofmeasure.org", "sct": "http://snomed.info/sct", "loinc": "http://loinc.org"}


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
            return item_at(compile_node(base, scope), integer(compile_node(position, scope)))
        case Call(base, name, arguments):
            function = FUNCTIONS.get(name)
            if function is None:
                raise PathError(f"the function {name}() is not supported")
            least, most, body = function
            if not least <= len(arguments) <= most:
                raise PathError(f"{name}() takes {least if least == most else f'{least} to {most}'} arguments")
            focus = compile_node(base, scope) if base else scope.this
            return body(focus, tuple(Argument(one, compile_node) for one in arguments), scope)
        case TypeTest(operator, operand, type_):
            value = of_type(compile_node(operand, scope), known(type_))
            return value if operator == "as" else boolean(exists(value))
        case Unary(operator, operand):
            one = number(compile_node(operand, scope), operator)
            return replace(one, sql=f"(-{one.sql})") if operator == "-" else one
        case Binary(operator, left, right):
            a, b = compile_node(left, scope), compile_node(right, scope)
            if operator in _CONNECTIVES:
                return boolean(_CONNECTIVES[operator].format(as_boolean(a), as_boolean(b)))
            return operate(operator, a, b)
    raise AssertionError(node)


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
    if node.name == "context":
        return scope.context
    if node.name in ("resource", "rootResource"):
        return scope.resource
    if node.name in _SYSTEMS:
        return Value("string", quote(_SYSTEMS[node.name]))
    if node.name not in scope.constants:
        raise PathError(f"%{node.name} is not defined: the view has no constant of this name")
    return _literal(scope.constants[node.name])
