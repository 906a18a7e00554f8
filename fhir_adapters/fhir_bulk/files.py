"""One file of an export: fetched whole, seen to be whole, each line de-identified before it touches the disk."""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson

from fhir_adapters.deidentified import Block
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_bulk.job import Item, Lost
from fhir_adapters.fhir_web.gathered import BATCH, Gone, Page, Sieve
from fhir_adapters.fhir_web.issues import issues
from fhir_adapters.fhir_web.spool import Strand
from fhir_adapters.fhir_web.web import Again, Refused, Web, healing
from fhir_adapters.landing.rules import LARGEST_LINE, may_double, resource_types

_HEADERS = {"Accept": "application/fhir+ndjson", "Accept-Encoding": "gzip"}
_MAGIC = b"\x1f\x8b"
_BLOCK = 1 << 18
_TARGET = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([^/?#\s]{1,64})(?:/_history/[^/?#]+)?$")


def download(web: Web, item: Item, strand: Strand, sieve: Sieve, signed: bool, told: Callable[[int], None]) -> None:
    """Fetch an output file into its strand; a line that is no sound JSON leaves a stand-in that landing refuses for the same reason.

    Raises Lost when it is not there any more, E-FHIR-05 when lines are missing.
    """

    def once() -> None:
        strand.clear()
        page, lines = Page(sieve.one()), 0
        for line in _lines(web, item, signed):
            lines += 1
            resource = _parsed(line)
            if resource is None or may_double(line, resource):
                page.refuse(sieve.odd().passed(Block(0, line.strip(), lines=True)).data)
            else:
                page.add(resource, resource.get("resourceType") == item.resource_type)
            if page.size >= BATCH:
                page.write(strand)
                page = Page(sieve.one())
        page.write(strand)
        if item.count is not None and lines < item.count:
            raise _Fewer(item.count - lines)
        strand.append(b"", b"", done=True)
        told(1)

    try:
        _fetch(web, item, once)
    finally:
        strand.close()


def deletes(web: Web, item: Item, signed: bool) -> list[Gone]:
    """The deletes of a `deleted` file: Bundles with DELETE entries, one a line."""
    found: list[Gone] = []

    def once() -> None:
        found.clear()
        for line in _lines(web, item, signed):
            bundle = _parsed(line)
            meta = bundle.get("meta") if bundle else None
            at = meta.get("lastUpdated") if isinstance(meta, dict) else None
            entries = bundle.get("entry") if bundle else None
            for entry in entries if isinstance(entries, list) else ():
                request = entry.get("request") if isinstance(entry, dict) else None
                url = request.get("url") if isinstance(request, dict) and request.get("method") == "DELETE" else None
                target = _TARGET.search(url) if isinstance(url, str) else None
                if target and target[1] in resource_types():
                    found.append(Gone(target[1], target[2], at if isinstance(at, str) else None))

    _fetch(web, item, once)
    return found


def resources_of(web: Web, item: Item, signed: bool) -> Iterator[dict[str, Any]]:
    """The resources of a file as the hospital has them: to look at, not to keep. Raises Lost and those of Web."""
    found: list[dict[str, Any]] = []

    def once() -> None:
        found.clear()
        found.extend(resource for line in _lines(web, item, signed) if (resource := _parsed(line)) is not None)

    _fetch(web, item, once)
    yield from found


def remarks(web: Web, item: Item, signed: bool) -> dict[tuple[str, str], int]:
    """What an error file says: how often each (severity, code)."""
    found: dict[tuple[str, str], int] = {}

    def once() -> None:
        found.clear()
        for line in _lines(web, item, signed):
            for key, count in issues(_parsed(line)).items():
                found[key] = found.get(key, 0) + count

    _fetch(web, item, once)
    return found


class _Fewer(Again):
    """The file came to its end, but with fewer lines than the manifest says."""

    def __init__(self, missing: int) -> None:
        super().__init__("fewer lines than the manifest says")
        self.missing = missing


def _fetch(web: Web, item: Item, once: Callable[[], None]) -> None:
    fewer: list[int] = []

    def counted() -> None:
        fewer.clear()
        try:
            once()
        except _Fewer as error:
            fewer.append(error.missing)
            raise

    try:
        web.patiently(item.url, counted)
    except Refused as error:
        raise Lost(f"a file says {error.status}") from None
    except PalmaresError as error:
        if error.code == "E-FHIR-02":  # an expired link is refused like a stranger
            raise Lost("a file is refused") from None
        if fewer:
            raise PalmaresError("E-FHIR-05", item.resource_type or "$export", count=fewer[0]) from None
        raise


def _parsed(line: bytes) -> dict[str, Any] | None:
    if len(line) > LARGEST_LINE:
        return None
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return resource if isinstance(resource, dict) else None


def _lines(web: Web, item: Item, signed: bool) -> Iterator[bytes]:
    """The lines of a file that are not blank. Raises Again when its end is missing."""
    own = web.is_own(item.url)
    if signed and not own:
        raise PalmaresError("E-FHIR-03", web.shown(item.url), detail="and asks for the credentials there")
    url = web.own(item.url) if own else web.checked(item.url)
    rest = b""
    with web.streamed("GET", url, headers=_HEADERS, signed=signed and own) as response:
        for block in _plain(web, response):
            rest += block
            if len(rest) > 64 * LARGEST_LINE:
                raise PalmaresError("E-FHIR-04", item.resource_type or "$export", detail="a file has no lines")
            *whole, rest = rest.split(b"\n")
            for line in whole:
                if line.strip():
                    yield line
    if rest.strip():
        # the last line may lack its newline, or its end
        if _parsed(rest) is None:
            raise Again("the last line was cut off")
        yield rest


def _plain(web: Web, response: httpx.Response) -> Iterator[bytes]:
    """A body's bytes, uncompressed; by its header, or because the file itself is gzip. A gzip without its end is cut off."""
    unpack: Any = None
    first = True
    with healing():
        for block in web.metered(response.iter_raw(_BLOCK)):
            if first and (response.headers.get("Content-Encoding") == "gzip" or block[:2] == _MAGIC):
                unpack = zlib.decompressobj(31)
            first = False
            if unpack is None:
                yield block
                continue
            try:
                while block:
                    yield unpack.decompress(block)
                    block = unpack.unused_data
                    if unpack.eof and block:
                        unpack = zlib.decompressobj(31)
            except zlib.error:
                raise Again("the compressed file is damaged") from None
    if unpack is not None and not unpack.eof:
        raise Again("the compressed file was cut off")
