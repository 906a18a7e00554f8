"""The `fhir_bulk` source: `$export` of a server, all of it or what changed since the last export's transactionTime.

The job's status, its manifest and each file that came whole are kept in the spool, so that a run that was killed fetches only
the rest. Links that have expired are asked for anew: first of the job's status, then by another job.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, quote, urlencode

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_bulk import files
from fhir_adapters.fhir_bulk.job import Item, Lost, Manifest, end, kick_off, wait
from fhir_adapters.fhir_web import gathered, sign_in, web
from fhir_adapters.fhir_web.capability import Capability, capability
from fhir_adapters.fhir_web.gathered import Sieve, distinct, mapped_types, whole_extraction
from fhir_adapters.fhir_web.issues import SEVERE, words
from fhir_adapters.fhir_web.searchset import count, learn_patients
from fhir_adapters.fhir_web.spool import Spool, Strand, opened
from fhir_adapters.fhir_web.web import Meter, Refused, Web
from fhir_adapters.known_identifiers import of_resource
from fhir_adapters.landing.rules import id_text, resource_types
from fhir_adapters.memory import IDS

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_LEVELS = ("patient", "system", "group")
_JOBS = 3  # kick-offs in one run
_LINKS = 5  # times that links may expire in one run


@adapter
class FhirBulk:
    """A Bulk Data export."""

    kind: ClassVar[str] = "fhir_bulk"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False  # the de-identifier asks for it, where the hospital has not replaced the ids
    settings: ClassVar[Mapping[str, Setting]] = {
        **web.SETTINGS,
        **sign_in.SETTINGS,
        **gathered.SETTINGS,
        "level": Setting(str, f"what is exported: {', '.join(_LEVELS)}", "patient"),
        "group": Setting(str, "the id of the Group, for level group", ""),
        "parameters": Setting(str, "more parameters of the kick-off, e.g. _typeFilter=…", ""),
        "overlap_minutes": Setting(int, "how far an increment reaches back before the last export", 5),
        "poll_hours": Setting(int, "how long the server may work on an export", 24),
        "accept_errors": Setting(bool, "take an export whose error files say that some of it is missing", False),
        "check_counts": Setting(bool, "hold a full export of level system against the server's own counts", True),
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
        asked = {name: self._settings[name] for name in ("types", "level", "group", "parameters")}
        identity = {
            "url": self._settings["url"],
            "passes": self._sieve.passes(),
            IDS: self._sieve.ids(),
            "asked": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16],
        }
        comparable = isinstance(state, Mapping) and state.get("of") == identity
        mark = state.get("mark") if state is not None and comparable and not full else None
        mark = mark if isinstance(mark, str) else None
        run = {"of": identity, "full": full, "mark": mark}
        with opened(out, run, self._sieve.key) as spool:
            client = Web(self._settings, signer=sign_in.signer(self._settings))
            self.meter = client.meter
            try:
                job = _Run(self._settings, self._sieve, client, spool, mark, progress or _nothing)
                return job.extract(out, identity, known if comparable else None)
            finally:
                client.close()

    @property
    def undeclared(self) -> Counter[str]:
        """Code systems of the last extraction that nobody declared."""
        return self._sieve.undeclared

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What an export says of the patients, as (kind, value): for the hospital's own list, which never leaves."""
        client = Web(self._settings, signer=sign_in.signer(self._settings))
        try:
            types = capability(client).chosen(self._settings["types"], mapped_types(), searching=False)
            status = kick_off(client, kick_off_address(client, self._settings, types, None))
            longest = 3600.0 * self._settings["poll_hours"]
            try:
                manifest = wait(client, status, longest=longest, told=_nothing)
                for item in manifest.items:
                    if item.kind == "output":
                        for resource in files.resources_of(client, item, manifest.signed):
                            yield from of_resource(resource)
            finally:
                end(client, status)
        except Lost as lost:
            raise PalmaresError("E-FHIR-09", "$export", detail=lost.why) from None
        finally:
            client.close()


