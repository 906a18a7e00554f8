"""What is wrong with a definition is said with the place where it stands."""

from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.views import compile_view

COLUMN = {"name": "id", "path": "id"}


def patient(**select: Any) -> dict[str, Any]:
    return {"resource": "Patient", "select": [select]}


@pytest.mark.parametrize(
    ("view", "place", "words"),
    [
        ([], "ViewDefinition", "an object is needed"),
        ({}, "resource", "the name of a FHIR R4 resource"),
        ({"resource": "Quantity", "select": []}, "resource", "the name of a FHIR R4 resource"),
        ({"resource": "DomainResource", "select": []}, "resource", "the name of a FHIR R4 resource"),
        ({"resource": "Patient"}, "select", "at least one select"),
        ({"resource": "Patient", "select": {}}, "select", "a list is needed"),
        ({"resource": "Patient", "select": ["id"]}, "select[0]", "an object is needed"),
        ({"resource": "Patient", "name": "my view", "select": [{"column": [COLUMN]}]}, "name", "a name of letters"),
        (patient(), "select[0]", "a select needs column, select or unionAll"),
        (patient(forEach="name"), "select[0]", "a select needs column"),
        (patient(column=[COLUMN], foreach="name"), "select[0].foreach", "no such element"),
        (patient(column=[COLUMN], forEach="name", forEachOrNull="name"), "select[0]", "only one of forEach and forEachOrNull"),
        (patient(column=[COLUMN], forEach=1), "select[0].forEach", "a FHIRPath expression is needed"),
        (patient(column=[COLUMN], repeat="item"), "select[0].repeat", "a list of FHIRPath expressions"),
        (patient(column=[COLUMN], repeat=["id"]), "select[0].repeat[0]", "elements that have children"),
        (patient(column=[COLUMN], repeat=["item"]), "select[0].repeat[0]", "Patient has no element 'item'"),
        (patient(column=[COLUMN], repeat=["name", "contact"]), "select[0].repeat", "different types: HumanName, Patient.contact"),
        (patient(column=[COLUMN], repeat=["name", ")"]), "select[0].repeat[1]", "an expression expected"),
        (patient(column=[COLUMN], forEach="multipleBirth"), "select[0].forEach", "choose one with .ofType()"),
        (patient(column={}), "select[0].column", "a list is needed"),
        (patient(column=[{"path": "id"}]), "select[0].column[0].name", "a name of letters"),
        (patient(column=[{"path": "id", "name": "_id"}]), "select[0].column[0].name", "a name of letters"),
        (patient(column=[{"path": "id", "name": 'i"d'}]), "select[0].column[0].name", "a name of letters"),
        (patient(column=[{"name": "id"}]), "select[0].column[0].path", "a FHIRPath expression is needed"),
        (patient(column=[COLUMN | {"colection": True}]), "select[0].column[0].colection", "no such element"),
        (patient(column=[COLUMN | {"collection": "yes"}]), "select[0].column[0].collection", "true or false"),
        (patient(column=[COLUMN | {"type": 1}]), "select[0].column[0].type", "the name of a FHIR type"),
        (patient(column=[COLUMN | {"type": "strin"}]), "select[0].column[0].type", "'strin' is no type of FHIR R4"),
        (patient(column=[COLUMN | {"type": "Coding"}]), "select[0].column[0].path", "leads to id, not to Coding"),
        (patient(column=[COLUMN | {"type": "boolean"}]), "select[0].column[0].path", "leads to id, not to boolean"),
        (patient(column=[COLUMN, COLUMN]), "select[0].column[1].name", "the column 'id' is defined twice"),
        (patient(select=[{"column": [COLUMN]}], column=[COLUMN]), "select[0].select[0].column[0].name", "defined twice"),
        (patient(column=[{"name": "n", "path": "name.first()"}]), "select[0].column[0].type", "its type must be declared"),
        (
            patient(unionAll=[{"column": [COLUMN]}, {"column": [COLUMN | {"name": "x"}]}]),
            "select[0].unionAll[1]",
            "not those of the first branch",
        ),
        (
            patient(unionAll=[{"column": [COLUMN]}, {"column": [COLUMN | {"path": "active"}]}]),
            "select[0].unionAll",
            "the branches give the column 'id' different types",
        ),
        (
            patient(unionAll=[{"column": [COLUMN]}, {"column": [COLUMN | {"collection": True}]}]),
            "select[0].unionAll",
            "different types",
        ),
        (patient(column=[COLUMN]) | {"where": "active"}, "where", "a list is needed"),
        (patient(column=[COLUMN]) | {"where": ["active"]}, "where[0]", "an object is needed"),
        (patient(column=[COLUMN]) | {"where": [{}]}, "where[0].path", "a FHIRPath expression is needed"),
        (patient(column=[COLUMN]) | {"where": [{"path": "gender"}]}, "where[0].path", "the path leads to code"),
        (patient(column=[COLUMN]) | {"constant": [1]}, "constant[0]", "an object is needed"),
        (patient(column=[COLUMN]) | {"constant": [{"valueString": "x"}]}, "constant[0].name", "a name of letters"),
        (patient(column=[COLUMN]) | {"constant": [{"name": "a"}]}, "constant[0]", "the constant 'a' needs one value"),
        (patient(column=[COLUMN]) | {"constant": [{"name": "a", "valueCoding": {}}]}, "constant[0]", "needs one value"),
        (
            patient(column=[COLUMN]) | {"constant": [{"name": "a", "valueInteger": "1"}]},
            "constant[0].valueInteger",
            "a integer is needed",
        ),
        (
            patient(column=[COLUMN]) | {"constant": [{"name": "a", "valueCode": "1"}, {"name": "a", "valueCode": "2"}]},
            "constant[1].name",
            "the constant 'a' is defined twice",
        ),
    ],
)  # fmt: skip
def test_definition_errors(view: Any, place: str, words: str) -> None:
    with pytest.raises(PalmaresError) as caught:
        compile_view(view)
    assert str(caught.value).startswith(("E-VIEW-01 ", "E-VIEW-02 "))
    assert str(caught.value).split(" ", 1)[1].startswith(place + ": ")
    assert words in str(caught.value)


def test_columns_in_the_order_of_the_specification() -> None:
    view = compile_view(
        patient(
            unionAll=[{"column": [{"name": "last", "path": "id"}]}],
            select=[{"column": [{"name": "middle", "path": "id"}]}],
            column=[{"name": "first", "path": "id"}],
        )
    )
    assert view.names == ["first", "middle", "last"]


def test_types_are_declared_or_inferred() -> None:
    view = compile_view(
        patient(
            column=[
                {"name": "a", "path": "birthDate"},
                {"name": "b", "path": "name.exists()"},
                {"name": "c", "path": "multipleBirth.ofType(integer) / 2"},
                {"name": "d", "path": "id", "type": "http://hl7.org/fhir/StructureDefinition/string"},
                {"name": "e", "path": "id", "type": "http://hl7.org/fhirpath/System.String"},
                {"name": "f", "path": "name", "type": "HumanName", "collection": True},
                {"name": "g", "path": "{}"},
            ]
        )
    )
    assert view.types == {
        "a": "date", "b": "boolean", "c": "decimal", "d": "string", "e": "string", "f": "HumanName", "g": "string",
    }  # fmt: skip
    assert view.collections == {"f"}


def test_the_same_view_gives_the_same_sql() -> None:
    view = patient(forEach="name.where(use = 'official')", column=[{"name": "given", "path": "given.join(' ')"}])
    assert compile_view(view).sql("patients") == compile_view(view).sql("patients")
