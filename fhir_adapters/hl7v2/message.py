"""One message → segments, fields, components: separators and structure by hl7apy, escapes and character sets here.

hl7apy reads the header (separators, structure) and every field that holds a separator; lines, and fields without one, need no
parser. Whole segments are not given to it: it refuses segments that its message version does not know (PRT in 2.5.1), drops
them when it looks for groups, and takes a millisecond a field. What it read is remembered, because codes, units and
identifiers repeat.
"""

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import get_message_info, parse_fields

Components = tuple[tuple[str, ...], ...]  # components of sub-components
NULL = '""'  # an explicit null: the sender asks for the value to be deleted; an empty field says nothing

_STANDARD = "^~\\&"
_LINE = re.compile(r"\r\n|\r|\n")
_LITERAL_LINE = re.compile(r"(?:\\r\\n|\\r|\\n)(?=[A-Z][A-Z0-9]{2}\W)")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.\d{1,6})?)?)?)?)?)?([+-](?:0\d|1[0-4])[0-5]\d)?"
)
_YEARS = range(1800, 2101)  # as mapping takes them


class NoMessage(ValueError):
    """The header cannot be read: there are no separators to read the rest by."""


class Segment:
    """A segment: `name`, and its fields by their number in the standard."""

    __slots__ = ("_fields", "_separators", "name")

    def __init__(self, line: str, separators: str) -> None:
        fields = line.split(separators[0])
        self.name = fields[0].strip()
        if self.name in ("MSH", "FHS", "BHS"):
            fields.insert(1, separators[0])  # the separator itself is field 1
        self._fields = fields
        self._separators = separators

    def __len__(self) -> int:
        return len(self._fields) - 1

    def raw(self, field: int) -> str:
        """The field as it stands in the message."""
        return self._fields[field].strip() if 0 < field < len(self._fields) else ""

    def is_null(self, field: int) -> bool:
        """Whether the sender asks for the value to be deleted."""
        return self.raw(field) == NULL

    def repetitions(self, field: int) -> tuple[Components, ...]:
        """The field's repetitions that hold something, with escapes resolved."""
        raw = self.raw(field)
        if not raw or raw == NULL:
            return ()
        return (((raw,),),) if raw.isalnum() else _held(raw, self._separators)

    def value(self, field: int, component: int = 1, sub: int = 1) -> str:
        """One part of the field's first repetition; '' where there is none, or a null."""
        raw = self.raw(field)
        if not raw or raw.isalnum():  # most fields: no separator, no escape
            return raw if component == 1 and sub == 1 else ""
        found = self.repetitions(field)
        return part(found[0], component, sub) if found else ""


def part(components: Components, component: int = 1, sub: int = 1) -> str:
    """One part of one repetition, without the blanks around it; '' where there is none, or a null."""
    if component > len(components) or sub > len(components[component - 1]):
        return ""
    text = components[component - 1][sub - 1].strip()
    return "" if text == NULL else text


def segments(text: str) -> list[Segment]:
    """The segments of a message. A line that begins no segment goes on with the one before. Raises NoMessage."""
    text = text.strip("\x0b\x1c\x1a\r\n \t\0\ufeff")
    lines = _LINE.split(text)
    if len(lines) == 1:  # line ends written out, as a log or a JSON text leaves them
        lines = _LITERAL_LINE.split(text)
    header, separators = _header(lines[0].strip())
    found = [header]
    for line in lines[1:]:
        line = line.strip("\x0b\x1c\x1a \t\0")
        if _NAME.fullmatch(line[:3]) and line[3:4] in ("", separators[0]):
            found.append(line)
        elif line:
            found[-1] += " " + line
    return [Segment(line, separators) for line in found]


def _header(line: str) -> tuple[str, str]:
    """The header with separators that can be read, and those: field, component, repetition, escape, sub-component."""
    for candidate in (line, _mended(line)):
        try:
            found: Mapping[str, str] = get_message_info(candidate)[0]
        except (HL7apyException, IndexError):
            continue
        names = ("FIELD", "COMPONENT", "REPETITION", "ESCAPE", "SUBCOMPONENT")
        signs = "".join(found[name] for name in names)
        if not any(sign.isalnum() for sign in signs):
            return candidate, signs
    raise NoMessage