class _Run:
    """One extraction."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        sieve: Sieve,
        client: Web,
        spool: Spool,
        mark: str | None,
        told: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._sieve = sieve
        self._web = client
        self._spool = spool
        self._mark = mark
        self._told = told
        self._gone: list[tuple[str, str, str | None]] = []
        self._remarks: Counter[tuple[str, str]] = Counter()
        self._relinked = 0

    def extract(self, out: Path, identity: Mapping[str, Any], known: Path | None) -> Extraction:
        said = capability(self._web)
        types = said.chosen(self._settings["types"], mapped_types(), searching=False)
        if self._sieve.learns:
            self._learn()
        counts = self._counts(said, types)
        manifest, strands = self._fetched(types)
        self._judge(counts, self._counts(said, types), strands)
        full = self._mark is None
        status = self._spool.notes["status"]
        extraction = whole_extraction(
            out,
            self._spool,
            kind=FhirBulk.kind,
            full=full,
            known=known,
            whole=types if full else (),
            gone=self._gone,
            most_deleted=self._settings["most_deleted"],
            at=manifest.at,
            strands=strands,
            position=False,
            read=self._web.meter.bytes,
            skipped={},
            state={"of": identity, IDS: identity[IDS], "mark": manifest.at},
            more={
                "server": {
                    "fhir_version": said.version,
                    "clock_ahead_seconds": self._web.ahead and round(self._web.ahead, 1),
                },
                "remarks": {f"{severity} {code}": number for (severity, code), number in sorted(self._remarks.items())},
                "left_out": self._sieve.left_out(),
                "links_renewed": self._relinked,
                **self._web.meter.counts(),
            },
        )
        end(self._web, status)
        return extraction

    def _learn(self) -> None:
        """Record numbers of patients who do not come in an increment; where they cannot be asked for, everything is exported."""
        try:
            learn_patients(self._web, self._sieve)
        except Refused:
            self._mark = None

    # ----------------------------------------------------------------------------------------------------- the job

    def _fetched(self, types: tuple[str, ...]) -> tuple[Manifest, list[Strand]]:
        """Everything of one export in the spool; another job, or fresh links of the same, as often as it takes. Raises E-FHIR-09."""
        jobs, why = 0, ""
        while True:
            if "status" not in self._spool.notes:
                if jobs == _JOBS:
                    raise PalmaresError("E-FHIR-09", "$export", detail=why)
                jobs += 1
                self._spool.note(
                    status=kick_off(self._web, kick_off_address(self._web, self._settings, types, self._mark))
                )
            try:
                manifest = self._manifest()
                return manifest, self._take(manifest)
            except Lost as lost:
                why = lost.why
                if self._relinked >= _LINKS or not self._renew_links():
                    self._forget()

    def _manifest(self) -> Manifest:
        held = self._spool.notes.get("manifest")
        if held is not None:
            return Manifest.of_plain(held)
        longest = 3600.0 * self._settings["poll_hours"]
        manifest = wait(self._web, self._spool.notes["status"], longest=longest, told=self._told)
        self._spool.note(manifest=manifest.plain())
        return manifest

    def _renew_links(self) -> bool:
        """Fresh links from the job's status, when it still stands and names the same files."""
        held = self._spool.notes.get("manifest")
        if held is None:
            return False
        longest = 3600.0 * self._settings["poll_hours"]
        try:
            fresh = wait(self._web, self._spool.notes["status"], longest=longest, told=self._told)
        except Lost:
            return False
        if not fresh.same_files(Manifest.of_plain(held)):
            return False
        self._relinked += 1
        self._spool.note(manifest=fresh.plain())
        return True

    def _forget(self) -> None:
        """The job is of no more use: what came of it is not mixed with what another one brings."""
        end(self._web, self._spool.notes["status"])
        self._spool.clear("run")

    # --------------------------------------------------------------------------------------------------- the files

    def _take(self, manifest: Manifest) -> list[Strand]:
        """Every file that is not whole in the spool yet, several at a time; patients first where others need to know of them."""
        outputs = [(number, item) for number, item in enumerate(manifest.items) if item.kind == "output"]
        first = [one for one in outputs if self._sieve.learns and one[1].resource_type == "Patient"]
        strands = [self._strand(number, item) for number, item in outputs]
        with ThreadPoolExecutor(self._settings["parallel"], "file") as workers:
            for group in (first, [one for one in outputs if one not in first]):
                try:
                    futures = [
                        workers.submit(self._one, strands[outputs.index(one)], one[1], manifest.signed) for one in group
                    ]
                    errors = [error for future in futures if (error := future.exception()) is not None]
                except BaseException:  # the run is to end: what waits for the server must not hold it up
                    self._web.stop()
                    workers.shutdown(wait=False, cancel_futures=True)
                    raise
                if errors:
                    raise next((error for error in errors if not isinstance(error, Lost)), errors[0])
        self._gone = self._deletes(manifest)
        self._remarks = Counter()
        for item in manifest.items:
            if item.kind == "error":
                self._remarks += Counter(files.remarks(self._web, item, manifest.signed))
        if any(severity in SEVERE for severity, _ in self._remarks) and not self._settings["accept_errors"]:
            said = words(self._remarks)
            self._forget()  # the next run has to ask the server again
            raise PalmaresError("E-FHIR-08", "$export", detail=said)
        return strands

    def _strand(self, number: int, item: Item) -> Strand:
        kind = item.resource_type if item.resource_type in resource_types() else "Resource"
        return self._spool.strand(f"{kind}-{number + 1:04d}")

    def _one(self, strand: Strand, item: Item, signed: bool) -> None:
        if not (strand.last or {}).get("done"):
            files.download(self._web, item, strand, self._sieve, signed, self._told)

    def _deletes(self, manifest: Manifest) -> list[tuple[str, str, str | None]]:
        sieve = self._sieve.one()
        return [
            (gone.resource_type, sieve.pseudonym(gone.resource_type, gone.resource_id), gone.deleted_at)
            for item in manifest.items
            if item.kind == "deleted"
            for gone in files.deletes(self._web, item, manifest.signed)
            if id_text(gone.resource_id) is not None
        ]

    # --------------------------------------------------------------------------------------------------- counting

    def _counts(self, said: Capability, types: tuple[str, ...]) -> dict[str, int]:
        """What the server counts of the types of which an export must hold all: every type of the system, or the patients."""
        level = self._settings["level"]
        if (
            not self._settings["check_counts"]
            or self._mark is not None
            or level == "group"
            or self._settings["parameters"]
        ):
            return {}
        comparable = types if level == "system" else tuple(one for one in types if one == "Patient")
        found = {
            one: count(self._web, f"{self._web.base}/{one}?_summary=count&_total=accurate")
            for one in comparable
            if one in (said.searchable or ())
        }
        return {one: number for one, number in found.items() if number is not None}

    def _judge(self, before: Mapping[str, int], after: Mapping[str, int], strands: list[Strand]) -> None:
        """Raises E-FHIR-05 when the export holds fewer than the server counted before and after it."""
        for kind in before.keys() & after.keys():
            here = distinct([one for one in strands if one.name.startswith(f"{kind}-")], kind)
            missing = min(before[kind], after[kind]) - here
            if missing > 0:
                self._forget()
                raise PalmaresError("E-FHIR-05", kind, count=missing, detail=f"of {min(before[kind], after[kind])}")


