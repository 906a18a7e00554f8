"""The study's `reports/survival.toml`: treatment, covariates, and when there is too little to say anything."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder


@dataclass(frozen=True)
class Covariate:
    """One covariate: a number given per `per` units, or a category against `reference`; `missing` values say nothing."""

    name: str
    kind: str
    per: float = 1.0
    reference: str = ""
    merge: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What is compared, adjusted for and stratified by; `values` are the numbers of `[settings]` by name."""

    treatment: str
    reference: str
    strata: str
    endpoint: str
    covariates: tuple[Covariate, ...]
    values: Mapping[str, Any]
    endpoints: Mapping[str, str]

    def number(self, name: str) -> float:
        """One of the numbers of `[settings]`."""
        return float(self.values[name])

    def endpoint_of(self, analysis: str) -> str:
        """The endpoint of an analysis whose time does not begin at day 0; else the main one."""
        return self.endpoints.get(analysis, self.endpoint)


def load(study: str) -> Settings:
    """Read them. Raises E-STUDY-03 when the file is not there or does not say what it must."""
    path = mappings_folder() / "studies" / study / "reports" / "survival.toml"
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        return Settings(
            treatment=said["treatment"],
            reference=said["reference"],
            strata=said["strata"],
            endpoint=said["endpoint"],
            covariates=tuple(
                Covariate(**one | {"missing": tuple(one.get("missing", ()))}) for one in said["covariate"]
            ),
            values={name: one["value"] for name, one in said["settings"].items()},
            endpoints={name: one["endpoint"] for name, one in said.get("analysis", {}).items()},
        )
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise PalmaresError(
            "E-STUDY-03", f"{study}/reports/survival.toml", detail="it does not say what it must"
        ) from None
