"""The careful lane: why DuckDB's strict read refuses a shard, line by line, and the shard without those lines.

`read_json(columns=…)` stops a whole file at its first bad line. `explain_shard` refuses exactly the lines that DuckDB 1.5 refuses
in strict mode, and no other (a property test holds the two against each other), so that the fate of a line does not depend on
its neighbours. What DuckDB does: it strips ASCII white space; it reads JSON, but also a trailing comma, NaN and Infinity; a
value of the wrong kind is refused where a STRUCT or a list is asked for, and becomes its text where VARCHAR is asked for; a key
that stands twice is refused only where the columns ask for it; null passes everywhere.

One line more is refused here: one longer than `LARGEST_LINE`, which DuckDB reads or not depending on where it lies in the file.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import orjson

from fhir_adapters.landing.lines import blocks, whole_lines
from fhir_adapters.landing.rules import (
    LARGEST_LINE,
    LONGEST_ID,
    UNKNOWN,
    Refusal,
    Reject,
    identify,
    may_double,
    too_long,
    why_not_json,
)
from fhir_adapters.processes import in_order, uncollected
from fhir_adapters.shown_names import shown_name

# what DuckDB raises for a line that it refuses. It cuts the line in its message after so many bytes, and where that is in the middle of a
# letter Python cannot read the message: the error is then this one, whose bytes may show a value, too
REFUSED = (duckdb.InvalidInputException, UnicodeDecodeError)
# A column type read from its text: None for a leaf, a mapping for a STRUCT, a List for a list.
Shape = Any


class List(NamedTuple):
    """The shape of a list; `item` is the shape of what it holds."""

    item: Shape


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands, doubled keys and all."""


class Fault(NamedTuple):
    """Where a line does not fit the columns: a reason code and an element path that consists of column names only."""

    reason: str
    element: str


# ---------------------------------------------------------------------------------------------- DuckDB types

_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([A-Za-z_][A-Za-z0-9_]*)|(\[\s*\])|([(),]))')


def shape(text: str) -> Shape:
    """The shape of a DuckDB type such as `STRUCT("system" VARCHAR, code VARCHAR)[]`; leaves are VARCHAR or JSON.

    Raises ValueError for any other type: the careful lane would not know what DuckDB refuses there.
    """
    tokens: list[tuple[str, str]] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"no DuckDB type: {text}")
        quoted, word, brackets, sign = match.groups()
        if quoted is not None:
            tokens.append(("name", quoted.replace('""', '"')))
        elif word is not None:
            tokens.append(("word", word))
        else:
            tokens.append(("[]", "[]") if brackets else (sign, sign))
        at = match.end()
    tokens.append(("end", ""))
    position = 0

    def take(*kinds: str) -> str:
        nonlocal position
        kind, value = tokens[position]
        if kind not in kinds:
            raise ValueError(f"no DuckDB type: {text}")
        position += 1
        return value

    def read() -> Shape:
        nonlocal position
        word = take("word").upper()
        result: Shape
        if word == "STRUCT":
            result = {}
            take("(")
            while True:
                name = take("name", "word")
                result[name] = read()
                if take(",", ")") == ")":
                    break
        elif word in ("VARCHAR", "JSON"):
            result = None
        else:
            raise ValueError(f"the careful lane reads no {word}: {text}")
        while tokens[position][0] == "[]":
            position += 1
            result = List(result)
        return result

    result = read()
    take("end")
    return result


# ------------------------------------------------------------------------------------------------- the check


def _fits(form: Shape) -> Callable[[Any], bool] | None:
    """A quick test whether a parsed value that is not null fits; None where anything does."""
    if form is None:
        return None
    if isinstance(form, List):
        item = _fits(form.item)
        if item is None:
            return lambda value: type(value) is list

        def check_list(value: Any) -> bool:
            if type(value) is not list:
                return False
            for one in value:  # noqa: SIM110  a generator would cost a third of the lane's speed
                if one is not None and not item(one):
                    return False
            return True

        return check_list
    members = [(name, test) for name, test in ((name, _fits(inner)) for name, inner in form.items()) if test]

    def check_struct(value: Any) -> bool:
        if type(value) is not dict:
            return False
        get = value.get
        for name, test in members:
            one = get(name)
            if one is not None and not test(one):
                return False
        return True

    return check_struct


