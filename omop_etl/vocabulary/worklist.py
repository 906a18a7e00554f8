"""The curation worklist: codes that have no standard concept go to OHDSI Usagi and come back as code maps.

unmapped(slices, "worklist.csv")                            most records first; Usagi opens or imports the file
review("reviewed.csv", scope="study", reviewer=…, reviewed_on=…)    what Usagi saved becomes rows of `mappings/codes`
"""

import csv
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file, whole_folder
from omop_etl.config import Site
from omop_etl.vocabulary.athena import Vocabulary, open_vocabulary
from omop_etl.vocabulary.code_maps import (
    SYSTEMS_FILE,
    USAGI_COLUMNS,
    keys_of,
    read_table,
    study_folder,
    systems_of,
)

UNMAPPED = "unmapped.csv"
_UNMAPPED_COLUMNS = (
    "site",
    "vocabulary_id",
    "source_system",
    "source_code",
    "source_name",
    "cdm_field",
    "records",
    "reason",
)
# a person looked at these already
_SETTLED = "approved-without-concept"
# these have no code to map, or are mended in `mappings/codes/fhir`, not in a code map
_ELSEWHERE = ("no-code", "not-in-code-set")
# Usagi keeps columns with this prefix as they are
_EXTRA = "ADD_INFO:"
_SYSTEM = f"{_EXTRA}system"
_EXTRAS = ("system", "vocabulary", "sites", "fields", "reason")


@dataclass
class Code:
    """One unmapped code over all sites. `records` counts the records that use it."""

    system: str
    code: str
    vocabulary_id: str = ""
    names: Counter[str] = field(default_factory=Counter)
    sites: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        return self.sites.total()

    @property
    def name(self) -> str:
        """The name that most records give."""
        named = Counter({name: count for name, count in self.names.items() if name})
        return min(named, key=lambda name: (-named[name], name), default="")


@dataclass(frozen=True)
class Worklist:
    """Unmapped codes, most records first; how many codes and records per (site, system); and how many records have no
    concept for a reason that no code map mends."""

    codes: tuple[Code, ...]
    by_site: tuple[tuple[str, str, int, int], ...]
    elsewhere: int

    @property
    def records(self) -> int:
        return sum(code.records for code in self.codes)


def unmapped(slices: Sequence[Path], out: Path, *, settled: bool = False) -> Worklist:
    """Rank the unmapped codes of `slices` and write them to `out` in the columns of a file that Usagi saves.

    Usagi opens it (File, Open) or imports it with suggestions (File, Import codes). `settled` keeps the codes that a
    reviewer has approved without a concept. Raises E-SLICE-01 for a folder without unmapped.csv.
    """
    found: dict[tuple[str, str], Code] = {}
    elsewhere = 0
    for row in _unmapped_rows(slices):
        if row["reason"] in _ELSEWHERE or not row["source_code"]:
            elsewhere += int(row["records"])
            continue
        if row["reason"] == _SETTLED and not settled:
            continue
        key = (row["source_system"], row["source_code"])
        code = found.setdefault(key, Code(*key, vocabulary_id=row["vocabulary_id"]))
        records = int(row["records"])
        code.names[row["source_name"]] += records
        code.sites[row["site"]] += records
        code.fields[row["cdm_field"]] += records
        code.reasons[row["reason"]] += records
    ranked = sorted(found.values(), key=lambda code: (-code.records, code.system, code.code))
    per_site: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for code in ranked:
        for site, records in code.sites.items():
            per_site[(site, code.system)][0] += 1
            per_site[(site, code.system)][1] += records
    with whole_file(out) as partial, partial.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, (*USAGI_COLUMNS, *(_EXTRA + name for name in _EXTRAS)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_as_usagi(code) for code in ranked)
    by_site = [(site, system, codes, records) for (site, system), (codes, records) in per_site.items()]
    by_site.sort(key=lambda row: (row[0], -row[3], row[1]))
    return Worklist(tuple(ranked), tuple(by_site), elsewhere)


def _unmapped_rows(slices: Iterable[Path]) -> Iterable[dict[str, str]]:
    for folder in slices:
        path = Path(folder) / UNMAPPED
        if not path.is_file():
            raise PalmaresError("E-SLICE-01", str(folder), detail=f"{UNMAPPED} is missing")
        rows = read_table(path, _UNMAPPED_COLUMNS, "E-SLICE-02")
        bad = sum(1 for row in rows if not row["records"].isdecimal())
        if bad:
            raise PalmaresError(
                "E-SLICE-02", f"{Path(folder).name}/{UNMAPPED}", count=bad, detail="no number of records"
            )
        yield from rows


def _joined(counts: Counter[str]) -> str:
    return "; ".join(sorted(name for name in counts if name))


