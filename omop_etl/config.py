"""What a site is: one TOML file per hospital, in `mappings/sites/` or the folder that `PALMARES_SITES` names.

name = "Ospedale di Prova"
time_zone = "Europe/Rome"            # optional; PALMARES_TIME_ZONE overrides it
language = "it"                      # optional: of the query lists, en (the default) or it
codes = "codes/prova"                # optional: local code maps (Usagi CSV), relative to the TOML

[[source]]
kind = "fhir_files"                  # an adapter of fhir_adapters
path = "/data/export"                # relative paths are relative to the TOML
"""

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder

DEFAULT_TIME_ZONE = "Europe/Rome"
LANGUAGES = ("en", "it")
_SETTINGS = {
    "name": str,
    "time_zone": str,
    "language": str,
    "codes": str,
    "key_file": str,
    "vocabulary": str,
    "source": list,
    "override": list,
    "identifiers": str,
}


@dataclass(frozen=True)
class Site:
    """One hospital's settings. `folder` is where its TOML stands; relative paths in it are relative to that."""

    id: str
    name: str
    time_zone: str
    folder: Path
    codes: Path | None = None
    key_file: Path | None = None
    vocabulary: Path | None = None
    identifiers: Path | None = None  # the hospital's list of known identifiers; it never leaves
    sources: tuple[dict[str, Any], ...] = field(default_factory=tuple)
    language: str = LANGUAGES[0]
    overrides: tuple[dict[str, Any], ...] = field(default_factory=tuple)  # see omop_etl/gates/overrides.py


def sites_folder() -> Path:
    """The folder of site TOMLs: `PALMARES_SITES`, else `mappings/sites`."""
    return Path(os.environ.get("PALMARES_SITES") or mappings_folder() / "sites")


def site_ids(folder: Path | None = None) -> list[str]:
    """Every site that has a TOML, sorted."""
    return sorted(path.stem for path in (folder or sites_folder()).glob("*.toml"))


def load_site(site_id: str, folder: Path | None = None) -> Site:
    """The settings of one site. Raises E-SITE-01 when there is none, E-SITE-02 when they do not fit."""
    folder = folder or sites_folder()
    path = folder / f"{site_id}.toml"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", site_id) or not path.is_file():
        raise PalmaresError("E-SITE-01", site_id)
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-SITE-02", path.name, detail="it is no TOML in UTF-8") from None
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise PalmaresError("E-SITE-02", path.name, detail=f"unknown setting {key}")
        if not isinstance(value, _SETTINGS[key]):
            raise PalmaresError("E-SITE-02", path.name, detail=f"{key} has the wrong type")
    zone = os.environ.get("PALMARES_TIME_ZONE") or settings.get("time_zone", DEFAULT_TIME_ZONE)
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise PalmaresError("E-SITE-02", path.name, detail="time_zone is no IANA zone") from None

    if settings.get("language", LANGUAGES[0]) not in LANGUAGES:
        raise PalmaresError("E-SITE-02", path.name, detail=f"language is none of {', '.join(LANGUAGES)}")

    def beside(key: str) -> Path | None:
        return folder / settings[key] if key in settings else None

    return Site(
        id=site_id,
        name=settings.get("name", site_id),
        time_zone=zone,
        folder=folder,
        codes=beside("codes"),
        key_file=beside("key_file"),
        vocabulary=beside("vocabulary"),
        identifiers=beside("identifiers"),
        language=settings.get("language", LANGUAGES[0]),
        sources=tuple(settings.get("source", [])),
        overrides=tuple(settings.get("override", [])),
    )
