"""One mapping run, from the shards to the last file of the slice."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters import partial_dates
from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.landing import read_manifest
from fhir_adapters.landing.shards import ITEMS
from omop_etl import __version__, ledger
from omop_etl.cdm import CDM_VERSION
from omop_etl.config import Site
from omop_etl.mapping import codes, codesets, memory, slice
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.reading import Reader
from omop_etl.mapping.recipes import Recipe, cdm_selects, recipes
from omop_etl.mapping.rows import Rows
from omop_etl.mapping.sql import statements
from omop_etl.mapping.workers import side_by_side
from omop_etl.vocabulary import Vocabulary, open_vocabulary

if TYPE_CHECKING:
    from omop_etl.mapping import MapResult, Steps

# what decides a slice, below mappings/; the vocabulary is told of by its lock
_DECIDING = ("views", "events", "omop", "codes", "explanations/reasons.csv", "dates.toml")


class ForeignTypes(Exception):
    """A shard that is a source file itself holds lines of other types."""


@dataclass
class Run:
    """`out` is written into; `work` is for what does not outlive the run. With `strict`, a line of another type than its shard ends the run."""

    site: Site
    shards: Path
    out: Path
    work: Path
    steps: "Steps"
    jobs: int
    memory_limit: str
    mask: int
    strict: bool = False
    remember: bool = False  # write beside the slice what a later run needs to re-map single patients
    kept: memory.Kept | None = None  # what is known of the patients that this run does not see
    extraction_of: str | None = None  # what dates the extraction: updates or records
    extraction: str | None = None  # local to the site

    def go(self, vocabulary: Path | None, named: Path) -> "MapResult":
        """Map. A failure of DuckDB is told without its words, which may hold a value."""
        started = datetime.now(UTC)
        with self.steps.step("opening"):
            opened = open_vocabulary(vocabulary)
        connection = duckdb.connect(config=self.settings())
        try:
            with machine_errors(str(named)):
                return self._map(connection, opened, started, named)
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise PalmaresError("E-MAP-01", self.steps.now, detail=type(error).__name__) from None
        finally:
            connection.close()

    def settings(self) -> dict[str, str | bool | int | float | list[str]]:
        """Tables in memory; what does not fit goes to `spill`. A file would be compressed and synchronised, for a run's length only."""
        return {
            "threads": self.jobs,
            "memory_limit": self.memory_limit,
            "temp_directory": str(self.work / "spill"),
            "preserve_insertion_order": False,
            "checkpoint_threshold": "1TB",
        }

    def _map(
        self, connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary, started: datetime, named: Path
    ) -> "MapResult":
        step = self.steps.step
        known = recipes()
        with step("reading"):
            self.define(connection, vocabulary)
            reader = self._read(connection, known)
        with step("resolving codes"):
            codes.resolve(connection, vocabulary, self.site, reader.columns)
        memory.tie(connection, reader)
        with step("mapping") as progress:
            rows = Rows(connection, known, reader.columns, self.mask)
            if self.kept is not None:
                memory.use_medications(connection, self.kept)
            rows.places_and_staff()
            rows.persons()
            rows.visits()
            rows.records(progress)
        with step("balancing"):
            slice.tell_origins(connection)
            read = self._settle_resources(connection, reader, known)
            ledger.write_lines(connection)
        with step("writing"):
            beside: dict[str, Callable[[duckdb.DuckDBPyConnection], Any]] = {
                "totals": ledger.totals,
                "exclusions": ledger.exclusions,
                "counted": partial(memory.tallies, folder=self.out, site=self.site.id, remember=self.remember),
            }
            if self.remember:
                beside |= memory.writers(self.out / "side", reader, self.extraction_of)
            done = slice.write(connection, self.out, "patient" in reader.columns, beside)
            counts = {name: done[name] for name in cdm_selects()}
            totals: ledger.Totals = done["totals"]
        with step("checking"):
            apart = {*slice.DERIVED, "cdm_source"}
            ledger.check(totals, read, {name: count for name, count in counts.items() if name not in apart})
        if self.remember:
            self._remember(connection, rows.moved)
        return self._tell(connection, vocabulary, started, named, counts, done)

    def define(self, connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary) -> None:
        connection.execute(partial_dates.MACROS)
        codesets.define(connection)
        values = {
            "site": literal(self.site.id),
            "site_name": literal(self.site.name),
            "zone": literal(self.site.time_zone),
            "release": literal(vocabulary.release or "unknown"),
            "mask": str(self.mask),
        }
        for statement in (*statements("macros.sql", **values), *statements("shapes.sql")):
            connection.execute(statement)

    def _read(self, connection: duckdb.DuckDBPyConnection, known: dict[str, Recipe]) -> Reader:
        manifest = read_manifest(self.shards)
        careful = self.work / "careful"
        careful.mkdir(exist_ok=True)
        reader = Reader(connection, self.shards, careful, self.jobs)
        reader.read(manifest.shards, known)
        if self.strict and reader.foreign:
            raise ForeignTypes
        self._tell_extraction(connection, reader)
        return reader

    def _tell_extraction(self, connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
        """The macros extraction() and extracted_to(): the newest update of all that was delivered, else the newest record."""
        records = [
            f"SELECT max({name}) AS moment FROM stage_{stage} WHERE reason IS NULL"
            for stage, name in memory.dated(reader)
        ]
        found = {
            "updates": self.newest_update(connection, reader),
            "records": _newest(connection, records, "max(moment)"),
        }
        if self.kept is not None:
            found["updates"] = _later(found["updates"], self.kept.moment if self.kept.of == "updates" else None)
            found["records"] = _later(found["records"], self.kept.newest)
        self.extraction_of = next((of for of in ("updates", "records") if found[of] is not None), None)
        self.extraction = found[self.extraction_of] if self.extraction_of else None
        told = f"TIMESTAMP '{self.extraction}'" if self.extraction else "NULL::TIMESTAMP"
        connection.execute(f"CREATE OR REPLACE MACRO extraction() AS {told}")
        connection.execute("CREATE OR REPLACE MACRO extracted_to() AS extraction()::DATE")

    def newest_update(self, connection: duckdb.DuckDBPyConnection, reader: Reader) -> str | None:
        """The newest `lastUpdated` of what was read, local to the site."""
        updated = [
            f"SELECT max(last_updated) AS moment FROM stage_{stage}"
            for stage, names in reader.columns.items()
            if "last_updated" in names
        ]
        return _newest(connection, updated, f"timezone({literal(self.site.time_zone)}, max(moment))")

    def _settle_resources(
        self, connection: duckdb.DuckDBPyConnection, reader: Reader, known: dict[str, Recipe]
    ) -> dict[str, int]:
        """Fill `no_row`: each resource that wrote nothing, and why; resources read per type."""
        wrote = dict(connection.execute("SELECT resource_type, count(*) FROM written_keys GROUP BY 1").fetchall())

        def settle(cursor: duckdb.DuckDBPyConnection, stage: str) -> int:
            resource_type = reader.types[stage]
            recipe = known.get(resource_type)
            reasons, joins = ["s.reason"], ""
            if recipe and recipe.parts("merged"):
                cursor.execute(f"CREATE OR REPLACE TEMP VIEW stage AS SELECT * FROM stage_{stage}")
                joins += f" LEFT JOIN ({recipe.parts('merged')[0]}) m ON m.key = s.key"
                reasons.append("m.reason")
            if "person_key" in reader.columns[stage]:
                joins += " LEFT JOIN person_of p ON p.key = s.person_key"
                reasons.append(
                    "CASE WHEN s.person_key IS NULL THEN 'X-NO-SUBJECT' WHEN p.person_id IS NULL THEN 'X-NO-PERSON' END"
                )
            if stage == "encounter":
                reasons.append("CASE WHEN s.start_datetime IS NULL THEN 'X-NO-DATE' END")
            row = cursor.execute(
                f"SELECT count(*), count(*) FILTER (coalesce({', '.join(reasons)}) IS NULL) FROM stage_{stage} s{joins}"
            ).fetchone()
            assert row is not None
            read, included = row
            told = f"coalesce({', '.join(reasons)})"
            if recipe is None:
                which = ""
            elif recipe.parts("event") and not recipe.parts("note") and wrote.get(resource_type, 0) == included:
                # all that were not left out wrote rows
                which = f" WHERE {told} IS NOT NULL"
            else:
                joins += (
                    " LEFT JOIN (SELECT key, min(exclusion) AS exclusion FROM event WHERE cdm_table IS NULL "
                    f"AND resource_type = {literal(resource_type)} GROUP BY key) e ON e.key = s.key"
                )
                told = f"coalesce({', '.join(reasons)}, e.exclusion)"
                which = (
                    f" ANTI JOIN (SELECT DISTINCT resource_id FROM written WHERE resource_type = {literal(resource_type)}) w "
                    "ON w.resource_id = s.id"
                )
            cursor.execute(
                f"INSERT INTO no_row SELECT {literal(resource_type)}, s.id, {told} FROM stage_{stage} s{joins}{which}"
            )
            return int(read)

        stages = list(reader.types)
        read = side_by_side(connection, settle, stages)
        return {reader.types[stage]: count for stage, count in zip(stages, read, strict=True)}

    def _remember(self, connection: duckdb.DuckDBPyConnection, moved: bool) -> None:
        manifest = read_manifest(self.shards)
        memory.write(
            self.out,
            {
                "extraction_of": self.extraction_of,
                "extraction": self.extraction,
                "moved": moved,
                "site_name": self.site.name,
                "shared": memory.shared_digest(connection),
                "deliveries": [delivery.sha256 for delivery in manifest.deliveries],
                "shards": [asdict(shard) for shard in manifest.shards],
            },
        )

    def _tell(
        self,
        connection: duckdb.DuckDBPyConnection,
        vocabulary: Vocabulary,
        started: datetime,
        named: Path,
        counts: dict[str, int],
        done: dict[str, Any],
    ) -> "MapResult":
        """Write the manifest and give the result. `done` is what `slice.write` answered."""
        extracted = connection.execute("SELECT extracted_to()::VARCHAR").fetchone()
        guide = json.loads((mappings_folder() / "conformance" / "guide.json").read_text(encoding="utf-8"))
        manifest = {
            "site": self.site.id,
            "derived": list(slice.DERIVED),
            "tables": counts,
            "resources": done["totals"].found,
            "exclusions": done["exclusions"],
            **done["counted"],
            "vocabulary": vocabulary.lock,
            "mappings_sha256": mappings_sha256(self.site),
            "code_version": __version__,
            "fhir_version": guide["fhir_version"],
            "guide_version": guide["guide_version"],
            "cdm_version": CDM_VERSION,
            "time_zone": self.site.time_zone,
            "extracted_to": extracted[0] if extracted else None,
            "run": {"started": started.isoformat(timespec="seconds")},
        }
        return tell(self.shards, self.out, manifest, started, self.steps.seconds, named)


def tell(
    shards: Path,
    out: Path,
    manifest: dict[str, Any],
    started: datetime,
    seconds: dict[str, float],
    named: Path,
    patients: int | None = None,
) -> "MapResult":
    """Write the manifest of a slice, and beside it what became of the items that its sources read; its result.

    `patients` are those that were mapped again, None: all.
    """
    from omop_etl.mapping import MapResult

    manifest["items"] = _keep_items(shards / ITEMS, out / "side" / ITEMS)
    manifest["run"] |= {
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
        "steps": seconds,
        "patients_mapped": "all" if patients is None else patients,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    outcomes: dict[str, int] = {}
    for by_outcome in manifest["resources"].values():
        for outcome, count in by_outcome.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return MapResult(
        slice=named,
        resources=outcomes,
        rows={name: count for name, count in manifest["tables"].items() if count},
        unmapped=manifest["unmapped"],
        mapped_share=manifest["mapped_share"],
        seconds=seconds,
        patients=patients,
    )


def _keep_items(told: Path, place: Path) -> dict[str, dict[str, int]]:
    """Keep what became of each item; items per kind of source and outcome or reason. None where no source told."""
    if not told.is_file():
        return {}
    shutil.copyfile(told, place)
    counts: dict[str, dict[str, int]] = {}
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT source_kind, coalesce(reason, outcome), count(*) FROM read_parquet({literal(str(place))}) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    for kind, what, count in rows:
        counts.setdefault(kind, {})[what] = count
    return counts


def _newest(connection: duckdb.DuckDBPyConnection, parts: list[str], moment: str) -> str | None:
    if not parts:
        return None
    row = connection.execute(f"SELECT ({moment})::VARCHAR FROM ({' UNION ALL '.join(parts)})").fetchone()
    return row[0] if row else None


def _later(one: str | None, other: str | None) -> str | None:
    """The later of two timestamps as DuckDB writes them."""
    return max((text for text in (one, other) if text is not None), key=datetime.fromisoformat, default=None)


def mappings_sha256(site: Site) -> str:
    """Hash of everything in `mappings/` that decides what a slice holds, the site's own codes among it."""
    folder = mappings_folder()
    digest = hashlib.sha256()
    files = [
        path
        for name in _DECIDING
        for path in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))
    ]
    for path in sorted(files):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    if site.codes is not None and site.codes.is_dir():
        for path in sorted(site.codes.glob("*.csv")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
