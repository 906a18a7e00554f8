"""A study as data: a folder of `mappings/studies/` with its parameters, concept sets, reasons and SQL.

study.toml          name, cut-off, parameters with who stands behind each, small-cell thresholds, named variants, decisions
concept_sets.csv    which concepts are meant by a word of the protocol, and what each of them says
reasons.csv         every reason and flag that a criterion may give, every finding, what it means and who acts on it
history/*.sql       what is known of each patient up to the cut-off: temporary tables, made in order
eligibility/*.sql   one criterion a file, in the order of the attrition table; its first line is the sentence it implements
analyses/*.sql      one named analysis a file: who of the eligible belongs to it; its first line is the sentence it implements
findings.sql        what is asked about the course of those who are in
datasets/           one SELECT per released dataset, and the dictionary of its variables
"""

import csv
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder

# what no row of a derived folder, a cohort or a dataset follows from: what reports compare, what the forms of the hospitals ask, and
# how patients who do not exist are drawn
_NO_RULES = ("reports", "ecrf", "synthetic.toml")


@dataclass(frozen=True)
class Criterion:
    """One eligibility criterion: its place in the attrition table, its name, its sentence and its SELECT."""

    number: int
    name: str
    sentence: str
    sql: str


@dataclass(frozen=True)
class Analysis:
    """A named part of the eligible: its place, name and sentence, the id of its OMOP cohort, and its SELECT (person_id,
    member, start_date); member is NULL where it cannot be told."""

    number: int
    name: str
    sentence: str
    cohort_definition_id: int
    sql: str


@dataclass(frozen=True)
class Reason:
    """What a criterion may answer, or flag. `action` is none, query (to the site) or adjudication."""

    kind: str
    criterion: int
    code: str
    answer: str
    action: str
    explanation: str
    remedy: str


@dataclass(frozen=True)
class Study:
    """A study's rules. `parameters` holds plain values by name; `thresholds` the small-cell limits, inside and public."""

    name: str
    title: str
    registry: str
    folder: Path
    cut_off: date
    variant: str | None
    parameters: Mapping[str, int | str]
    thresholds: Mapping[str, int]
    cohort_definition_id: int
    cohort_name: str
    concepts: tuple[dict[str, str], ...]
    history: tuple[tuple[str, str], ...]
    criteria: tuple[Criterion, ...]
    analyses: tuple[Analysis, ...]
    findings: str
    reasons: tuple[Reason, ...]

    def reason(self, criterion: int, code: str) -> Reason | None:
        """The reason or flag of this code at this criterion, or None when the study does not know it."""
        return next((one for one in self.reasons if (one.criterion, one.code) == (criterion, code)), None)

    def analysis(self, name: str) -> Analysis:
        """The analysis of this name. Raises E-COHORT-02 when the study has none."""
        found = next((one for one in self.analyses if one.name == name), None)
        if found is None:
            raise PalmaresError("E-COHORT-02", name, detail="there are " + ", ".join(one.name for one in self.analyses))
        return found

    def sha256(self) -> str:
        """One hash over every file of the study's folder that deriving, cohorts and datasets may read, in the order of their names."""
        digest = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = path.relative_to(self.folder)
            if name.parts[0] not in _NO_RULES:
                digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()


def studies() -> list[str]:
    """The names of the studies that there are."""
    return sorted(path.parent.name for path in (mappings_folder() / "studies").glob("*/study.toml"))


def load_study(name: str, *, cut_off: date | None = None, variant: str | None = None) -> Study:
    """Read a study, with its own cut-off unless another is given, and with a named variant's values when one is named.

    Raises E-STUDY-01 when there is no such study, E-STUDY-02 when there is no such variant, E-STUDY-03 when its files
    do not fit each other.
    """
    if name not in studies():
        raise PalmaresError("E-STUDY-01", name, detail="there are " + ", ".join(studies()))
    folder = mappings_folder() / "studies" / name
    try:
        settings = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-STUDY-03", f"{name}/study.toml", detail="it is no TOML in UTF-8") from None
    parameters = {key: one["value"] for key, one in settings["parameters"].items()}
    if variant is not None:
        variants: dict[str, dict[str, Any]] = settings.get("variants", {})
        if variant not in variants:
            raise PalmaresError("E-STUDY-02", variant, detail="there are " + ", ".join(sorted(variants)))
        changed = {key: value for key, value in variants[variant].items() if key != "sentence"}
        for key in changed.keys() - parameters.keys():
            raise PalmaresError("E-STUDY-03", f"{name}/study.toml", detail=f"variant {variant} changes unknown {key}")
        parameters |= changed
    return Study(
        name=name,
        title=settings["title"],
        registry=settings["registry"],
        folder=folder,
        cut_off=cut_off or settings["cut_off"],
        variant=variant,
        parameters=parameters,
        thresholds={key: one["value"] for key, one in settings["small_cells"].items()},
        cohort_definition_id=settings["cohort_definition_id"],
        cohort_name=settings["cohort_name"],
        concepts=tuple(_rows(folder / "concept_sets.csv")),
        history=tuple(
            (path.name, path.read_text(encoding="utf-8")) for path in sorted((folder / "history").glob("*.sql"))
        ),
        criteria=tuple(
            Criterion(*_sentence(path, parameters)) for path in sorted((folder / "eligibility").glob("*.sql"))
        ),
        analyses=tuple(
            Analysis(*said[:3], settings["cohort_definition_id"] + said[0] - 1, said[3])
            for said in (_sentence(path, parameters) for path in sorted((folder / "analyses").glob("*.sql")))
        ),
        findings=(folder / "findings.sql").read_text(encoding="utf-8"),
        reasons=tuple(
            Reason(**row | {"criterion": int(row["criterion"])})  # type: ignore[arg-type]
            for row in _rows(folder / "reasons.csv")
        ),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _sentence(path: Path, parameters: Mapping[str, int | str]) -> tuple[int, str, str, str]:
    """Read `06_first_line.sql`: number 6, name first-line, the sentence of its first line with the windows filled in, its SQL."""
    sql = path.read_text(encoding="utf-8")
    number, _, name = path.stem.partition("_")
    first = sql.partition("\n")[0]
    if not first.startswith("-- ") or not number.isdigit():
        raise PalmaresError("E-STUDY-03", path.name, detail="such a file is NN_name.sql and opens with its sentence")
    return int(number), name.replace("_", "-"), first[3:].format(**parameters), sql
