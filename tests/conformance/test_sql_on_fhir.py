"""The official SQL on FHIR v2 suite, case by case, judged by the suite's own scorer."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from fhir_adapters.views import evaluate
from tests.shared import SHARED, needs_shared

SUITE = SHARED / "data" / "sql_on_fhir_tests"
SCORER = SHARED / "tools" / "score_sql_on_fhir.py"


def scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_sql_on_fhir", SCORER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases() -> list[object]:
    found = []
    for path in sorted(SUITE.glob("*.json")) if SUITE.is_dir() else []:
        for number, case in enumerate(json.loads(path.read_text(encoding="utf-8"))["tests"]):
            found.append(pytest.param(path, number, id=f"{path.stem}: {case['title']}"))
    return found


@needs_shared("sql_on_fhir_tests")
@pytest.mark.skipif(not SCORER.is_file(), reason="the scorer is not beside this checkout")
@pytest.mark.parametrize(("path", "number"), cases())
def test_official_case(path: Path, number: int) -> None:
    suite = json.loads(path.read_text(encoding="utf-8"))
    assert scorer().run_case(evaluate, suite["tests"][number], suite["resources"]) == ""
