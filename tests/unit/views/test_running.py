"""`palmares view`: a definition over files into a table."""

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.views import evaluate, run_view

VIEW = {
    "resource": "Patient",
    "name": "names",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "active", "path": "active"},
                {"name": "given", "path": "name.given", "collection": True},
                {"name": "first", "path": "name.first()", "type": "HumanName",
                 "tag": [{"name": "palmares/fields", "value": "family"}]},
            ]
        }
    ],
}  # fmt: skip
PATIENTS = [
    {"resourceType": "Patient", "id": "a", "active": True, "name": [{"family": 'Ä, "x"', "given": ["G", "H"]}]},
    {"resourceType": "Patient", "id": "b"},
]


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(VIEW), encoding="utf-8")
    return file


def ndjson(path: Path, resources: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in resources), encoding="utf-8")
    return path


def test_ndjson_to_csv(tmp_path: Path, definition: Path) -> None:
    out = tmp_path / "out.csv"
    assert run_view(definition, ndjson(tmp_path / "fhir" / "Patient.ndjson", PATIENTS).parent, out) == 2
    with out.open(encoding="utf-8", newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["id"])
    assert rows == [
        {"id": "a", "active": "true", "given": '["G","H"]', "first": '{"family":"Ä, \\"x\\""}'},
        {"id": "b", "active": "", "given": "[]", "first": ""},
    ]


def test_bundle_to_parquet(tmp_path: Path, definition: Path) -> None:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in PATIENTS]}
    source = tmp_path / "bundle.json"
    source.write_text(json.dumps(bundle), encoding="utf-8")
    out = tmp_path / "out.parquet"
    assert run_view(definition, [source], out) == 2
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT * FROM '{out}' ORDER BY id").fetchall()
    assert rows == [("a", True, ["G", "H"], {"family": 'Ä, "x"'}), ("b", None, [], None)]


def test_shards_folder_to_ndjson(tmp_path: Path, definition: Path) -> None:
    shards = tmp_path / "landed"
    for number, patient in enumerate(PATIENTS, 1):
        ndjson(shards / "Patient" / f"1-000{number}.ndjson", [patient])
    ndjson(shards / "Group" / "1-0001.ndjson", [{"resourceType": "Group", "id": "g"}])
    manifest = [
        {"resource_type": path.parent.name, "path": str(path.relative_to(shards)), "delivery": 1, "resources": 1}
        | {"bytes": path.stat().st_size}
        for path in sorted(shards.glob("*/*.ndjson"))
    ]
    (shards / "manifest.json").write_text(
        json.dumps({"format": 1, "deliveries": [], "shards": manifest, "skipped": []})
    )
    out = tmp_path / "out.ndjson"
    assert run_view(definition, shards, out) == 2
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows == [
        {"id": "a", "active": True, "given": ["G", "H"], "first": {"family": 'Ä, "x"'}},
        {"id": "b", "active": None, "given": [], "first": None},
    ]


def test_no_resource_of_the_type_gives_an_empty_table(tmp_path: Path, definition: Path) -> None:
    source = ndjson(tmp_path / "fhir" / "Group.ndjson", [{"resourceType": "Group", "id": "g"}]).parent
    out = tmp_path / "out.csv"
    assert run_view(definition, source, out) == 0
    assert out.read_text(encoding="utf-8") == "id,active,given,first\n"


def test_what_is_wrong_leaves_the_old_file(tmp_path: Path, definition: Path) -> None:
    shards = tmp_path / "landed"
    bad = ndjson(shards / "Patient" / "1-0001.ndjson", [{"resourceType": "Patient", "name": {"family": "Rossi"}}])
    shard = {"resource_type": "Patient", "path": str(bad), "delivery": 1, "resources": None, "bytes": 1}
    (shards / "manifest.json").write_text(json.dumps({"format": 1, "deliveries": [], "shards": [shard], "skipped": []}))
    out = tmp_path / "out.csv"
    out.write_text("old")
    with pytest.raises(PalmaresError, match="E-VIEW-05 names") as caught:
        run_view(definition, shards, out)
    assert "Rossi" not in str(caught.value)
    assert out.read_text() == "old" and not list(tmp_path.glob(".out*"))


def test_unknown_ending_and_unreadable_definition(tmp_path: Path, definition: Path) -> None:
    with pytest.raises(PalmaresError, match="E-VIEW-06"):
        run_view(definition, tmp_path, tmp_path / "out.xlsx")
    with pytest.raises(PalmaresError, match="E-VIEW-04"):
        run_view(tmp_path / "none.json", tmp_path, tmp_path / "out.csv")
    definition.write_text("{")
    with pytest.raises(PalmaresError, match="E-VIEW-04"):
        run_view(definition, tmp_path, tmp_path / "out.csv")


@pytest.mark.parametrize("offset", range(4))
def test_a_message_of_duckdb_that_ends_in_half_a_letter_is_numbered_like_any_other(offset: int) -> None:
    view = {
        "resourceType": "ViewDefinition",
        "status": "active",
        "resource": "Patient",
        "select": [{"column": [{"name": "family", "path": "name.family", "collection": True}]}],
    }
    secret = "x" * offset + "perché è più città " * 30
    with pytest.raises(PalmaresError) as raised:
        evaluate(view, [{"resourceType": "Patient", "id": "p", "name": [secret]}])
    assert "città" not in str(raised.value) and raised.value.__cause__ is None
