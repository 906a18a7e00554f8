"""What a line must be to land as a resource, and the reasons when it is not.

Landing looks at each line's type and id only. A line whose first members are `resourceType` and `id` is not parsed here; whether
all of it is sound JSON is found by those who read it next (validation, or the mapping's strict read and its careful lane).
"""

import hashlib
import json
import re
from functools import cache
from typing import Any, NamedTuple

import orjson

from fhir_adapters.knowledge import table

LARGEST_LINE = 16 * 2**20  # bytes: DuckDB's largest object, so what is longer could land but never be read
UNKNOWN = "?"  # the type of a line that is no resource
LONGEST_ID = 64  # FHIR R4, datatype id

# Two members decide where a line goes; the characters of the id are those of FHIR's datatype id.
QUICK = re.compile(rb'\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]{1,64})"\s*,\s*"id"\s*:\s*"([A-Za-z0-9.\-]{1,64})"\s*[,}]')
_KEY = re.compile(rb'"[ \t\r\n]*:')
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')


class Reject(NamedTuple):
    """One row of quarantine: `resource_id` is None for a resource without id; `element` is a path, never a value."""

    resource_type: str
    resource_id: str | None
    reason: str
    position: str
    element: str | None = None


class Refusal(NamedTuple):
    """Why a line or entry is no resource that can land, before its position is known."""

    resource_type: str
    resource_id: str | None
    reason: str
    element: str | None = None

    def at(self, position: str) -> Reject:
        """The quarantine row; a line that is no resource has its position as id."""
        identity = position if self.resource_type == UNKNOWN else self.resource_id
        return Reject(self.resource_type, identity, self.reason, position, self.element)


class Identity(NamedTuple):
    """A resource that lands."""

    resource_type: str
    resource_id: str


@cache
def resource_types() -> frozenset[str]:
    """The resource types of FHIR R4 (4.0.1)."""
    return frozenset(row["resource_type"] for row in table("codes", "fhir", "resource_types.csv"))


def id_text(value: object) -> str | None:
    """The id that a JSON value is, or None when it is none.

    FHIR's ids are texts of 1–64 characters of A–Z a–z 0–9 - and . ; other printable ones pass, but never a blank or `/`. A
    number counts as its text, for the mapping's fast lane cannot tell 5 from "5".
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, int | float) else value
    fits = (
        isinstance(text, str)
        and 0 < len(text) <= LONGEST_ID
        and text.isprintable()  # of white space, only the blank is printable
        and "/" not in text
        and " " not in text
        and not (isinstance(value, float) and "e" in text)
    )
    return str(text) if fits else None


def masked_id(value: object) -> str:
    """A stand-in for an id that is none: distinct for distinct values, and showing nothing of them."""
    text = repr(value).encode("utf-8", "surrogatepass")
    return "id-" + hashlib.md5(text, usedforsecurity=False).hexdigest()[:12]


def identify(resource: object) -> Identity | Refusal:
    """Type and id of a parsed resource, or why it cannot land."""
    if not isinstance(resource, dict):
        return Refusal(UNKNOWN, None, "Q-OBJECT")
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or not kind:
        return Refusal(UNKNOWN, None, "Q-NO-TYPE")
    identifier = resource.get("id")
    fit = id_text(identifier)
    shown = None if identifier is None else fit or masked_id(identifier)
    if kind not in resource_types():
        # an invented type may be anything, even a sentence: only what looks like one word is repeated
        named = kind if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", kind) else UNKNOWN
        return Refusal(named, shown, "Q-UNKNOWN-TYPE")
    if identifier is None:
        return Refusal(kind, None, "Q-NO-ID")
    return Identity(kind, fit) if fit else Refusal(kind, shown, "Q-BAD-ID")


def too_long(head: bytes) -> Refusal:
    """The refusal of a line of which at least the head is there."""
    match = QUICK.match(head)
    if match and match[1].decode("ascii") in resource_types():
        return Refusal(match[1].decode("ascii"), match[2].decode("ascii"), "Q-SIZE")
    return Refusal(UNKNOWN, None, "Q-SIZE")


def why_not_json(line: bytes) -> str:
    """The reason code of a text that orjson does not parse."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "Q-ENCODING"
    if "\0" in text:
        return "Q-CHARACTER"
    try:
        json.loads(text, parse_constant=_refuse, parse_int=str)
    except RecursionError:
        return "Q-DEPTH"
    except ValueError:
        return "Q-JSON"
    # the standard library reads it: what orjson minds is half a surrogate pair, the depth, or a number beyond all range
    if re.search(r"\\u[dD][89a-fA-F]", text):
        return "Q-CHARACTER"
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "recursion" in str(error).lower():
            return "Q-DEPTH"
    return "Q-JSON"


def may_double(text: bytes, parsed: Any) -> bool:
    """Whether a key may stand twice in a JSON text: it then has more keys than what orjson parsed from it.

    Never wrongly False. Keys are counted by the colon after a quote; what a string holds of these is written anew as it was,
    but where the string has blanks, quotes or colons escaped by number.
    """
    try:
        written = orjson.dumps(parsed)
    except TypeError:  # nested deeper than orjson writes
        return True
    if written == text:
        return False
    if b"\\u002" in text or b"\\u003" in text:
        return True
    if _SPACED_KEY.search(text) is None:
        return text.count(b'":') != written.count(b'":')
    return len(_KEY.findall(text)) != len(_KEY.findall(written))


def _refuse(constant: str) -> Any:
    raise ValueError
