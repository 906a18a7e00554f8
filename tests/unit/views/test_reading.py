"""What a view reads: pruned columns, every leaf as text, and what stops DuckDB's strict reader."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.views import compile_view, evaluate, explained, read_shards


def view(resource: str = "Patient", **paths: str) -> dict[str, Any]:
    return {
        "resource": resource,
        "select": [{"column": [{"name": name, "path": path} for name, path in paths.items()]}],
    }


def test_columns_are_pruned_to_the_paths_used() -> None:
    compiled = compile_view(
        view(
            "Observation",
            code="code.coding.first().code",
            value="value.ofType(Quantity).value",
            low="component.value.ofType(Quantity).value.first()",
            noted="note.exists()",
        )
    )
    assert compiled.columns == {
        "resourceType": "VARCHAR",
        "code": 'STRUCT("coding" STRUCT("code" VARCHAR)[])',
        "valueQuantity": 'STRUCT("value" VARCHAR)',
        "note": 'STRUCT("id" VARCHAR)[]',
        "component": 'STRUCT("valueQuantity" STRUCT("value" VARCHAR))[]',
    }


def test_a_path_over_single_elements_needs_no_list_function() -> None:
    sql = compile_view(view("Observation", code="code.coding.first().code", value="value.ofType(Quantity).value")).sql(
        "o"
    )
    assert "list_" not in sql and "unnest" not in sql and "lambda" not in sql


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1", "1"),
        ("1.0", "1.0"),
        ("1.10", "1.1"),
        ("1e400", "1e400"),
        ("true", "true"),
        ("null", None),
        ('"é"', "é"),
        ('{"x": [1]}', '{"x":[1]}'),
        ("[1, 2]", "[1,2]"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_any_json_fits_a_leaf(tmp_path: Path, written: str, read: str | None) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text(f'{{"id": {written}}}\n', encoding="utf-8")
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT id FROM {read_shards([file], {'id': 'VARCHAR'})}").fetchall() == [(read,)]


@pytest.mark.parametrize(
    ("type_", "written", "value"),
    [
        ("boolean", "true", True),
        ("boolean", '"false"', False),
        ("boolean", '"yes"', None),
        ("boolean", "1", None),
        ("integer", "5", 5),
        ("integer", '"5"', 5),
        ("integer", "5.5", None),
        ("integer", "99999999999", None),
        ("Quantity", '{"value": 5.25}', 5.25),
        ("Quantity", '{"value": "5.25"}', 5.25),
        ("Quantity", '{"value": "about 5"}', None),
        ("Quantity", '{"value": "NaN"}', None),
        ("Quantity", '{"value": {"x": 1}}', None),
        ("string", "5", "5"),
    ],
)
def test_a_leaf_is_cast_where_it_is_used(type_: str, written: str, value: object) -> None:
    path = f"value.ofType({type_})" + (".value" if type_ == "Quantity" else "")
    resource = {"resourceType": "Observation", "value" + type_[0].upper() + type_[1:]: json.loads(written)}
    assert evaluate(view("Observation", x=path), [resource]) == [{"x": value}]


@pytest.mark.parametrize(
    "line",
    [
        '{"resourceType": "Patient", "name": {"family": "Rossi"}}',
        '{"resourceType": "Patient", "name": "Rossi"}',
        '{"resourceType": "Patient", "name": ["Rossi"]}',
        '{"resourceType": "Patient", "name": [{"given": "Rossi"}]}',
        '{"resourceType": "Patient", "maritalStatus": [{"text": "Rossi"}]}',
        '{"resourceType": "Patient", "id": "Rossi", "id": "Rossi"}',
        '["Rossi"]',
        '"Rossi"',
        '{"resourceType": "Patient", "id": "Rossi"',
    ],
)
def test_structure_stops_the_strict_reader_and_no_value_is_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / "Rossi.ndjson"
    file.write_text(line + "\n", encoding="utf-8")
    compiled = compile_view(
        view(id="id", family="name.first().family", given="name.given.first()", text="maritalStatus.text")
    )
    with duckdb.connect() as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(compiled.sql(read_shards([file], compiled.columns))).fetchall()
    error = explained(caught.value, "patients")
    assert isinstance(error, PalmaresError) and error.code == "E-VIEW-05"
    assert "Rossi" not in str(error)


@pytest.mark.parametrize("line", ["null", "{}", '{"resourceType": "Group", "id": "g"}', '{"id": "x"}', ""])
def test_lines_of_no_such_resource_give_no_row(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text(f'{line}\n{{"resourceType": "Patient", "id": "p"}}\n', encoding="utf-8")
    compiled = compile_view(view(id="id"))
    with duckdb.connect() as connection:
        assert connection.execute(compiled.sql(read_shards([file], compiled.columns))).fetchall() == [("p",)]


def test_the_file_of_each_row_can_be_kept(tmp_path: Path) -> None:
    odd = tmp_path / "it's [1]*?.ndjson"
    odd.write_text('{"resourceType": "Patient", "id": "p", "name": [{"use": "a"}, {"use": "b"}]}\n', encoding="utf-8")
    (tmp_path / "it's 1xx.ndjson").write_text('{"resourceType": "Patient", "id": "q"}\n', encoding="utf-8")
    compiled = compile_view(
        {"resource": "Patient", "select": [{"forEach": "name", "column": [{"name": "use", "path": "use"}]}]}
    )
    with duckdb.connect() as connection:
        sql = compiled.sql(read_shards([odd], compiled.columns, filename=True), keep=["filename"])
        assert connection.execute(sql).fetchall() == [("a", str(odd)), ("b", str(odd))]


def test_an_absent_element_of_every_kind_is_null() -> None:
    paths = {"a": "birthDate", "b": "name.first().family", "c": "maritalStatus.coding.first().code", "d": "active"}
    assert evaluate(view(**paths), [{"resourceType": "Patient"}]) == [dict.fromkeys(paths)]


def test_an_element_that_contains_itself_is_read_as_json() -> None:
    compiled = compile_view(
        {
            "resource": "QuestionnaireResponse",
            "select": [{"repeat": ["item", "answer.item"], "column": [{"name": "link", "path": "linkId"}]}],
        }
    )
    assert compiled.columns["item"] == "JSON[]"


def test_an_element_can_be_repeated_and_read_directly_in_one_view() -> None:
    found = evaluate(
        {
            "resource": "QuestionnaireResponse",
            "select": [
                {
                    "column": [
                        {"name": "top", "path": "item.linkId.join(',')"},
                        {"name": "next", "path": "item.item.linkId.join(',')"},
                    ]
                },
                {"repeat": ["item"], "column": [{"name": "link", "path": "linkId"}]},
            ],
        },
        [
            {
                "resourceType": "QuestionnaireResponse",
                "item": [{"linkId": "1", "item": [{"linkId": "1.1"}]}, {"linkId": "2"}],
            }
        ],
    )
    assert found == [{"top": "1,2", "next": "1.1", "link": link} for link in ("1", "1.1", "2")]


def test_quotes_in_a_definition_stay_text() -> None:
    found = evaluate(
        view(a="name.where(family = 'O\\'Hara').use", b="'\"; DROP TABLE x; --'"),
        [{"resourceType": "Patient", "name": [{"family": "O'Hara", "use": "usual"}]}],
    )
    assert found == [{"a": "usual", "b": '"; DROP TABLE x; --'}]
