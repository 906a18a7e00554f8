"""One code → its concepts, in plain Python, step by step: what `palmares vocab explain` shows.

It is also the second implementation of the rule in `resolve.py`; a property test compares the two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import duckdb

from omop_etl.config import Site
from omop_etl.vocabulary.athena import Vocabulary
from omop_etl.vocabulary.code_maps import MapRow, keys_of, read_folder, study_folder
from omop_etl.vocabulary.resolve import VALUE_DOMAINS
from omop_etl.vocabulary.systems import candidates


@dataclass(frozen=True)
class Answer:
    """One row of `code_concept` for one code, with the steps that led to it. `reason` is set when it is unmapped."""

    vocabulary_id: str | None
    source_concept_id: int
    source_domain_id: str | None
    target_concept_id: int
    target_domain_id: str | None
    target_vocabulary_id: str | None
    value_concept_id: int | None
    origin: str | None
    reason: str | None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Concept:
    concept_id: int
    name: str
    domain_id: str
    vocabulary_id: str
    standard: bool
    valid: bool

    @property
    def target(self) -> bool:
        return self.standard and self.valid


@dataclass(frozen=True)
class _Proposal:
    """A concept that a code map or a relationship proposes; `concept` is None when the vocabulary does not hold it."""

    concept_id: int
    place: int
    concept: _Concept | None
    valid: bool = True

    @property
    def usable(self) -> bool:
        return self.valid and self.concept is not None and self.concept.target


class _Reader:
    """Asks the vocabulary's Parquet for single rows."""

    def __init__(self, concept: str, relationship: str) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(f"CREATE VIEW concept AS FROM {concept}")
        self.connection.execute(f"CREATE VIEW relationship AS FROM {relationship}")

    def _concepts(self, where: str, values: Sequence[object]) -> list[_Concept]:
        rows = self.connection.execute(
            "SELECT concept_id, concept_name, domain_id, vocabulary_id, standard_concept, invalid_reason "
            f"FROM concept WHERE {where} ORDER BY invalid_reason IS NOT NULL, concept_id",
            list(values),
        ).fetchall()
        return [
            _Concept(i, name, domain, v, standard == "S", bad is None) for i, name, domain, v, standard, bad in rows
        ]

    def by_code(self, vocabulary_id: str, code: str) -> _Concept | None:
        found = self._concepts("vocabulary_id = ? AND concept_code = ?", [vocabulary_id, code])
        return found[0] if found else None

    def by_id(self, concept_id: int) -> _Concept | None:
        found = self._concepts("concept_id = ?", [concept_id])
        return found[0] if found else None

    def holds(self, vocabulary_id: str) -> bool:
        return bool(self.connection.execute("FROM concept WHERE vocabulary_id = ? LIMIT 1", [vocabulary_id]).fetchall())

    def related(self, concept_id: int, relationship: str) -> list[_Proposal]:
        rows = self.connection.execute(
            "SELECT concept_id_2, bool_or(invalid_reason IS NULL) FROM relationship "
            "WHERE concept_id_1 = ? AND relationship_id = ? GROUP BY concept_id_2 ORDER BY concept_id_2",
            [concept_id, relationship],
        ).fetchall()
        return [_Proposal(other, other, self.by_id(other), valid) for other, valid in rows]


@lru_cache(maxsize=1)
def _reader(concept: str, relationship: str) -> _Reader:
    return _Reader(concept, relationship)


