"""One mapping run, from the shards to the last file of the slice."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters import partial_dates
from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.knowledge import mappings_folder, table
from fhir_adapters.landing import read_manifest
from omop_etl import __version__, ledger
from omop_etl.cdm import CDM_VERSION
from omop_etl.config import Site
from omop_etl.mapping import codes, codesets, slice
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

    def go(self, vocabulary: Path | None, named: Path) -> "MapResult":
        """Map. A failure of DuckDB is told without its words, which may hold a value."""
        started = datetime.now(UTC)
        with self.steps.step("opening"):
            opened = open_vocabulary(vocabulary)
        connection = duckdb.connect(config=self._settings())
        try:
            with machine_errors(str(named)):
                return self._map(connection, opened, started, named)
        except duckdb.Error as error:
            raise PalmaresError("E-MAP-01", self.steps.now, detail=type(error).__name__) from None
        finally:
            connection.close()

    def _settings(self) -> dict[str, str | bool | int | float | list[str]]:
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
        from omop_etl.mapping import MapResult

        step = self.steps.step
        known = recipes()
        with step("reading"):
            self._define(connection, vocabulary)
            reader = self._read(connection, known)
        with step("resolving codes"):
            codes.resolve(connection, vocabulary, self.site, reader.columns)
        with step("mapping") as progress:
            rows = Rows(connection, known, reader.columns, self.mask)
            rows.places_and_staff()
            rows.persons()
            rows.visits()
            rows.records(progress)
        with step("balancing"):
            slice.tell_origins(connection)
            read = self._settle_resources(connection, reader, known)
            ledger.write_lines(connection)
        with step("writing"):
            beside = {
                "totals": ledger.totals,
                "exclusions": ledger.exclusions,
                "losses": self._losses,
                "shares": self._shares,
            }
            done = slice.write(connection, self.out, self.site.id, "patient" in reader.columns, beside)
            counts = {name: done[name] for name in cdm_selects()}
            totals: ledger.Totals = done["totals"]
        with step("checking"):
            apart = {*slice.DERIVED, "cdm_source"}
            ledger.check(totals, read, {name: count for name, count in counts.items() if name not in apart})
        return self._tell(connection, MapResult, vocabulary, started, named, counts, done)

    def _define(self, connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary) -> None:
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
        """The macros extraction() and extracted_to(): the newest update in the delivery, else its newest record."""
        zone = literal(self.site.time_zone)
        updated = [
            f"SELECT max(last_updated) AS moment FROM stage_{stage}"
            for stage, names in reader.columns.items()
            if "last_updated" in names
        ]
        dated = [
            f"SELECT max({name}) AS moment FROM stage_{stage} WHERE reason IS NULL"
            for stage, names in reader.columns.items()
            for name in ("start_datetime", "end_datetime")
            if name in names and "reason" in names and not (stage == "device" and name == "end_datetime")
        ]
        newest = None
        for parts, sql in (
            (updated, f"SELECT timezone({zone}, max(moment)) FROM ({{}})"),
            (dated, "SELECT max(moment) FROM ({})"),
        ):
            if newest is None and parts:
                row = connection.execute(sql.format(" UNION ALL ".join(parts))).fetchone()
                newest = row[0] if row else None
        told = f"TIMESTAMP '{newest}'" if newest else "NULL::TIMESTAMP"
        connection.execute(f"CREATE OR REPLACE MACRO extraction() AS {told}")
        connection.execute("CREATE OR REPLACE MACRO extracted_to() AS extraction()::DATE")

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

    def _tell(
        self,
        connection: duckdb.DuckDBPyConnection,
        result: type["MapResult"],
        vocabulary: Vocabulary,
        started: datetime,
        named: Path,
        counts: dict[str, int],
        done: dict[str, Any],
    ) -> "MapResult":
        """Write the manifest and give the result. `done` is what `slice.write` answered."""
        resources, unmapped = done["totals"].found, done["unmapped"]
        outcomes: dict[str, int] = {}
        for by_outcome in resources.values():
            for outcome, count in by_outcome.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        mapped_share, *links = done["shares"]
        extracted = connection.execute("SELECT extracted_to()::VARCHAR").fetchone()
        guide = json.loads((mappings_folder() / "conformance" / "guide.json").read_text(encoding="utf-8"))
        manifest = {
            "site": self.site.id,
            "derived": list(slice.DERIVED),
            "tables": counts,
            "resources": resources,
            "exclusions": done["exclusions"],
            "losses": done["losses"],
            "visit_links": dict(zip(("by_reference", "by_date", "none"), links, strict=True)),
            "unmapped": unmapped,
            "mapped_share": mapped_share,
            "vocabulary": vocabulary.lock,
            "mappings_sha256": mappings_sha256(self.site),
            "code_version": __version__,
            "fhir_version": guide["fhir_version"],
            "guide_version": guide["guide_version"],
            "cdm_version": CDM_VERSION,
            "time_zone": self.site.time_zone,
            "extracted_to": extracted[0] if extracted else None,
            "run": {
                "started": started.isoformat(timespec="seconds"),
                "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
                "steps": self.steps.seconds,
            },
        }
        (self.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        return result(
            slice=named,
            resources=outcomes,
            rows={name: count for name, count in counts.items() if count},
            unmapped=unmapped,
            mapped_share=mapped_share,
            seconds=self.steps.seconds,
        )

    def _shares(self, connection: duckdb.DuckDBPyConnection) -> tuple[float | None, int, int, int]:
        """Of the clinical records: the share with a concept; those linked to a visit by reference, by date, and not."""
        row = connection.execute(
            "SELECT count(*) FILTER (concept_id > 0) / nullif(count(*), 0), "
            "count(*) FILTER (visit_occurrence_id IS NOT NULL AND NOT visit_by_date), count(*) FILTER (visit_by_date), "
            "count(*) FILTER (visit_occurrence_id IS NULL) FROM event WHERE cdm_table IS NOT NULL"
        ).fetchone()
        assert row is not None
        share, by_reference, by_date, none = row
        return None if share is None else round(share, 4), by_reference, by_date, none

    def _losses(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """What was read of written resources and has no place in OMOP, counted (f2o-080)."""
        found = {}
        for row in table("conformance", "losses.csv"):
            try:
                answer = connection.execute(f"SELECT count(*) FROM {row['rows']}").fetchone()
            except duckdb.CatalogException:
                continue  # no resource of this type in the delivery
            if answer and answer[0]:
                found[row["loss"]] = answer[0]
        return found


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