def _fault(value: Any, form: Shape, path: str) -> Fault | None:
    """The first fault of a value in which objects are _Pairs; None when DuckDB reads it."""
    if value is None or form is None:
        return None
    if isinstance(form, List):
        if not isinstance(value, list) or isinstance(value, _Pairs):
            return Fault("Q-KIND", path)
        return next((fault for one in value if (fault := _fault(one, form.item, path))), None)
    if not isinstance(value, _Pairs):
        return Fault("Q-KIND", path)
    seen: set[str] = set()
    for name, one in value:
        if name not in form:
            continue
        below = f"{path}.{name}" if path else name
        if name in seen:
            return Fault("Q-DUPLICATE-KEY", below)
        seen.add(name)
        fault = _fault(one, form[name], below)
        if fault:
            return fault
    return None


class _Judge:
    """DuckDB itself, for lines that its reader may take though they are no JSON by the standard."""

    def __init__(self, columns: Mapping[str, str], work: Path) -> None:
        self._file = work
        spec = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in columns.items())
        source = f"[{_quoted(str(work))}], format='newline_delimited', columns={{{spec}}}"
        self._read = f"SELECT count(COLUMNS(*)) FROM read_json({source})"

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"threads": 1})  # opened for the first doubtful line only

    def close(self) -> None:
        if "_connection" in self.__dict__:
            self._connection.close()
        self._file.unlink(missing_ok=True)

    def taken(self, lines: Sequence[bytes]) -> dict[int, dict[str, str]]:
        """Of the lines that DuckDB takes: their position, and resourceType and id as far as they have them."""
        texts: list[tuple[int, str]] = []
        for position, line in enumerate(lines):
            with suppress(UnicodeDecodeError):
                texts.append((position, line.decode("utf-8")))
        rows = self._connection.execute(
            "SELECT json_valid(line), CASE WHEN json_valid(line) THEN"
            " json_extract_string(line, ['$.resourceType', '$.id']) END FROM (SELECT unnest(?::VARCHAR[]) AS line)",
            [[text for _, text in texts]],
        ).fetchall()
        known = {
            position: {key: text for key, text in zip(("resourceType", "id"), found, strict=True) if text is not None}
            for (position, _), (is_valid, found) in zip(texts, rows, strict=True)
            if is_valid
        }
        for position in self._refused(lines, list(known)):
            del known[position]
        return known

    def _refused(self, lines: Sequence[bytes], positions: list[int]) -> Iterator[int]:
        if not positions:
            return
        self._file.write_bytes(b"".join(lines[position] + b"\n" for position in positions))
        try:
            self._connection.execute(self._read).fetchall()
            return
        except REFUSED:
            if len(positions) == 1:
                yield positions[0]
                return
        middle = len(positions) // 2
        yield from self._refused(lines, positions[:middle])
        yield from self._refused(lines, positions[middle:])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# -------------------------------------------------------------------------------------------------- the lane

_ASK = "ask"  # the verdict is DuckDB's
_BLANK = "blank"