def _as_usagi(code: Code) -> dict[str, object]:
    return {
        "sourceCode": code.code,
        "sourceName": code.name or code.code,  # Usagi searches by the name
        "sourceFrequency": min(code.records, 2**31 - 1),
        "sourceAutoAssignedConceptIds": "",
        "matchScore": 0.0,
        "mappingStatus": "UNCHECKED",
        "equivalence": "UNREVIEWED",
        "statusSetBy": "",
        "statusSetOn": 0,
        "conceptId": 0,
        "conceptName": "",
        "domainId": "",
        "mappingType": "MAPS_TO",
        "comment": "",
        "createdBy": "",
        "createdOn": 0,
        "assignedReviewer": "",
        _SYSTEM: code.system,
        f"{_EXTRA}vocabulary": code.vocabulary_id,
        f"{_EXTRA}sites": _joined(code.sites),
        f"{_EXTRA}fields": _joined(code.fields),
        f"{_EXTRA}reason": _joined(code.reasons),
    }


@dataclass(frozen=True)
class Review:
    """What was taken: codes and rows, those of them without a concept; rows that were not approved; the files written."""

    codes: int
    rows: int
    without_concept: int
    not_approved: int
    files: tuple[Path, ...]


def review(
    usagi_export: Path,
    *,
    scope: Site | Literal["study"],
    reviewer: str,
    reviewed_on: date,
    vocabulary: Vocabulary | None = None,
    system: str | None = None,
    replace: bool = False,
) -> Review:
    """Take the approved rows of a file that Usagi saved into the code maps of the study or of a site.

    Equivalence and comments are kept; reviewer and date are written into each row. `system` says whose codes these are when
    the file does not (a file imported without additional columns). Targets are checked against `vocabulary` (default:
    the starter slice). A code that was reviewed before keeps its rows when they say the same, and is refused when they do not,
    unless `replace`. The folder of code maps is written whole or not at all. Raises E-VOC-03 (no code map), E-VOC-04
    (rows that cannot be taken), E-VOC-05 (an earlier review says otherwise), E-SITE-02 (the site names no folder).
    """
    usagi_export = Path(usagi_export)
    if scope == "study":
        folder = study_folder()
    elif scope.codes is None:
        raise PalmaresError("E-SITE-02", f"{scope.id}.toml", detail="it names no folder of code maps (codes = ...)")
    else:
        folder = scope.codes
    if not reviewer.strip():
        raise PalmaresError("E-VOC-04", usagi_export.name, detail="no reviewer is named")
    lines = read_table(usagi_export, ("sourceCode", "mappingStatus", "conceptId"))
    approved = [(number, line) for number, line in enumerate(lines, 2) if line["mappingStatus"] == "APPROVED"]
    rows = _checked(approved, usagi_export.name, vocabulary or open_vocabulary(None), system)
    stamp = str(int(datetime(reviewed_on.year, reviewed_on.month, reviewed_on.day, tzinfo=UTC).timestamp() * 1000))
    for _, row in rows:
        row |= {"statusSetBy": reviewer, "statusSetOn": stamp}
    files = _merge(folder, rows, usagi_export.name, replace=replace)
    return Review(
        codes=len({(key, row["sourceCode"]) for key, row in rows}),
        rows=len(rows),
        without_concept=sum(row["conceptId"] == "0" for _, row in rows),
        not_approved=len(lines) - len(approved),
        files=files,
    )


def _checked(
    lines: list[tuple[int, dict[str, str]]], subject: str, vocabulary: Vocabulary, system: str | None
) -> list[tuple[str, dict[str, str]]]:
    """(system, row in Usagi's columns) of each line, or E-VOC-04 with the number of lines per rule, and which."""
    targets = _targets(vocabulary, {line["conceptId"] for _, line in lines})
    bad: dict[str, list[int]] = defaultdict(list)
    taken: list[tuple[str, dict[str, str]]] = []
    places: list[int] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in lines:
        whose = line.get(_SYSTEM) or system
        target = targets.get(line["conceptId"])
        kind = line.get("mappingType") or "MAPS_TO"
        if whose is None and _SYSTEM not in line:
            bad["the code's system is not told (--system)"].append(number)
        elif not line["sourceCode"]:
            bad["no code"].append(number)
        elif kind not in ("MAPS_TO", "MAPS_TO_VALUE"):
            bad["a mapping type that the CDM does not use"].append(number)
        elif line["conceptId"] != "0" and target is None:
            bad["a concept that the vocabulary does not hold"].append(number)
        elif target is not None and target[2] is not None:
            bad["a concept that is no longer valid"].append(number)
        elif target is not None and target[3] != "S":
            bad["a concept that is not standard"].append(number)
        else:
            row = {name: line.get(name, "") for name in USAGI_COLUMNS}
            row |= {
                "mappingType": kind,
                "conceptName": target[0] if target else "",
                "domainId": target[1] if target else "",
            }
            same = (whose or "", row["sourceCode"], row["conceptId"], kind)
            if same not in seen:
                seen.add(same)
                taken.append((whose or "", row))
                places.append(number)
    both = defaultdict(set)
    for whose, row in taken:
        both[(whose, row["sourceCode"])].add(row["conceptId"] != "0")
    for number, (whose, row) in zip(places, taken, strict=True):
        if len(both[(whose, row["sourceCode"])]) == 2:
            bad["a code with a concept and with none"].append(number)
    if bad:
        detail = "; ".join(f"{rule}: {len(places)} ({_rows_named(places)})" for rule, places in sorted(bad.items()))
        raise PalmaresError("E-VOC-04", subject, count=sum(map(len, bad.values())), detail=detail)
    return taken


