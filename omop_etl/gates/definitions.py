"""The checks, read from `mappings/quality/` and made for the tables of the CDM.

`checks(extracted_to)` gives every check with its SQL filled in; what a check means, how it counts and what it bears stands in
checks.toml and thresholds.toml, and only the rules that pick columns from the CDM facts stand here.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters import knowledge
from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.cdm import Table, tables
from omop_etl.config import LANGUAGES  # the first is that of the files, the messages and this code
from omop_etl.gates import ohdsi
from omop_etl.gates.slices import slice_tables

CHECKS, OHDSI, THRESHOLDS = "checks.toml", "dqd.toml", "thresholds.toml"
# a table without a key of its own is named by the person, or by the row that it belongs to
_KEYS = {"death": "person_id", "episode_event": "episode_id", "cohort": "subject_id"}
# source concepts may be of any vocabulary, standard or not
_SOURCE = "_source_concept_id"

# placeholders that are names of columns, and parts of a check that are SQL: there the names are quoted
_NAMES = ("column", "key", "reference_key", "start", "end", "date", "datetime")
_SQL = ("where", "of", "concept", "grouped", "violated", "numerator", "denominator")
_SEXES_IT = {"male": "maschile", "female": "femminile"}
_TEXTS = ("title", "finding", "explanation", "remedy")
_WAYS = ("where", "concept", "grouped", "violated")
VERDICTS = ("PASS", "WARN", "BLOCK")


def verdict_of(numerator: int, denominator: int, warn: float | None, block: float | None, least: int = 1) -> str:
    """PASS, WARN or BLOCK: the share of violations in percent against the shares that are borne. Violations of nothing
    (denominator 0) are 100 %. A share blocks only from `least` violations on: 1 of 1 says little (thresholds.toml, [small])."""
    share = 100 * numerator / denominator if denominator else 100.0 if numerator else 0.0
    blocks = block is not None and share > block
    if blocks and numerator >= least:
        return "BLOCK"
    return "WARN" if blocks or (warn is not None and share > warn) else "PASS"


@dataclass(frozen=True)
class Text:
    """The words of a check in one language."""

    title: str
    finding: str
    explanation: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """One check of one table. Exactly one of `structural`, `where`, `concept`, `grouped`, `violated` and `central` is set: how it
    counts (a grouped one has `violated` too, for its rows; `central` is a rule of omop_etl/reports/quality/central.py).

    `family` is the code without table and column, `dqd` OHDSI's name of the check type. `warn` and `block` are shares in percent
    above which the verdict becomes WARN and BLOCK, None where it never does; below `least` violations nothing blocks.
    """

    code: str
    family: str
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
    least: int = 1
    dqd: str = ""
    ohdsi_threshold: float | None = None
    place: str = "site"
    concept_ids: str = ""
    argument: str = ""
    structural: str = ""
    central: str = ""
    where: str = ""
    of: str = ""
    join: str = ""
    of_join: str = ""
    concept: str = ""
    grouped: str = ""
    violated: str = ""
    numerator: str = ""
    denominator: str = ""
    italian: Text | None = None

    def text(self, language: str) -> Text:
        """Its words in a language: those of the file where it has no others."""
        if language == "it" and self.italian:
            return self.italian
        return Text(self.title, self.finding, self.explanation, self.remedy)

    @property
    def severity(self) -> str:
        """The worst that this check can say: BLOCK, WARN, or REPORT for one that is only shown."""
        return "BLOCK" if self.block is not None else "WARN" if self.warn is not None else "REPORT"

    @property
    def level(self) -> str:
        """TABLE, FIELD or CONCEPT as OHDSI has it; FILE for the slice's files, STUDY for a check of the study."""
        if self.concept_ids:
            return "CONCEPT"
        if self.column:
            return "FIELD"
        return "TABLE" if self.dqd else "FILE" if self.structural else "STUDY"

    def verdict(self, numerator: int, denominator: int) -> str:
        """What these counts say."""
        return verdict_of(numerator, denominator, self.warn, self.block, self.least)

    def threshold(self, verdict: str) -> float | None:
        """The share that decided: the one that was exceeded, or for a PASS the lowest that was not; None if it has none."""
        if verdict == "BLOCK":
            return self.block
        return self.warn if self.warn is not None else self.block