class _Lane:
    """The verdict on one line after the other."""

    def __init__(self, columns: Mapping[str, str], resource_type: str | None) -> None:
        self._form = {column: shape(kind) for column, kind in columns.items()}
        test = _fits(self._form)
        assert test is not None  # a STRUCT always has one
        self._fits = test
        self._resource_type = resource_type

    def verdict(self, line: bytes) -> Refusal | str | None:
        """None: good. Else a refusal, or that the line is blank, or that DuckDB has to be asked."""
        if len(line) > LARGEST_LINE:
            return too_long(line)
        try:
            parsed = orjson.loads(line)
        except orjson.JSONDecodeError:
            stripped = line.strip()  # orjson does not take a form feed for white space
            if not stripped:
                return _BLANK
            try:
                parsed = orjson.loads(stripped)
            except orjson.JSONDecodeError:
                return _ASK
        if parsed is not None and (not self._fits(parsed) or may_double(line, parsed)):
            try:
                pairs = json.loads(line, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
                fault = _fault(pairs, self._form, "")
            except (RecursionError, ValueError):
                return _ASK
            if fault is not None:
                return _faulty(parsed, fault)
        return self.misplaced(parsed)

    def misplaced(self, resource: Any) -> Refusal | None:
        """Why a line that DuckDB takes does not belong in the shard; None when nothing is asked but that DuckDB takes it."""
        if self._resource_type is None:
            return None
        if type(resource) is dict and resource.get("resourceType") == self._resource_type:
            identifier = resource.get("id")
            if type(identifier) is str and identifier.replace("-", "").isalnum() and len(identifier) <= LONGEST_ID:
                return None  # most are
        identity = identify(resource)
        if isinstance(identity, Refusal):
            return identity
        if identity.resource_type != self._resource_type:
            return Refusal(*identity, "Q-FOREIGN-TYPE")
        return None


def _faulty(parsed: Any, fault: Fault) -> Refusal:
    identity = identify(parsed)
    if identity.resource_type == UNKNOWN and not isinstance(parsed, dict):
        return Refusal(UNKNOWN, None, "Q-OBJECT")
    return Refusal(identity.resource_type, identity.resource_id, fault.reason, fault.element)


def explain_shard(
    path: Path | str,
    columns: Mapping[str, str],
    good: Path,
    *,
    resource_type: str | None = None,
    name: str | None = None,
) -> list[Reject]:
    """Write the lines of a shard that DuckDB's strict read takes with these columns to `good`; return the others' reasons.

    `columns` is name → DuckDB type, leaves VARCHAR or JSON. With `resource_type`, a line must also be a resource of that type
    with an id: else Q-OBJECT, Q-NO-TYPE, Q-UNKNOWN-TYPE, Q-FOREIGN-TYPE, Q-NO-ID or Q-BAD-ID. `name` is what positions call
    the shard; by default the name of its file and folder, where these may be shown. No reject holds a value.
    """
    path = Path(path)
    shown = name if name is not None else shown_name("/".join(path.parts[-2:]))
    lane = _Lane(columns, resource_type)
    rejects: list[Reject] = []
    number = 0
    with (
        path.open("rb") as stream,
        good.open("wb") as sink,
        closing(_Judge(columns, good.with_name(good.name + ".judge"))) as judge,
        uncollected(),
    ):
        for text, is_head in whole_lines(blocks(stream)):
            lines = text.split(b"\n")
            verdicts: list[Refusal | str | None] = list(map(lane.verdict, lines)) if not is_head else [too_long(text)]
            asked = [index for index, verdict in enumerate(verdicts) if verdict is _ASK]
            if asked:
                stripped = [lines[index].strip() for index in asked]
                taken = judge.taken(stripped)
                for place, index in enumerate(asked):
                    if place in taken:
                        verdicts[index] = lane.misplaced(taken[place])
                    else:
                        verdicts[index] = _refused(stripped[place])
            rejects += [
                verdict.at(f"{shown}:{number + index}")
                for index, verdict in enumerate(verdicts, 1)
                if isinstance(verdict, Refusal)
            ]
            sink.writelines(line + b"\n" for line, verdict in zip(lines, verdicts, strict=False) if verdict is None)
            number += len(lines)
    return rejects


def _refused(line: bytes) -> Refusal:
    """The reason of a line that DuckDB itself was asked about and refused."""
    try:
        identity = identify(orjson.loads(line))
    except orjson.JSONDecodeError:
        return Refusal(UNKNOWN, None, why_not_json(line))
    return Refusal(identity.resource_type, identity.resource_id, "Q-KIND")


class Suspect(NamedTuple):
    """What `explain_shards` takes: the arguments of `explain_shard`."""

    path: Path
    columns: Mapping[str, str]
    good: Path
    resource_type: str | None = None
    name: str | None = None


def _explain(shard: Suspect) -> list[Reject]:
    path, columns, good, resource_type, name = shard
    return explain_shard(path, columns, good, resource_type=resource_type, name=name)


def explain_shards(shards: Sequence[Suspect], *, jobs: int, subject: str) -> Iterator[list[Reject]]:
    """`explain_shard` of each, in order, in as many processes as `jobs`. Raises E-LAND-06 about `subject`."""
    return in_order(_explain, shards, jobs=min(jobs, len(shards)), subject=subject)