def _rows_named(places: list[int]) -> str:
    """Rows of the file, the header being the first; of many, a few."""
    named = ", ".join(str(place) for place in places[:5])
    return f"row{'s' if len(places) > 1 else ''} {named}{' and more' if len(places) > 5 else ''}"


def _targets(vocabulary: Vocabulary, ids: set[str]) -> dict[str, tuple[str, str, str | None, str | None]]:
    """Concept id as written → name, domain, invalid reason, standard."""
    wanted = ", ".join(sorted(id_ for id_ in ids if re.fullmatch(r"[1-9][0-9]{0,9}", id_))) or "0"
    rows = duckdb.execute(
        "SELECT concept_id, concept_name, domain_id, invalid_reason, standard_concept "
        f"FROM {vocabulary.relation('concept')} WHERE concept_id IN ({wanted})"
    ).fetchall()
    return {str(row[0]): row[1:] for row in rows if row[0]}


def _merge(folder: Path, rows: list[tuple[str, dict[str, str]]], subject: str, *, replace: bool) -> tuple[Path, ...]:
    """Write `rows` into the folder's files, one per system; the other files stay as they are."""
    if not rows:
        return ()
    systems = systems_of(folder) if any(folder.glob("*.csv")) else {}
    file_of = {keys_of(system): name for name, (system, _) in systems.items()}
    by_file: dict[str, list[dict[str, str]]] = defaultdict(list)
    for system, row in rows:
        keys = keys_of(system)
        if keys not in file_of:
            file_of[keys] = _new_name(system, set(file_of.values()))
            systems[file_of[keys]] = (system, "")
        by_file[file_of[keys]].append(row)

    contents, differing = {}, 0
    for name, new in by_file.items():
        old = (
            read_table(folder / name, ("sourceCode", "mappingStatus", "conceptId")) if (folder / name).is_file() else []
        )
        contents[name], conflicts = _merged(old, new)
        differing += conflicts
    if differing and not replace:
        raise PalmaresError("E-VOC-05", subject, count=differing)

    with whole_folder(folder) as partial:
        if folder.is_dir():
            shutil.copytree(folder, partial, dirs_exist_ok=True)
        for name, content in contents.items():
            _write(partial / name, USAGI_COLUMNS, content)
        table = [{"file": name, "system": system, "vocabulary_id": other} for name, (system, other) in systems.items()]
        _write(partial / SYSTEMS_FILE, ("file", "system", "vocabulary_id"), table)
    return tuple(folder / name for name in sorted(contents))


def _merged(old: list[dict[str, str]], new: list[dict[str, str]]) -> tuple[list[dict[str, str]], int]:
    """The old rows with those of the newly reviewed codes in their places; and how many codes had other targets."""

    def targets(rows: list[dict[str, str]]) -> dict[str, list[tuple[str, str]]]:
        found = defaultdict(list)
        for row in rows:
            if row["mappingStatus"] == "APPROVED":
                found[row["sourceCode"]].append((row["conceptId"], row.get("mappingType") or "MAPS_TO"))
        return found

    before, after = targets(old), targets(new)
    differing = sum(code in before and before[code] != after[code] for code in after)
    kept = [{name: row.get(name, "") for name in USAGI_COLUMNS} for row in old if row["sourceCode"] not in after]
    return kept + sorted(new, key=lambda row: row["sourceCode"]), differing


def _new_name(system: str, taken: set[str]) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", re.sub(r"^(https?://|urn:)", "", system.lower())).strip("-") or "without-system"
    name, number = f"{words}.csv", 1
    while name in taken:
        number += 1
        name = f"{words}-{number}.csv"
    return name


def _write(path: Path, columns: Sequence[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
