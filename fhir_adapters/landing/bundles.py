"""A Bundle taken apart: its resources, its deletes, and the entries that are neither.

All types of Bundle are read alike (document, collection, message, transaction, batch, searchset, history), and Bundles in
Bundles too. Where an entry's `fullUrl` is a `urn:uuid:` (or `urn:oid:`) other than its resource's id, references to it from the
same Bundle are rewritten to `Type/id`, because outside the Bundle nobody could resolve them. A resource without id takes the
uuid of its fullUrl as id: the only identity it has.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from fhir_adapters.landing.rules import LARGEST_LINE, UNKNOWN, Identity, Refusal, identify, may_double, resource_types

_URN = re.compile(r"urn:(?:uuid|oid):(.+)")
_TARGET = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([^/?#\s]{1,64})(?:/_history/[^/?#]+)?$")


class Landed(NamedTuple):
    """One resource of a Bundle as a line without its newline."""

    identity: Identity
    line: bytes


class Deleted(NamedTuple):
    """One delete; `deleted_at` is the text of a FHIR instant or None."""

    resource_type: str
    resource_id: str
    deleted_at: str | None


class Misfit(NamedTuple):
    """An entry that cannot land; `entry` counts from 1, with a dot between levels of nested Bundles."""

    entry: str
    refusal: Refusal


class _Doubled(dict[str, Any]):
    """An object in which a key stands twice."""


class _Unfit:
    """A number that no JSON text may hold (NaN, Infinity, beyond all range); orjson refuses to write it."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Doubled(members)


def _float(text: str) -> float | _Unfit:
    number = float(text)
    return number if abs(number) != float("inf") else _Unfit()


def _integer(text: str) -> int | float | _Unfit:
    return int(text) if len(text) < 19 else _float(text)


class Document(NamedTuple):
    """A parsed JSON text; `marked` when doubled keys are marked in it."""

    value: Any
    marked: bool


def parse_document(data: bytes) -> Document:
    """A JSON text, a byte order mark aside. Raises ValueError when it is none.

    orjson reads it; where orjson refuses it for one bad spot (NaN, half a surrogate pair), or where a key may stand twice,
    the standard library reads it once more, so that one bad entry does not take its whole Bundle with it.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    else:
        if not may_double(data, document):
            return Document(document, False)
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=lambda _: _Unfit(),
            parse_float=_float,
            parse_int=_integer,
        )
        return Document(document, True)
    except RecursionError:
        raise ValueError from None


def _has_doubled(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value, _Doubled) or any(map(_has_doubled, value.values()))
    return isinstance(value, list) and any(map(_has_doubled, value))


def land_resource(resource: Any, marked: bool) -> Landed | Refusal:
    """One parsed resource that is no Bundle, as a line; or why it cannot land. `marked`: see Document."""
    identity = identify(resource)
    if isinstance(identity, Refusal):
        return identity
    if marked and _has_doubled(resource):
        return Refusal(*identity, "Q-DUPLICATE-KEY")
    try:
        line = orjson.dumps(resource)
    except TypeError as error:
        message = str(error)
        reason = "Q-DEPTH" if "ecursion" in message else "Q-CHARACTER" if "UTF-8" in message else "Q-JSON"
        return Refusal(*identity, reason)
    return Refusal(*identity, "Q-SIZE") if len(line) > LARGEST_LINE else Landed(identity, line)


def unpack(bundle: dict[str, Any], marked: bool, above: str = "") -> Iterator[Landed | Deleted | Misfit]:
    """Everything in a Bundle, in its order."""
    entries = bundle.get("entry")
    if entries is None:
        return
    if not isinstance(entries, list):
        yield Misfit(above or "1", Refusal(UNKNOWN, None, "Q-ENTRY"))
        return
    renamed = _adopt(entries)
    at = _instant(bundle)
    for number, entry in enumerate(entries, 1):
        place = f"{above}{number}"
        if not isinstance(entry, dict):
            yield Misfit(place, Refusal(UNKNOWN, None, "Q-ENTRY"))
            continue
        resource = entry.get("resource")
        if resource is not None:
            if renamed:
                _rewrite(resource, renamed)
            if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
                yield from unpack(resource, marked, f"{place}.")
            else:
                landed = land_resource(resource, marked)
                yield Misfit(place, landed) if isinstance(landed, Refusal) else landed
        request = entry.get("request")
        if isinstance(request, dict) and request.get("method") == "DELETE":
            yield _delete(entry, request, at, place)


def _adopt(entries: list[Any]) -> dict[str, str]:
    """Give id-less resources the uuid of their fullUrl; return what each other urn stands for, as `Type/id`."""
    renamed: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        url, resource = entry.get("fullUrl"), entry.get("resource")
        if not isinstance(url, str) or not isinstance(resource, dict):
            continue
        urn = _URN.fullmatch(url)
        if urn is None:
            continue
        if resource.get("id") is None:
            resource["id"] = urn[1]
        identity = identify(resource)
        if isinstance(identity, Identity) and identity.resource_id != urn[1]:
            renamed[url] = "/".join(identity)
    return renamed


def _rewrite(value: Any, renamed: dict[str, str]) -> None:
    """Replace `reference` texts in place, at any depth."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            reference = value.get("reference")
            if isinstance(reference, str) and reference in renamed:
                value["reference"] = renamed[reference]
            stack.extend(item for item in value.values() if isinstance(item, dict | list))
        elif isinstance(value, list):
            stack.extend(item for item in value if isinstance(item, dict | list))


def _instant(bundle: dict[str, Any]) -> str | None:
    """When the Bundle was made: its timestamp, or its meta.lastUpdated as bulk exports of deleted resources have it."""
    meta = bundle.get("meta")
    for text in (bundle.get("timestamp"), meta.get("lastUpdated") if isinstance(meta, dict) else None):
        if isinstance(text, str):
            return text
    return None


def _delete(entry: dict[str, Any], request: dict[str, Any], at: str | None, place: str) -> Deleted | Misfit:
    """A delete of one resource; one by search ("Patient?identifier=…") names none and cannot be honoured."""
    response = entry.get("response")
    modified = response.get("lastModified") if isinstance(response, dict) else None
    for url in (request.get("url"), entry.get("fullUrl")):
        if not isinstance(url, str):
            continue
        target = _TARGET.search(url)
        if target and target[1] in resource_types():
            return Deleted(target[1], target[2], modified if isinstance(modified, str) else at)
    return Misfit(place, Refusal(UNKNOWN, None, "Q-DELETE"))
