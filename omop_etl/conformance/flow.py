"""The way from FHIR elements to OMOP columns, followed through `mappings/`: views → events → omop.

    flow() -> Flow      .tables: for each CDM table its columns and the records that fill it
                        .resources: for each resource type what becomes of the columns of its view

What the SQL says is read from the SQL (`queries`). What the steps between the SQL files do (`omop_etl/mapping/rows.py`:
persons, visits and staff are found by reference) is told here, in `_link` and `_lookups`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.knowledge import mappings_folder, table
from omop_etl.cdm import tables as cdm_tables
from omop_etl.conformance.clauses import Clause, clauses
from omop_etl.conformance.elements import Reading, column_elements
from omop_etl.conformance.queries import Node, Origin, Relation, Trace, lookup, merged, parsed, trace
from omop_etl.conformance.queries import table as open_table
from omop_etl.mapping.codes import coded_elements
from omop_etl.mapping.recipes import Recipe, cdm_selects, derived_rows, recipes
from omop_etl.mapping.sql import text

EVENT = "event"
_DOMAIN = "by the concept's domain"
# section of mappings/events → rows that it makes
_ROWS = {"death": "row_death", "role": "role_of"}
_REASON = re.compile(r"[XQM]-[A-Z-]+")
_QUOTED_REASON = re.compile(r"'([XQM]-[A-Z-]+)'")
_MACRO = re.compile(r"CREATE OR REPLACE MACRO (\w+)\(.*?;\n", re.DOTALL)
# columns of a resource as read that the steps between the SQL files use for more than a CDM column
BESIDE = {
    "linkage_token": "finds the same patient in another hospital: side/person_link.parquet, beside the CDM",
    "replaced_key": "tells which of two merged patient files stands",
    "last_updated": "tells which version of the resource is the newest",
    "version_number": "tells which version of the resource is the newest",
}


@dataclass(frozen=True)
class Written:
    """What one section of `mappings/events` writes: rows of a kind, with what each column is computed from."""

    resource: str
    section: str
    rows: str
    columns: Mapping[str, Trace]
    homes: frozenset[str]
    by_domain: bool

    def fills(self, cdm_table: str) -> bool:
        """Whether rows of this section can stand in a CDM table."""
        return cdm_table in self.homes or (self.by_domain and cdm_table in domain_tables())


@dataclass(frozen=True)
class Source:
    """What one section puts into one CDM column. `concept`: it was looked up; `cut`: characters that are kept."""

    written: Written
    origins: frozenset[Origin]
    concept: bool
    cut: int | None

    @property
    def home(self) -> bool:
        return bool(self.written.homes)


@dataclass(frozen=True)
class Column:
    """One column of a CDM table: the clause of its SELECT, and what feeds it. `beside`: told in words, where it is derived."""

    name: str
    type: str
    clause: Clause
    sources: tuple[Source, ...]
    beside: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return self.clause.expression.upper().startswith("NULL")

    @property
    def constant(self) -> bool:
        return not self.sources and not self.beside and not self.empty


@dataclass(frozen=True)
class Table:
    """A CDM table that the mapping fills. `rows`: the kind of rows that it reads; `reads`: which of their columns."""

    name: str
    title: str
    rows: str
    columns: tuple[Column, ...]
    written: tuple[Written, ...]
    reads: frozenset[str]


@dataclass(frozen=True)
class Resource:
    """What becomes of the columns of one view.

    `reasons`: reason code → what leads to it. `decides`: what else decides about its rows. `beside`: use outside the CDM.
    `firsts`: of which one item of several is taken.
    """

    recipe: Recipe
    readings: Mapping[str, Reading]
    written: tuple[Written, ...]
    reasons: Mapping[str, frozenset[Origin]]
    decides: frozenset[Origin]
    beside: Mapping[str, frozenset[Origin]]
    firsts: frozenset[Origin]

    def elements(self, origins: Iterable[Origin], *, shown: bool = False) -> frozenset[str]:
        """The elements of this resource that columns of its view read."""
        found = [
            self.readings[one.column].shown(one.fields) if shown else self.readings[one.column].elements(one.fields)
            for one in origins
            if one.relation == self.recipe.resource_type and one.column in self.readings
        ]
        return frozenset().union(*found)


@dataclass
class Flow:
    """`unknown`: names in the SQL that could not be followed, with the file."""

    tables: dict[str, Table] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    unknown: dict[str, frozenset[str]] = field(default_factory=dict)

    def used(self, resource: str) -> frozenset[Origin]:
        """The columns of a view, and fields of them, that something is done with."""
        one = self.resources[resource]
        found = set(one.decides).union(*one.reasons.values(), *one.beside.values())
        for table_ in self.tables.values():
            for column in table_.columns:
                for source in column.sources:
                    found |= {origin for origin in source.origins if origin.relation == resource}
        return frozenset(found)


@cache
def domain_tables() -> frozenset[str]:
    """The CDM tables to which a concept's domain can send a record."""
    return frozenset(row["cdm_table"] for row in table("codes", "fhir", "domain_tables.csv"))


