"""The matrix claims nothing that no test says; its list is the guide's own; marks are found without running a test."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from fhir_adapters.knowledge import mappings_folder
from omop_etl.conformance import requirements as module
from omop_etl.conformance.requirements import NOT_APPLICABLE, RequirementError, marks, requirements
from tests.shared import SHARED, needs_shared

LISTED = tomllib.loads((mappings_folder() / "conformance" / "requirements.toml").read_text(encoding="utf-8"))


@needs_shared("fhir_omop_ig")
def test_the_list_is_the_guides() -> None:
    path = SHARED / "data" / "fhir_omop_ig" / "Requirements-fromNarrative.json"
    guide = json.loads(path.read_text(encoding="utf-8"))
    assert list(LISTED) == [one["key"] for one in guide["statement"]]
    assert len(LISTED) == 56
    for one in guide["statement"]:
        verbs = re.findall(r"\*\*(SHALL|SHOULD|MAY)\*\*( NOT)?", one["requirement"])
        strictest = min(("SHALL", "SHOULD", "MAY").index(verb) for verb, _ in verbs)
        level = LISTED[one["key"]]["level"]
        assert level.split()[0] == ("SHALL", "SHOULD", "MAY")[strictest], one["key"]
        assert not level.endswith("NOT") or any(negated for _, negated in verbs), one["key"]
        for actor, name in (("Transformation Engine", "engine"), ("Target OMOP Instance", "target")):
            assert (f"A {actor} **" in one["requirement"] or f"a {actor} **" in one["requirement"]) <= (
                name in LISTED[one["key"]]["binds"]
            ), one["key"]


@needs_shared("fhir_omop_ig")
def test_in_our_words() -> None:
    guide = json.loads(
        (SHARED / "data" / "fhir_omop_ig" / "Requirements-fromNarrative.json").read_text(encoding="utf-8")
    )
    for one in guide["statement"]:
        theirs = re.findall(r"\w+", one["requirement"].lower())
        ours = re.findall(r"\w+", LISTED[one["key"]]["text"].lower())
        runs = {tuple(theirs[place : place + 8]) for place in range(len(theirs))}
        copied = [place for place in range(len(ours) - 7) if tuple(ours[place : place + 8]) in runs]
        assert not copied, one["key"]


def test_every_requirement_has_a_status_and_a_reason() -> None:
    for one in requirements():
        assert one.status in (module.MET, module.IN_PART, module.NOT_APPLICABLE, module.NOT_MET)
        assert len(one.answer) > 10, one.key


def test_the_page_is_the_one_committed() -> None:
    """`make generated` says which file is stale; this says it in the test run."""
    root = Path(__file__).resolve().parents[3]
    for path in module.generated():
        assert (root / path).is_file(), f"{path} is missing: make docs"


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_one.py").write_text(text, encoding="utf-8")
    return folder


def test_marks_are_found_wherever_pytest_takes_them(tmp_path) -> None:
    text = """
import pytest
raise RuntimeError("must not be run")
pytestmark = [pytest.mark.requirement("f2o-001"), pytest.mark.slow]

@pytest.mark.parametrize("x", [1])
@pytest.mark.requirement("f2o-002", "f2o-003")
def test_two(x): ...

@pytest.mark.requirement("f2o-004")
class TestFour:
    @pytest.mark.requirement("f2o-002")
    def test_inside(self): ...

    def helper(self): ...
"""
    assert marks(write(tmp_path / "tests" / "unit", text).parent) == {
        "f2o-001": ["tests/unit/test_one.py"],
        "f2o-002": ["tests/unit/test_one.py::test_two", "tests/unit/test_one.py::TestFour::test_inside"],
        "f2o-003": ["tests/unit/test_one.py::test_two"],
        "f2o-004": ["tests/unit/test_one.py::TestFour"],
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("@pytest.mark.requirement('f2o-001')\ndef helper(): ...", "no test"),
        ("@pytest.mark.requirement(KEY)\ndef test_a(): ...", "plain texts"),
        ("@pytest.mark.requirement()\ndef test_a(): ...", "plain texts"),
        ("@pytest.mark.requirement(key='f2o-001')\ndef test_a(): ...", "plain texts"),
        ("@pytest.mark.requirement('f2o-001', by='nobody')\ndef test_a(): ...", "plain texts"),
    ],
)
def test_a_mark_that_says_nothing_is_refused(tmp_path, text, what) -> None:
    with pytest.raises(RequirementError, match=what):
        marks(write(tmp_path / "tests", text))


def test_a_mark_that_names_no_requirement_is_refused() -> None:
    with pytest.raises(RequirementError, match="f2o-999"):
        requirements({"f2o-999": ["tests/unit/test_one.py::test_a"]})


def test_no_test_makes_met_what_is_declared_not_applicable() -> None:
    key = next(key for key, settings in LISTED.items() if settings.get("status") == NOT_APPLICABLE)
    [one] = [one for one in requirements({key: ["tests/unit/test_one.py::test_a"]}) if one.key == key]
    assert one.status == NOT_APPLICABLE and one.tests


@pytest.mark.parametrize(
    "settings",
    [
        {"level": "SHALL", "binds": ["engine"], "text": "a", "answer": "b", "status": "met"},
        {"level": "MUST", "binds": ["engine"], "text": "a", "answer": "b"},
        {"level": "SHALL", "binds": ["nobody"], "text": "a", "answer": "b"},
        {"level": "SHALL", "binds": ["engine"], "text": "a"},
        {"level": "SHALL", "binds": ["engine"], "text": "a", "answer": "b", "note": "c"},
    ],
)
def test_an_entry_that_does_not_fit_is_refused(settings) -> None:
    with pytest.raises(RequirementError):
        module._requirement("f2o-001", settings, ())


def test_without_a_test_it_is_not_met() -> None:
    by_key = {one.key: one for one in requirements({})}
    assert by_key["f2o-001"].status == module.NOT_MET
    assert by_key["f2o-112"].status == module.NOT_APPLICABLE
    assert {one.key: one for one in requirements({"f2o-001": ["tests/a.py::test_a"]})}["f2o-001"].status == module.MET


def test_two_parts_take_two_tests() -> None:
    engine, implementer = "tests/a.py::test_a", "tests/b.py::test_b" + module.BY_IMPLEMENTER
    for tests, status in (
        ([], module.NOT_MET),
        ([engine], module.IN_PART),
        ([implementer], module.IN_PART),
        ([engine, implementer], module.MET),
    ):
        assert {one.key: one for one in requirements({"f2o-034": tests})}["f2o-034"].status == status


def test_a_mark_says_whose_part_it_is(tmp_path) -> None:
    text = "@pytest.mark.requirement('f2o-034', by='implementer')\ndef test_a(): ..."
    assert marks(write(tmp_path / "tests", text)) == {"f2o-034": ["tests/test_one.py::test_a" + module.BY_IMPLEMENTER]}