@dataclass(frozen=True)
class Definitions:
    """What checks.toml, dqd.toml and thresholds.toml hold, read and held against each other."""

    required_tables: tuple[str, ...]
    events: dict[str, str]
    relations: dict[str, str]
    joins: dict[str, str]
    checks: tuple[Check, ...]
    rejects: int
    never_overridden: tuple[str, ...]
    override_days: int
    ohdsi_release: str
    validation: tuple[str, ...]
    central: dict[str, float]
    never_asked: tuple[str, ...]
    said_by: dict[str, str]
    most_queries: int
    study: str
    words: dict[str, str]

    def at(self, place: str) -> tuple[Check, ...]:
        """The checks that run at this place: `site` or `centre`."""
        return tuple(check for check in self.checks if check.place == place)


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
    return ((column.name, _domains(column.domain)) for column in table.columns if column.domain)


def _domains(text: str) -> dict[str, str]:
    return {"domain": text, "domains": ", ".join(_literal(one) for one in text.split(", "))}


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
                yield start, {"argument": column.name}


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


def covers(prefix: str, code: str) -> bool:
    """Whether a code or the beginning of one names this check: `G-DEATH` names G-DEATH-02, `G-REQUIRED-person` its columns."""
    return code == prefix or code.startswith((f"{prefix}-", f"{prefix}."))


def _bears(
    code: str, level: str, thresholds: dict[str, Any], ohdsi_threshold: float | None, known: bool
) -> tuple[float | None, float | None]:
    """The shares of a check: those of its level, or of the longest code in [checks] that it begins with. The word "ohdsi" is
    the number of dqd.csv (`known`: there is a row), else the level's `otherwise`."""
    fitting = [prefix for prefix in thresholds.get("checks", {}) if covers(prefix, code)]
    chosen = thresholds["checks"][max(fitting, key=len)] if fitting else thresholds["levels"][level]

    def share(key: str) -> float | None:
        value = chosen.get(key)
        if value != "ohdsi":
            return value
        return (ohdsi_threshold or 0.0) if known else float(chosen["otherwise"])

    return share("warn"), share("block")


def _made(entry: dict[str, Any], words: dict[str, str], thresholds: dict[str, Any], made_for: "_For") -> Check:
    """One check from its entry, every placeholder filled."""
    own = {"table": made_for.table, "column": made_for.column, "key": key_of(made_for.table), "family": entry["code"]}
    own |= made_for.own
    words = words | own
    in_sql = words | {name: quoted(own[name]) for name in _NAMES if own.get(name)}
    text = {name: entry[name].format_map(words) for name in _TEXTS}
    italian = {name: entry["it"][name].format_map(words) for name in _TEXTS} if "it" in entry else None
    text |= {name: entry.get(name, "").strip().format_map(in_sql) for name in _SQL}
    structural, central = entry.get("structural", ""), entry.get("central", "")
    ways = [way for way in _WAYS if text[way]]
    ways += [way for way, rule in (("structural", structural), ("central", central)) if rule]
    counts = (["violated"], ["grouped", "violated"], ["where"], ["concept"], ["structural"], ["central"])
    if ways not in counts or (ways == ["violated"]) != bool(text["denominator"]):
        raise KeyError("where, concept, structural, grouped with violated, or violated with denominator")
    row = made_for.row
    # a table that OHDSI does not require may be missing
    absent = structural == "table" and own["table"] not in words["required_tables"].split()
    level = "absent" if absent else entry["level"]
    threshold = row.threshold if row else None
    warn, block = _bears(made_for.code, level, thresholds, threshold, row is not None)
    return Check(
        code=made_for.code,
        family=entry["code"],
        unit=entry.get("unit", "records"),
        category=entry["category"],
        subcategory=entry["subcategory"],
        table=made_for.table,
        column=made_for.column,
        warn=warn,
        block=block,
        least=int(thresholds["small"]["block_needs"]) if block else 1,
        dqd=entry.get("dqd", "") if row else "",
        ohdsi_threshold=threshold,
        place=entry.get("place", "site"),
        concept_ids=row.concept_id if row else "",
        argument=row.argument if row else "",
        structural=structural,
        central=central,
        join=entry.get("join", ""),
        of_join=entry.get("of_join", ""),
        italian=Text(**italian) if italian else None,
        **text,
    )