def flow() -> Flow:
    """Follow the mapping in use."""
    return _flow(mappings_folder())


@cache
def _flow(_folder: Path) -> Flow:
    found, stages = Flow(), dict[str, Relation]()
    readings = {recipe.resource_type: column_elements(recipe.view) for recipe in recipes().values()}
    for recipe in recipes().values():
        _read(recipe, readings[recipe.resource_type], stages, found)
    lookups = _lookups(stages)
    for recipe in recipes().values():
        if recipe.parts("role"):
            lookups["role_of"] = _roles(recipe, stages, lookups, found)
    written: dict[str, list[Written]] = {}
    for recipe in recipes().values():
        found.resources[recipe.resource_type] = resource = _resource(
            recipe, readings[recipe.resource_type], stages, lookups, found
        )
        for one in resource.written:
            written.setdefault(one.rows, []).append(one)
    for name, sql in cdm_selects().items():
        if name in cdm_tables():
            found.tables[name] = _table(name, sql, written, found)
    return found


# --- a resource as read ---


def _read(recipe: Recipe, readings: Mapping[str, Reading], stages: dict[str, Relation], found: Flow) -> None:
    """Follow the sections `read` and `stage` of a resource type."""
    type_ = recipe.resource_type
    flat = {name: Trace(frozenset([Origin(type_, name)])) for name in readings}
    read = _traced(found, f"events/{recipe.stage}.sql: read", recipe.read, {"flat": Relation("flat", flat)})
    head = {name: flat.get(of, Trace()) for name, of in _HEAD.items()}
    columns = {**head, **read.columns}
    for row in coded_elements():
        if row["stage"] == recipe.stage and f"{row['list']}_codings" in columns:
            columns[f"{row['list']}_key"] = columns[f"{row['list']}_codings"]
    stage = replace(read, columns=columns)
    stages[f"stage_{recipe.stage}"] = stage
    for name, sql in recipe.below():
        where = f"events/{recipe.stage}.sql: stage {name}"
        stages[f"stage_{name}"] = _traced(found, where, sql, {"stage": replace(stage, reasons=())})


_HEAD = {
    "id": "id",
    "key": "id",
    "delivery": "",
    "last_updated": "last_updated_text",
    "version_number": "version_text",
}


def _lookups(stages: Mapping[str, Relation]) -> dict[str, Relation]:
    """Tables that are asked by key: what they answer comes from the key, and from what is told of them here."""
    said = Trace(frozenset([Origin("the first or last day of the records that refer to the encounter")]))
    medication = stages.get("stage_medication", Relation(""))
    found = {f"chosen_{row['element']}": lookup(f"chosen_{row['element']}") for row in coded_elements()}
    for name in ("unit", "person_of", "visit_of", "provider_of", "care_site_of", "medication_in_use", "row_provider"):
        found[name] = lookup(name)
    found["visit_dates"] = lookup("visit_dates", {"first_datetime": said, "last_datetime": said})
    found["medication"] = lookup(
        "medication", {name: medication.columns.get(name, Trace()) for name in ("key", "code_key")}
    )
    return found


def _traced(found: Flow, where: str, sql: str, relations: Mapping[str, Relation], *, cdm: bool = False) -> Relation:
    try:
        result = trace(sql, relations, joined_are_lookups=cdm)
    except ValueError:
        result = Relation("", unknown=frozenset(["its SQL, which DuckDB cannot parse"]))
    if result.unknown:
        found.unknown[where] = result.unknown
    return result


# --- what it writes ---


def _link(stage: Relation) -> dict[str, Trace]:
    """What is put in front of a record: its person, visit and member of staff, found by reference; a visit else by date."""
    of = stage.columns.get
    visit = merged([of("visit_key", Trace()), of("start_datetime", Trace())])
    return {
        "person_id": of("person_key", Trace()),
        "visit_occurrence_id": visit,
        "visit_detail_id": visit,
        "visit_by_date": visit,
        "provider_id": of("provider_key", Trace()),
    }


