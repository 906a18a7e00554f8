"""Every reason that landing and validation give is explained, and every one that is explained has a test."""

import re
from pathlib import Path

from fhir_adapters.knowledge import table

ROOT = Path(__file__).resolve().parents[3]
_CODE = re.compile(r"\bQ-[A-Z]+(?:-[A-Z]+)*\b")


def _codes(*folders: str) -> set[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != Path(__file__).name]
    return {code for path in paths for code in _CODE.findall(path.read_text(encoding="utf-8"))}


def test_every_reason_is_explained_and_tested() -> None:
    used = _codes("fhir_adapters/landing", "fhir_adapters/validation")
    explained = {row["code"]: row for row in table("explanations", "reasons.csv") if row["outcome"] == "quarantined"}
    assert used <= explained.keys()
    assert used <= _codes("tests/unit/landing", "tests/unit/validation")
    for code in used:
        assert explained[code]["explanation"].endswith(".")
        assert explained[code]["remedy"]


def test_every_landing_error_has_a_test() -> None:
    errors = {row["code"] for row in table("explanations", "errors.csv") if row["code"].startswith(("E-LAND", "E-SRC"))}
    folders = ("landing", "validation", "sources", "web")
    texts = [path.read_text() for name in folders for path in (ROOT / "tests" / "unit" / name).glob("*.py")]
    assert {code for code in errors if not any(code in text for text in texts)} == set()
