"""FHIRPath text → tree: precedence, literals, names, and errors that say where."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.views.errors import PathError
from fhir_adapters.views.parser import Binary, Call, Index, Literal, Name, TypeTest, Unary, Variable, parse

A, B, C = (Name(None, name) for name in "abc")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a.b", Name(A, "b")),
        ("a[0].b", Name(Index(A, Literal("integer", 0)), "b")),
        ("a + b * c", Binary("+", A, Binary("*", B, C))),
        ("a - b - c", Binary("-", Binary("-", A, B), C)),
        ("(a + b) * c", Binary("*", Binary("+", A, B), C)),
        ("a and b or c", Binary("or", Binary("and", A, B), C)),
        ("a or b and c", Binary("or", A, Binary("and", B, C))),
        ("a = b and c", Binary("and", Binary("=", A, B), C)),
        ("a < b = c", Binary("=", Binary("<", A, B), C)),
        ("a | b = c", Binary("=", Binary("|", A, B), C)),
        ("a implies b or c", Binary("implies", A, Binary("or", B, C))),
        ("-a.b", Unary("-", Name(A, "b"))),
        ("a is Quantity", TypeTest("is", A, "Quantity")),
        ("a as FHIR.Quantity", TypeTest("as", A, "Quantity")),
        ("a.where(b = 'x').c", Name(Call(A, "where", (Binary("=", B, Literal("string", "x")),)), "c")),
        ("f(a, b)", Call(None, "f", (A, B))),
        ("$this.a", Name(Variable("this", False), "a")),
        ("%name", Variable("name", True)),
        ("%`us-zip`", Variable("us-zip", True)),
        ("`div`", Name(None, "div")),
        ("a.as", Name(A, "as")),
        ("a.contains('x')", Call(A, "contains", (Literal("string", "x"),))),
        ("a // to the end\n.b /* and\nthis */", Name(A, "b")),
        (r"'it\'s \u00e9\n'", Literal("string", "it's é\n")),
        ("1.50", Literal("decimal", 1.5)),
        ("true", Literal("boolean", True)),
        ("{}", Literal("empty", None)),
        ("@2021-03", Literal("date", "2021-03")),
        ("@2021-03T", Literal("dateTime", "2021-03")),
        ("@2021-03-04T10:00+02:00", Literal("dateTime", "2021-03-04T10:00+02:00")),
        ("@T10:30", Literal("time", "10:30")),
    ],
)
def test_tree(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an expression expected at character 1, found the end"),
        ("a.", "a name expected at character 3"),
        ("a b", "an operator expected at character 3, found 'b'"),
        ("a.where(b", "')' expected at character 10"),
        ("a[0", "']' expected"),
        ("a ? b", "character 3 does not belong there"),
        ("'open", "character 1 does not belong there"),
        (r"'\q'", "no escape of FHIRPath"),
        ("@2021-3", "malformed"),
        ("5 'mg'", "quantity literal"),
        ("3 days", "quantity literal"),
        ("a is 5", "a type expected"),
        ("(" * 5000, "too deep"),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(PathError, match=re.escape(words)):
        parse(text)


@given(st.text("ab.()[]'`%$@0 =<>+-*/&|,{}T:", max_size=20))
def test_any_text_gives_a_tree_or_a_path_error(text: str) -> None:
    try:
        parse(text)
    except PathError as error:
        assert str(error)
