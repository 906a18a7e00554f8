"""check_site(): try each source of a site and say what it found and what to do next.

Each source is extracted into a private folder that is removed afterwards, landed and validated there, as the nightly run does; what is
told is counted on what passed. A source that fails is told with its error, and the others go on.
"""

import csv
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import orjson

from fhir_adapters.base import extract_from
from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import table
from fhir_adapters.landing import land, read_manifest
from fhir_adapters.pseudonyms import LinkageKey, SiteKey
from fhir_adapters.validation import validate
from omop_etl.config import Site
from omop_etl.onboarding.known import read_known
from omop_etl.stages import source_of
from omop_etl.vocabulary import attach, open_vocabulary

LOW_SHARE = 0.95  # of the records of a code system that have a concept; below, curation is the next step
_TOKEN = "urn:palmares:linkage-token"  # noqa: S105  an address, no secret
# elements that hold the codes of a record; dates that place it in time
_CODED = ("code", "medicationCodeableConcept", "vaccineCode", "procedureCode", "event", "valueCodeableConcept", "type")
_DATES = (
    "effectiveDateTime", "effectiveInstant", "onsetDateTime", "performedDateTime", "occurrenceDateTime", "authoredOn", "started", "date",
    "whenHandedOver", "recordedDate", "deceasedDateTime",
)  # fmt: skip
_PERIODS = ("effectivePeriod", "onsetPeriod", "performedPeriod", "period")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([0-9]{2}):([0-9]{2}):[0-9.]+(Z|[+-][0-9]{2}:[0-9]{2})?")


@dataclass
class System:
    """A code system: how many records and different codes it has, and how many records of these have a concept."""

    system: str
    vocabulary: str
    codes: int
    records: int
    mapped: int

    @property
    def share(self) -> float:
        return self.mapped / self.records if self.records else 1.0


@dataclass
class Clock:
    """How moments are written: records per offset, at midnight, later than this machine's clock; the newest change."""

    offsets: dict[str, int] = field(default_factory=dict)
    dates_only: int = 0
    midnights: int = 0
    in_the_future: int = 0
    newest_change: str | None = None


@dataclass
class SourceCheck:
    """What one source gave. `error` is set when it failed."""

    number: int
    kind: str
    error: str = ""
    seconds: float = 0.0
    files: int = 0
    bytes: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    columns: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    undeclared: dict[str, int] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    systems: list[System] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    linked: int = 0
    next: list[str] = field(default_factory=list)


@dataclass
class SiteCheck:
    """What was found of a site. `ok`: every source gave something."""

    site: str
    name: str
    time_zone: str
    key: str
    linkage: bool
    identifiers: int
    sources: list[SourceCheck]
    next: list[str]

    @property
    def ok(self) -> bool:
        return bool(self.sources) and not any(one.error for one in self.sources)


def check_site(
    site: Site,
    *,
    only: int | None = None,
    vocabulary: Path | None = None,
    progress: Callable[..., None] = lambda *_: None,
) -> SiteCheck:
    """Try the site's sources (or the one of number `only`, from 1). Raises E-VOC-01 for a vocabulary that is none."""
    found = SiteCheck(site.id, site.name, site.time_zone, "", False, 0, [], [])
    _keys(site, found)
    if not site.sources:
        found.next.append(
            "The site has no source: add a [[source]] to its TOML; palmares site init --help shows the kinds."
        )
    opened = open_vocabulary(vocabulary or site.vocabulary)
    for number in range(len(site.sources)):
        if only is None or only == number + 1:
            progress(f"source {number + 1}")
            found.sources.append(_check_source(site, number, opened))
    if vocabulary is None and site.vocabulary is None and any(one.systems for one in found.sources):
        found.next.append(
            "The starter slice of the vocabulary is in use, which holds the study's codes only: download the vocabularies from Athena, "
            "palmares vocab load, then vocabulary in the site's TOML."
        )
    people = sum(one.resources.get("Patient", 0) for one in found.sources)
    if only is None and found.sources and not people and found.ok:
        found.next.append("No source gives a Patient: every record would be left out as X-NO-PERSON.")
    if people and not any(one.linked for one in found.sources):
        found.next.append(
            "No patient has a linkage token: a patient of two hospitals counts twice. Set PALMARES_LINKAGE_KEY, and let a source give "
            "the codice fiscale."
        )
    return found


