"""Files of a hospital's FHIR, de-identified as they stream by: blocks of lines or whole documents in, the same without what identifies out.

What is read is never written as it is. A line or a resource that is not sound has a stand-in at its place, which landing, validation
or mapping refuse for the same reason, so that every position and every count stays what it was, and no byte of it passes. A resource
whose type may not pass leaves an empty line, or an empty entry of its Bundle.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, NamedTuple, cast

import orjson

from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.fhir_elements import WITHHELD
from fhir_adapters.landing import sources
from fhir_adapters.landing.bundles import land_resource, parse_document
from fhir_adapters.landing.lines import blocks, whole_lines
from fhir_adapters.landing.rules import (
    LARGEST_LINE,
    QUICK,
    Identity,
    Refusal,
    identify,
    may_double,
    resource_types,
    why_not_json,
)
from fhir_adapters.landing.sources import DamagedStream
from fhir_adapters.processes import in_order, uncollected
from fhir_adapters.pseudonyms import LinkageKey, SiteKey

_BOM = b"\xef\xbb\xbf"
_LARGEST_PEEK = 256 * 2**20  # bytes of a file of lines that may turn out to be one document over many lines
_BUNDLE_TYPES = frozenset(
    "document message transaction transaction-response batch batch-response history searchset collection".split()  # noqa: SIM905
)
_URN = re.compile(r"urn:(?:uuid|oid):(.+)")
_TARGET = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([^/?#\s]{1,64})(?:/_history/[^/?#]+)?$")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}(?:Z|[+-][0-9]{2}:[0-9]{2})")
_NOTHING = {"resourceType": "Bundle", "type": "collection"}  # lands as nothing


class Recipe(NamedTuple):
    """What a worker makes its Deidentifier of."""

    key: SiteKey | None
    linkage: LinkageKey | None
    zone: str
    settings: Mapping[str, Any]
    patients: Mapping[str, str]

    def deidentifier(self) -> Deidentifier:
        made = Deidentifier(self.key, zone=self.zone, settings=self.settings, linkage=self.linkage)
        made.patients = dict(self.patients)
        return made


class Block(NamedTuple):
    """A part of a file. `lines`: complete lines; else a whole document. `too_long`: the head of one line that is."""

    file: int
    data: bytes
    lines: bool
    first: bool = False
    last: bool = False
    too_long: bool = False


@dataclass
class Passed:
    """What came of a block."""

    file: int
    data: bytes
    lines: bool = False
    last: bool = False
    resources: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    undeclared: Counter[str] = field(default_factory=Counter)  # code systems; never written


# ------------------------------------------------------------------------------------------------ one block


class Filter:
    """Blocks through one Deidentifier."""

    def __init__(self, deidentifier: Deidentifier) -> None:
        self._deidentifier = deidentifier
        self._resources: Counter[str] = Counter()

    def passed(self, block: Block) -> Passed:
        """The block without what identifies."""
        self._resources = Counter()
        self._deidentifier.counts.clear()
        self._deidentifier.undeclared.clear()
        with uncollected():
            if block.too_long:
                data = self._too_long(block.data)
            elif block.lines:
                data = self._lines(block.data, block.first)
            else:
                data = self._document(block.data)
        counts, undeclared = Counter(self._deidentifier.counts), Counter(self._deidentifier.undeclared)
        return Passed(block.file, data, block.lines, block.last, self._resources, counts, undeclared)

    def learned(self, block: Block) -> list[tuple[str, str]]:
        """(Patient.id, record number) of the patients of a block."""
        found = self._deidentifier.patients
        found.clear()
        for one in _patients(block):
            self._deidentifier.learn(one)
        return list(found.items())

    def _lines(self, data: bytes, first: bool) -> bytes:
        if first:
            data = data.removeprefix(_BOM)
        return b"\n".join(map(self._line, data.split(b"\n")))

    def _line(self, line: bytes) -> bytes:
        if len(line) > LARGEST_LINE:
            return self._too_long(line)
        try:
            resource = orjson.loads(line)
        except orjson.JSONDecodeError:
            stripped = line.strip()
            if not stripped:
                return b""
            try:
                resource = orjson.loads(stripped)
            except orjson.JSONDecodeError:
                return self._refused_line(stripped)
        if type(resource) is not dict:
            return b"0"
        if resource.get("resourceType") == "Bundle":
            return self._document(line)
        if may_double(line, resource):
            value, marked = parse_document(line)
            got = self._resource(value, marked, {})
        else:
            got = self._sound(resource, {})
        return b"" if got is None else orjson.dumps(got)

    def _refused_line(self, line: bytes) -> bytes:
        """A line that is no JSON: one that has its type and id in front keeps both, the id as pseudonym."""
        match = QUICK.match(line)
        kind = match[1].decode("ascii") if match else ""
        if match and line.endswith(b"}") and kind in resource_types():
            identity = (kind, self._deidentifier.pseudonym(kind, match[2].decode("ascii")))
            return _stand_in(_LINE_SPOTS[why_not_json(line)], identity)
        return _stand_in(_LINE_SPOTS[why_not_json(line)], None)

    def _too_long(self, head: bytes) -> bytes:
        match = QUICK.match(head)
        kind = match[1].decode("ascii") if match else ""
        identity = None
        if match and kind in resource_types():
            identity = (kind, self._deidentifier.pseudonym(kind, match[2].decode("ascii")))
        return _stand_in(b'"x":"' + b"x" * LARGEST_LINE + b'"', identity)

    def _document(self, data: bytes) -> bytes:
        """A Bundle, a resource, an array of both; under a wrong name it may be lines."""
        try:
            value, marked = parse_document(data)
        except ValueError:
            if b"\n" in data.strip() and QUICK.match(data.removeprefix(_BOM)):
                return self._lines(data, first=True)
            return b"{"
        if isinstance(value, list):
            return _dumps([self._parsed(one, marked) or _NOTHING for one in value])
        if isinstance(value, dict) and isinstance(value.get("resourceType"), str):
            return _dumps(self._parsed(value, marked) or _NOTHING)
        return b"{}"

    def _parsed(self, value: Any, marked: bool) -> Any:
        if isinstance(value, dict) and value.get("resourceType") == "Bundle":
            return self._bundle(value, marked)
        return self._resource(value, marked, {})

    def _resource(self, resource: Any, marked: bool, urns: Mapping[str, tuple[str, str]]) -> Any:
        """A resource that may not be sound JSON: a key twice, a number that is none, half a character."""
        if not isinstance(resource, dict):
            return 0
        refusal = land_resource(resource, marked)
        if isinstance(refusal, Refusal) and refusal.reason in _SPOTS:
            identity = identify(resource)
            known = None
            if isinstance(identity, Identity):
                known = (identity.resource_type, self._deidentifier.pseudonym(*identity))
            return orjson.Fragment(_stand_in(_SPOTS[refusal.reason], known))
        return self._sound(resource, urns)

    def _sound(self, resource: dict[str, Any], urns: Mapping[str, tuple[str, str]]) -> Any:
        try:
            got = self._deidentifier.resource(resource, urns=urns)
        except Exception:
            # a defect of ours: the resource is refused where it stands, and the words of the error, which may hold a value, go nowhere
            self._deidentifier.counts["?", "", "failed"] += 1
            return orjson.Fragment(_stand_in(_SPOTS["Q-JSON"], None))
        if got is not None and got.get("resourceType") in resource_types():
            self._resources[got["resourceType"]] += 1
        return got

    def _bundle(self, bundle: dict[str, Any], marked: bool) -> dict[str, Any]:
        out: dict[str, Any] = {"resourceType": "Bundle"}
        if bundle.get("type") in _BUNDLE_TYPES:
            out["type"] = bundle["type"]
        meta = bundle.get("meta")
        updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
        if isinstance(updated, str) and _INSTANT.fullmatch(updated):
            out["meta"] = {"lastUpdated": updated}
        timestamp = bundle.get("timestamp")
        if isinstance(timestamp, str) and _INSTANT.fullmatch(timestamp):
            out["timestamp"] = timestamp
        entries = bundle.get("entry")
        if isinstance(entries, list):
            urns = _urns(entries)
            out["entry"] = [self._entry(entry, marked, urns) for entry in entries]
        elif entries is not None:
            out["entry"] = WITHHELD
        return out

    def _entry(self, entry: Any, marked: bool, urns: Mapping[str, tuple[str, str]]) -> Any:
        if not isinstance(entry, dict):
            return WITHHELD
        out: dict[str, Any] = {}
        resource = entry.get("resource")
        if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
            out["resource"] = self._bundle(resource, marked)
        elif resource is not None:
            if isinstance(resource, dict) and resource.get("id") is None and (own := _urn_of(entry)):
                resource["id"] = own
            got = self._resource(resource, marked, urns)
            if got is not None:
                out["resource"] = got
        request = entry.get("request")
        if isinstance(request, dict) and request.get("method") == "DELETE":
            out["request"] = {"method": "DELETE"}
            for url in (request.get("url"), entry.get("fullUrl")):
                target = _TARGET.search(url) if isinstance(url, str) else None
                if target and target[1] in resource_types():
                    out["request"]["url"] = f"{target[1]}/{self._deidentifier.pseudonym(target[1], target[2])}"
                    break
            response = entry.get("response")
            modified = response.get("lastModified") if isinstance(response, dict) else None
            if isinstance(modified, str) and _INSTANT.fullmatch(modified):
                out["response"] = {"lastModified": modified}
        return out


def _urn_of(entry: Mapping[str, Any]) -> str | None:
    url = entry.get("fullUrl")
    found = _URN.fullmatch(url) if isinstance(url, str) else None
    return found[1] if found else None


def _urns(entries: list[Any]) -> dict[str, tuple[str, str]]:
    """urn: address of an entry → type and id of its resource."""
    found: dict[str, tuple[str, str]] = {}
    for entry in entries:
        if isinstance(entry, dict) and (own := _urn_of(entry)) and isinstance(resource := entry.get("resource"), dict):
            identity = identify(resource if resource.get("id") is not None else {**resource, "id": own})
            if isinstance(identity, Identity):
                found[entry["fullUrl"]] = (identity.resource_type, identity.resource_id)
    return found


def _patients(block: Block) -> Iterator[Mapping[str, Any]]:
    """The Patient resources of a block."""
    if b'"Patient"' in block.data:
        for resource in resources_of(block, b'"Patient"'):
            if resource.get("resourceType") == "Patient":
                yield resource


def resources_of(block: Block, having: bytes = b"") -> Iterator[Mapping[str, Any]]:
    """The resources of a block as the hospital has them, as far as they are JSON; of lines those in which `having` stands."""
    stack: list[Any] = []
    if block.lines:
        for line in block.data.split(b"\n"):
            if having in line:
                try:
                    stack.append(orjson.loads(line.strip().removeprefix(_BOM)))
                except orjson.JSONDecodeError:
                    continue
    else:
        try:
            stack.append(parse_document(block.data).value)
        except ValueError:
            yield from resources_of(block._replace(lines=True), having)
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            entries = value.get("entry")
            if value.get("resourceType") == "Bundle" and isinstance(entries, list):
                stack += [entry.get("resource") for entry in entries if isinstance(entry, dict)]
            else:
                yield value


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value)


# ------------------------------------------------------------------------------------------------ stand-ins

# what stands in a resource, so that it is refused for the reason
_SPOTS: Mapping[str, bytes] = {
    "Q-JSON": b'"x":NaN',
    "Q-ENCODING": b'"\xff":0',
    "Q-CHARACTER": b'"x":"\\ud800"',
    "Q-DEPTH": b'"x":' + b"[" * 300 + b"]" * 300,
    "Q-DUPLICATE-KEY": b'"x":0,"x":0',
}
_LINE_SPOTS: Mapping[str, bytes] = {
    **_SPOTS,
    "Q-JSON": b",",
    "Q-DEPTH": b'"x":' + b"[" * 1100 + b"]" * 1100,
}


def _head(kind: str, identifier: str) -> bytes:
    return f'{{"resourceType":"{kind}","id":"{identifier}"'.encode()


def _stand_in(spot: bytes, identity: tuple[str, str] | None) -> bytes:
    """A text that is refused for its spot and holds no more than a type and a pseudonym."""
    return b"{" + spot + b"}" if identity is None else _head(*identity) + b"," + spot + b"}"


# ------------------------------------------------------------------------------------------------ whole files


def open_stream(stream: IO[bytes], compression: str) -> IO[bytes]:
    """The decompressed bytes of a stream; what is damaged shows as DamagedStream or as gzip's and zlib's own errors."""
    if compression == "gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    return cast(IO[bytes], sources._Zstd(stream)) if compression == "zst" else stream


def sink_for(stream: IO[bytes], compression: str) -> Any:
    """What writes into a file with the compression of its name."""
    if compression == "gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=1)
    if compression == "zst":
        import zstandard

        return zstandard.ZstdCompressor(level=1).stream_writer(stream, closefd=False)
    return stream


def file_blocks(number: int, stream: IO[bytes], *, is_lines: bool, size: int) -> Iterator[Block]:
    """The blocks of one open file. Raises DamagedStream for a compressed one."""
    try:
        if not is_lines:
            yield Block(number, stream.read(), lines=False, first=True, last=True)
            return
        source = blocks(stream)
        head = next(source, b"")
        if size <= _LARGEST_PEEK and _is_document(head):
            yield Block(number, head + b"".join(source), lines=False, first=True, last=True)
            return
        waiting: Block | None = None
        for text, is_head in whole_lines(_again(head, source)):
            if waiting is not None:
                yield waiting
            waiting = Block(number, text, lines=True, first=waiting is None, too_long=is_head)
        yield waiting._replace(last=True) if waiting else Block(number, b"", lines=True, first=True, last=True)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        if isinstance(stream, gzip.GzipFile):
            raise DamagedStream from None
        raise


def _again(head: bytes, source: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from source


def _is_document(head: bytes) -> bool:
    """Whether a file of lines seems to be one document over many lines: its first line begins an object and does not end it."""
    first = head.removeprefix(_BOM).lstrip().split(b"\n", 1)[0].strip()
    return first in (b"{", b"[") or (
        first[:1] in (b"{", b"[") and first[-1:] in (b",", b"{", b"[") and len(first) < 200
    )


_work: dict[str, Filter] = {}


def _set_up(recipe: Recipe) -> None:
    _work["filter"] = Filter(recipe.deidentifier())


def _pass(block: Block) -> Passed:
    return _work["filter"].passed(block)


def _learn(block: Block) -> list[tuple[str, str]]:
    return _work["filter"].learned(block)


def pass_blocks(source: Iterable[Block], recipe: Recipe, *, jobs: int, subject: str) -> Iterator[Passed]:
    """The blocks in their order, de-identified in as many processes as `jobs`. Raises E-LAND-06."""
    start: Callable[[], None] = partial(_set_up, recipe)
    return in_order(_pass, source, jobs=jobs, subject=subject, initializer=start)


def learn_blocks(source: Iterable[Block], recipe: Recipe, *, jobs: int, subject: str) -> dict[str, str]:
    """Patient.id → record number of all patients in the blocks. Raises E-LAND-06."""
    found: dict[str, str] = {}
    for pairs in in_order(_learn, source, jobs=jobs, subject=subject, initializer=partial(_set_up, recipe)):
        found.update(pairs)
    return found
