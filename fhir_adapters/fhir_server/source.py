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
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_server.paging import Fetched, Pager, deletes, stamp
from fhir_adapters.fhir_server.plan import Handfuls, Search, known_patients, of_patient, query_of, searches
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
        "by_patient": Setting(bool, "ask patient by patient, for those whom search.Patient finds", False),
        "patients_at_once": Setting(int, "patients a search, with by_patient", 20),
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
        with opened(out, run, self._sieve.key) as spool:
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
            types = capability(client).chosen(self._settings["types"], mapped_types())
            patients = None
            if self._settings["by_patient"]:
                patients = Handfuls(self.patients(client), None, 1000)
            for search in searches(self._settings, types, lambda _: None, patients):
                for resource in resources_of(client, search.query.address(client.base)):
                    yield from of_resource(resource)
        finally:
            client.close()

    def _query_settings(self) -> dict[str, Any]:
        names = (
            "types",
            "search",
            "include",
            "page",
            "sort",
            "overlap_minutes",
            "check_counts",
            "deletes",
            "by_patient",
        )
        return {name: self._settings[name] for name in names}

    def patients(self, client: Web) -> dict[str, str]:
        """The patients whom the site's search finds, each with her pseudonym; record numbers are learned."""
        return learn_patients(client, self._sieve, query_of(self._settings, "Patient").address(client.base))


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
        self._proven: dict[str, bool] = {}

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
        patients = None
        if self._settings["by_patient"]:
            patients = self._handfuls(known)
        elif self._sieve.learns:
            learn_patients(self._web, self._sieve)
        came = self._fetch_all(list(searches(self._settings, types, self._since, patients)), told)
        parts = {kind: [one for one in came if one.resource_type == kind] for kind in types}
        whole = [
            kind for kind, of in parts.items() if self._since(kind) is None or not all(one.increments for one in of)
        ]
        gone, by_history = self._deletes(said, [one for one in types if one not in whole])
        remembered = {one: {"mark": mark, "query": self._hash(one)} for one in types}
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
                "types": {kind: _told(of) for kind, of in parts.items()},
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
        if self._full or not isinstance(held, Mapping) or held.get("query") != self._hash(kind):
            return None
        mark = datetime.fromisoformat(held["mark"])
        return mark - timedelta(minutes=self._settings["overlap_minutes"])

    def _hash(self, kind: str) -> str:
        """A type's filter as a hash: a site may have written anything into it."""
        filters = [query_of(self._settings, kind).parameters, self._settings["by_patient"] and of_patient(kind)]
        if self._settings["by_patient"]:
            filters.append(query_of(self._settings, "Patient").parameters)
        return hashlib.sha256(json.dumps([kind, filters]).encode()).hexdigest()[:16]

    def _handfuls(self, known: Path | None) -> Handfuls:
        """The patients of this run; how many handfuls there are is settled once, for a run that goes on with this spool too."""
        found = self._source.patients(self._web)
        if "handfuls" not in self._spool.notes:
            self._spool.note(handfuls=-(-len(found) // self._settings["patients_at_once"]))
        return Handfuls(found, known_patients(known), self._spool.notes["handfuls"])

    def _fetch_all(self, planned: list[Search], told: Callable[[int], None]) -> list[Fetched]:
        """Every search, several at a time; the first that failed is raised when the others are through: they need not be again."""
        parallel = self._settings["parallel"]
        with ThreadPoolExecutor(parallel, "page") as ahead, ThreadPoolExecutor(parallel, "type") as workers:

            def one(search: Search) -> Fetched:
                strand = self._spool.strand(search.strand)
                pager = Pager(self._web, search.query, strand, self._sieve.one(), ahead, told, self._proven)
                return pager.fetch(check=self._settings["check_counts"])

            try:
                futures = [workers.submit(one, search) for search in planned]
                errors = [error for future in futures if (error := future.exception()) is not None]
            except BaseException:  # the run is to end: what waits for the server must not hold it up
                self._web.stop()
                workers.shutdown(wait=False, cancel_futures=True)
                raise
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
            except PalmaresError as error:
                if not isinstance(error, Refused) and error.code != "E-FHIR-02":
                    raise
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
    if not 1 <= settings["patients_at_once"] <= 1000:
        raise PalmaresError("E-SRC-02", "patients_at_once", detail="it is none of 1 to 1000")
    if not 1 <= settings["page"] <= 10_000:
        raise PalmaresError("E-SRC-02", "page", detail="it is none of 1 to 10000")
    if settings["overlap_minutes"] < 0:
        raise PalmaresError("E-SRC-02", "overlap_minutes", detail="it is below 0")
    if not 0 <= settings["most_deleted"] <= 1:
        raise PalmaresError("E-SRC-02", "most_deleted", detail="it is no share from 0 to 1")
    web.check(settings)


def _told(parts: list[Fetched]) -> dict[str, Any]:
    """A type for the manifest: the sums of its searches. `counted` is null where the server cannot count."""
    counts = [one.counted for one in parts]
    return {
        "pages": sum(one.pages for one in parts),
        "matches": sum(one.matches for one in parts),
        "different": sum(one.different for one in parts),
        "counted": None if None in counts else sum(one or 0 for one in counts),
        "mended": any(one.mended for one in parts),
        "restarts": sum(one.restarts for one in parts),
        "increments": all(one.increments for one in parts),
    }


def _nothing(_: int) -> None:
    return None
