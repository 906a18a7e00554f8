"""A Circe definition, read strictly: what is not understood is refused by its place, never dropped.

circepy reads leniently: a criterion with a misspelt name becomes "any condition", an unknown field vanishes, a concept set that
is not there selects nothing. So what went in is held against what came out, and every reference is followed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    from circe.cohortdefinition import CohortExpression

VERSIONS = "cdmVersionRange"  # of the CDM that ATLAS had in mind; it selects nothing
CONCEPT = "CONCEPT_ID"
REFERENCES = ("CodesetId", "DrugCodesetId", "codesetId")
# what Circe takes for words of its own by (the element around it, the element); circepy takes anything, as if it were the default
LIMITS = ("PrimaryCriteriaLimit", "QualifiedLimit", "ExpressionLimit")
WORDS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("DateOffset", "DateField"): ("StartDate", "EndDate"),
    **{(limit, "Type"): ("All", "First", "Last") for limit in LIMITS},
    ("Occurrence", "Type"): (0, 1, 2),
    ("Start", "Coeff"): (-1, 1),
    ("End", "Coeff"): (-1, 1),
    ("expression", "Type"): ("ALL", "ANY", "AT_LEAST", "AT_MOST"),
    ("Groups", "Type"): ("ALL", "ANY", "AT_LEAST", "AT_MOST"),
    ("AdditionalCriteria", "Type"): ("ALL", "ANY", "AT_LEAST", "AT_MOST"),
    ("CollapseSettings", "CollapseType"): ("ERA",),
}


@dataclass(frozen=True)
class Definition:
    """A definition: its name, the expression as ATLAS writes it and as circepy has it, and what its checks noticed."""

    name: str
    plain: dict[str, Any]
    expression: "CohortExpression"
    notices: tuple[str, ...]

    @property
    def concept_sets(self) -> dict[int, str]:
        """The names of its concept sets by their id."""
        return {one.id: one.name or str(one.id) for one in self.expression.concept_sets}

    def concepts(self) -> dict[int, set[int]]:
        """The concepts that each set lists, those that it excludes left out."""
        found: dict[int, set[int]] = {}
        for one in self.expression.concept_sets:
            items = one.expression.items if one.expression else []
            found[one.id] = {
                item.concept.concept_id
                for item in items or []
                if item.concept and item.concept.concept_id is not None and not item.is_excluded
            }
        return found

    def used(self) -> set[int]:
        """The ids of the concept sets that some element refers to."""
        return set(_references({key: value for key, value in self.plain.items() if key != "ConceptSets"}))

    def rules(self) -> tuple[str, ...]:
        """The names of its inclusion rules, in order."""
        return tuple(one.name or f"rule {number}" for number, one in enumerate(self.expression.inclusion_rules, 1))


def read(path: Path) -> Definition:
    """Read an expression, or what ATLAS's web interface exports around one ({"name": …, "expression": …}).

    Raises E-CIRCE-01 (no JSON object), -02 (an element is not understood), -03 (a rule of Circe is broken, or a concept set is
    referred to that is not there).
    """
    path = Path(path)
    try:
        plain = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise PalmaresError("E-CIRCE-01", path.name, detail="it cannot be read") from None
    except json.JSONDecodeError as error:
        raise PalmaresError("E-CIRCE-01", path.name, detail=f"line {error.lineno}, column {error.colno}") from None
    except (UnicodeDecodeError, RecursionError):
        raise PalmaresError("E-CIRCE-01", path.name, detail="it is no UTF-8, or nested too deeply") from None
    name = path.stem
    if isinstance(plain, dict) and "expression" in plain:
        name = str(plain.get("name") or name)
        plain = plain["expression"]
        if isinstance(plain, str):  # the web interface keeps it as a text
            try:
                plain = json.loads(plain)
            except json.JSONDecodeError:
                raise PalmaresError("E-CIRCE-01", path.name, detail="its expression is no JSON") from None
    if not isinstance(plain, dict):
        raise PalmaresError("E-CIRCE-01", path.name, detail="it is no object")
    expression = _parsed(plain, path.name)
    asked = {key: value for key, value in plain.items() if key != VERSIONS}
    _refuse(path.name, "E-CIRCE-02", _lost(asked, expression.model_dump(mode="json"), ""), "not understood")
    _refuse(path.name, "E-CIRCE-02", _odd(plain, "", ""), "has a value that Circe does not know")
    numbers = [one.id for one in expression.concept_sets]
    twice = sorted({str(one) for one in numbers if numbers.count(one) > 1})
    if twice:
        raise PalmaresError(
            "E-CIRCE-03", path.name, count=len(twice), detail=f"two concept sets have the id {twice[0]}"
        )
    known = set(numbers)
    _refuse(path.name, "E-CIRCE-03", _dangling(plain, known, ""), "refers to a concept set that is not there")
    return Definition(name, plain, expression, _checked(expression, path.name))


def _parsed(plain: dict[str, Any], file: str) -> "CohortExpression":
    from circe.api import cohort_expression_from_json
    from pydantic import ValidationError

    try:
        return cohort_expression_from_json(json.dumps(plain))
    except ValueError as error:
        cause = error if isinstance(error, ValidationError) else error.__cause__
        if isinstance(cause, ValidationError):
            first = cause.errors()[0]
            place = ".".join(str(step) for step in first["loc"]) or "the whole"
            raise PalmaresError("E-CIRCE-02", file, detail=f"{place}: {first['msg']}") from None
        raise PalmaresError("E-CIRCE-02", file, detail="the whole") from None
    except (AttributeError, KeyError, TypeError):  # circepy on shapes that it does not expect
        raise PalmaresError("E-CIRCE-02", file, detail="its shape") from None


def _checked(expression: "CohortExpression", file: str) -> tuple[str, ...]:
    """What Circe's own checks say: a critical finding is an error, the others are notices."""
    from circe.check import Checker, WarningSeverity

    said = Checker().check(expression)
    critical = [one.to_message() for one in said if getattr(one, "severity", None) == WarningSeverity.CRITICAL]
    if critical:
        raise PalmaresError("E-CIRCE-03", file, count=len(critical), detail=critical[0].rstrip("."))
    return tuple(one.to_message() for one in said if getattr(one, "severity", None) == WarningSeverity.WARNING)