def _relations(recipe: Recipe, stages: Mapping[str, Relation], lookups: Mapping[str, Relation]) -> dict[str, Relation]:
    stage = replace(stages[f"stage_{recipe.stage}"], reasons=())
    included = replace(stage, columns={**stage.columns, **_link(stage)})
    return {**lookups, **stages, "stage": stage, "included": included}


def _roles(recipe: Recipe, stages: Mapping[str, Relation], lookups: Mapping[str, Relation], found: Flow) -> Relation:
    where, relations = f"events/{recipe.stage}.sql: role", _relations(recipe, stages, lookups)
    return lookup("role_of", _traced(found, where, recipe.parts("role")[0], relations).columns)


def _resource(
    recipe: Recipe,
    readings: Mapping[str, Reading],
    stages: Mapping[str, Relation],
    lookups: Mapping[str, Relation],
    found: Flow,
) -> Resource:
    type_, stage = recipe.resource_type, stages[f"stage_{recipe.stage}"]
    relations, codes = _relations(recipe, stages, lookups), _reasons_of_macros()
    written: list[Written] = []
    decides, firsts = [stage.decides], [stage.columns.values()]
    reasons: dict[str, set[Origin]] = {}
    branches = [*stage.reasons]
    for name, sql in recipe.sections:
        word = name.split()[0]
        if word in ("read", "stage"):
            continue
        one = _traced(found, f"events/{recipe.stage}.sql: {name}", sql, relations)
        branches += one.reasons
        if word == "merged" and not one.reasons:
            branches.append((one.decides, one.columns.get("reason", Trace())))
        decides.append(one.decides)
        firsts.append(one.columns.values())
        if word != "merged":
            written.append(_written(type_, name, sql, one, stage))
    for when, then in branches:
        answers = {word for word in then.words if _REASON.fullmatch(word)}
        for word in answers.union(*(codes.get(one, ()) for one in then.functions)):
            reasons.setdefault(word, set()).update(when.origins | then.origins)
    if recipe.parts("visit"):
        # a visit without any day of its own or of what refers to it: omop_etl/mapping/rows.py writes none
        day = merged(stage.columns.get(name, Trace()) for name in ("start_datetime", "end_datetime"))
        reasons.setdefault("X-NO-DATE", set()).update(day.origins)
    for name, _ in recipe.below():
        decides.append(stages[f"stage_{name}"].decides)
        firsts.append(stages[f"stage_{name}"].columns.values())
    if "person_key" in stage.columns:
        # a record without a person would be an orphan: omop_etl/mapping/run.py leaves it out
        for word in ("X-NO-SUBJECT", "X-NO-PERSON"):
            reasons.setdefault(word, set()).update(stage.columns["person_key"].origins)
    return Resource(
        recipe,
        readings,
        tuple(written),
        {word: frozenset(origins) for word, origins in reasons.items()},
        merged(decides).origins,
        _beside(type_, stage, stages, found),
        merged(one for group in firsts for one in group).firsts,
    )


def _beside(type_: str, stage: Relation, stages: Mapping[str, Relation], found: Flow) -> dict[str, frozenset[Origin]]:
    """What is used outside the CDM, and what for."""
    uses: dict[str, set[Origin]] = {}
    for name, what in BESIDE.items():
        if name in stage.columns:
            uses.setdefault(what, set()).update(stage.columns[name].origins)
    bare = {name: replace(one, columns={**one.columns, "reason": Trace()}) for name, one in stages.items()}
    bare |= {one: lookup(one) for one in ("choice", "row_feature")}
    for row in table("conformance", "losses.csv"):
        where = f"conformance/losses.csv: {row['loss']}"
        counted = _traced(found, where, f"SELECT 1 AS one FROM {row['rows']}", bare).decides.origins
        if here := {one for one in counted if one.relation == type_}:
            uses.setdefault(f"counted in each run's manifest as the loss {row['loss']}", set()).update(here)
    return {what: frozenset(origins) for what, origins in uses.items()}


def _written(type_: str, section: str, sql: str, result: Relation, stage: Relation) -> Written:
    word = section.split()[0]
    rows = _ROWS.get(word, EVENT if word == EVENT else f"row_{word}")
    identity = stage.columns["id"]
    columns = {"resource_id": identity, "key": identity, "row_id": identity, "hash": identity}
    columns |= _link(stage) | dict(result.columns)
    if rows == "row_visit":
        parent = stage.columns.get("parent_key", Trace())
        columns |= {"visit_occurrence_id": parent, "parent_visit_detail_id": parent}
    places = _places(sql, stage) if rows == EVENT else frozenset([rows])
    return Written(type_, section, rows, columns, places - {_DOMAIN}, _DOMAIN in places)


