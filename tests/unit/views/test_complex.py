"""Columns of a complex type: whole, pruned by a tag, one or many."""

from typing import Any

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.views import compile_view, evaluate

OBSERVATION = {
    "resourceType": "Observation",
    "code": {"coding": [{"system": "s", "code": "a", "userSelected": True, "id": "x"}, {"code": "b"}], "text": "t"},
    "valueQuantity": {"value": 1.5, "unit": "mg", "extension": [{"url": "u"}]},
    "component": [
        {"code": {"coding": [{"code": "c", "display": "d"}]}, "valueQuantity": {"value": 2}},
        {"code": {"text": "e"}},
    ],
}


def column(path: str, type_: str, fields: str | None = None, **more: Any) -> dict[str, Any]:
    tag = {} if fields is None else {"tag": [{"name": "palmares/fields", "value": fields}]}
    return {"name": "x", "path": path, "type": type_} | tag | more


def one(*columns: dict[str, Any], resource: dict[str, Any] = OBSERVATION) -> Any:
    view = {"resource": "Observation", "select": [{"column": list(columns)}]}
    return evaluate(view, [resource])[0]["x"]


def test_whole_type_without_ids_and_extensions() -> None:
    assert one(column("value.ofType(Quantity)", "Quantity")) == {
        "value": "1.5", "comparator": None, "unit": "mg", "system": None, "code": None,
    }  # fmt: skip


def test_a_type_inside_itself_is_cut() -> None:
    view = {"resource": "Observation", "select": [{"column": [column("subject", "Reference")]}]}
    assert "assigner" not in compile_view(view).columns["subject"]
    assert '"identifier"' in compile_view(view).columns["subject"]


def test_list_of_structs_in_fhirs_order() -> None:
    found = one(column("code.coding", "Coding", "userSelected,code,system", collection=True))
    assert found == [
        {"system": "s", "code": "a", "userSelected": "true"},
        {"system": None, "code": "b", "userSelected": None},
    ]
    assert list(found[0]) == ["system", "code", "userSelected"]


def test_empty_and_absent() -> None:
    bare = {"resourceType": "Observation"}
    assert one(column("code.coding", "Coding", "code", collection=True), resource=bare) == []
    assert one(column("value.ofType(Quantity)", "Quantity", "value"), resource=bare) is None


def test_dotted_fields_of_a_nested_element() -> None:
    fields = "code.coding.code, valueQuantity.value"
    assert one(column("component", "BackboneElement", fields, collection=True)) == [
        {"code": {"coding": [{"code": "c"}]}, "valueQuantity": {"value": "2"}},
        {"code": {"coding": None}, "valueQuantity": None},
    ]


def test_only_the_fields_asked_for_even_if_other_columns_read_more() -> None:
    other = {"name": "y", "path": "component.code.coding.display.first()"}
    text = {"name": "z", "path": "component.code.text.first()"}
    fields = column("component", "Observation.component", "code.coding.code", collection=True)
    assert one(other, text, fields) == [{"code": {"coding": [{"code": "c"}]}}, {"code": {"coding": None}}]
    assert one(other, text, column("component.first()", "BackboneElement", "code.coding.code")) == {
        "code": {"coding": [{"code": "c"}]}
    }


def test_the_first_of_a_list() -> None:
    assert one(column("code.coding.where(code = 'b').first()", "Coding", "code")) == {"code": "b"}


def test_for_each_with_a_complex_column() -> None:
    view = {
        "resource": "Observation",
        "select": [{"forEach": "component", "column": [column("code", "CodeableConcept", "text")]}],
    }
    assert evaluate(view, [OBSERVATION]) == [{"x": {"text": None}}, {"x": {"text": "e"}}]


def test_repeat_with_a_complex_column() -> None:
    answers = column("answer", "BackboneElement", "valueCoding.code", collection=True)
    view = {"resource": "QuestionnaireResponse", "select": [{"repeat": ["item"], "column": [answers]}]}
    inner = {"answer": [{"valueCoding": {"code": "b", "display": "B"}}]}
    response = {
        "resourceType": "QuestionnaireResponse",
        "item": [{"answer": [{"valueCoding": {"code": "a"}}], "item": [inner]}],
    }
    assert evaluate(view, [response]) == [
        {"x": [{"valueCoding": {"code": "a"}}]},
        {"x": [{"valueCoding": {"code": "b"}}]},
    ]


def test_no_work_where_the_struct_is_read_as_wanted() -> None:
    view = {
        "resource": "Observation",
        "select": [{"column": [column("code.coding", "Coding", "system,code", collection=True)]}],
    }
    assert "list_transform" not in compile_view(view).sql("observations")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (column("code.coding", "Quantity"), r"select\[0\].column\[0\].type: .*leads to Coding, not to Quantity"),
        (column("code", "BackboneElement"), "leads to CodeableConcept, not to BackboneElement"),
        (column("code", "CodeableConcept", "codin.code"), "CodeableConcept has no element 'codin'"),
        (column("code", "CodeableConcept", "coding"), "'coding' needs one of its elements"),
        (column("code", "CodeableConcept", "text.x"), "'text' has no elements"),
        (column("code", "CodeableConcept", ""), "has no element ''"),
    ],
)
def test_errors(made: dict[str, Any], words: str) -> None:
    with pytest.raises(PalmaresError, match=words):
        one(made)


def test_several_values_where_one_is_declared() -> None:
    with pytest.raises(PalmaresError, match=r"E-VIEW-03 view select\[0\].column\[0\].path"):
        one(column("code.coding", "Coding", "code"))


def test_the_type_of_the_column_in_duckdb() -> None:
    view = compile_view(
        {
            "resource": "Observation",
            "select": [{"column": [column("code.coding", "Coding", "code,system", collection=True)]}],
        }
    )
    nulls = ", ".join(f'NULL::{type_} AS "{name}"' for name, type_ in view.columns.items())
    with duckdb.connect() as connection:
        found = connection.execute(f"DESCRIBE {view.sql(f'(SELECT {nulls})')}").fetchall()
    assert found[0][1] == 'STRUCT("system" VARCHAR, code VARCHAR)[]'
