"""The knowledge in mappings/ is whole: each view has its SQL and a case, each table its columns, each concept id a source."""

import csv
import json
import re
from pathlib import Path

import pytest

from fhir_adapters.knowledge import mappings_folder, table
from fhir_adapters.views import compile_view
from omop_etl.cdm import tables
from omop_etl.mapping.codes import coded_elements
from omop_etl.mapping.recipes import cdm_selects, recipes
from tests.shared import SHARED, needs_shared

CODES = mappings_folder() / "codes" / "fhir"
TESTS = Path(__file__).resolve().parents[2]


def test_each_view_compiles_and_has_its_sql() -> None:
    for path in sorted((mappings_folder() / "views").glob("*.json")):
        view = json.loads(path.read_text(encoding="utf-8"))
        assert re.sub(r"(?<!^)(?=[A-Z])", "_", view["resource"]).lower() == path.stem == view["name"]
        assert {"id", "last_updated_text", "version_text", "modified"} <= set(compile_view(view).names)
        assert len(view["title"]) > 20
    assert {path.stem for path in (mappings_folder() / "events").glob("*.sql")} - {"observation_period"} == {
        recipe.stage for recipe in recipes().values()
    }


def test_no_view_reads_what_names_a_person() -> None:
    # Location and Organization are places: their names and addresses identify nobody
    never = (
        "name",
        "telecom",
        "photo",
        "contact",
        "note",
        "text.div",
        "presentedForm.data",
        "conclusion.first",
        "serialNumber",
    )
    for recipe in recipes().values():
        if recipe.resource_type in ("Location", "Organization"):
            continue
        for select in recipe.view["select"]:
            for column in select["column"]:
                path = column["path"]
                assert not any(re.search(rf"(^|\.|\b){re.escape(word)}\b", path) for word in never), (
                    recipe.stage,
                    path,
                )
                if "identifier" in path:
                    assert path in (
                        "identifier.where(system = 'urn:palmares:linkage-token').value.first()",
                        "identifier.where(system = 'urn:dicom:uid').value.first()",
                    )


@pytest.mark.parametrize("name", sorted(cdm_selects()))
def test_each_select_has_the_tables_columns_in_order(name: str) -> None:
    body = re.sub(r"--[^\n]*|'[^']*'", "", cdm_selects()[name])
    columns, depth, word = [], 0, ""
    for letter in body.split("SELECT", 1)[1]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            columns.append(word)
            word = ""
        else:
            word += letter
    columns.append(re.split(r"\n(?:FROM|WHERE) ", word)[0])
    named = [re.split(r"\bAS\b|\.", column)[-1].strip() for column in columns]
    assert named == list(tables()[name].names)


def test_each_view_has_a_case() -> None:
    golden = {path.stem.split("--")[0] for path in (SHARED / "data" / "fhir_omop_cases").glob("*.json")}
    tested = "\n".join(
        path.read_text() for folder in ("unit/mapping", "spec/mapping") for path in (TESTS / folder).glob("*.py")
    )
    for resource_type in recipes():
        assert resource_type.lower() in golden or f'"{resource_type}"' in tested, resource_type


def test_coded_elements_name_what_is_read() -> None:
    profiles = {row["profile"] for row in table("codes", "fhir", "coding_priority.csv")}
    for row in coded_elements():
        assert row["profile"] in profiles
        assert row["several"] in ("all", "lowest")
        below = {name: recipe for recipe in recipes().values() for name in (recipe.stage, *dict(recipe.below()))}
        recipe = below[row["stage"]]
        assert f"{row['list']}_codings" in recipe.read or any(
            f"{row['list']}_codings" in sql for _, sql in recipe.below()
        )


def test_classes_of_visits_are_told_apart_by_code_alone() -> None:
    codes = [row["class_code"] for row in table("codes", "fhir", "visit_class.csv")]
    assert len(codes) == len(set(codes))


@needs_shared("concepts")
@needs_shared("fhir_omop_cases")
@pytest.mark.requirement("f2o-031", "f2o-050")
def test_each_concept_id_was_seen_in_a_public_source_and_is_standard() -> None:
    seen: dict[int, str] = {}
    with (SHARED / "data/concepts/concepts.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["concept_id"] and row["tier"] in "AB":
                # NULL and NA: the export told that it is not standard
                seen.setdefault(int(row["concept_id"]), row["standard_concept"])
    with (SHARED / "data/fhir_omop_cases/vocabulary/CONCEPT.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            seen.setdefault(int(row["concept_id"]), row["standard_concept"] or "NULL")
    told_elsewhere = {4171754, 4171755}  # <=, >=: in the notes of the golden cases
    told_elsewhere |= {4188539, 4188540}  # Yes, No: OHDSI's convention on suggestive observations
    for path in sorted(CODES.glob("*.csv")):
        for row in table("codes", "fhir", path.name):
            for name, value in row.items():
                if name.endswith("concept_id") and value not in ("", "0"):
                    assert int(value) in seen or int(value) in told_elsewhere, (path.name, value)
                    assert seen.get(int(value)) not in ("NULL", "NA"), (path.name, value)