def _places(sql: str, stage: Relation) -> frozenset[str]:
    """The CDM tables that the column `cdm_table` of a section of events names; `_DOMAIN` where the concept's domain decides."""
    try:
        listed = parsed(sql)["select_list"]
    except (KeyError, ValueError):
        return frozenset()
    node = next((one for one in listed if (one.get("alias") or one.get("column_names", [""])[-1]) == "cdm_table"), None)
    return _named_tables(node, stage) & {_DOMAIN, *cdm_tables()}


def _named_tables(node: Any, stage: Relation) -> frozenset[str]:
    match node:
        case {"class": "CONSTANT", "value": {"value": str(word)}}:
            return frozenset([word])
        case {"class": "COLUMN_REF", "column_names": [*_, "cdm_table"]}:
            return frozenset([_DOMAIN])
        case {"class": "COLUMN_REF", "column_names": [*_, name]}:
            return stage.columns.get(name, Trace()).words
        case {"class": "CASE", "case_checks": checks, **rest}:
            answers = [_named_tables(_answer(one["when_expr"], one["then_expr"]), stage) for one in checks]
            return frozenset().union(*answers, _named_tables(rest.get("else_expr"), stage))
        case {"children": children}:
            return frozenset().union(*(_named_tables(one, stage) for one in children))
    return frozenset()


def _answer(when: Node, then: Node) -> Node:
    """What a branch of a CASE answers: of `WHEN x = 'word' THEN x` the word."""
    if when.get("type") == "COMPARE_EQUAL" and _plain(when["left"]) == _plain(then):
        right: Node = when["right"]
        return right
    return then


def _plain(node: Node) -> list[str] | None:
    names: list[str] | None = node.get("column_names")
    return names


def _reasons_of_macros() -> dict[str, frozenset[str]]:
    """Macro → the reason codes that it answers with."""
    body = text("macros.sql")
    return {found.group(1): frozenset(_QUOTED_REASON.findall(found.group(0))) for found in _MACRO.finditer(body)}


# --- the CDM ---


def _table(name: str, sql: str, written: Mapping[str, list[Written]], found: Flow) -> Table:
    title, stated = clauses(sql)
    rows = _first_table(sql)
    known = {one: open_table(one) for one in (EVENT, *written, "row_observation_period")}
    known |= {one: lookup(one) for one in ("focus_event", "feature_of", "provider_of", "care_site_of", "role_of")}
    result = _traced(found, f"omop/{name}.sql", sql, known, cdm=True)
    fillers = tuple(one for one in written.get(rows, ()) if rows != EVENT or one.fills(name))
    by_name = {one.name: one for one in stated}
    columns = []
    for fact in cdm_tables()[name].columns:
        traced = result.columns.get(fact.name, Trace())
        sources = tuple(one for one in (_source(each, traced, name) for each in fillers) if one.origins)
        beside = _derived(rows, traced)
        columns.append(Column(fact.name, fact.type, by_name.get(fact.name, Clause(fact.name, "", "")), sources, beside))
    reads = frozenset(one.column for column in result.columns.values() for one in column.origins)
    return Table(name, title, rows, tuple(columns), fillers, reads)


def _source(written: Written, traced: Trace, cdm_table: str) -> Source:
    parts = [written.columns[one.column] for one in traced.origins if one.column in written.columns]
    whole = merged(parts)
    looked_up = any(name.startswith("chosen_") or name == "unit" for name, _ in whole.asked)
    cuts = [one for one in (traced.cut, whole.cut) if one is not None]
    here = replace(written, homes=written.homes if written.rows != EVENT else written.homes & {cdm_table})
    return Source(here, whole.origins, looked_up, min(cuts, default=None))


def _derived(rows: str, traced: Trace) -> tuple[str, ...]:
    """What a column of derived rows is computed from, in words."""
    if rows != "row_observation_period" or not traced.origins:
        return ()
    sql = derived_rows().get(rows.removeprefix("row_"), "")
    kinds = {"row_visit": "the person's visits", "row_note": "notes", EVENT: "clinical records"}
    return tuple(words for name, words in kinds.items() if name in sql)


def _first_table(sql: str) -> str:
    """The table that stands first behind FROM."""
    try:
        node = parsed(sql).get("from_table", {})
    except ValueError:
        return ""
    while node.get("type") == "JOIN":
        node = node["left"]
    return str(node.get("table_name", ""))
