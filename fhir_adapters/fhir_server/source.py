"""The `fhir_server` source: search with paging and `_lastUpdated` increments, deletes by history or by comparing.

    mark      the server's clock when a run began; the next run reads what was updated since, `overlap_minutes` earlier
    state     {"of": what makes two runs comparable, "types": {type: {"mark", "query"}}}

A type that is new in the settings, or whose filter has changed, is read whole. Nothing counts as read before all of it stands
in the extraction folder, and the mark moves only after landing (memory.py).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_server.paging import Fetched, Pager, Query, deletes, parameters_of, stamp
from fhir_adapters.fhir_web import gathered, sign_in, web
from fhir_adapters.fhir_web.capability import Capability, capability
from fhir_adapters.fhir_web.gathered import Sieve, mapped_types, whole_extraction
from fhir_adapters.fhir_web.searchset import learn_patients, resources_of
from fhir_adapters.fhir_web.spool import Spool, opened
from fhir_adapters.fhir_web.web import Meter, Refused, Web
from fhir_adapters.known_identifiers import of_resource
from fhir_adapters.landing.rules import resource_types
from fhir_adapters.memory import IDS

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_DELETES = ("auto", "compare")


@adapter
class FhirServer:
    """A FHIR R4 server."""

    kind: ClassVar[str] = "fhir_server"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False  # the de-identifier asks for it, where the hospital has not replaced the ids
    settings: ClassVar[Mapping[str, Setting]] = {
        **web.SETTINGS,
        **sign_in.SETTINGS,
        **gathered.SETTINGS,
        "search": Setting(dict, 'search parameters per type, e.g. Observation = "category=laboratory"', {}),
        "include": Setting(dict, '_include per type, e.g. MedicationRequest = ["MedicationRequest:medication"]', {}),
        "page": Setting(int, "resources a page", 250),
        "sort": Setting(str, "_sort of the searches, where a server pages more steadily with one, e.g. _id", ""),
        "overlap_minutes": Setting(int, "how far an increment reaches back before the last run's beginning", 15),
        "check_counts": Setting(bool, "ask the server to count, and compare", True),
        "deletes": Setting(
            str, "auto: from the history where the server keeps one; compare: only in a full run", "auto"
        ),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        self._settings = settings
        self._sieve = Sieve(key, settings)
        self.meter: Meter | None = None  # of the last run: where its time went
        _check(settings)

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        known: Path | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write what changed since `state` (or all) to `out/fhir`.

        Raises E-FHIR-01 … E-FHIR-14, E-SRC-07 (another run is at work), E-DISK-01, -02. What had been fetched stays in the spool.
        """
        identity = {"url": self._settings["url"], "passes": self._sieve.passes(), IDS: self._sieve.ids()}
        comparable = isinstance(state, Mapping) and state.get("of") == identity
        marks = dict(state.get("types", {})) if state is not None and comparable else {}
        held = known if comparable else None
        run = {"of": identity, "full": full, "marks": marks, "settings": self._query_settings()}
        with opened(out, run) as spool:
            client = Web(self._settings, signer=sign_in.signer(self._settings))
            self.meter = client.meter
            try:
                return _Run(self, client, spool, full, marks).extract(out, identity, held, progress or _nothing)
            finally:
                client.close()

    @property
    def undeclared(self) -> Counter[str]:
        """Code systems of the last extraction that nobody declared."""
        return self._sieve.undeclared

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the server says of its patients, as (kind, value): for the hospital's own list, which never leaves."""
        client = Web(self._settings, signer=sign_in.signer(self._settings))
        try:
            for kind in capability(client).chosen(self._settings["types"], mapped_types()):
                for resource in resources_of(client, self.query(kind).address(client.base)):
                    yield from of_resource(resource)
        finally:
            client.close()

    def _query_settings(self) -> dict[str, Any]:
        names = ("types", "search", "include", "page", "sort", "overlap_minutes", "check_counts", "deletes")
        return {name: self._settings[name] for name in names}

    def query(self, kind: str) -> Query:
        """The search of a type, without bounds."""
        parameters = parameters_of(self._settings["search"].get(kind, ""), self._settings["include"].get(kind, []))
        return Query(kind, parameters, page=self._settings["page"], sort=self._settings["sort"])