def kick_off_address(client: Web, settings: Mapping[str, Any], types: tuple[str, ...], mark: str | None) -> str:
    """The address that starts an export of these types: all of them, or what changed since a mark."""
    level, group = settings["level"], settings["group"]
    place = {"patient": "Patient/$export", "system": "$export", "group": f"Group/{quote(group, safe='')}/$export"}[
        level
    ]
    asked = [("_type", ",".join(types)), ("_outputFormat", "application/fhir+ndjson")]
    if mark is not None:
        since = datetime.fromisoformat(mark) - timedelta(minutes=settings["overlap_minutes"])
        asked.append(("_since", since.isoformat(timespec="milliseconds").replace("+00:00", "Z")))
    asked += parse_qsl(settings["parameters"].lstrip("?"))
    return f"{client.base}/{place}?{urlencode(asked, quote_via=quote, safe=',')}"


def _check(settings: Mapping[str, Any]) -> None:
    """Settings that a type check does not reach. Raises E-SRC-02."""
    if any(one not in resource_types() for one in settings["types"]):
        raise PalmaresError("E-SRC-02", "types", detail="it names something that is no resource type of R4")
    if settings["level"] not in _LEVELS:
        raise PalmaresError("E-SRC-02", "level", detail=f"it is none of {', '.join(_LEVELS)}")
    if (settings["level"] == "group") != bool(settings["group"]):
        raise PalmaresError("E-SRC-02", "group", detail="it goes with level group, and with no other")
    if settings["overlap_minutes"] < 0:
        raise PalmaresError("E-SRC-02", "overlap_minutes", detail="it is below 0")
    if not 1 <= settings["poll_hours"] <= 24 * 30:
        raise PalmaresError("E-SRC-02", "poll_hours", detail="it is none of 1 to 720")
    if not 0 <= settings["most_deleted"] <= 1:
        raise PalmaresError("E-SRC-02", "most_deleted", detail="it is no share from 0 to 1")
    web.check(settings)


def _nothing(_: int) -> None:
    return None
