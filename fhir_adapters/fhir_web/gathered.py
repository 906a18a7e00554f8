"""What a run over a FHIR server leaves: de-identified lines, the ids that stand, deletes, and an extraction folder of them.

Deletes come from the server where it tells them (history, a bulk export's `deleted`). Beside that, where a run read all of a type,
an id that stood there after the last run that landed and is not there any more has been deleted. That also happens when
somebody narrows what the toolkit may read, so more than a share of a type (`most_deleted`) is an error, not a delete.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fhir_adapters.base import Extraction, Setting
from fhir_adapters.deidentified import Filter
from fhir_adapters.deidentify import SETTINGS as DEIDENTIFY
from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_elements import rules_hash
from fhir_adapters.fhir_web.spool import Spool, Strand
from fhir_adapters.folders import whole_folder
from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing.rules import id_text, resource_types
from fhir_adapters.memory import KNOWN, ids_made_by
from fhir_adapters.outcomes import RESOURCE, OutcomeFile, item_name

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

SETTINGS: Mapping[str, Setting] = {
    **DEIDENTIFY,
    "time_zone": Setting(str, "the server's zone; default: the site's", ""),
    "types": Setting(list, "resource types to read; default: those that the toolkit maps", ()),
    "most_deleted": Setting(float, "share of a type that may be gone at once; more is an error", 0.2),
}
FEW = 20  # so many of a type may be gone whatever the share: a small type has large shares
BATCH = 4 << 20  # bytes that go to the spool at a time


class Gone(NamedTuple):
    """A delete as the server tells it, its id still the server's."""

    resource_type: str
    resource_id: str
    deleted_at: str | None


def mapped_types() -> tuple[str, ...]:
    """The resource types that the toolkit has a view for."""
    found = {json.loads(path.read_bytes())["resource"] for path in (mappings_folder() / "views").glob("*.json")}
    return tuple(sorted(found))


class Sieve:
    """De-identification of a source's resources; one `Deidentifier` per thread, one memory of record numbers for all."""

    def __init__(self, key: "SiteKey | None", settings: Mapping[str, Any]) -> None:
        """Raises E-SRC-02, E-SRC-03, E-KEY-03."""
        self.key = key
        self._settings = settings
        self._patients: dict[str, str] = {}
        self._all: list[Deidentifier] = []
        self._mine = threading.local()
        self.one()

    def one(self) -> Deidentifier:
        """This thread's de-identifier: its walks are compiled once per type, not once per file."""
        made: Deidentifier | None = getattr(self._mine, "one", None)
        if made is None:
            made = self._mine.one = self.apart()
            self._all.append(made)
        return made

    def odd(self) -> Filter:
        """This thread's filter for lines that are no sound JSON."""
        made: Filter | None = getattr(self._mine, "odd", None)
        if made is None:
            made = self._mine.odd = Filter(self.apart())
        return made

    def apart(self) -> Deidentifier:
        """One whose counts are not told."""
        made = Deidentifier.for_site(self.key, zone=self._settings.get("time_zone") or "", settings=self._settings)
        made.patients = self._patients
        return made

    @property
    def learns(self) -> bool:
        """Whether every Patient must be seen before anything that refers to one."""
        return bool(self._settings.get("patient_identifier")) and self.mode != "hospital"

    @property
    def mode(self) -> str:
        return str(self._settings.get("pseudonyms") or "toolkit")

    def learn(self, patient: Mapping[str, Any]) -> None:
        self._all[0].learn(patient)

    def ids(self) -> dict[str, str]:
        """What makes ids comparable between two runs: how they were made, and with which key. Nothing secret."""
        return ids_made_by(self.key, self._settings)

    def passes(self) -> str:
        """What makes resources comparable: the allow-list and the site's own part in it, as a hash."""
        own = {name: self._settings.get(name) for name in (*DEIDENTIFY, "time_zone")}
        return hashlib.sha256(json.dumps([rules_hash(), own], sort_keys=True, default=list).encode()).hexdigest()[:16]

    def left_out(self) -> dict[str, int]:
        """How many elements were left out, per `Type:element:reason`."""
        total: Counter[str] = Counter()
        for one in self._all:
            for place, count in one.counts.items():
                total[":".join(place)] += count
        return dict(sorted(total.items()))

    @property
    def undeclared(self) -> Counter[str]:
        """Code systems that nobody declared: for the hospital's eyes, never written."""
        return sum((one.undeclared for one in self._all), Counter())