def explain_code(vocabulary: Vocabulary, system: str, code: str, *, site: Site | None = None) -> list[Answer]:
    """The answers for one code, in rank order; one with `reason` when there is none.

    `system` is an address as in FHIR ('' when the coding has none). Raises E-VOC-03 when a code map does not fit.
    """
    maps = {"study": read_folder(study_folder(), "study")}
    if site is not None and site.codes is not None:
        maps = {"site": read_folder(site.codes, "site"), **maps}
    reader = _reader(vocabulary.relation("concept"), vocabulary.relation("concept_relationship"))
    steps: list[str] = []

    tries = candidates(system, code)
    source = None
    for _, _, tried, other in tries:
        source = reader.by_code(tried, other)
        if source:
            steps.append(f"{tried} holds it: {source.concept_id} {source.name}")
            break
    vocabulary_id = source.vocabulary_id if source else next((v for _, place, v, _ in tries if place == 0), None)

    proposed: dict[str, tuple[list[_Proposal], list[_Proposal]]] = {}
    for origin, rows in maps.items():
        found = _mapped(rows, system, code)
        proposed[origin] = (
            _proposals(reader, [row for row in found if not row.is_value]),
            _proposals(reader, [row for row in found if row.is_value]),
        )
    if source:
        targets = reader.related(source.concept_id, "Maps to")
        if source.target and not any(proposal.usable for proposal in targets):
            targets = [*targets, _Proposal(source.concept_id, source.concept_id, source)]
        proposed["vocabulary"] = (targets, reader.related(source.concept_id, "Maps to value"))

    def answers(
        origin: str | None, pairs: Iterable[tuple[_Proposal | None, int | None]], reason: str | None
    ) -> list[Answer]:
        return [
            Answer(
                vocabulary_id=vocabulary_id,
                source_concept_id=source.concept_id if source else 0,
                source_domain_id=source.domain_id if source else None,
                target_concept_id=target.concept_id if target else 0,
                target_domain_id=target.concept.domain_id if target and target.concept else None,
                target_vocabulary_id=target.concept.vocabulary_id if target and target.concept else None,
                value_concept_id=value,
                origin=origin,
                reason=reason,
                steps=tuple(steps),
            )
            for target, value in pairs
        ]

    for origin, (targets, values) in proposed.items():
        usable = [proposal for proposal in targets if proposal.usable]
        refused = len(targets) - len(usable)
        steps.append(f"{origin}: {len(usable)} standard targets" + (f", {refused} others" if refused else ""))
        if usable:
            return answers(origin, _paired(usable, [value for value in values if value.usable]), None)
        if origin != "vocabulary" and any(proposal.concept_id == 0 for proposal in targets):
            return answers(origin, [(None, None)], "approved-without-concept")

    tried_by_map = any(targets or values for origin, (targets, values) in proposed.items() if origin != "vocabulary")
    known_to_map = any(set(row.keys) & set(keys_of(system)) for rows in maps.values() for row in rows)
    if tried_by_map:
        reason = "map-target-not-standard"
    elif not system:
        reason = "no-system"
    elif source and proposed["vocabulary"][0]:
        reason = "target-not-standard"
    elif source:
        reason = "no-standard-concept"
    elif known_to_map or any(reader.holds(name) for name in dict.fromkeys(v for _, _, v, _ in tries)):
        reason = "unknown-code"
    else:
        reason = "vocabulary-not-loaded" if tries else "unknown-system"
    return answers(None, [(None, None)], reason)


def _mapped(rows: list[MapRow], system: str, code: str) -> list[MapRow]:
    """The rows of one origin for this code: as written, else in the system's form."""
    keyed = [(form, f"vocabulary:{name}", other) for form, _, name, other in candidates(system, code)]
    keyed = keyed or [(0, key, code) for key in keys_of(system)]
    for form in (0, 1):
        wanted = {(key, other) for this, key, other in keyed if this == form}
        found = [row for row in rows if any((key, row.code) in wanted for key in row.keys)]
        if found:
            return found
    return []


def _proposals(reader: _Reader, rows: list[MapRow]) -> list[_Proposal]:
    """One per concept, at its first line."""
    first: dict[int, int] = {}
    for row in rows:
        first[row.concept_id] = min(row.place, first.get(row.concept_id, row.place))
    return [_Proposal(concept_id, place, reader.by_id(concept_id)) for concept_id, place in first.items()]


def _paired(targets: list[_Proposal], values: list[_Proposal]) -> list[tuple[_Proposal, int | None]]:
    """Each target with each value; where some targets can hold a value (measurement, observation), only these get one."""
    targets = sorted(targets, key=lambda proposal: (proposal.place, proposal.concept_id))
    values = sorted(values, key=lambda proposal: (proposal.place, proposal.concept_id))

    def holds(target: _Proposal) -> bool:
        return target.concept is not None and target.concept.domain_id in VALUE_DOMAINS

    some_hold = any(holds(target) for target in targets)
    pairs: list[tuple[_Proposal, int | None]] = []
    for target in targets:
        if values and (holds(target) or not some_hold):
            pairs += [(target, value.concept_id) for value in values]
        else:
            pairs.append((target, None))
    return pairs