def _mended(line: str) -> str:
    """The header with its separators as a gateway should have passed them: not as XML, not escaped twice, none missing."""
    field = line[3:4]
    head, _, rest = line[4:].partition(field) if field else ("", "", "")
    said = html.unescape(head).replace("\\\\", "\\")
    said += "".join(sign for sign in _STANDARD[len(said) :] if sign not in said + field)
    return f"MSH{field}{said[:4]}{field}{rest}"


def structure(text: str, separators: str) -> tuple[Components, ...]:
    """Repetitions of components of sub-components of a field's text."""
    field, component, repetition, escape, sub = tuple(separators)
    if not any(sign in text for sign in (component, repetition, sub)):
        return (((unescaped(text, separators),),),)
    named = {
        "FIELD": field,
        "COMPONENT": component,
        "REPETITION": repetition,
        "ESCAPE": escape,
        "SUBCOMPONENT": sub,
        "SEGMENT": "\r",
        "GROUP": "\r",
    }
    return tuple(
        tuple(
            tuple(unescaped(_said(value.value), separators) for value in components.children)
            for components in one.children
        )
        for one in parse_fields(
            text, None, version="2.5", encoding_chars=named, validation_level=VALIDATION_LEVEL.TOLERANT
        )
    )


@lru_cache(maxsize=1 << 16)
def _held(text: str, separators: str) -> tuple[Components, ...]:
    """The repetitions that hold something."""
    return tuple(one for one in structure(text, separators) if any(map(any, one)))


def _said(value: Any) -> str:
    """A sub-component's text: hl7apy keeps it as a text, or as a data type that holds one."""
    return value if isinstance(value, str) else str(getattr(value, "value", None) or "")


def unescaped(text: str, separators: str) -> str:
    """`text` with HL7's escapes resolved; formatting ones become a blank, unknown ones are dropped."""
    field, component, repetition, escape, sub = tuple(separators)
    if escape not in text:
        return text
    signs = {"F": field, "S": component, "R": repetition, "E": escape, "T": sub}

    def resolved(found: re.Match[str]) -> str:
        word = found.group(1)
        if word in signs:
            return signs[word]
        if word[:1] == "X" and re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", word[1:]):
            return bytes.fromhex(word[1:]).decode("utf-8", "replace")
        return " " if word[:1] == "." else ""

    sign = re.escape(escape)
    return re.sub(rf"{sign}([A-Za-z0-9.+-]{{0,80}}){sign}", resolved, text)


@lru_cache(maxsize=1 << 12)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _parts(text: str) -> tuple[list[int], str] | None:
    """Year, month … as far as they go, and the offset; None for what is no time of the calendar."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    numbers = [int(one) for one in found.groups()[:-1] if one is not None]
    while len(numbers) in (2, 3) and numbers[-1] == 0:  # 20200000: only the year is known
        numbers.pop()
    if numbers[0] not in _YEARS:
        return None
    try:
        datetime(*(numbers + [1, 1][len(numbers) - 1 :] if len(numbers) < 3 else numbers))  # type: ignore[arg-type]
    except ValueError:
        return None
    return numbers, found.group(7) or ""


def moment(text: str, zone: str) -> str | None:
    """A FHIR dateTime of an HL7 time, as precise as it is; a time of day without an offset is of the zone."""
    found = _parts(text)
    if found is None:
        return None
    numbers, offset = found
    if len(numbers) <= 3:
        return "-".join(f"{one:0{2 if place else 4}}" for place, one in enumerate(numbers))
    return _instant(numbers, offset, zone).isoformat(timespec="seconds")


def instant(text: str, zone: str) -> datetime | None:
    """The instant of an HL7 time, its missing parts the smallest; for order, and for when a resource was last touched."""
    found = _parts(text)
    if found is None:
        return None
    numbers, offset = found
    return _instant([*numbers, 1, 1][:3] if len(numbers) < 3 else numbers, offset, zone).astimezone(UTC)


def _instant(numbers: list[int], offset: str, zone: str) -> datetime:
    local = datetime(*numbers)  # type: ignore[arg-type]
    if not offset:
        return local.replace(tzinfo=_zone(zone))
    away = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
    return local.replace(tzinfo=timezone(-away if offset[0] == "-" else away))
