"""FHIRPath text → syntax tree: a tokenizer and a precedence-climbing parser for what views use.

Grammar and precedence are those of FHIRPath N1 (hl7.org/fhirpath, "Operator precedence" and the ANTLR grammar in its annex).
A few literals that views have no use for (quantities) parse into an error that says so.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from fhir_adapters.views.errors import PathError


@dataclass(frozen=True)
class Literal:
    """A constant in the text; `type` is boolean, string, integer, decimal, date, dateTime, time or empty (`{}`)."""

    type: str
    value: str | int | float | bool | None


@dataclass(frozen=True)
class Name:
    """A child by name, of `base` or (None) of the focus."""

    base: "Node | None"
    name: str


@dataclass(frozen=True)
class Call:
    """A function, invoked on `base` or (None) on the focus."""

    base: "Node | None"
    name: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True)
class Index:
    """One item by its position, from 0."""

    base: "Node"
    position: "Node"


@dataclass(frozen=True)
class Variable:
    """`$this`, `$index`, or an external constant such as `%name` (without its sign)."""

    name: str
    external: bool


@dataclass(frozen=True)
class Unary:
    """`+` or `-` before a number."""

    operator: str
    operand: "Node"


@dataclass(frozen=True)
class Binary:
    """An operator between two expressions."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class TypeTest:
    """`is` or `as` with a type name."""

    operator: str
    operand: "Node"
    type: str


Node = Literal | Name | Call | Index | Variable | Unary | Binary | TypeTest

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<moment>@T?[0-9][0-9T:Z+-]*(?:\.[0-9]+(?:Z|[+-][0-9]{2}:[0-9]{2})?)?)
    | (?P<number>[0-9]+(?:\.[0-9]+)?)
    | (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<quoted>`(?:[^`\\]|\\.)*`)
    | (?P<external>%(?:[A-Za-z_][A-Za-z0-9_-]*|`(?:[^`\\]|\\.)*`|'(?:[^'\\]|\\.)*'))
    | (?P<dollar>\$[a-z]+)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign><=|>=|!=|!~|[-+*/=<>~|&.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"'": "'", '"': '"', "`": "`", "\\": "\\", "/": "/", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MOMENTS = {
    "time": re.compile(r"T[0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?"),
    "dateTime": re.compile(
        r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?T([0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
    ),
    "date": re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?"),
}
# loosest first
_LEVELS = (
    ("implies",),
    ("or", "xor"),
    ("and",),
    ("in", "contains"),
    ("=", "!=", "~", "!~"),
    ("<", "<=", ">", ">="),
    ("|",),
    ("is", "as"),
    ("+", "-", "&"),
    ("*", "/", "div", "mod"),
)
_STRENGTH = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise PathError(f"character {at + 1} does not belong there")
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(_Token(kind, match.group(), at))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


def _unescape(body: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] == "u":
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise PathError(f"\\{code} is no escape of FHIRPath")
        return _ESCAPES[code]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", one, body, flags=re.DOTALL)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.token
        self.at += 1
        return token

    def given(self, text: str) -> bool:
        if self.token.kind in ("sign", "word") and self.token.text == text:
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.given(text):
            self.fail(f"'{text}' expected")

    def fail(self, what: str) -> None:
        token = self.token
        found = f"found '{token.text}'" if token.text else "found the end"
        raise PathError(f"{what} at character {token.at + 1}, {found}")

    def whole(self) -> Node:
        node = self.expression(0)
        if self.token.kind != "end":
            self.fail("an operator expected")
        return node

    def expression(self, level: int) -> Node:
        node = self.unary()
        while True:
            token = self.token
            operator = token.text if token.kind in ("sign", "word") else ""
            strength = _STRENGTH.get(operator, -1)
            if strength < level:
                return node
            self.take()
            if operator in ("is", "as"):
                node = TypeTest(operator, node, self.type_name())
            else:
                node = Binary(operator, node, self.expression(strength + 1))

    def unary(self) -> Node:
        if self.token.kind == "sign" and self.token.text in "+-":
            return Unary(self.take().text, self.unary())
        node = self.term()
        while True:
            if self.given("."):
                node = self.invocation(node)
            elif self.given("["):
                node = Index(node, self.expression(0))
                self.expect("]")
            else:
                return node

    def term(self) -> Node:
        token = self.token
        match token.kind:
            case "string":
                self.take()
                return Literal("string", _unescape(token.text[1:-1]))
            case "number":
                self.take()
                if self.token.kind == "string" or self.token.text in _UNITS:
                    raise PathError(f"a quantity literal at character {token.at + 1} is not supported")
                if "." in token.text:
                    return Literal("decimal", float(token.text))
                return Literal("integer", int(token.text))
            case "moment":
                self.take()
                return self.moment(token)
            case "external":
                self.take()
                return Variable(_unescape(token.text[1:].strip("`'")), external=True)
            case "dollar":
                self.take()
                return Variable(token.text[1:], external=False)
            case "word" if token.text in ("true", "false"):
                self.take()
                return Literal("boolean", token.text == "true")
            case "word" | "quoted":
                return self.invocation(None)
        if self.given("("):
            node = self.expression(0)
            self.expect(")")
            return node
        if self.given("{"):
            self.expect("}")
            return Literal("empty", None)
        self.fail("an expression expected")
        raise AssertionError  # fail() raises

    def invocation(self, base: Node | None) -> Node:
        token = self.token
        if token.kind == "quoted":
            self.take()
            return Name(base, _unescape(token.text[1:-1]))
        if token.kind == "dollar" and base is not None:
            self.fail("a name expected")
        if token.kind != "word":
            self.fail("a name expected")
        self.take()
        if not self.given("("):
            return Name(base, token.text)
        arguments: list[Node] = []
        if not self.given(")"):
            arguments.append(self.expression(0))
            while self.given(","):
                arguments.append(self.expression(0))
            self.expect(")")
        return Call(base, token.text, tuple(arguments))

    def type_name(self) -> str:
        token = self.token
        if token.kind not in ("word", "quoted"):
            self.fail("a type expected")
        self.take()
        name = token.text.strip("`")
        if name in ("FHIR", "System") and self.given("."):
            return self.type_name()
        return name

    @staticmethod
    def moment(token: _Token) -> Literal:
        text = token.text[1:]
        for type_, form in _MOMENTS.items():
            if form.fullmatch(text):
                return Literal(type_, text.removeprefix("T").removesuffix("T"))
        raise PathError(f"the date or time at character {token.at + 1} is malformed")


_UNITS = {
    unit + plural for unit in ("year", "month", "week", "day", "hour", "minute", "second") for plural in ("", "s")
}
_UNITS |= {"millisecond", "milliseconds"}


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The syntax tree of a FHIRPath expression. Raises PathError."""
    try:
        return _Parser(text).whole()
    except RecursionError:
        raise PathError("the expression is nested too deep") from None