class Page:
    """A page on its way into a strand: resources go in, de-identified lines come out."""

    def __init__(self, sieve: Deidentifier) -> None:
        self._sieve = sieve
        self.lines: list[bytes] = []
        self.ids: list[str] = []
        self.counts: Counter[str] = Counter()  # lines per type; "?" where they are no resource of R4
        self.size = 0

    def add(self, resource: dict[str, Any], match: bool) -> None:
        """Take one resource. What nothing may pass of is counted by the de-identifier."""
        kept = self._sieve.resource(resource)
        if kept is None:
            return
        kind, identifier = kept.get("resourceType"), id_text(kept.get("id"))
        self._line(orjson.dumps(kept), kind if kind in resource_types() else "?")
        if isinstance(kind, str) and identifier is not None:
            meta = kept.get("meta")
            updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
            updated = updated if isinstance(updated, str) and updated.isprintable() else ""
            self.ids.append(f"{'m' if match else 'i'}\t{kind}\t{identifier}\t{updated}\n")

    def refuse(self, stand_in: bytes) -> None:
        """Take what stands in for a line that is no sound resource: landing counts and explains it."""
        if stand_in:
            self._line(stand_in, "?")

    def _line(self, line: bytes, kind: str) -> None:
        self.lines.append(line)
        self.size += len(line)
        self.counts[kind] += 1

    def write(self, strand: Strand, **entry: Any) -> None:
        lines = b"".join(line + b"\n" for line in self.lines)
        strand.append(lines, "".join(self.ids).encode(), counts=dict(self.counts), **entry)


@cache
def _database() -> Any:
    """One database in memory for questions that create nothing; each asks through a cursor of its own."""
    import duckdb

    return duckdb.connect()


def distinct(strands: Iterable[Strand], resource_type: str) -> int:
    """How many different resources of a type matched, over some strands."""
    files = [strand.ids for strand in strands if strand.ids.exists() and strand.ids.stat().st_size]
    if not files:
        return 0
    with _database().cursor() as connection:
        row = connection.execute(
            f"SELECT count(DISTINCT id) FROM {ids_table(files)} WHERE mark = 'm' AND resource_type = ?", [resource_type]
        ).fetchone()
    return int(row[0]) if row else 0


def ids_table(files: Sequence[Path]) -> str:
    """The ids of strands for a FROM: mark, resource_type, id, updated."""
    listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    return (
        f"read_csv([{listed}], delim='\t', header=false, quote='', escape='', auto_detect=false,"
        " columns={'mark': 'VARCHAR', 'resource_type': 'VARCHAR', 'id': 'VARCHAR', 'updated': 'VARCHAR'})"
    )


def settle(
    spool: Spool,
    partial: Path,
    *,
    known: Path | None,
    whole: Iterable[str],
    gone: Sequence[tuple[str, str, str | None]],
    most_deleted: float,
    at: str,
) -> dict[str, int]:
    """Write `known.parquet` and the deletes of an extraction; returns the deletes per type.

    `whole`: the types of which everything was read. `gone`: (type, id, instant) of deletes that the server told, ids
    de-identified. Raises E-FHIR-14 when more of a type is gone than `most_deleted` lets pass.
    """
    import duckdb

    with duckdb.connect() as connection:
        files = spool.id_files()
        found = f"SELECT DISTINCT resource_type, id AS resource_id FROM {ids_table(files)}" if files else _NONE
        connection.execute(f"CREATE TABLE found AS {found}")
        before = f"SELECT resource_type, resource_id FROM read_parquet({_quoted(known)})" if known else _NONE
        connection.execute(f"CREATE TABLE before AS {before}")
        kinds, ids = [kind for kind, _, _ in gone], [one for _, one, _ in gone]
        connection.execute(
            "CREATE TABLE told AS SELECT unnest(?::VARCHAR[]) AS resource_type, unnest(?::VARCHAR[]) AS resource_id",
            [kinds, ids],
        )
        connection.execute("CREATE TABLE read_whole AS SELECT unnest(?::VARCHAR[]) AS resource_type", [sorted(whole)])
        connection.execute(
            "CREATE TABLE missing AS SELECT * FROM before SEMI JOIN read_whole USING (resource_type)"
            " ANTI JOIN found USING (resource_type, resource_id) ANTI JOIN told USING (resource_type, resource_id)"
        )
        for kind, count, held in connection.execute(
            "SELECT resource_type, count(*), (SELECT count(*) FROM before b WHERE b.resource_type = m.resource_type)"
            " FROM missing m GROUP BY resource_type ORDER BY resource_type"
        ).fetchall():
            if count > FEW and count > most_deleted * held:
                raise PalmaresError("E-FHIR-14", kind, count=count, detail=f"of {held}")
        connection.execute(
            "COPY (SELECT resource_type, resource_id FROM (SELECT * FROM before ANTI JOIN missing USING (resource_type, resource_id)"
            " ANTI JOIN told USING (resource_type, resource_id) UNION SELECT * FROM found) ORDER BY ALL)"
            f" TO {_quoted(partial / KNOWN)} (FORMAT parquet, COMPRESSION zstd)"
        )
        compared = connection.execute("SELECT resource_type, resource_id FROM missing ORDER BY ALL").fetchall()
    deletes = [*gone, *((kind, one, at) for kind, one in compared)]
    if deletes:
        _write_deletes(partial / "fhir" / "deleted.ndjson", deletes)
    return dict(sorted(Counter(kind for kind, _, _ in deletes).items()))