def _keys(site: Site, found: SiteCheck) -> None:
    """Key, linkage key and list of known identifiers: that they are there and nobody else's, never what they are."""
    try:
        if site.key_file or os.environ.get(SiteKey.variable):
            found.key = SiteKey.load(site.key_file).fingerprint
        else:
            found.next.append("The site has no key: palmares site key --out FILE, then key_file in the site's TOML.")
    except PalmaresError as error:
        found.next.append(str(error))
    try:
        found.linkage = LinkageKey.of_environment() is not None
    except PalmaresError as error:
        found.next.append(str(error))
    if site.identifiers is None:
        found.next.append(
            "The site has no list of known identifiers: palmares site identifiers, then identifiers in the site's TOML, so that "
            "nothing is submitted in which one of them stands."
        )
        return
    try:
        found.identifiers = len(read_known(site.identifiers))
    except PalmaresError as error:
        found.next.append(str(error))


def _check_source(site: Site, number: int, vocabulary: Any) -> SourceCheck:
    check = SourceCheck(number + 1, str(site.sources[number].get("kind", "unknown")))
    started = time.monotonic()
    # a private folder: what a source gives is pseudonymous, but it is still the hospital's
    with tempfile.TemporaryDirectory(prefix="palmares-check-") as name:
        folder = Path(name)
        try:
            source = source_of(site, number)
            extraction = extract_from(source, folder / "extracted", full=True)
            check.files, check.bytes = extraction.files, extraction.bytes
            check.undeclared = dict(getattr(source, "undeclared", {}) or {})
            check.left_out = _left_out(extraction.more)
            check.columns = _columns(folder / "extracted")
            check.outcomes = _outcomes(folder / "extracted")
            land([folder / "extracted"], folder / "landed", skip_unreadable=True)
            accepted = validate(folder / "landed", folder / "accepted")
            check.resources = dict(accepted.resources)
            check.refused = dict(accepted.quarantined)
            _look(folder / "accepted", check, site, vocabulary)
        except PalmaresError as error:
            check.error = str(error)
        except Exception as error:  # a source of the hospital may fail in any way; its words may hold a value
            check.error = f"{type(error).__name__}, of which no more can be said without showing a value"
    check.seconds = round(time.monotonic() - started, 1)
    check.next = list(_next(check, site))
    return check


def _left_out(more: Mapping[str, Any]) -> dict[str, int]:
    """What de-identification left out, per reason."""
    found: Counter[str] = Counter()
    for place, count in (more.get("left_out") or {}).items():
        found[str(place).rpartition(":")[2]] += int(count)
    return dict(found.most_common())


