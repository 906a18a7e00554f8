"""Is one resource sound FHIR R4? Its JSON, its model, the codes of required bindings, the types that references may point to.

The model is fhir.resources' R4B (R4 with corrections; types that only R4 has are not held against a model). It is stricter than
the mapping in three respects, which are tolerated: an id with other printable characters, as some systems write them; a
date or dateTime that `partial_dates` can read although the form is not FHIR's (a time without offset); and whatever is wrong
within an element that nothing reads (`mappings/codes/fhir/unread_elements.csv`), so that no patient is lost for a name.

The codes of required bindings that the mapping relies on stand in `mappings/codes/fhir/required_codes.csv` (FHIR R4 4.0.1, the
value set of each element): the model does not check them. Nothing that leaves this module holds a value of a resource; an
element path consists of FHIR's own element names.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import orjson

from fhir_adapters.knowledge import table, viewed_types
from fhir_adapters.landing.rules import Identity, Refusal, identify, may_double, resource_types, why_not_json
from fhir_adapters.partial_dates import parse
from fhir_adapters.views.elements import FACTS

_DEEPEST = 3  # elements below the resource down to which references are looked at

# pydantic's and fhir.resources' error types → reason; by default one that ends in _type is Q-KIND, any other Q-VALUE
_REASONS = {
    "missing": "Q-MISSING",
    "model_field_validation.missing": "Q-MISSING",
    "extra_forbidden": "Q-UNKNOWN-ELEMENT",
    "json_invalid": "Q-KIND",
    "model_validation_format": "Q-KIND",
    "fhir-validation-wrong-resource-type": "Q-FOREIGN-TYPE",
}


class Fault(NamedTuple):
    """A reason code and the element that it is about."""

    reason: str
    element: str | None = None


class _Doubled(Exception):
    """An object has a key twice."""


class CodeRule(NamedTuple):
    """The codes that an element may have; `system` is set where the element is a CodeableConcept."""

    path: tuple[str, ...]
    system: str
    codes: frozenset[str]


class TargetRule(NamedTuple):
    """The resource types that the references of an element may point to."""

    path: tuple[str, ...]
    types: frozenset[str]


def check_line(line: bytes, resource_type: str) -> Refusal | None:
    """Why a line of a shard of this type is not accepted; None when it is."""
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Refusal("?", None, why_not_json(line))
    identity = identify(resource)
    if isinstance(identity, Refusal):
        return identity
    if identity.resource_type != resource_type:
        return Refusal(*identity, "Q-FOREIGN-TYPE")
    fault = _doubled(line, resource) or check(resource, identity)
    return Refusal(*identity, *fault) if fault else None


def check(resource: dict[str, Any], identity: Identity) -> Fault | None:
    """The first fault of a resource, in the order model, codes, references."""
    kind = identity.resource_type
    if resource.keys() == {"resourceType", "id"} and kind not in viewed_types():
        return None  # what a source leaves of a type that nothing reads, so that it is counted
    return _model_fault(resource, kind) or _code_fault(resource, kind) or _target_fault(resource, kind)


def _doubled(line: bytes, resource: Any) -> Fault | None:
    if not may_double(line, resource):
        return None

    def unique(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise _Doubled

    try:
        json.loads(line, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except _Doubled:
        return Fault("Q-DUPLICATE-KEY")
    except RecursionError:
        return Fault("Q-DEPTH")
    return None


# ------------------------------------------------------------------------------------------------- the model


@cache
def _model(resource_type: str) -> Any:
    """The model's class, or None for a type that R4B does not have."""
    from fhir.resources.R4B import get_fhir_model_class

    try:
        return get_fhir_model_class(resource_type)
    except (KeyError, ValueError, AttributeError):
        return None


def _model_fault(resource: dict[str, Any], resource_type: str) -> Fault | None:
    from pydantic import ValidationError

    model = _model(resource_type)
    if model is None:
        return None
    unread = unread_elements(resource_type)
    read = {name: value for name, value in resource.items() if name not in unread}
    try:
        model.__pydantic_validator__.validate_python(read)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            fault = _understood(item["type"], item["loc"], item["msg"], resource)
            if fault is not None:
                return fault
    except Exception as error:
        # a model that breaks on its input has not said that it is sound; the text of the error may hold values
        return Fault("Q-DEPTH" if isinstance(error, RecursionError) else "Q-MODEL")
    return None