_NONE = "SELECT ''::VARCHAR AS resource_type, ''::VARCHAR AS resource_id WHERE false"


def _quoted(path: Path | None) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _write_deletes(path: Path, deletes: Sequence[tuple[str, str, str | None]]) -> None:
    """As Bundles of history, a thousand entries each, which is how landing takes deletes in."""
    with path.open("wb") as file:
        for start in range(0, len(deletes), 1000):
            entries = [
                {"request": {"method": "DELETE", "url": f"{kind}/{one}"}}
                | ({"response": {"status": "204", "lastModified": at}} if at else {})
                for kind, one, at in deletes[start : start + 1000]
            ]
            file.write(orjson.dumps({"resourceType": "Bundle", "type": "history", "entry": entries}) + b"\n")


def pages_of(strand: Strand, start: Counter[str]) -> Counter[str]:
    """The lines of a strand per type, added to `start`."""
    for entry in strand.entries:
        start.update(entry.get("counts", {}))
    return start


def _outcomes(strand: Strand, position: bool, items: OutcomeFile) -> int:
    """One outcome for each page (or for the file that the strand is) that held anything; returns how many pages there were."""
    pages = [entry["counts"] for entry in strand.entries if "counts" in entry]
    if not position:
        pages = [pages_of(strand, Counter())]
    for number, counts in enumerate(pages, 1):
        brought = sum(count for kind, count in counts.items() if kind != "?")
        name = item_name(strand.name, number if position else None)
        if brought:
            items.add(name, RESOURCE, resources=brought)
        elif counts or not position:
            items.refuse(name, "X-NOTHING-PASSED")
    return len(pages)


def whole_extraction(
    out: Path,
    spool: Spool,
    *,
    kind: str,
    full: bool,
    known: Path | None,
    whole: Iterable[str],
    gone: Sequence[tuple[str, str, str | None]],
    most_deleted: float,
    at: str,
    strands: Sequence[Strand],
    position: bool,
    read: int,
    skipped: Mapping[str, int],
    state: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Extraction:
    """The extraction folder of a spool that holds everything; the spool goes when the folder stands.

    Each page of a strand is an item with its outcome (`position`: a strand has many pages; else it is one file).
    """
    resources: Counter[str] = sum((pages_of(strand, Counter()) for strand in strands), Counter())
    unsound = resources.pop("?", 0)
    with whole_folder(out) as partial:
        (partial / "fhir").mkdir()
        spool.copy_to(partial / "fhir")
        try:
            deletes = settle(spool, partial, known=known, whole=whole, gone=gone, most_deleted=most_deleted, at=at)
        except PalmaresError:
            spool.remove()  # the next run has to ask the server again, not this spool
            raise
        more = {**more, "deleted": deletes}
        with OutcomeFile(partial, kind) as items:
            files = sum(_outcomes(strand, position, items) for strand in strands)
            items.balance(sum(resources.values()))
        counts = dict(sorted(resources.items()))
        skipped = {**skipped, **({"no-resource": unsound} if unsound else {})}
        extraction = Extraction(kind, files, read, counts, skipped, more, full=full, state=state)
        extraction.write(partial)
    spool.remove()
    return extraction