def _columns(extracted: Path) -> list[dict[str, Any]]:
    """What a source of tables reports by column (`report.csv`): file, column, reason, rows."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in sorted(extracted.glob("report*.csv")):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found[row.get("file") or "", row.get("column") or "", row.get("reason") or ""] += 1
    return [
        {"file": file, "column": column, "reason": reason, "rows": rows}
        for (file, column, reason), rows in sorted(found.items(), key=lambda one: (-one[1], one[0]))
    ]


def _outcomes(extracted: Path) -> dict[str, int]:
    """How many items (files, messages, rows) did not become resources, per reason."""
    path = extracted / "outcomes.parquet"
    if not path.is_file():
        return {}
    rows = duckdb.execute(
        "SELECT reason, count(*) FROM read_parquet(?) WHERE reason IS NOT NULL GROUP BY ALL ORDER BY ALL", [str(path)]
    ).fetchall()
    return dict(rows)


def _look(accepted: Path, check: SourceCheck, site: Site, vocabulary: Any) -> None:
    """Go through what was accepted once: codes, dates, offsets, tokens."""
    codes: Counter[tuple[str, str]] = Counter()
    offsets: Counter[str] = Counter()
    clock, now = check.clock, datetime.now(UTC)
    zone = ZoneInfo(site.time_zone)
    first, last, newest = "9999", "", ""
    for resource in _resources(accepted):
        for system, code in _codings(resource):
            codes[system, code] += 1
        changed = (resource.get("meta") or {}).get("lastUpdated")
        if isinstance(changed, str):
            newest = max(newest, changed)
        if resource["resourceType"] == "Patient":
            tokens = resource.get("identifier") or []
            check.linked += any(isinstance(one, dict) and one.get("system") == _TOKEN for one in tokens)
        for text in _moments(resource):
            day = text[:10]
            if day[:4] >= "1900":
                first, last = min(first, day), max(last, day)
            match = _MOMENT.fullmatch(text)
            if match is None:
                clock.dates_only += 1
                clock.in_the_future += len(day) == 10 and day > now.astimezone(zone).date().isoformat()
                continue
            offsets[match[3] or "none"] += 1
            moment = datetime.fromisoformat(text)
            local = moment.astimezone(zone) if moment.tzinfo else moment.replace(tzinfo=zone)
            clock.midnights += (local.hour, local.minute) == (0, 0)
            clock.in_the_future += local > now
    clock.offsets, clock.newest_change = dict(offsets.most_common()), newest or None
    check.first, check.last = (first, last) if last else (None, None)
    check.systems = _systems(codes, vocabulary, site)


def _resources(folder: Path) -> Iterator[dict[str, Any]]:
    for shard in read_manifest(folder).shards:
        with shard.place(folder).open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)


def _codings(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _CODED:
        concepts = resource.get(name)
        for concept in concepts if isinstance(concepts, list) else [concepts]:
            for coding in (concept.get("coding") or []) if isinstance(concept, dict) else []:
                if isinstance(coding, dict) and isinstance(coding.get("code"), str):
                    yield coding.get("system") or "", coding["code"]


def _moments(resource: Mapping[str, Any]) -> Iterator[str]:
    for name in _DATES:
        if isinstance(text := resource.get(name), str):
            yield text
    for name in _PERIODS:
        period = resource.get(name)
        if isinstance(period, dict):
            yield from (text for text in (period.get("start"), period.get("end")) if isinstance(text, str))


def _systems(codes: Counter[tuple[str, str]], vocabulary: Any, site: Site) -> list[System]:
    """Each code system with the share of its records that find a concept, as the mapping would find it."""
    if not codes:
        return []
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE used (system VARCHAR, code VARCHAR, records BIGINT)")
        for begin in range(0, len(codes), 10_000):
            part = list(codes.items())[begin : begin + 10_000]
            values = [value for (system, code), records in part for value in (system, code, records)]
            connection.execute(f"INSERT INTO used VALUES {', '.join(['(?, ?, ?)'] * len(part))}", values)
        attach(connection, vocabulary, site=site, codes_used="(SELECT system, code FROM used)")
        rows = connection.execute(
            "SELECT system, coalesce(max(vocabulary_id), ''), count(*), sum(records), sum(records) FILTER (mapped) FROM ("
            " SELECT system, code, any_value(records) AS records, max(vocabulary_id) AS vocabulary_id,"
            " bool_or(target_concept_id > 0) AS mapped FROM used JOIN code_concept USING (system, code) GROUP BY ALL)"
            " GROUP BY system ORDER BY 4 DESC, 1"
        ).fetchall()
    return [System(system, known, many, records, mapped or 0) for system, known, many, records, mapped in rows]


def _next(check: SourceCheck, site: Site) -> Iterator[str]:
    """What a site data manager does next, in the order of its weight."""
    if check.error:
        yield check.error
        return
    if not check.resources:
        yield "It gives no resource: see the reasons above, and the path or address in its settings."
    for system, records in list(check.undeclared.items())[:10]:
        yield f"{records} codes of {system or '(no system)'} are withheld: add it to code_systems, when its codes name nobody."
    for reason, count in sorted(check.refused.items(), key=lambda one: -one[1])[:5]:
        yield f"{count} resources are refused as {reason}: palmares explain {reason}"
    missing = [one for one in check.columns if one["reason"] == "T-NO-COLUMN"]
    if missing:
        yield f"Columns of the map are missing: {', '.join(sorted({one['column'] for one in missing}))}"
    for one in [one for one in check.columns if one["reason"] != "T-NO-COLUMN"][:5]:
        yield f"{one['file']} column {one['column']}: {one['rows']} rows, palmares explain {one['reason']}"
    for known in check.systems:
        if known.share < LOW_SHARE:
            yield (
                f"{known.records - known.mapped} of {known.records} records of {known.system or '(no system)'} have no concept: after mapping, "
                "palmares vocab unmapped"
            )
    if check.clock.in_the_future:
        yield f"{check.clock.in_the_future} dates lie in the future of this machine's clock: look at the clock of either."
    moments = sum(check.clock.offsets.values())
    if check.clock.offsets.get("none"):
        yield f"{check.clock.offsets['none']} times have no offset: they are read as those of {site.time_zone}."
    if moments and check.clock.midnights / moments > 0.9 and check.clock.offsets.get("Z", 0) / moments > 0.9:
        yield f"Times stand at midnight of {site.time_zone}, written in UTC: a date cut off such a text would be a day early."


def explanation(reason: str) -> str:
    """The explanation of a reason, for the report."""
    return next((row["explanation"] for row in table("explanations", "reasons.csv") if row["code"] == reason), "")


def lines(found: SiteCheck) -> Sequence[str]:
    """The report for people."""
    out = [
        f"{found.site}  {found.name}",
        f"  zone {found.time_zone}; key {found.key or 'none'}; linkage key {'set' if found.linkage else 'not set'}; "
        f"known identifiers {found.identifiers or 'none'}",
    ]
    for one in found.sources:
        out += ["", f"source {one.number}: {one.kind}" + ("  FAILED" if one.error else f"  {one.seconds} s")]
        if one.error:
            out.append(f"  {one.error}")
            continue
        out.append(f"  {one.files} files, {one.bytes / 2**20:.1f} MB")
        out.append("  resources   " + (", ".join(f"{kind} {count}" for kind, count in one.resources.items()) or "none"))
        if one.first:
            out.append(
                f"  period      {one.first} to {one.last}"
                + (f"; last change {one.clock.newest_change}" if one.clock.newest_change else "")
            )
        if one.clock.offsets or one.clock.dates_only:
            written = ", ".join(f"{name} {count}" for name, count in one.clock.offsets.items())
            out.append(f"  clock       dates alone {one.clock.dates_only}; times with offset: {written or 'none'}")
        for system in one.systems:
            out.append(
                f"  codes       {system.share:6.1%} of {system.records} records mapped, {system.codes} codes  "
                f"{system.system or '(no system)'}{f' ({system.vocabulary})' if system.vocabulary else ''}"
            )
        for title, counts in (("refused", one.refused), ("items", one.outcomes)):
            for reason, count in counts.items():
                out.append(f"  {title:<11} {count} {reason}: {explanation(reason)}")
        for column in one.columns[:20]:
            out.append(f"  column      {column['file']} {column['column']}: {column['rows']} {column['reason']}")
        if one.left_out:
            out.append("  left out    " + ", ".join(f"{reason} {count}" for reason, count in one.left_out.items()))
        if one.resources.get("Patient"):
            out.append(f"  linkage     {one.linked} of {one.resources['Patient']} patients have a token")
        out += [f"  next        {sentence}" for sentence in one.next]
    if found.next:
        out += ["", *(f"next  {sentence}" for sentence in found.next)]
    return out
