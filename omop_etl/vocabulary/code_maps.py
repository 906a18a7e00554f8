"""Code maps that people reviewed: Usagi's export files, of the study (`mappings/codes/study`) and of each site.

A folder holds CSV files in Usagi's columns, and `_systems.csv` (file, system, vocabulary_id) says whose codes each
file maps. Only rows with mappingStatus APPROVED count. A row whose conceptId is 0 says that a person looked and found
no standard concept.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.vocabulary.systems import system_key, vocabularies

SYSTEMS_FILE = "_systems.csv"
# Usagi's export columns, in its order
USAGI_COLUMNS = (
    "sourceCode",
    "sourceName",
    "sourceFrequency",
    "sourceAutoAssignedConceptIds",
    "matchScore",
    "mappingStatus",
    "equivalence",
    "statusSetBy",
    "statusSetOn",
    "conceptId",
    "conceptName",
    "domainId",
    "mappingType",
    "comment",
    "createdBy",
    "createdOn",
    "assignedReviewer",
)
_NEEDED = ("sourceCode", "mappingStatus", "conceptId")
_TYPES = ("", "MAPS_TO", "MAPS_TO_VALUE")


@dataclass(frozen=True)
class MapRow:
    """One approved row. `keys` are the vocabularies (`vocabulary:ATC`) or the system (its key) whose code it maps."""

    origin: str
    keys: tuple[str, ...]
    code: str
    concept_id: int
    is_value: bool
    place: int


def study_folder() -> Path:
    """Where the study's code maps stand."""
    return mappings_folder() / "codes" / "study"


def keys_of(system: str) -> tuple[str, ...]:
    """What a code map and a code of `system` have in common: the vocabularies of the system, else the system itself."""
    known = vocabularies().get(system_key(system), ())
    return tuple(f"vocabulary:{vocabulary_id}" for vocabulary_id, _ in known) or (system_key(system),)


def systems_of(folder: Path) -> dict[str, tuple[str, str]]:
    """File name → (system, vocabulary_id) as `_systems.csv` of the folder says. Raises E-VOC-03."""
    path = folder / SYSTEMS_FILE
    found: dict[str, tuple[str, str]] = {}
    for row in read_table(path, ("file", "system")):
        name = row["file"]
        if Path(name).name != name or not (folder / name).is_file():
            raise PalmaresError("E-VOC-03", f"{folder.name}/{SYSTEMS_FILE}", detail="it names a file that is not there")
        found[name] = (row["system"], row.get("vocabulary_id") or "")
    unnamed = [other.name for other in folder.glob("*.csv") if other.name != SYSTEMS_FILE and other.name not in found]
    if unnamed:
        raise PalmaresError(
            "E-VOC-03", f"{folder.name}/{SYSTEMS_FILE}", count=len(unnamed), detail="files whose system it does not say"
        )
    return found


def read_folder(folder: Path, origin: str) -> list[MapRow]:
    """Every approved row of a folder, by file and line. An absent folder has none. Raises E-VOC-03 with a count."""
    if not folder.is_dir():
        return []
    rows: list[MapRow] = []
    for name, (system, _) in sorted(systems_of(folder).items()):
        rows += _approved(folder / name, origin, keys_of(system), len(rows))
    return rows


def _approved(path: Path, origin: str, keys: tuple[str, ...], place: int) -> list[MapRow]:
    rows: list[MapRow] = []
    bad = 0
    for line in read_table(path, _NEEDED):
        if line["mappingStatus"] != "APPROVED":
            continue
        kind, concept_id = line.get("mappingType") or "", line["conceptId"]
        if not line["sourceCode"] or kind not in _TYPES or not concept_id.isdecimal() or int(concept_id) > 2**31 - 1:
            bad += 1
            continue
        rows.append(
            MapRow(origin, keys, line["sourceCode"], int(concept_id), kind == "MAPS_TO_VALUE", place + len(rows))
        )
    if bad:
        raise PalmaresError("E-VOC-03", f"{path.parent.name}/{path.name}", count=bad, detail="approved rows do not fit")
    return rows


def read_table(path: Path, needed: tuple[str, ...], error: str = "E-VOC-03") -> list[dict[str, str]]:
    """The rows of a CSV file that has at least the columns `needed`. Raises `error` with what is wrong, never a value."""
    subject = f"{path.parent.name}/{path.name}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise PalmaresError(error, subject, detail=f"columns missing: {', '.join(missing)}")
            rows = list(reader)
    except FileNotFoundError:
        raise PalmaresError(error, subject, detail="the file is missing") from None
    except (csv.Error, UnicodeDecodeError):
        raise PalmaresError(error, subject, detail="it is no CSV in UTF-8") from None
    short = sum(1 for row in rows if None in row or None in row.values())
    if short:
        raise PalmaresError(error, subject, count=short, detail="lines with another number of columns")
    return rows