@dataclass(frozen=True)
class _For:
    """What one check is made for: its code, table and column, what fills its text, and the row of dqd.csv if it has one."""

    code: str
    table: str
    column: str = ""
    own: dict[str, str] = field(default_factory=dict)
    row: ohdsi.Row | None = None


def _wanted(entry: dict[str, Any], rows: tuple[ohdsi.Row, ...]) -> Iterator[_For]:
    """The tables and columns for which a generated check is made: the rows of dqd.csv, then those of the CDM facts."""
    left_out = set(entry.get("except", []))
    only = entry.get("columns")
    seen = set()
    for row in rows if entry.get("dqd") else ():
        place = f"{row.cdm_table}.{row.cdm_field}"
        if row.check != entry["dqd"] or row.cdm_table not in tables():
            continue
        seen.add(place)
        if (
            place in left_out
            or (only and place not in only)
            or not re.fullmatch(entry.get("argument", ".*"), row.argument)
        ):
            continue
        code = f"{entry['code']}-{place}" if row.cdm_field else f"{entry['code']}-{row.cdm_table}"
        if row.concept_id:
            code += f".{row.concept_id.partition(',')[0]}"
        yield _For(code, row.cdm_table, row.cdm_field, _fills(row), row)
    if entry.get("dqd") and not entry.get("rule"):
        return
    for table, column, own in _columns(entry):
        if f"{table.name}.{column}" not in left_out | seen:
            yield _For(f"{entry['code']}-{table.name}.{column}", table.name, column, own)


def _fills(row: ohdsi.Row) -> dict[str, str]:
    """The placeholders that a row of dqd.csv fills."""
    table, _, column = row.argument.partition(".")
    return {
        "argument": row.argument,
        "argument_it": _SEXES_IT.get(row.argument, row.argument),
        "concept_ids": row.concept_id,
        "concept_class": row.argument,
        "reference": table,
        "reference_key": column,
        "other": column,
        **_domains(row.argument),
    }


def _columns(entry: dict[str, Any]) -> Iterator[tuple[Table, str, dict[str, str]]]:
    """The table, column and fillings that an entry's rule picks from the CDM facts, or that it lists."""
    facts = tables()
    if "columns" in entry:
        for name in entry["columns"]:
            table, column = name.split(".")
            yield facts[table], facts[table][column].name, {"keys": entry.get("keys", {}).get(table, "")}
        return
    for name in slice_tables():
        for column, own in RULES[entry["rule"]](facts[name]):
            yield facts[name], column, own


