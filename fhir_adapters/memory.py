"""What a source remembers from one extraction that landed to the next: `<folder>/<number>.json` and `<number>.known.parquet`.

An extraction's manifest holds the source's new state. It is copied here only after landing went well: a run that was killed or
failed before that is repeated from the old state, and no change of the hospital's data falls between two runs. State of
another kind of source (the site's TOML was rearranged) is not given out.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

KNOWN = "known.parquet"
_MANIFEST = "manifest.json"


IDS = "ids"  # where a state says how its ids were made


def ids_made_by(key: "SiteKey | None", settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the ids of two runs comparable: the way of making pseudonyms, and which key. Nothing secret."""
    mode = settings.get("pseudonyms") or "toolkit"
    return {
        "pseudonyms": mode,
        "key": key.fingerprint if key is not None and mode == "toolkit" else "",
        "patient_identifier": settings.get("patient_identifier") or "",
        "record_number_digits": settings.get("record_number_digits") or 0,
    }


@dataclass(frozen=True)
class Remembered:
    """What `extract` is given: the state, and the file of ids that the source gave so far; None where there is none."""

    state: Mapping[str, Any] | None = None
    known: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """What landing needs to know of an extraction folder."""

    kind: str
    full: bool
    empty: bool
    state: Mapping[str, Any] | None


def read_extraction(folder: Path) -> Manifest | None:
    """The manifest of an extraction folder; None where a folder (of files that somebody put there) has none of that form.

    Raises E-SRC-06 when the manifest is damaged.
    """
    path = Path(folder) / _MANIFEST
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        raise PalmaresError("E-SRC-06", folder.name, detail="its manifest is no JSON") from None
    if not isinstance(document, dict) or not isinstance(kind := document.get("extraction"), str):
        return None
    state = document.get("state")
    fhir = Path(folder) / "fhir"
    return Manifest(
        kind=kind,
        full=bool(document.get("full", True)),
        empty=fhir.is_dir() and not any(path.is_file() for path in fhir.rglob("*")),
        state=state if isinstance(state, dict) else None,
    )


def of_extraction(folder: Path, kind: str) -> Remembered:
    """What an extraction folder that landed remembers of a source of this kind. Raises E-SRC-06 when it is none of that kind."""
    manifest = read_extraction(folder)
    if manifest is None or manifest.kind != kind:
        raise PalmaresError("E-SRC-06", folder.name, detail=f"it is no extraction of kind {kind}")
    known = Path(folder) / KNOWN
    return Remembered(manifest.state, known if known.is_file() else None)


@dataclass(frozen=True)
class Memory:
    """The memory of one source of a site; `number` counts from 1, as in the site's TOML."""

    folder: Path
    number: int

    @property
    def _state(self) -> Path:
        return self.folder / f"{self.number}.json"

    @property
    def _known(self) -> Path:
        return self.folder / f"{self.number}.{KNOWN}"

    def recall(self, kind: str) -> Remembered:
        """What is remembered of a source of this kind. A file that cannot be read counts as nothing: all is read anew."""
        try:
            document = json.loads(self._state.read_bytes())
        except (FileNotFoundError, ValueError):
            return Remembered()
        if not isinstance(document, dict) or document.get("kind") != kind:
            return Remembered()
        return Remembered(document.get("state"), self._known if self._known.is_file() else None)

    def other_ids(self, manifest: Manifest) -> bool:
        """Whether an extraction's ids were made in another way than those that have landed: the two must not be mixed."""
        held = self.recall(manifest.kind).state
        ids = manifest.state.get(IDS) if manifest.state else None
        return held is not None and ids is not None and held.get(IDS) not in (None, ids)

    def advance(self, extracted: Path) -> None:
        """Take over the state of an extraction that has landed; call it after landing only."""
        manifest = read_extraction(extracted)
        if manifest is None or manifest.state is None:
            return
        known = extracted / KNOWN
        if known.is_file():
            with whole_file(self._known) as partial:
                shutil.copyfile(known, partial)
        with whole_file(self._state) as partial:
            document = {"kind": manifest.kind, "state": manifest.state}
            partial.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
