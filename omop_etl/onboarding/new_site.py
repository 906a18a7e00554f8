"""A new site's TOML, commented, with what its kinds of source can be told; written from what the adapters themselves declare."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fhir_adapters.base import ADAPTERS, Setting, adapter_class
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file
from fhir_adapters.pseudonyms import SiteKey
from omop_etl.config import DEFAULT_TIME_ZONE, Site, load_site

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SECRET = re.compile(r"password|passwd|secret|token$|api_key", re.IGNORECASE)
_SENTENCES = {
    "fhir_files": "FHIR that lies in files: a folder, a file or an archive of Bundles or NDJSON",
    "fhir_server": "a FHIR R4 server, asked page by page",
    "fhir_bulk": "a FHIR R4 server's Bulk Data $export",
    "tables": "an eCRF or registry: CSV, XLSX or a database, through a column map (docs/sources-tables.md)",
    "redcap": "a REDCap project, by its API or an export",
    "hl7v2": "HL7 v2 messages in files",
    "dicom_folder": "a folder of DICOM files; only headers are read",
    "dicomweb": "a PACS that speaks DICOMweb",
    "dicom_query": "a PACS that answers C-FIND",
}


@dataclass(frozen=True)
class NewSource:
    """One source of a new site: its kind, and what is already known of its settings."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewSite:
    """What a new site is called and where its data come from."""

    id: str
    name: str
    time_zone: str = DEFAULT_TIME_ZONE
    sources: Sequence[NewSource] = ()


def kinds() -> dict[str, str]:
    """Every kind of source with a sentence that says what it is."""
    return {kind: _SENTENCES.get(kind, _first_sentence(kind)) for kind in ADAPTERS}


def _first_sentence(kind: str) -> str:
    text = (adapter_class(kind).__doc__ or kind).strip().splitlines()[0]
    return text.rstrip(".")


def _declared(kind: str) -> Mapping[str, Setting]:
    """What a kind of source can be told. Raises E-SRC-01."""
    cls: Any = adapter_class(kind)
    settings: Mapping[str, Setting] = cls.settings
    return settings


def parse_source(text: str) -> NewSource:
    """A source of the command line: `kind` or `kind:name=value,name=value`. Raises E-SRC-01, E-SRC-02."""
    kind, _, rest = text.partition(":")
    declared = _declared(kind.strip())
    settings: dict[str, Any] = {}
    for part in filter(None, (one.strip() for one in rest.split(","))):
        name, is_given, value = part.partition("=")
        name = name.strip()
        if not is_given or name not in declared:
            raise PalmaresError("E-SRC-02", kind, detail=f"known settings: {', '.join(declared) or 'none'}")
        if _SECRET.search(name):
            raise PalmaresError("E-SRC-02", kind, detail=f"{name} is a secret: it comes from the environment")
        settings[name] = _value(kind, name, declared[name], value.strip())
    return NewSource(kind.strip(), settings)


def _value(kind: str, name: str, setting: Setting, text: str) -> Any:
    if setting.type is bool:
        return text.lower() in ("true", "yes", "1", "si", "sì")
    if setting.type in (int, float):
        try:
            return setting.type(text)
        except ValueError:
            raise PalmaresError("E-SRC-02", kind, detail=f"{name} is no number") from None
    if setting.type is date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise PalmaresError("E-SRC-02", kind, detail=f"{name} is no date as YYYY-MM-DD") from None
    if setting.type is list:
        return [one for one in text.split("+") if one]
    return text


def ask(site_id: str, prompt: Callable[..., Any], confirm: Callable[..., bool]) -> NewSite:
    """A new site by questions. `prompt(text, default=…)` and `confirm(text)` ask the person."""
    name = prompt("Name of the hospital", default=site_id)
    zone = prompt("Time zone of its clocks", default=DEFAULT_TIME_ZONE)
    sources = []
    listed = kinds()
    for kind, sentence in listed.items():
        if not confirm(f"{kind}: {sentence}. Does the hospital have it?"):
            continue
        settings = {}
        declared = _declared(kind)
        for key, setting in declared.items():
            if setting.required:
                settings[key] = _value(kind, key, setting, prompt(f"  {key}: {setting.meaning}"))
        sources.append(NewSource(kind, settings))
    return NewSite(site_id, name, zone, sources)


def write_site(new: NewSite, folder: Path, *, key: bool = True) -> Site:
    """Write `<folder>/<id>.toml`, and the site's key where there is none; return the site as it is read back.

    Raises E-SITE-02 (an id or a zone that is none), E-SITE-03 (the site has a TOML), E-SRC-01, -02 (a source does not fit),
    E-KEY-05 (the folder lies in a repository).
    """
    if not _ID.fullmatch(new.id):
        raise PalmaresError("E-SITE-02", "site", detail="its id has letters, digits, - and _ only")
    try:
        ZoneInfo(new.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise PalmaresError("E-SITE-02", new.id, detail="time_zone is no IANA zone") from None
    path = folder / f"{new.id}.toml"
    if path.exists():
        raise PalmaresError("E-SITE-03", path.name)
    text = "\n".join(_toml(new)) + "\n"
    place = folder / "keys" / f"{new.id}.key"
    if key and not place.exists():
        SiteKey.create(place)  # first: where no key may stand, no site is left without one
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return load_site(new.id, folder)


def _toml(new: NewSite) -> list[str]:
    out = [
        "# Settings of one hospital. No key, password or token stands here: keys in files that only their owner may read, passwords and",
        "# tokens in the environment or in Airflow's connections. Paths are relative to this file. Try it with: palmares site check",
        "",
        f"name = {_quoted(new.name)}",
        f"time_zone = {_quoted(new.time_zone)}               # of the hospital's clocks; an IANA name",
        '# language = "it"                           # of the query lists; default: en',
        f'key_file = "keys/{new.id}.key"              # the secret of the pseudonyms; mode 0600; keep a safe copy',
        f'# identifiers = "keys/{new.id}.known.csv"   # made by: palmares site identifiers; nothing is submitted in which one stands',
        f'# codes = "codes/{new.id}"                  # local code maps, once codes were reviewed: palmares vocab review',
        '# vocabulary = "/data/vocabulary"           # what palmares vocab load wrote; without it the starter slice is used',
    ]
    for source in new.sources or [NewSource("fhir_files")]:
        out += ["", f"# {kinds()[source.kind]}", "[[source]]", f"kind = {_quoted(source.kind)}"]
        declared = _declared(source.kind)
        for name, setting in declared.items():
            out.append(_line(name, setting, source.settings))
    return out


def _line(name: str, setting: Setting, given: Mapping[str, Any]) -> str:
    """One setting: as given; else as something to fill in, when it is required; else as a comment with what holds without it."""
    if name in given:
        return f"{name} = {_quoted(given[name])}  # {setting.meaning}"
    if setting.required:
        return f"{name} = {_quoted(_empty(setting))}  # FILL IN: {setting.meaning}"
    default = setting.default if setting.default is not None else _empty(setting)
    return f"# {name} = {_quoted(default)}  # {setting.meaning}"


def _empty(setting: Setting) -> Any:
    return {bool: False, int: 0, float: 0.0, list: [], dict: {}, date: date(2016, 1, 1)}.get(setting.type, "")


def _quoted(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_quoted(name)} = {_quoted(one)}" for name, one in value.items()) + " }"
            if value
            else "{}"
        )
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
