"""The golden cases of HealthSamurai/fhir2omop: FHIR in, exact OMOP rows out; deviations are listed with their requirement.

The rules of comparison are those of `../shared/tools/score_fhir_omop.py`; here the mapping runs in this process.
"""

import csv
import importlib.util
import json
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fhir_adapters.knowledge import mappings_folder
from omop_etl.config import load_site
from omop_etl.mapping import map_folder
from tests.shared import SHARED, needs_shared

CASES = SHARED / "data" / "fhir_omop_cases"
FILES = sorted(path.stem for path in CASES.glob("*--*.json"))
pytestmark = needs_shared("fhir_omop_cases")


def deviations() -> dict[str, dict[str, Any]]:
    text = (mappings_folder() / "conformance" / "deviations.toml").read_text(encoding="utf-8")
    return {one["case"]: one for one in tomllib.loads(text)["deviation"]}


@pytest.fixture(scope="module")
def scorer() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("score_fhir_omop", SHARED / "tools" / "score_fhir_omop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(words: list[Any], **_: Any) -> SimpleNamespace:
        place = {str(name): Path(str(value)) for name, value in pairwise(words)}
        map_folder(load_site("golden"), place["--fhir"], place["--out"], vocabulary=place["--vocabulary"], jobs=1)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    module.subprocess = SimpleNamespace(run=run)  # type: ignore[attr-defined]
    yield module


@pytest.mark.requirement("f2o-090", "f2o-091")
@pytest.mark.parametrize("name", FILES)
def test_cases(scorer: ModuleType, name: str) -> None:
    suite = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    wrong, spent = [], []
    for index, case in enumerate(suite["cases"]):
        why = scorer.run_case(case, suite.get("fixtures", []), CASES / "vocabulary", ["palmares"])
        listed = f"{name}#{index}" in deviations()
        if why and not listed:
            wrong.append((index, case["desc"], why))
        if listed and not why:
            spent.append(index)
    assert wrong == []
    assert spent == [], "a listed deviation that no longer deviates"


def test_each_deviation_says_its_requirement_and_why() -> None:
    known = {
        one["key"]
        for one in json.loads((SHARED / "data/fhir_omop_ig/Requirements-fromNarrative.json").read_text())["statement"]
    }
    for case, one in deviations().items():
        assert case.split("#")[0] in FILES
        assert one["requirement"] in known
        assert len(one["why"]) > 60


def case_of(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A listed case, and the resources that all cases of its file share."""
    stem, _, index = name.partition("#")
    suite = json.loads((CASES / f"{stem}.json").read_text(encoding="utf-8"))
    return suite["cases"][int(index)], suite.get("fixtures", [])


@pytest.mark.parametrize("name", sorted(deviations()))
def test_what_a_deviation_says_of_its_case_is_so(name: str) -> None:
    one, (case, fixtures) = deviations()[name], case_of(name)
    with (CASES / "vocabulary" / "CONCEPT.csv").open(encoding="utf-8") as lines:
        concepts = {int(row["concept_id"]): row for row in csv.DictReader(lines, delimiter="\t")}
    for concept_id in one.get("not_standard", ()):
        assert str(concept_id) in json.dumps(case["omop"])
        assert concepts[concept_id]["standard_concept"] != "S"
    told = json.dumps([*case["fhir"], *fixtures])
    held = {f"{each['resourceType']}/{each['id']}" for each in (*case["fhir"], *fixtures)}
    for reference in one.get("absent", ()):
        assert reference.split("/")[1] in told and reference not in held
    assert all(word in told for word in one.get("says", ()))
    assert not any(word in told for word in one.get("silent_on", ()))


@pytest.mark.parametrize("name", sorted(deviations()))
def test_it_deviates_in_that_and_in_nothing_else(scorer: ModuleType, name: str) -> None:
    one, (case, fixtures) = deviations()[name], case_of(name)
    for change in one["instead"]:
        rows = case["omop"][change["table"]]
        if "column" not in change:
            rows.clear()
        for row in rows:
            if change["column"] in row:
                row[change["column"]] = change.get("value")
    assert scorer.run_case(case, fixtures, CASES / "vocabulary", ["palmares"]) == ""
