"""One resource type of a server, page by page, into a strand of the spool; and whether everything came.

A server's pages cannot be trusted to be all there is: an entry that is changed while the pages are fetched moves to another page,
and its neighbours slip over the edge; some servers end early, go in a circle, or answer 200 with nothing to what they do not
know. So the server is asked to count before and after, and the different ids that came must be as many. Where they are not, what
is missing is found in windows of `_lastUpdated` (mending.py).
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_server.mending import EARLIEST, Mender, Unheeded
from fhir_adapters.fhir_web.gathered import Gone, Page, distinct
from fhir_adapters.fhir_web.issues import SEVERE, issues, words
from fhir_adapters.fhir_web.searchset import count, entries_of, next_link
from fhir_adapters.fhir_web.spool import Strand
from fhir_adapters.fhir_web.web import Answer, Refused, Web

_OVER = (400, 404, 410, 422)  # how servers say that a paging session has expired
_RESTARTS = 3


@dataclass(frozen=True)
class Query:
    """A search of one type; `since` and `until` bound `_lastUpdated` (from, and before)."""

    resource_type: str
    parameters: tuple[tuple[str, str], ...] = ()  # the site's own filters and includes
    since: datetime | None = None
    until: datetime | None = None
    page: int = 250
    sort: str = ""

    def address(self, base: str, *, counting: bool = False) -> str:
        """The search as a URL; `counting` asks for the number of matches only."""
        filters = [
            (name, value)
            for name, value in self.parameters
            if name not in ("_include", "_revinclude", "_sort", "_count")
        ]
        if self.since is not None:
            filters.append(("_lastUpdated", f"ge{stamp(self.since)}"))
        if self.until is not None:
            filters.append(("_lastUpdated", f"lt{stamp(self.until)}"))
        if counting:
            asked = [*filters, ("_summary", "count"), ("_total", "accurate")]
        else:
            includes = [pair for pair in self.parameters if pair[0] in ("_include", "_revinclude")]
            sort = [("_sort", self.sort)] if self.sort else []
            asked = [*filters, *includes, *sort, ("_count", str(self.page))]
        return f"{base}/{self.resource_type}?{urlencode(asked, quote_via=quote)}"

    def between(self, since: datetime | None, until: datetime | None) -> "Query":
        return Query(self.resource_type, self.parameters, since, until, self.page, self.sort)


@dataclass
class Fetched:
    """What came of one type."""

    resource_type: str
    strand: Strand
    pages: int = 0
    matches: int = 0  # entries that matched, repeats counted
    different: int = 0
    counted: int | None = None  # what the server said there is; None where it cannot count
    mended: bool = False  # the pages lost some, the windows brought them
    restarts: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    increments: bool = True  # False: the server does not know `_lastUpdated`, so all was read


def parameters_of(text: str, includes: list[Any]) -> tuple[tuple[str, str], ...]:
    """A site's search parameters (`category=laboratory&status=final`) and includes as pairs."""
    pairs = parse_qsl(text.lstrip("?"), keep_blank_values=False)
    return (*pairs, *(("_include", str(one)) for one in includes))


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Pager:
    """Fetches one type. `ahead` is where the next page is fetched while this one is worked on."""

    def __init__(
        self,
        web: Web,
        query: Query,
        strand: Strand,
        sieve: Deidentifier,
        ahead: Executor,
        told: Callable[[int], None],
        proven: dict[str, bool],
    ) -> None:
        """`proven`: by type, whether the server knows `_lastUpdated`; shared by the searches of a run."""
        self._web = web
        self._query = query
        self._strand = strand
        self._sieve = sieve
        self._ahead = ahead
        self._told = told
        self._proven = proven
        self._came = Fetched(query.resource_type, strand)
        self._totals: list[int] = []  # what the pages say that there is
        self._last = 0  # entries of the last page

    def fetch(self, *, check: bool) -> Fetched:
        """Read the type to its end, from where the strand stands.

        Raises E-FHIR-05 (the server counts more than it gives), E-FHIR-04 (no searchset, or pages in a circle), and those of Web.
        """
        try:
            return self._fetch(check)
        finally:
            self._strand.close()

    def _fetch(self, check: bool) -> Fetched:
        came = self._came
        asked = self._strand.marked(self._query.address(""))
        if self._strand.entries and self._strand.entries[0].get("asked") != asked:
            self._strand.clear()  # of an earlier run that asked for other patients
        last = self._strand.last
        if last is None:
            self._prove_increments()
            # from here on the way is settled, for a run that goes on with this strand too
            first = self._query.address(self._web.base)
            self._strand.append(b"", b"", next=first, increments=came.increments, asked=asked)
        elif not self._strand.entries[0]["increments"]:
            self._read_everything()
        last = self._strand.last or {}
        if not last.get("done"):
            before = self._count() if check else None
            circle = self._pages(self._query, last["next"])
            after = self._count() if check else None
            counts = before is not None and after is not None
            came.counted = min(before, after) if before is not None and after is not None else None
            came.different = distinct([self._strand], came.resource_type)
            if check and not counts:
                self._believe_pages()
            for every in (False, True) if counts else ():
                if came.counted is not None and came.different < came.counted:
                    came.mended = self._mend(every) or came.mended
                    came.different = distinct([self._strand], came.resource_type)
                    again = self._count()
                    came.counted = min(came.counted, again if again is not None else came.counted)
            if came.counted is not None and came.different < came.counted:
                missing = came.counted - came.different
                self._strand.clear()  # the next run has to ask the server again, not this spool
                raise PalmaresError("E-FHIR-05", came.resource_type, count=missing, detail=f"of {came.counted}")
            if circle and came.counted is None:
                raise PalmaresError("E-FHIR-04", came.resource_type, detail="its pages go in a circle")
            self._strand.append(
                b"", b"", done=True, counted=came.counted, mended=came.mended, increments=came.increments
            )
        else:
            came.counted, came.mended, came.increments = last["counted"], last["mended"], last["increments"]
            came.different = distinct([self._strand], came.resource_type)
        self._sum_up()
        return came

    def _sum_up(self) -> None:
        """The counts of all pages, those of an earlier run too."""
        for entry in self._strand.entries:
            if "counts" in entry:
                self._came.pages += 1
                self._came.matches += entry["matches"]
                self._came.skipped += Counter(entry["skipped"])

    # ------------------------------------------------------------------------------------------------ counting

    def _count(self, query: Query | None = None) -> int | None:
        """How many the server says there are; None where it does not say."""
        return count(self._web, (query or self._query).address(self._web.base, counting=True))

    def _prove_increments(self) -> None:
        """Read all of the type where the server answers a search by `_lastUpdated` with nothing though there is something."""
        kind = self._query.resource_type
        if self._query.since is None:
            return
        if kind not in self._proven:
            everything = self._query.between(None, None)
            if self._any(self._query):
                self._proven[kind] = True
            elif self._any(everything):  # where there is nothing at all, nothing is proven
                self._proven[kind] = self._any(self._query.between(EARLIEST, None))
        if not self._proven.get(kind, True):
            self._read_everything()

    def _read_everything(self) -> None:
        self._query = self._query.between(None, None)
        self._came.increments = False

    def _any(self, query: Query) -> bool:
        counted = self._count(query)
        if counted is not None:
            return counted > 0
        one = Query(query.resource_type, query.parameters, query.since, query.until, 1)
        try:
            bundle = self._web.json(one.address(self._web.base)).document
        except Refused:
            return False
        return any(_matches(entry, query.resource_type) for entry in entries_of(bundle, query.resource_type))

    def _believe_pages(self) -> None:
        """Of a server that cannot count: what its pages say that there is, and whether a last page that is full was the last."""
        came, first = self._came, self._query.address(self._web.base)
        if self._totals:
            came.counted = min(self._totals)
            if came.different < came.counted:  # an entry that was changed meanwhile may have slipped from page to page
                self._pages(self._query, first)
                came.different = distinct([self._strand], came.resource_type)
        elif came.different <= self._query.page <= self._last:  # one page, it is full, and no link leads on
            wider = replace(self._query, page=2 * self._query.page)
            bundle = self._web.json(wider.address(self._web.base)).document
            more = sum(_matches(entry, came.resource_type) for entry in entries_of(bundle, came.resource_type))
            came.counted = more if more > came.different else None

    # ------------------------------------------------------------------------------------------------- pages

    def _pages(self, query: Query, url: str | None) -> bool:
        """All pages of a search into the strand, from `url` on; True when the links led back to where they had been."""
        first = query.address(self._web.base)
        for _ in range(_RESTARTS):
            held = len(self._strand.entries)
            try:
                return self._follow(url)
            except Refused as error:
                # a first page is refused for good; a later one because the server has forgotten the search
                refused_at_once = url == first and len(self._strand.entries) == held
                if refused_at_once or error.status not in _OVER:
                    raise
                self._came.restarts += 1
                url = first
        return self._follow(first)

    def _follow(self, url: str | None) -> bool:
        seen: set[str] = set()
        future = self._ahead.submit(self._get, url) if url else None
        while future is not None and url is not None:
            seen.add(url)
            bundle = future.result().document
            entries = list(entries_of(bundle, self._query.resource_type))
            link = next_link(bundle)
            self._last = sum(_matches(entry, self._query.resource_type) for entry in entries)
            total = bundle.get("total") if isinstance(bundle, dict) else None
            if isinstance(total, int) and not isinstance(total, bool):
                self._totals.append(total)
            following = self._web.own(link, url) if link else None
            circle = following in seen
            if circle:
                following = None
            future = self._ahead.submit(self._get, following) if following else None
            self._take(entries, following)
            if circle:
                return True
            url = following
        return False

    def _get(self, url: str) -> Answer:
        return self._web.json(url)

    def _take(self, entries: list[dict[str, Any]], following: str | None) -> None:
        page = Page(self._sieve)
        skipped: Counter[str] = Counter()
        matches = 0
        for entry in entries:
            resource = entry.get("resource")
            mode = _mode(entry)
            if mode == "outcome" or (isinstance(resource, dict) and resource.get("resourceType") == "OperationOutcome"):
                self._outcome(resource, skipped)
            elif not isinstance(resource, dict):
                skipped["entry-without-resource"] += 1
            else:
                match = _matches(entry, self._query.resource_type)
                matches += match
                page.add(resource, match)
        page.write(self._strand, next=following, matches=matches, skipped=dict(skipped))
        self._told(1)

    def _outcome(self, resource: Any, skipped: Counter[str]) -> None:
        """What the server remarks beside the results; an error means that the results are not all."""
        found = issues(resource)
        if any(severity in SEVERE for severity, _ in found):
            raise PalmaresError("E-FHIR-07", self._query.resource_type, detail=words(found))
        for (severity, code), number in found.items():
            skipped[f"outcome-{severity}-{code}"] += number

    def _mend(self, every: bool) -> bool:
        """Fetch again, in windows, what the pages have lost; what came before stays, for an id counts once. False: it cannot be."""

        def window(low: datetime | None, high: datetime | None) -> Query:
            return self._query.between(low, high)

        def fetch(low: datetime | None, high: datetime | None) -> None:
            self._pages(window(low, high), window(low, high).address(self._web.base))

        mender = Mender(
            lambda low, high: self._count(window(low, high)),
            fetch,
            page=self._query.page,
            now=self._web.now(),
            every=every,
        )
        try:
            mender.mend(self._strand, self._query.resource_type, self._query.since)
        except Unheeded:
            return False
        return True


