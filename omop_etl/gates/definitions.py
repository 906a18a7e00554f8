"""The checks, read from `mappings/quality/` and made for the tables of the CDM.

`checks(extracted_to)` gives every check with its SQL filled in; what a check means, how it counts and what it bears stands in
checks.toml and thresholds.toml, and only the rules that pick columns from the CDM facts stand here.
"""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters import knowledge
from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.cdm import Table, tables
from omop_etl.gates.slices import slice_tables

CHECKS, THRESHOLDS = "checks.toml", "thresholds.toml"
# a table without a key of its own is named by the person, or by the row that it belongs to
_KEYS = {"death": "person_id", "episode_event": "episode_id", "cohort": "subject_id"}
# source concepts may be of any vocabulary, standard or not
_SOURCE = "_source_concept_id"

# placeholders that are names of columns, and parts of a check that are SQL: there the names are quoted
_NAMES = ("column", "key", "reference_key", "start", "end", "date", "datetime")
_SQL = ("where", "of", "concept", "violated", "numerator", "denominator")
VERDICTS = ("PASS", "WARN", "BLOCK")


def verdict_of(numerator: int, denominator: int, warn: float | None, block: float | None) -> str:
    """PASS, WARN or BLOCK: the share of violations in percent against the shares that are borne. Violations of nothing
    (denominator 0) are 100 %."""
    share = 100 * numerator / denominator if denominator else 100.0 if numerator else 0.0
    if block is not None and share > block:
        return "BLOCK"
    return "WARN" if warn is not None and share > warn else "PASS"


@dataclass(frozen=True)
class Check:
    """One check of one table. Exactly one of `structural`, `where`, `concept` and `violated` is set: how it counts.

    `warn` and `block` are shares in percent above which the verdict becomes WARN and BLOCK; None where it never does.
    """

    code: str
    title: str
    finding: str
    unit: str
    category: str
    subcategory: str
    table: str
    column: str
    warn: float | None
    block: float | None
    explanation: str
    remedy: str
    structural: str = ""
    where: str = ""
    of: str = ""
    concept: str = ""
    violated: str = ""
    numerator: str = ""
    denominator: str = ""

    @property
    def severity(self) -> str:
        """The worst that this check can say: BLOCK, WARN, or REPORT for one that is only shown."""
        return "BLOCK" if self.block is not None else "WARN" if self.warn is not None else "REPORT"

    def threshold(self, verdict: str) -> float | None:
        """The share that decided: the one that was exceeded, or for a PASS the lowest that was not; None if it has none."""
        if verdict == "BLOCK":
            return self.block
        return self.warn if self.warn is not None else self.block


@dataclass(frozen=True)
class Definitions:
    """What checks.toml and thresholds.toml hold, read and held against each other."""

    required_tables: tuple[str, ...]
    events: dict[str, str]
    relations: dict[str, str]
    checks: tuple[Check, ...]
    rejects: int
    words: dict[str, str]


def key_of(table: str) -> str:
    """The column that names a row of a table in a reject file; `NULL` where the table has none."""
    return (tables()[table].primary_key if table in tables() else None) or _KEYS.get(table, "NULL")


def quoted(name: str) -> str:
    """A column as an SQL identifier: `offset` of note_nlp is a reserved word."""
    return name if name == "NULL" else f'"{name}"'


# ------------------------------------------------------------------ the rules that pick columns

_Filler = Iterator[tuple[str, dict[str, str]]]


def _required(table: Table) -> _Filler:
    return ((column.name, {}) for column in table.columns if column.required)


def _key(table: Table) -> _Filler:
    return ((column.name, {}) for column in table.columns if column.primary_key)


def _reference(table: Table) -> _Filler:
    inside = set(slice_tables())
    for column in table.columns:
        if column.references and column.references[0] in inside:
            yield column.name, {"reference": column.references[0], "reference_key": column.references[1]}


def _concept(table: Table) -> _Filler:
    return ((column.name, {}) for column in table.columns if column.references == ("concept", "concept_id"))


def _standard(table: Table) -> _Filler:
    return ((name, {}) for name, _ in _concept(table) if not name.endswith(_SOURCE))


def _domain(table: Table) -> _Filler:
    return ((column.name, {"domain": column.domain}) for column in table.columns if column.domain)