class _Run:
    """One extraction."""

    def __init__(self, source: FhirServer, client: Web, spool: Spool, full: bool, marks: Mapping[str, Any]) -> None:
        self._source = source
        self._settings = source._settings
        self._sieve = source._sieve
        self._web = client
        self._spool = spool
        self._full = full
        self._marks = marks

    def extract(
        self, out: Path, identity: Mapping[str, Any], known: Path | None, told: Callable[[int], None]
    ) -> Extraction:
        said = capability(self._web)
        types = said.chosen(self._settings["types"], mapped_types())
        for kind in self._marks:
            # read before, not asked for by the site, and not offered any more: that is a loss of rights, not of data
            if not self._settings["types"] and kind not in types:
                raise PalmaresError("E-FHIR-06", kind, detail="it was read before")
        if "mark" not in self._spool.notes:
            # before the first search: what is updated from now on belongs to the next run
            self._spool.note(mark=stamp(self._web.mark()))
        mark: str = self._spool.notes["mark"]
        if self._sieve.learns:
            learn_patients(self._web, self._sieve)
        came = self._fetch_all(types, told)
        whole = [one.resource_type for one in came if self._since(one.resource_type) is None or not one.increments]
        gone, by_history = self._deletes(said, [one for one in types if one not in whole])
        remembered = {one: {"mark": mark, "query": _hash(self._source.query(one))} for one in types}
        return whole_extraction(
            out,
            self._spool,
            kind=self._source.kind,
            full=len(whole) == len(types),
            known=known,
            whole=whole,
            gone=gone,
            most_deleted=self._settings["most_deleted"],
            at=mark,
            strands=[one.strand for one in came],
            position=True,
            read=self._web.meter.bytes,
            skipped=sum((one.skipped for one in came), Counter()),
            state={"of": identity, IDS: identity[IDS], "types": {**self._marks, **remembered}},
            more={
                "server": {
                    "fhir_version": said.version,
                    "clock_ahead_seconds": self._web.ahead and round(self._web.ahead, 1),
                },
                "types": {one.resource_type: _told(one) for one in came},
                "deletes_by": {
                    one: "compare" if one in whole else "history" if one in by_history else "none" for one in types
                },
                "left_out": self._sieve.left_out(),
                **self._web.meter.counts(),
            },
        )

    def _since(self, kind: str) -> datetime | None:
        """From when a type is read; None: from the beginning."""
        held = self._marks.get(kind)
        if self._full or not isinstance(held, Mapping) or held.get("query") != _hash(self._source.query(kind)):
            return None
        mark = datetime.fromisoformat(held["mark"])
        return mark - timedelta(minutes=self._settings["overlap_minutes"])

    def _fetch_all(self, types: tuple[str, ...], told: Callable[[int], None]) -> list[Fetched]:
        """Every type, several at a time; the first that failed is raised when the others are through, so that they need not be again."""
        parallel = self._settings["parallel"]
        with ThreadPoolExecutor(parallel, "page") as ahead, ThreadPoolExecutor(parallel, "type") as workers:

            def one(kind: str) -> Fetched:
                query = replace(self._source.query(kind), since=self._since(kind))
                pager = Pager(self._web, query, self._spool.strand(kind), self._sieve.one(), ahead, told)
                return pager.fetch(check=self._settings["check_counts"])

            futures = [workers.submit(one, kind) for kind in types]
            errors = [error for future in futures if (error := future.exception()) is not None]
            if errors:
                raise errors[0]
            return [future.result() for future in futures]

    def _deletes(self, said: Capability, types: list[str]) -> tuple[list[tuple[str, str, str | None]], set[str]]:
        """What the history says was deleted, ids as pseudonyms; and of which types it could be asked."""
        if self._settings["deletes"] != "auto":
            return [], set()
        found: list[tuple[str, str, str | None]] = []
        asked: set[str] = set()
        sieve = self._sieve.one()
        for kind in types:
            since = self._since(kind)
            if kind not in said.histories or since is None:
                continue
            try:
                told = deletes(self._web, kind, since, self._settings["page"])
            except Refused:
                continue  # it says that it keeps one and does not: the manifest tells that deletes of this type did not come
            asked.add(kind)
            found += [
                (one.resource_type, sieve.pseudonym(one.resource_type, one.resource_id), one.deleted_at) for one in told
            ]
        return found, asked


def _check(settings: Mapping[str, Any]) -> None:
    """Settings that a type check does not reach. Raises E-SRC-02."""
    known = resource_types()
    for name in ("types", "search", "include"):
        if any(one not in known for one in settings[name]):
            raise PalmaresError("E-SRC-02", name, detail="it names something that is no resource type of R4")
    if not all(isinstance(one, str) for one in settings["search"].values()):
        raise PalmaresError("E-SRC-02", "search", detail="it is no table of texts")
    if not all(isinstance(one, list) for one in settings["include"].values()):
        raise PalmaresError("E-SRC-02", "include", detail="it is no table of lists")
    if settings["deletes"] not in _DELETES:
        raise PalmaresError("E-SRC-02", "deletes", detail=f"it is none of {', '.join(_DELETES)}")
    if not 1 <= settings["page"] <= 10_000:
        raise PalmaresError("E-SRC-02", "page", detail="it is none of 1 to 10000")
    if settings["overlap_minutes"] < 0:
        raise PalmaresError("E-SRC-02", "overlap_minutes", detail="it is below 0")
    if not 0 <= settings["most_deleted"] <= 1:
        raise PalmaresError("E-SRC-02", "most_deleted", detail="it is no share from 0 to 1")
    web.check(settings)


def _hash(query: Query) -> str:
    """A filter as a hash: a site may have written anything into it."""
    return hashlib.sha256(json.dumps([query.resource_type, query.parameters]).encode()).hexdigest()[:16]


def _told(one: Fetched) -> dict[str, Any]:
    """A type for the manifest."""
    return {
        "pages": one.pages,
        "matches": one.matches,
        "different": one.different,
        "counted": one.counted,
        "mended": one.mended,
        "restarts": one.restarts,
        "increments": one.increments,
    }


def _nothing(_: int) -> None:
    return None