def _refuse(file: str, code: str, places: Iterator[str], why: str) -> None:
    found = list(places)
    if found:
        raise PalmaresError(code, file, count=len(found), detail=f"{found[0]} {why}")


def _lost(given: Any, taken: Any, place: str) -> Iterator[str]:
    """The places of `given` that `taken` does not hold; what says nothing may be left out."""
    if isinstance(given, dict):
        if CONCEPT in given:  # beside its id a concept has names and captions, which select nothing
            given = {CONCEPT: given[CONCEPT]}
        there = {_same(key): value for key, value in taken.items()} if isinstance(taken, dict) else {}
        for key, value in given.items():
            step = f"{place}.{key}" if place else key
            if _same(key) in there:
                yield from _lost(value, there[_same(key)], step)
            elif value not in (None, "", [], False):
                yield step
    elif isinstance(given, list):
        if not isinstance(taken, list) or len(taken) != len(given):
            yield place
        else:
            for number, (one, other) in enumerate(zip(given, taken, strict=True)):
                # an empty criterion would become one that anything fulfils
                if one == {} and other:
                    yield f"{place}[{number}]"
                yield from _lost(one, other, f"{place}[{number}]")
    elif given is not None and _value(given) != _value(taken):
        yield place


def _odd(given: Any, around: str, place: str) -> Iterator[str]:
    """The places where a word stands that Circe does not know."""
    if isinstance(given, dict):
        for key, value in given.items():
            step = f"{place}.{key}" if place else key
            words = WORDS.get((around, key))
            if words is not None and value is not None and value not in words:
                yield step
            yield from _odd(value, key, step)
    elif isinstance(given, list):
        for number, one in enumerate(given):
            yield from _odd(one, around, f"{place}[{number}]")


def _same(key: str) -> str:
    return key.replace("_", "").lower()


def _value(value: Any) -> Any:
    """Numbers alike whatever their type, words alike whatever their case."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    try:
        return float(value)
    except ValueError:
        return str(value).lower()


def _references(given: Any) -> Iterator[int]:
    if isinstance(given, dict):
        for key, value in given.items():
            if key in REFERENCES and isinstance(value, int):
                yield value
            yield from _references(value)
    elif isinstance(given, list):
        for one in given:
            yield from _references(one)


def _dangling(given: Any, known: set[int], place: str) -> Iterator[str]:
    if isinstance(given, dict):
        for key, value in given.items():
            step = f"{place}.{key}" if place else key
            if key in REFERENCES and value is not None and value not in known:
                yield step
            yield from _dangling(value, known, step)
    elif isinstance(given, list):
        for number, one in enumerate(given):
            yield from _dangling(one, known, f"{place}[{number}]")
