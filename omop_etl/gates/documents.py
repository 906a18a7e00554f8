"""The pages on the checks: every kind of check with what it bears, and the defect that is planted for it in the tests.

The defects are those that run as tests (tests/spec/quality/defects.toml): what a reader sees here is what is found.
"""

import tomllib
from pathlib import Path
from typing import Any

from omop_etl.gates.definitions import Check, covers, definitions, family_title

ROOT = Path(__file__).resolve().parents[2]
_PLACES = {"site": "At the hospital, before anything leaves", "centre": "At the centre"}


def generated() -> dict[Path, str]:
    """docs/quality/checks.md and docs/quality/defects.md."""
    return {Path("docs/quality/checks.md"): _checks(), Path("docs/quality/defects.md"): _defects()}


def _families() -> dict[str, list[Check]]:
    families: dict[str, list[Check]] = {}
    for check in definitions().checks:
        families.setdefault(check.family, []).append(check)
    return families


def _title(family: list[Check]) -> str:
    first = family[0]
    return first.title if first.code == first.family else family_title(first.family)


def _bears(family: list[Check]) -> str:
    """What the checks of a family bear; where they differ, from the strictest to the mildest."""

    def said(word: str, key: str) -> str:
        shares = sorted({getattr(check, key) for check in family if getattr(check, key) is not None})
        if not shares:
            return ""
        least = max(check.least for check in family) if key == "block" else 1
        few = f" (from {least} on)" if least > 1 else ""
        several = f"{shares[0]:g} to {shares[-1]:g}" if len(shares) > 1 else f"{shares[0]:g}"
        return f"{word} > {several} %{few}"

    return "; ".join(filter(None, (said("WARN", "warn"), said("BLOCK", "block")))) or "shown only"


def _checks() -> str:
    families = _families()
    lines = [
        "# The checks",
        "",
        "Generated from `mappings/quality/` by `make docs`. Each kind of check stands once; one that is made per table and column has as many",
        "checks as the third column says, each with a number of its own, e.g. `G-REQUIRED-person.gender_concept_id`. "
        "What one means: `palmares explain CODE`.",
        "",
        f"{sum(len(family) for family in families.values()):,} checks of {len(families)} kinds. *OHDSI* names the check type of the Data Quality "
        f"Dashboard (release {definitions().ohdsi_release}) whose numerator, denominator and threshold it takes over.",
        "",
    ]
    for place, heading in _PLACES.items():
        own = {code: family for code, family in families.items() if family[0].place == place}
        lines += [
            f"## {heading}",
            "",
            "| code | what | checks | Kahn | OHDSI | bears |",
            "| --- | --- | ---: | --- | --- | --- |",
        ]
        for code, family in own.items():
            first = family[0]
            kahn = f"{first.category}{f', {first.subcategory}' if first.subcategory else ''}"
            dqd = next((check.dqd for check in family if check.dqd), "")
            lines.append(f"| {code} | {_title(family)} | {len(family)} | {kahn} | {dqd} | {_bears(family)} |")
        lines.append("")
    return "\n".join(lines)


def _planted() -> list[dict[str, Any]]:
    text = (ROOT / "tests" / "spec" / "quality" / "defects.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(text)["defect"])


def _defects() -> str:
    planted = _planted()
    families = {code: family for code, family in _families().items() if family[0].place == "site"}
    lines = [
        "# Checks and planted defects",
        "",
        "Generated from `tests/spec/quality/defects.toml` by `make docs`. Each defect is put into a clean slice (four patients of whom everything is",
        "known, of whom no check says a word); the test then expects the check of its line to find it, together with those of the last column, which",
        "follow by the nature of the defect, and no other. `REPORT` is a check that is only shown.",
        "",
        "| check | defect | says | follows |",
        "| --- | --- | --- | --- |",
    ]
    for code in families:
        for defect in planted:
            if defect["target"] == code:
                also = ", ".join(defect.get("also", []))
                lines.append(f"| {code} | {defect['name']} | {defect['verdict']} | {also} |")
    lines += ["", "Nothing is found where nothing is wrong:", ""]
    lines += [f"- {defect['name']}" for defect in planted if not defect["target"]]
    bare = [code for code in families if not any(covers(code, defect["target"]) for defect in planted)]
    lines += ["", "Kinds that never say more than a number, and so have no defect: " + ", ".join(bare) + ".", ""]
    lines += [
        "The rules of the centre (funnel, recency, drift, losses, lateness, duplicates) have theirs in `tests/unit/quality/test_central.py`;",
        "all check types of OHDSI are held against SQL of their own, both numbers of every check, in `tests/conformance/test_dqd.py`.",
        "",
    ]
    return "\n".join(lines)
