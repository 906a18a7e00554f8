"""What a source adapter promises, checked when its module is imported; and the way from a site's settings to its sources.

A source turns what a hospital has into a folder of FHIR R4:

    <out>/fhir/…            Bundles (.json) and NDJSON (.ndjson), plain or compressed, as landing reads them
    <out>/manifest.json     {"extraction": kind, "files", "bytes", "resources", "skipped", "full", "state", …}; landing passes it by
    <out>/known.parquet     for a source that finds deletes by comparing: the ids that it gave and that still stand

The folder is written whole or not at all (`folders.whole_folder`). A new adapter is a module with one class under
`@adapter` and one line in `ADAPTERS`.

What a source wants to know the next time (a server's clock, files seen) is its `state`: plain JSON in the manifest, without
secrets and without patients' values. It comes back only from an extraction that has landed (`memory.py`), so a run that
was killed anywhere is repeated, never skipped. An adapter's `extract` takes of `full`, `state`, `known` and `progress` what it
needs; one that takes no `state` reads everything each time.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

Progress = Callable[[int], None]  # is told how many more files (or pages) are done

# kind → module; a module is imported only when a site uses its kind
ADAPTERS: Mapping[str, str] = {
    "fhir_files": "fhir_adapters.fhir_files",
    "fhir_server": "fhir_adapters.fhir_server",
    "fhir_bulk": "fhir_adapters.fhir_bulk",
    "dicom_folder": "fhir_adapters.dicom.folder",
    "dicom_query": "fhir_adapters.dicom.query",
    "dicomweb": "fhir_adapters.dicom.web",
    "tables": "fhir_adapters.tables",
    "hl7v2": "fhir_adapters.hl7v2.source",
    "redcap": "fhir_adapters.redcap",
}


@dataclass(frozen=True)
class Setting:
    """One key of a `[[source]]` table in a site's TOML. `type` Path: relative to the TOML, resolved before `extract`."""

    type: type
    meaning: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Extraction:
    """What an extraction did: files and bytes read, resources written per type (where counted), files left out per reason.

    `full`: it holds all that the source has, not what changed since `state`. `state`: what the source remembers of it.
    """

    kind: str
    files: int
    bytes: int
    resources: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    full: bool = True
    state: Mapping[str, Any] | None = None

    def write(self, out: Path) -> None:
        """Write `manifest.json` of an extraction folder."""
        counts = asdict(self)
        more = counts.pop("more")
        document = {"extraction": counts.pop("kind"), **counts, **more}
        (out / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@runtime_checkable
class Source(Protocol):
    """A source of FHIR. An adapter is made as `adapter(settings, folder=…, key=…)` with settings already checked."""

    kind: ClassVar[str]
    yields: ClassVar[frozenset[str]]  # the resource types it can give; empty: whatever the source holds
    settings: ClassVar[Mapping[str, Setting]]
    needs_key: ClassVar[bool]  # it meets real identifiers, so it needs the site's key for pseudonyms

    @property
    def extract(self) -> Callable[..., Extraction]:
        """`extract(out, *, full=False, state=None, known=None, progress=None)` writes the folder `out`, whole or not at all.

        `full`: read everything, not what changed since `state`. `state`: what this source remembered in the last extraction
        that landed, None when there is none. `known`: the `known.parquet` of that extraction. An adapter leaves out of its
        signature what it does not use; call it by `extract_from`.
        """
        ...


class ContractError(TypeError):
    """An adapter does not keep the contract of this module: a defect of ours, found when it is imported."""


_OFFERED = ("full", "state", "known", "progress")  # what `extract` may take

_registry: dict[str, type] = {}
A = TypeVar("A", bound=type)


def adapter(cls: A) -> A:
    """Class decorator: hold `cls` against the contract and register it by its kind. Raises ContractError."""
    name = cls.__qualname__
    kind = getattr(cls, "kind", None)
    if not isinstance(kind, str) or kind not in ADAPTERS:
        raise ContractError(f"{name}.kind is not one of ADAPTERS")
    yields = getattr(cls, "yields", None)
    if not isinstance(yields, frozenset) or not all(isinstance(word, str) for word in yields):
        raise ContractError(f"{name}.yields is no frozenset of resource types")
    settings = getattr(cls, "settings", None)
    if not isinstance(settings, Mapping) or not all(isinstance(value, Setting) for value in settings.values()):
        raise ContractError(f"{name}.settings is no mapping of name to Setting")
    if not isinstance(getattr(cls, "needs_key", None), bool):
        raise ContractError(f"{name}.needs_key is neither True nor False")
    extract = getattr(cls, "extract", None)
    if not callable(extract):
        raise ContractError(f"{name} has no extract")
    _, _, *takes = inspect.signature(extract).parameters.values()
    if any(one.name not in _OFFERED and one.default is one.empty for one in takes if one.kind is not one.VAR_KEYWORD):
        raise ContractError(f"{name}.extract takes something that nobody gives")
    _registry[kind] = cls
    return cls


def adapter_class(kind: str) -> type:
    """The adapter of a kind, imported now. Raises E-SRC-01 for a kind that does not exist."""
    if kind not in ADAPTERS:
        raise PalmaresError("E-SRC-01", kind, detail=f"known kinds: {', '.join(sorted(ADAPTERS))}")
    if kind not in _registry:
        import_module(ADAPTERS[kind])
    if kind not in _registry:
        raise ContractError(f"{ADAPTERS[kind]} registers no adapter of kind {kind}")
    return _registry[kind]


def open_source(
    settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None, time_zone: str = ""
) -> Source:
    """The source that one `[[source]]` table describes; paths in it are relative to `folder`, where the TOML stands.

    `time_zone` is the site's; it holds for a source that has a clock and no `time_zone` of its own.

    Raises E-SRC-01 (unknown kind), E-SRC-02 (a setting is unknown, missing or of the wrong type), E-SRC-03 (the adapter
    needs the site's key and there is none).
    """
    kind = settings.get("kind")
    if not isinstance(kind, str):
        raise PalmaresError("E-SRC-02", "source", detail="kind is missing")
    cls: Any = adapter_class(kind)
    declared: Mapping[str, Setting] = cls.settings
    for name in settings:
        if name != "kind" and name not in declared:
            raise PalmaresError("E-SRC-02", kind, detail="it has a setting that this kind does not know")
    checked: dict[str, Any] = {}
    for name, setting in declared.items():
        value = settings.get(name, (time_zone or None) if name == "time_zone" else setting.default)
        value = setting.default if value is None else value
        if value is None:
            if setting.required:
                raise PalmaresError("E-SRC-02", kind, detail=f"{name} is missing")
        elif setting.type is Path:
            if not isinstance(value, str | Path):
                raise PalmaresError("E-SRC-02", kind, detail=f"{name} is no path")
            value = folder / value
        elif name in settings and not _fits(value, setting.type):
            raise PalmaresError("E-SRC-02", kind, detail=f"{name} has the wrong type")
        checked[name] = value
    if cls.needs_key and key is None:
        raise PalmaresError("E-SRC-03", kind)
    source: Source = cls(checked, folder=folder, key=key)
    return source


def _fits(value: Any, kind: type) -> bool:
    """Whether a value of a TOML is of a setting's type; a whole number may stand for a float, a truth value for no number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def extract_from(
    source: Source,
    out: Path,
    *,
    full: bool = False,
    state: Mapping[str, Any] | None = None,
    known: Path | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Run a source into the folder `out`, giving it of the options what its `extract` takes."""
    offered = {"full": full, "state": state, "known": known, "progress": progress}
    parameters = inspect.signature(source.extract).parameters
    extraction: Extraction = source.extract(
        out, **{name: value for name, value in offered.items() if name in parameters}
    )
    return extraction