def deletes(web: Web, resource_type: str, since: datetime, page: int) -> list[Gone]:
    """What the type's history says was deleted since. Raises those of Web; Refused when the server keeps no history after all."""
    found: list[Gone] = []
    url: str | None = (
        f"{web.base}/{resource_type}/_history?{urlencode([('_since', stamp(since)), ('_count', str(page))], quote_via=quote)}"
    )
    seen: set[str] = set()
    while url is not None and url not in seen:
        seen.add(url)
        bundle = web.json(url).document
        for entry in entries_of(bundle, resource_type):
            request = entry.get("request")
            if isinstance(request, dict) and request.get("method") == "DELETE":
                gone = _gone(entry, request, resource_type)
                if gone is not None:
                    found.append(gone)
        link = next_link(bundle)
        url = web.own(link, url) if link else None
    return found


def _gone(entry: dict[str, Any], request: dict[str, Any], resource_type: str) -> Gone | None:
    response = entry.get("response")
    at = response.get("lastModified") if isinstance(response, dict) else None
    for url in (request.get("url"), entry.get("fullUrl")):
        if isinstance(url, str):
            parts = url.split("?")[0].split("/_history")[0].rstrip("/").split("/")
            if len(parts) > 1 and parts[-2] == resource_type and parts[-1]:
                return Gone(resource_type, parts[-1], at if isinstance(at, str) else None)
    return None


def _mode(entry: dict[str, Any]) -> str:
    search = entry.get("search")
    mode = search.get("mode") if isinstance(search, dict) else None
    return mode if isinstance(mode, str) else "match"


def _matches(entry: dict[str, Any], resource_type: str) -> bool:
    resource = entry.get("resource")
    return isinstance(resource, dict) and resource.get("resourceType") == resource_type and _mode(entry) == "match"