def _understood(kind: str, loc: tuple[int | str, ...], message: str, resource: Any) -> Fault | None:
    """The fault of one error of the model; None when it is tolerated."""
    names = tuple(part for part in loc if isinstance(part, str) and part != "root")
    if kind in _REASONS:
        reason = _REASONS[kind]
        if reason == "Q-UNKNOWN-ELEMENT":
            names = names[:-1]  # the name itself is the file's, not FHIR's
    elif names == ("id",):
        return None  # landing has judged it
    elif not names:
        reason = "Q-CHOICE" if "Any of one" in message else "Q-MISSING" if "xpect any of" in message else "Q-MODEL"
    else:
        if _is_readable_date(resource, loc):
            return None
        reason = "Q-KIND" if kind.endswith("_type") else "Q-VALUE"
    return Fault(reason, _path(names))


def _is_readable_date(resource: Any, loc: tuple[int | str, ...]) -> bool:
    value = resource
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(value, str) and parse(value, "UTC") is not None


@cache
def unread_elements(resource_type: str) -> frozenset[str]:
    """The elements of a type in which nothing is checked, because nothing reads them."""
    paths = (row["path"].split(".") for row in table("codes", "fhir", "unread_elements.csv"))
    return frozenset(name for kind, name in paths if kind in ("*", resource_type))


@cache
def _element_names() -> frozenset[str]:
    with FACTS.open(encoding="utf-8", newline="") as lines:
        return frozenset(row[0].rpartition(".")[2] for row in csv.reader(lines))


def _path(names: tuple[str, ...]) -> str | None:
    """The names down to the first that is not FHIR's."""
    known = []
    for name in names:
        if name.removeprefix("_") not in _element_names():
            break
        known.append(name)
    return ".".join(known) or None


# ----------------------------------------------------------------------------------------------------- codes


@cache
def code_rules(resource_type: str) -> tuple[CodeRule, ...]:
    """The required bindings of a type that are checked."""
    rules = []
    for row in table("codes", "fhir", "required_codes.csv"):
        kind, *path = row["path"].split(".")
        if kind == resource_type:
            rules.append(CodeRule(tuple(path), row["system"], frozenset(row["codes"].split())))
    return tuple(rules)


def _at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """What stands at a path, lists taken apart."""
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        if value is not None:
            yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _at(value[path[0]], path[1:])


def _code_fault(resource: dict[str, Any], resource_type: str) -> Fault | None:
    for path, system, codes in code_rules(resource_type):
        for value in _at(resource, path):
            if not system:
                wrong = value not in codes
            else:
                codings = [item for item in _at(value, ("coding",)) if isinstance(item, dict)]
                wrong = any(item.get("system") == system and item.get("code") not in codes for item in codings)
            if wrong:
                return Fault("Q-CODE", ".".join(path))
    return None


# ------------------------------------------------------------------------------------------------ references


@cache
def target_rules(resource_type: str) -> tuple[TargetRule, ...]:
    """The references of a type whose targets the model restricts, down to the third level."""
    model = _model(resource_type)
    return tuple(_targets(model, ())) if model is not None else ()


def _targets(model: Any, above: tuple[str, ...]) -> Iterator[TargetRule]:
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        more: Mapping[str, Any] = field.json_schema_extra or {}
        types = more.get("enum_reference_types")
        if types:
            if "Resource" not in types:
                yield TargetRule(path, frozenset(types))
            continue
        inner = _backbone(field.annotation) if len(path) < _DEEPEST else None
        if inner is not None:
            yield from _targets(inner, path)


def _backbone(annotation: Any) -> Any:
    """The model of an element that is defined within its resource, from the annotation of its field."""
    from fhir.resources.R4B.backboneelement import BackboneElement

    inner = annotation
    while getattr(inner, "__args__", None):
        inner = next(item for item in inner.__args__ if item is not type(None))
    loader: Callable[[], Any] | None = getattr(inner, "get_model_klass", None)
    model = loader() if loader is not None else None
    return model if isinstance(model, type) and issubclass(model, BackboneElement) else None


def _target_fault(resource: dict[str, Any], resource_type: str) -> Fault | None:
    for path, types in target_rules(resource_type):
        if path[0] not in resource:
            continue
        for value in _at(resource, (*path, "reference")):
            target = _target(value) if isinstance(value, str) else None
            if target is not None and target not in types:
                return Fault("Q-REFERENCE", ".".join(path))
    return None


def _target(reference: str) -> str | None:
    """The type that a literal reference names; None for urn:, contained, by search or anything else."""
    parts = reference.split("/_history/")[0].split("/")
    return parts[-2] if len(parts) > 1 and parts[-2] in resource_types() and "?" not in parts[-1] else None