def _concept_class(table: Table) -> _Filler:
    return ((column.name, {"concept_class": column.concept_class}) for column in table.columns if column.concept_class)


def _length(table: Table) -> _Filler:
    return ((column.name, {"length": str(column.length)}) for column in table.columns if column.length)


def _date(table: Table) -> _Filler:
    return ((name, {}) for name in _dates(table) if not name.endswith("_end_date"))


def _end_date(table: Table) -> _Filler:
    return ((name, {}) for name in _dates(table) if name.endswith("_end_date"))


def _dates(table: Table) -> Iterator[str]:
    return (column.name for column in table.columns if column.type == "date")


def _interval(table: Table) -> _Filler:
    for column in table.columns:
        if column.type == "date" and column.name.endswith("_end_date"):
            stem = column.name.removesuffix("_end_date")
            start = next((name for name in (f"{stem}_start_date", f"{stem}_date") if name in table), None)
            if start:
                yield column.name, {"start": start, "end": column.name}


def _datetime(table: Table) -> _Filler:
    for column in table.columns:
        date = column.name.removesuffix("time")
        if column.type == "timestamp" and date in table and table[date].type == "date":
            yield date, {"date": date, "datetime": column.name}


RULES: dict[str, Callable[[Table], _Filler]] = {
    "required": _required,
    "key": _key,
    "reference": _reference,
    "concept": _concept,
    "standard": _standard,
    "domain": _domain,
    "concept_class": _concept_class,
    "length": _length,
    "date": _date,
    "end_date": _end_date,
    "interval": _interval,
    "datetime": _datetime,
}


# ------------------------------------------------------------------ reading


def _literal(value: object) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(_literal(one) for one in value) + ")"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _concepts(study: str, name: str) -> list[int]:
    """The ids of a concept set of the study, `set` or `set:value`, in the order of its file."""
    concept_set, _, value = name.partition(":")
    rows = knowledge.table("studies", study, "concept_sets.csv")
    found = [row for row in rows if row["concept_set"] == concept_set and value in ("", row["value"])]
    if not found:
        raise KeyError(f"concept set {name}")
    return list(dict.fromkeys(int(row["concept_id"]) for row in found))


def _words(document: dict[str, Any]) -> dict[str, str]:
    """Placeholder → SQL text, from [values], [sets], [lists] and [tuples]."""
    study = document["study"]
    words = {name: _literal(value) for name, value in document.get("values", {}).items()}
    for name, sets in document.get("sets", {}).items():
        ids = [concept for one in ([sets] if isinstance(sets, str) else sets) for concept in _concepts(study, one)]
        words[name] = ", ".join(map(str, dict.fromkeys(ids)))
    for name, values in document.get("lists", {}).items():
        words[name] = ", ".join(_literal(value) for value in values)
    for name, pairs in document.get("tuples", {}).items():
        made = [[concept, *rest] for concept_set, *rest in pairs for concept in _concepts(study, concept_set)]
        words[name] = ", ".join(_literal(one) for one in made)
    return words


def _bears(code: str, level: str, thresholds: dict[str, Any]) -> tuple[float | None, float | None]:
    """The shares of a check: those of its level, or of the longest code in [checks] that it begins with."""
    fitting = [prefix for prefix in thresholds.get("checks", {}) if code == prefix or code.startswith(f"{prefix}-")]
    chosen = thresholds["checks"][max(fitting, key=len)] if fitting else thresholds["levels"][level]
    return chosen.get("warn"), chosen.get("block")


def _made(entry: dict[str, Any], words: dict[str, str], thresholds: dict[str, Any], **own: str) -> Check:
    """One check from its entry, every placeholder filled."""
    words = words | own
    in_sql = words | {name: quoted(own[name]) for name in _NAMES if name in own}
    text = {name: entry[name].format_map(words) for name in ("title", "finding", "explanation", "remedy")}
    text |= {name: entry.get(name, "").strip().format_map(in_sql) for name in _SQL}
    ways = sum(bool(text[way]) for way in ("where", "concept", "violated")) + ("structural" in own)
    if ways != 1 or bool(text["violated"]) != bool(text["denominator"]):
        raise KeyError("where, concept, or violated with denominator")
    warn, block = _bears(own["code"], entry["level"], thresholds)
    return Check(
        code=own["code"],
        unit=entry.get("unit", "records"),
        category=entry["category"],
        subcategory=entry["subcategory"],
        table=own["table"],
        column=own.get("column", ""),
        warn=warn,
        block=block,
        structural=own.get("structural", ""),
        **text,
    )


