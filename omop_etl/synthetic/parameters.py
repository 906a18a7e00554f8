"""What the synthetic hospitals are drawn from: `mappings/studies/palmares2/synthetic.toml`, read once."""

import hashlib
import tomllib
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.knowledge import mappings_folder

CRITERIA = (
    "advanced-disease",
    "index",
    "receptor-sample",
    "hr-positive",
    "her2-negative",
    "first-line",
    "with-et",
    "no-adjuvant-cdk46",
    "follow-up",
    "one-person",
)


@dataclass(frozen=True)
class Scenario:
    """How one patient is built: the plans by name (None: the usual one), and the answers that differ for that reason."""

    name: str
    per_300: int = 0
    clean: bool = True
    disease: str | None = None
    samples: str | None = None
    before: str | None = None
    endocrine: str | None = None
    start: str | None = None
    course: str | None = None
    index: dict[str, date] = field(default_factory=dict)
    expect: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameters:
    """The file as nested tables, its scenarios, and its SHA-256."""

    tables: dict[str, Any]
    scenarios: tuple[Scenario, ...]
    sha256: str

    def __getitem__(self, table: str) -> Any:
        return self.tables[table]


USUAL = Scenario("usual")


def parameters_file() -> Path:
    """Where the parameters stand."""
    return mappings_folder() / "studies" / "palmares2" / "synthetic.toml"


def load() -> Parameters:
    """The parameters. A scenario that names an unknown criterion or field is a defect of the file and raises ValueError."""
    return _load(parameters_file())


@cache
def _load(path: Path) -> Parameters:
    content = path.read_bytes()
    tables = tomllib.loads(content.decode("utf-8"))
    scenarios = tuple(_scenario(entry) for entry in tables.pop("scenario"))
    if len({scenario.name for scenario in scenarios}) != len(scenarios):
        raise ValueError("two scenarios have one name")
    return Parameters(tables, scenarios, hashlib.sha256(content).hexdigest())


def _scenario(entry: dict[str, Any]) -> Scenario:
    unknown = set(entry) - set(Scenario.__dataclass_fields__)
    criteria = set(entry.get("expect", {})) - set(CRITERIA)
    if unknown or criteria:
        raise ValueError(f"scenario {entry.get('name')}: unknown {sorted(unknown | criteria)}")
    return Scenario(**entry)
