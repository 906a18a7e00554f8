"""Columns and dictionary must fit each other, or nothing is released."""

from pathlib import Path

import pandas as pd
import pytest

from fhir_adapters.errors import PalmaresError
from omop_etl.publish.dictionary import Variable, describe, read_dictionary, typed


def variable(name: str, kind: str, *values: str) -> Variable:
    return Variable(name, name, kind, "", values, "", "table", "resource")


def test_types() -> None:
    frame = pd.DataFrame(
        {"a": ["x", None], "b": [1, None], "c": [1, 2], "d": [True, None], "e": [0.5, None], "f": ["p", "q"]}
    )
    made = typed(
        frame,
        [
            variable("a", "category", "x", "y"),
            variable("b", "integer"),
            variable("c", "integer"),
            variable("d", "boolean"),
            variable("e", "number"),
            variable("f", "id"),
        ],
    )
    assert [str(kind) for kind in made.dtypes] == ["category", "Int64", "int64", "boolean", "float64", "str"]
    assert list(made["a"].cat.categories) == ["x", "y"]
    assert [one["missing_share"] for one in describe(made, [variable("a", "category"), variable("c", "integer")])] == [
        0.5,
        0.0,
    ]


@pytest.mark.parametrize(
    "variables",
    [
        [variable("b", "integer"), variable("a", "category", "x")],
        [variable("a", "category", "x")],
        [variable("a", "category", "y"), variable("b", "integer")],
    ],
    ids=["other order", "column without entry", "value that is not listed"],
)
def test_what_does_not_fit_is_not_released(variables: list[Variable]) -> None:
    with pytest.raises(PalmaresError) as raised:
        typed(pd.DataFrame({"a": ["x"], "b": [1]}), variables)
    assert raised.value.code == "E-PUBLISH-03"
    assert "x" not in str(raised.value).split(". ")[0].removeprefix("E-PUBLISH-03")


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("variable,label,type,unit,values,when,omop,fhir\na,a,date,,,,,\n")
    with pytest.raises(PalmaresError) as raised:
        read_dictionary(tmp_path / "a.csv", {})
    assert raised.value.code == "E-PUBLISH-03"