@cache
def _documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """checks.toml with what dqd.toml adds to it, and thresholds.toml."""
    read = []
    for name in (CHECKS, OHDSI, THRESHOLDS):
        try:
            read.append(tomllib.loads((folder / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise PalmaresError("E-GATE-03", name, detail="the file is missing") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            raise PalmaresError("E-GATE-03", name, detail="it is no TOML in UTF-8") from None
    own, theirs, thresholds = read
    return own | theirs | {"generated": theirs["generated"] + own.get("generated", [])}, thresholds


@cache
def definitions(
    extracted_to: str | None = None, folder: Path | None = None, *, today: date | None = None
) -> Definitions:
    """Every check for a slice that was extracted up to `extracted_to` (YYYY-MM-DD; None: nothing counts as the future).

    `today` (default: the clock's) is what OHDSI's upper bounds of dates count from. Raises E-GATE-03 when the files do not fit
    each other or the CDM.
    """
    folder = folder or mappings_folder() / "quality"
    document, thresholds = _documents(folder)
    rows = ohdsi.rows(folder)
    made: dict[str, Check] = {}
    entry: dict[str, Any] = {}
    try:
        words = _words(document) | {
            "extracted_to": f"DATE '{extracted_to}'" if extracted_to else "CAST(NULL AS DATE)",
            "today": f"DATE '{today or date.today()}'",
            "required_tables": " ".join(document["required_tables"]),
        }
        for entry in document.get("structural", []):
            for name in [*slice_tables(), "ledger", "person_link"]:
                _add(
                    made,
                    _made(
                        entry | {"structural": entry["rule"]}, words, thresholds, _For(f"{entry['code']}-{name}", name)
                    ),
                )
        for entry in document.get("generated", []):
            for wanted in _wanted(entry, rows):
                _add(made, _made(entry, words, thresholds, wanted))
        for entry in document.get("check", []):
            _add(made, _made(entry, words, thresholds, _For(entry["code"], entry["table"])))
        relations = {name: sql.strip().format_map(words) for name, sql in document.get("relations", {}).items()}
        return Definitions(
            required_tables=tuple(document["required_tables"]),
            events=dict(document["events"]),
            relations=relations,
            joins=dict(document["joins"]),
            checks=tuple(made.values()),
            rejects=int(thresholds["rejects"]["most"]),
            never_overridden=tuple(thresholds["overrides"]["never"]),
            override_days=int(thresholds["overrides"]["most_days"]),
            ohdsi_release=str(document["release"]),
            validation=tuple(document["validation"]),
            central=dict(thresholds["central"]),
            never_asked=tuple(thresholds["queries"]["never"]),
            said_by=dict(thresholds["queries"]["said_by"]),
            most_queries=int(thresholds["queries"]["most"]),
            study=str(document["study"]),
            words=words,
        )
    except (KeyError, StopIteration, ValueError) as error:
        where = entry.get("code", "the file's head")
        raise PalmaresError("E-GATE-03", CHECKS, detail=f"{where}: {str(error).strip(chr(39))} does not fit") from None


def _add(made: dict[str, Check], check: Check) -> None:
    if check.code in made:
        raise KeyError(f"{check.code} stands twice and")
    made[check.code] = check


def explain(code: str, language: str = LANGUAGES[0]) -> dict[str, str] | None:
    """What a check or a family of generated checks (`G-REQUIRED`) looks for, why, and what to do; None when there is none."""
    checks = definitions().checks
    for check in checks:
        if check.code == code:
            return _explained(check, code, check.text(language).title, check.table, language)
    family = [check for check in checks if check.family == code]
    if not family:
        return None
    counted = f"{len(family)} checks, each for a table or a column of it"
    return _explained(family[0], code, family_title(code, language), counted, language)


def family_title(code: str, language: str = LANGUAGES[0]) -> str:
    """What the checks of a family have in common: its `kind`; the title of a check that stands for itself."""
    document, _ = _documents(mappings_folder() / "quality")
    entries = [*document.get("structural", []), *document.get("generated", []), *document.get("check", [])]
    entry = next(entry for entry in entries if entry["code"] == code)
    said = entry.get(language, entry)
    return str(said.get("kind") or said["title"])


def _explained(check: Check, code: str, title: str, table: str, language: str) -> dict[str, str]:
    words = check.text(language)
    said = {
        "code": code,
        "title": title,
        "category": f"{check.category}{f', {check.subcategory}' if check.subcategory else ''}",
        "table": table,
        "explanation": words.explanation,
        "remedy": words.remedy,
        "bears": _sentence(check),
        "place": f"runs at the {check.place}",
    }
    return said | ({"dqd": check.dqd} if check.dqd else {})


def _sentence(check: Check) -> str:
    said = [f"WARN above {check.warn:g} %"] if check.warn is not None else []
    if check.block is not None:
        few = f" (from {check.least} {check.unit} on)" if check.least > 1 else ""
        said.append(f"BLOCK above {check.block:g} %{few}")
    return ", ".join(said) or "reported only"
