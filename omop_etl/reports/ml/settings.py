"""The study's `reports/ml.toml`: outcome, features, models."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder, table

OUTCOME = "outcome"


@dataclass(frozen=True)
class Settings:
    """What is learnt from what; `values` are the numbers of `[settings]` by name, `models` their parameters by name."""

    outcome: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    models: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature, numbers first."""
        return (*self.numbers, *self.categories)


def load(study: str) -> Settings:
    """Read them. Raises E-STUDY-03 when the file is not there, or a feature is known only after the decision."""
    path = mappings_folder() / "studies" / study / "reports" / "ml.toml"
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        found = Settings(
            said["outcome"],
            tuple(said["features"]["number"]),
            tuple(said["features"]["category"]),
            said["models"],
            {name: one["value"] for name, one in said["settings"].items()},
        )
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise PalmaresError("E-STUDY-03", f"{study}/reports/ml.toml", detail="it does not say what it must") from None
    late = [
        row["variable"]
        for row in table("studies", study, "datasets", "lines.csv")
        if row["when"] == OUTCOME and row["variable"] in found.features
    ]
    if late:
        raise PalmaresError(
            "E-STUDY-03", f"{study}/reports/ml.toml", detail=f"{late[0]} is known after the decision only"
        )
    return found
