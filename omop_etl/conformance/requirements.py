"""The matrix of HL7's FHIR-to-OMOP requirements: `docs/conformance/fhir-to-omop.md`, from the tests' own marks.

A requirement is met when a test says so with `@pytest.mark.requirement("f2o-NNN")`. The marks are found by reading the tests'
syntax trees, without running or importing them. What each requirement asks, and why one is not applicable or not met, stands in
`mappings/conformance/requirements.toml`.
"""

import ast
import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fhir_adapters.knowledge import mappings_folder
from omop_etl.conformance import capabilities

ROOT = Path(__file__).resolve().parents[2]
PAGE = Path("docs/conformance/fhir-to-omop.md")
LEVELS = ("SHALL", "SHALL NOT", "SHOULD", "MAY")
BINDS = frozenset(["engine", "target", "implementer", "terminology-server", "source"])
MET, IN_PART, NOT_APPLICABLE, NOT_MET = "met", "in part", "not applicable", "not met"
BY_IMPLEMENTER = " (implementer)"  # what a test's name carries when its mark says so
_KEYS = {"level", "binds", "text", "answer", "status", "parts"}


class RequirementError(ValueError):
    """The list of requirements or a test's mark contradicts itself; the text names the key or the test."""


@dataclass(frozen=True)
class Requirement:
    """One requirement. `status` is met, in part, not applicable or not met; `tests` are those that carry its mark.

    `parts`: it asks one thing of the engine and another of the implementer, and needs a test of each.
    """

    key: str
    level: str
    binds: tuple[str, ...]
    text: str
    answer: str
    declared: str = ""
    tests: tuple[str, ...] = field(default=())
    parts: bool = False

    @property
    def status(self) -> str:
        if self.declared or not self.tests:
            return self.declared or NOT_MET
        whose = {test.endswith(BY_IMPLEMENTER) for test in self.tests}
        return IN_PART if self.parts and len(whose) < 2 else MET


def marks(tests: Path) -> dict[str, list[str]]:
    """Requirement key → the tests that carry its mark, as `path::name`, below the folder `tests`.

    A mark with by="implementer" adds BY_IMPLEMENTER to the name. Raises RequirementError for a mark whose keys are no plain
    strings, or that stands on what is no test.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        shown = path.relative_to(tests.parent).as_posix()
        for name, keys in _marked(ast.parse(path.read_text(encoding="utf-8")), shown):
            for key, whose in keys:
                found.setdefault(key, []).append((f"{shown}::{name}" if name else shown) + whose)
    return found


def _marked(tree: ast.Module, where: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == "pytestmark" for one in node.targets
        ):
            listed = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            yield from (("", keys) for one in listed if (keys := _keys(one, where)))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from _of_definition(node, where, "")


def _of_definition(
    node: ast.FunctionDef | ast.ClassDef, where: str, above: str
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    name = f"{above}{node.name}"
    for decorator in node.decorator_list:
        if keys := _keys(decorator, where):
            if not node.name.startswith("Test" if isinstance(node, ast.ClassDef) else "test_"):
                raise RequirementError(f"{where}: the mark on {node.name} is on no test")
            yield name, keys
    if isinstance(node, ast.ClassDef):
        for one in node.body:
            if isinstance(one, ast.FunctionDef):
                yield from _of_definition(one, where, f"{name}::")


def _keys(node: ast.expr, where: str) -> list[tuple[str, str]]:
    """Key and whose part, of `pytest.mark.requirement(…)`; nothing when the expression is something else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requirement"):
        return []
    keys = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    by = [(one.arg, one.value.value if isinstance(one.value, ast.Constant) else None) for one in node.keywords]
    if not keys or len(keys) != len(node.args) or by not in ([], [("by", "implementer")]):
        raise RequirementError(f"{where}: a requirement mark takes keys as plain texts, and by='implementer'")
    return [(key, BY_IMPLEMENTER if by else "") for key in keys]


def requirements(tests: Mapping[str, Sequence[str]] | None = None) -> list[Requirement]:
    """Every requirement with its tests (`marks` of this repository when none are given).

    A declared status stands even where tests carry the mark: they show what is done instead. Raises RequirementError when a
    mark names none of them.
    """
    tests = marks(ROOT / "tests") if tests is None else tests
    listed = tomllib.loads((mappings_folder() / "conformance" / "requirements.toml").read_text(encoding="utf-8"))
    if unknown := tests.keys() - listed.keys():
        raise RequirementError(f"a test is marked with {min(unknown)}, which is no requirement")
    return [_requirement(key, settings, tests.get(key, ())) for key, settings in listed.items()]


def _requirement(key: str, settings: Mapping[str, object], tests: Sequence[str]) -> Requirement:
    declared, binds = str(settings.get("status", "")), settings.get("binds")
    if settings.keys() - _KEYS or not isinstance(binds, list) or not binds or set(binds) - BINDS:
        raise RequirementError(f"{key}: a setting is missing, unknown or wrong")
    if settings.get("level") not in LEVELS or not settings.get("text") or not settings.get("answer"):
        raise RequirementError(f"{key}: level, text or answer is missing")
    if declared not in ("", NOT_APPLICABLE, NOT_MET):
        raise RequirementError(f"{key}: only a test can say that it is met")
    return Requirement(
        key,
        str(settings["level"]),
        tuple(map(str, binds)),
        str(settings["text"]),
        str(settings["answer"]),
        declared,
        tuple(sorted(set(tests))),
        settings.get("parts") is True,
    )


def generated() -> dict[Path, str]:
    """The pages and files of docs/conformance that are made from tests and mappings."""
    return {PAGE: _page(requirements()), **capabilities.generated()}


def _page(listed: Sequence[Requirement]) -> str:
    guide = json.loads((mappings_folder() / "conformance" / "guide.json").read_text(encoding="utf-8"))
    counts = Counter((one.level, one.status) for one in listed)
    columns = (MET, IN_PART, NOT_APPLICABLE, NOT_MET)
    lines = [
        "# Conformance with HL7's FHIR-to-OMOP guide",
        "",
        "<!-- generated from mappings/conformance/requirements.toml and the tests' marks: make docs -->",
        "",
        f"The {len(listed)} numbered requirements of <{guide['guide']}> {guide['guide_version']}, in our words (the guide's own",
        "decide). A requirement is *met* only when a test carries its mark; the tests are named. Every other one has its reason.",
        "",
        "| level | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for level in LEVELS:
        lines.append(f"| {level} | " + " | ".join(str(counts[level, status]) for status in columns) + " |")
    open_ones = [one for one in listed if one.status in (IN_PART, NOT_MET)]
    engine = [one.key for one in open_ones if one.level.startswith("SHALL") and {"engine", "target"} & set(one.binds)]
    told = ", ".join(engine) if engine else "none"
    lines += ["", f"SHALL that binds the engine or the database and is not wholly met: {told}.", ""]
    lines += [
        "| requirement | level | binds | asks | status | how, or why not | tests |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in listed:
        tests = "<br>".join(_link(test) for test in one.tests) or "–"
        cells = (one.key, one.level, ", ".join(one.binds), one.text, one.status, one.answer, tests)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name or Path(path).stem}](../../{path})"
