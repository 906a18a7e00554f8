"""An export job on a server: kicked off, waited for, its manifest read, ended. HL7 Bulk Data Access 2 (and 3's paged manifests)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.searchset import next_link
from fhir_adapters.fhir_web.web import JSON, Again, Refused, Unanswered, Web, retry_after

ASYNC = {"Accept": JSON, "Prefer": "respond-async"}
_PAUSES = (1.0, 60.0)  # seconds between two looks where the server does not say: the first, the longest
_PAGES = 10_000  # of a manifest: more is a circle


class Lost(Exception):
    """The job, or a file of it, is not there any more (expired, deleted, failed); `why` without values."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True)
class Item:
    """One file of a manifest. `kind`: output, deleted or error."""

    kind: str
    resource_type: str
    url: str
    count: int | None

    @property
    def place(self) -> str:
        """The address without what expires: two manifests of one job name the same files."""
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}"


@dataclass(frozen=True)
class Manifest:
    """What a finished job gives. `at`: its transactionTime, from which the next export goes on."""

    at: str
    signed: bool  # requiresAccessToken
    items: tuple[Item, ...]

    def plain(self) -> dict[str, Any]:
        return {"at": self.at, "signed": self.signed, "items": [asdict(item) for item in self.items]}

    @classmethod
    def of_plain(cls, document: Mapping[str, Any]) -> Self:
        return cls(document["at"], document["signed"], tuple(Item(**item) for item in document["items"]))

    def same_files(self, other: "Manifest") -> bool:
        """Whether another manifest is of the same export, with fresh links."""
        return self.at == other.at and [(one.kind, one.resource_type, one.place) for one in self.items] == [
            (one.kind, one.resource_type, one.place) for one in other.items
        ]


def kick_off(web: Web, url: str) -> str:
    """Start an export; returns the address of its status. Raises Refused, and those of Web."""
    response = web.patiently(url, lambda: web.ask("GET", url, headers=ASYNC, ok=(202,)))
    place = response.headers.get("Content-Location")
    if not place:
        raise PalmaresError("E-FHIR-04", "$export", detail="the server does not say where the job's status is")
    return web.own(place, url)


def wait(web: Web, status: str, *, longest: float, told: Callable[[int], None]) -> Manifest:
    """The manifest, when the job is done. Raises Lost (the job is gone or failed), E-FHIR-09 (it takes longer than `longest` s)."""
    begun = time.monotonic()
    pause = _PAUSES[0]
    while True:
        try:
            answer = web.patiently(
                status, lambda: web.ask("GET", status, headers={"Accept": "application/json"}, ok=(200, 202))
            )
        except Refused as error:
            raise Lost(f"its status says {error.status}") from None
        except Unanswered as error:
            if error.status != 500:
                raise
            raise Lost(
                "its status says that it failed"
            ) from None  # 500 and an OperationOutcome: the job, not the server
        if answer.status_code == 200:
            return _manifest(web, status, answer.content)
        told(0)
        after = retry_after(answer.headers)
        rest = min(pause if after is None else max(after, 0.05), _PAUSES[1] * 10)
        if time.monotonic() - begun + rest > longest:
            raise PalmaresError("E-FHIR-09", "$export", detail="it is not done after poll_hours")
        web.rest(rest)
        pause = min(pause * 1.5, _PAUSES[1])


def _manifest(web: Web, status: str, body: bytes) -> Manifest:
    items: list[Item] = []
    first: Mapping[str, Any] | None = None
    for _ in range(_PAGES):
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = web.json(
                status, headers={"Accept": "application/json"}
            ).document  # it was cut off: once more, patiently
        if not isinstance(document, dict) or not _is_instant(document.get("transactionTime")):
            raise PalmaresError("E-FHIR-04", "$export", detail="its manifest says no instant as its transactionTime")
        first = first or document
        for kind in ("output", "deleted", "error"):
            listed = document.get(kind)
            items += [_item(kind, one) for one in (listed if isinstance(listed, list) else ())]
        link = next_link(document)
        if not link:
            return Manifest(first["transactionTime"], first.get("requiresAccessToken") is not False, tuple(items))
        status = web.own(link, status)
        body = orjson.dumps(web.json(status, headers={"Accept": "application/json"}).document)
    raise PalmaresError("E-FHIR-04", "$export", detail="its manifest's pages go in a circle")


def _is_instant(text: Any) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _item(kind: str, one: Any) -> Item:
    if not isinstance(one, dict) or not isinstance(one.get("url"), str):
        raise PalmaresError("E-FHIR-04", "$export", detail="its manifest lists something that is no file")
    count = one.get("count")
    number = count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
    return Item(kind, str(one.get("type") or ""), one["url"], number)


def end(web: Web, status: str) -> bool:
    """Tell the server that its files may go; False when it does not take that (many do not)."""
    try:
        web.ask("DELETE", status, ok=(200, 202, 204))
    except (Again, PalmaresError):
        return False
    return True