def _columns(entry: dict[str, Any]) -> Iterator[tuple[Table, str, dict[str, str]]]:
    """The table, column and fillings for which a generated check is made."""
    facts = tables()
    if "columns" in entry:
        for name in entry["columns"]:
            table, column = name.split(".")
            yield facts[table], facts[table][column].name, {"keys": entry.get("keys", {}).get(table, "")}
        return
    left_out = set(entry.get("except", []))
    for name in slice_tables():
        for column, own in RULES[entry["rule"]](facts[name]):
            if f"{name}.{column}" not in left_out:
                yield facts[name], column, own


@cache
def _documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    read = []
    for name in (CHECKS, THRESHOLDS):
        try:
            read.append(tomllib.loads((folder / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise PalmaresError("E-GATE-03", name, detail="the file is missing") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            raise PalmaresError("E-GATE-03", name, detail="it is no TOML in UTF-8") from None
    return read[0], read[1]


@cache
def definitions(extracted_to: str | None = None, folder: Path | None = None) -> Definitions:
    """Every check for a slice that was extracted up to `extracted_to` (YYYY-MM-DD; None: nothing counts as the future).

    Raises E-GATE-03 when the two files do not fit each other or the CDM.
    """
    document, thresholds = _documents(folder or mappings_folder() / "quality")
    made: dict[str, Check] = {}
    entry: dict[str, Any] = {}
    try:
        words = _words(document) | {"extracted_to": f"DATE '{extracted_to}'" if extracted_to else "CAST(NULL AS DATE)"}
        for entry in document.get("structural", []):
            for name in [*slice_tables(), "ledger", "person_link"]:
                own = {"table": name, "code": f"{entry['code']}-{name}", "structural": entry["rule"]}
                _add(made, _made(entry, words, thresholds, **own))
        for entry in document.get("generated", []):
            for table, column, own in _columns(entry):
                own = own | {"table": table.name, "column": column, "key": key_of(table.name)}
                own["code"] = f"{entry['code']}-{table.name}.{column}"
                _add(made, _made(entry, words, thresholds, **own))
        for entry in document.get("check", []):
            own = {"code": entry["code"], "table": entry["table"], "key": key_of(entry["table"])}
            _add(made, _made(entry, words, thresholds, **own))
        relations = {name: sql.strip().format_map(words) for name, sql in document.get("relations", {}).items()}
        return Definitions(
            required_tables=tuple(document["required_tables"]),
            events=dict(document["events"]),
            relations=relations,
            checks=tuple(made.values()),
            rejects=int(thresholds["rejects"]["most"]),
            words=words,
        )
    except (KeyError, StopIteration, ValueError) as error:
        where = entry.get("code", "the file's head")
        raise PalmaresError("E-GATE-03", CHECKS, detail=f"{where}: {str(error).strip(chr(39))} does not fit") from None


def _add(made: dict[str, Check], check: Check) -> None:
    if check.code in made:
        raise KeyError(f"{check.code} stands twice and")
    made[check.code] = check


def explain(code: str) -> dict[str, str] | None:
    """What a check or a family of generated checks (`G-REQUIRED`) looks for, why, and what to do; None when there is none."""
    document, thresholds = _documents(mappings_folder() / "quality")
    for check in definitions().checks:
        if check.code == code:
            bears = {"warn": check.warn, "block": check.block}
            return {
                "code": code,
                "title": check.title,
                "category": check.category,
                "table": check.table,
                "explanation": check.explanation,
                "remedy": check.remedy,
                "bears": _sentence(bears),
            }
    for entry in [*document.get("structural", []), *document.get("generated", [])]:
        if entry["code"] == code:
            return {
                "code": code,
                "title": entry["title"],
                "category": entry["category"],
                "table": "each table that the CDM facts name",
                "explanation": entry["explanation"],
                "remedy": entry["remedy"],
                "bears": _sentence(thresholds["levels"][entry["level"]]),
            }
    return None


def _sentence(bears: dict[str, Any]) -> str:
    said = [
        f"{word} above {bears[key]:g} %"
        for key, word in (("warn", "WARN"), ("block", "BLOCK"))
        if bears.get(key) is not None
    ]
    return ", ".join(said) or "reported only"
