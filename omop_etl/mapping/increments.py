"""A slice brought up to date: the patients that a new delivery tells of are mapped again, the rows of the others are kept.

    new delivery ─read→ whose resources changed ─gather→ all lines of these patients ─Run→ their slice ─merge→ the slice

Gathered are the lines of every delivery, so the newest version wins as in a run over all. Places, staff and Medications go along whole.
Where a patient's rows may depend on more than that, nothing is kept and the caller maps all: other code, mappings or vocabulary,
other earlier deliveries, changed places, staff or Medications, ids that moved, an extraction that went back.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.landing import Manifest, Shard, read_manifest
from fhir_adapters.landing.places import places_of
from omop_etl import __version__, ledger
from omop_etl.mapping import memory, merging
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.memory import SHARED, Kept, MapAll
from omop_etl.mapping.reading import Reader
from omop_etl.mapping.recipes import recipes
from omop_etl.mapping.run import Run, mappings_sha256, tell
from omop_etl.vocabulary import open_vocabulary

if TYPE_CHECKING:
    from omop_etl.mapping import MapResult

_COPIED = ("quarantine.parquet", "deleted.parquet")
_SHARED = ", ".join(literal(kind) for kind in SHARED)


@dataclass
class Increment:
    """`run` is the run as it would be over all; `previous` the slice to keep from."""

    run: Run
    previous: Path
    vocabulary: Path | None
    named: Path
    connection: duckdb.DuckDBPyConnection = field(init=False)
    manifest: Manifest = field(init=False)
    known: dict[str, Any] = field(init=False)

    def go(self) -> "MapResult":
        """Map what changed and keep the rest. Raises MapAll, and what a run over all raises."""
        started = datetime.now(UTC)
        step = self.run.steps.step
        with step("comparing"):
            self._compare()
        self.connection = duckdb.connect(config=self.run.settings())
        try:
            with machine_errors(str(self.named)):
                with step("finding changes"):
                    newest = self._find_changes()
                    self._choose_patients()
                part = self._map_patients(newest)
                with step("merging"):
                    counts = merging.merge(self.connection, self.previous, part, self.run.out)
                    return self._finish(part, counts, started)
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise PalmaresError("E-MAP-01", self.run.steps.now, detail=type(error).__name__) from None
        finally:
            self.connection.close()

    def _compare(self) -> None:
        """The slice was made of the earlier deliveries that still stand, by what decides today."""
        known = memory.read(self.previous)
        if known is None:
            raise MapAll("the slice before remembers nothing")
        self.known = known
        self.manifest = read_manifest(self.run.shards)
        try:
            before = json.loads((self.previous / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise MapAll("the slice before has no manifest") from None
        now = {
            "site": self.run.site.id,
            "code_version": __version__,
            "mappings_sha256": mappings_sha256(self.run.site),
            "time_zone": self.run.site.time_zone,
            "vocabulary": open_vocabulary(self.vocabulary).lock,
        }
        for name, value in now.items():
            if before.get(name) != value:
                raise MapAll(f"another {name.replace('_', ' ')}")
        if known["site_name"] != self.run.site.name:
            raise MapAll("another site name")
        if known["moved"]:
            raise MapAll("an id is taken by two rows")
        deliveries = [delivery.sha256 for delivery in self.manifest.deliveries]
        if deliveries[: len(known["deliveries"])] != known["deliveries"]:
            raise MapAll("other earlier deliveries")
        self._last = self.manifest.deliveries[len(known["deliveries"]) - 1].number if known["deliveries"] else 0
        if [asdict(shard) for shard in self.manifest.shards if shard.delivery <= self._last] != known["shards"]:
            raise MapAll("other resources accepted of earlier deliveries")

    def _find_changes(self) -> str | None:
        """The table `changed` (resource_type, resource_id, person) and `tied` (person, other) of the new deliveries; their newest update."""
        work = self.run.work / "changes"
        work.mkdir()
        self.run.define(self.connection, open_vocabulary(self.vocabulary))
        reader = Reader(self.connection, self.run.shards, work, self.run.jobs)
        reader.read([shard for shard in self.manifest.shards if shard.delivery > self._last], recipes())
        nothing = (
            "SELECT NULL::VARCHAR AS resource_type, NULL::VARCHAR AS resource_id, NULL::BIGINT AS person WHERE false"
        )
        parts = [nothing] + [
            f"SELECT {literal(kind)}, s.id, {memory.whose(reader, stage)} FROM stage_{stage} s"
            for stage, kind in reader.types.items()
        ]
        refused = "SELECT resource_type, resource_id, NULL FROM (SELECT resource_type, resource_id, reason, position FROM quarantine "
        refused += (
            f"EXCEPT ALL SELECT resource_type, resource_id, reason, position FROM {self._accepted('quarantine')})"
        )
        deleted = f"SELECT resource_type, resource_id, NULL FROM deleted WHERE delivery > {self._last}"
        self._run(
            f"CREATE TABLE changed AS SELECT DISTINCT * FROM ({' UNION ALL '.join([*parts, refused, deleted])})",
            "CREATE TABLE tied AS "
            + (
                "SELECT DISTINCT id_of(replaced_key) AS person FROM stage_patient WHERE replaced_key IS NOT NULL"
                if "patient" in reader.columns
                else "SELECT NULL::BIGINT AS person WHERE false"
            ),
        )
        newest = self.run.newest_update(self.connection, reader)
        for name in (*(f"stage_{stage}" for stage in reader.columns), "quarantine", "deleted"):
            self._run(f"DROP TABLE {name}")
        return newest

    def _choose_patients(self) -> None:
        """The table `chosen` (person): labels of those whose resources changed, before or now."""
        self._run(
            f"CREATE VIEW members AS SELECT * FROM {self._side('members')}",
            f"CREATE VIEW linked AS SELECT * FROM {self._side('linked')}",
            "CREATE TABLE chosen AS SELECT DISTINCT coalesce(l.label, c.person) AS person FROM ("
            "SELECT person FROM changed WHERE person IS NOT NULL UNION ALL SELECT person FROM tied UNION ALL "
            "SELECT m.person FROM members m SEMI JOIN changed c ON c.resource_type = m.resource_type AND c.resource_id = m.resource_id) c "
            "LEFT JOIN linked l ON l.person = c.person",
        )

    def _map_patients(self, newest: str | None) -> Path:
        """The slice of the chosen patients; those whose rows reach the extraction are chosen when it moves."""
        known = self.known
        if known["extraction_of"] == "updates" and _is_later(newest, known["extraction"]):
            self._choose_open()
        for attempt in (1, 2):
            part, run = self._map_chosen(f"part-{attempt}")
            now = memory.read(part)
            assert now is not None
            if now["moved"]:
                raise MapAll("an id is taken by two rows")
            if now["shared"] != known["shared"]:
                raise MapAll("places, staff or medications changed")
            if run.extraction == known["extraction"]:
                return part
            if known["extraction"] is None or not _is_later(run.extraction, known["extraction"]):
                raise MapAll("the extraction went back")
            if not self._choose_open():
                return part
        raise MapAll("the extraction is not settled")

    def _choose_open(self) -> bool:
        """Choose those whose rows reach the extraction as it was; True when they had not been chosen."""
        found = self._one(
            f"SELECT count(*) FROM (SELECT person FROM {self._side('reach')} WHERE is_open EXCEPT SELECT person FROM chosen)"
        )
        self._run(
            f"INSERT INTO chosen SELECT person FROM {self._side('reach')} WHERE is_open EXCEPT SELECT person FROM chosen"
        )
        return bool(found)

    def _map_chosen(self, name: str) -> tuple[Path, Run]:
        with self.run.steps.step("gathering"):
            # `gone`: the resources whose rows are not kept, and the ids that their persons have or would have
            self._run(
                "CREATE OR REPLACE TABLE gone AS SELECT resource_type, resource_id FROM members WHERE person IN (FROM chosen) "
                f"OR resource_type IN ({_SHARED}) UNION SELECT resource_type, resource_id FROM changed",
                "CREATE OR REPLACE TABLE gone_person AS SELECT person FROM chosen UNION SELECT person FROM linked WHERE label IN (FROM chosen) "
                "UNION SELECT id_of(resource_key(resource_type, resource_id)) FROM gone",
            )
            gathered, part, work = (self.run.work / f"{name}-{word}" for word in ("lines", "slice", "work"))
            self._gather(gathered)
            uses = self.run.work / f"{name}-uses.parquet"
            self._run(
                f"COPY (SELECT DISTINCT resource_id FROM {self._side('uses')} WHERE person NOT IN (FROM gone_person)) "
                f"TO {literal(str(uses))} (FORMAT parquet)"
            )
            newest = self._one(
                f"SELECT max(newest)::VARCHAR FROM {self._side('reach')} WHERE person NOT IN (FROM chosen)"
            )
        part.mkdir()
        work.mkdir()
        kept = Kept(self.known["extraction_of"], self.known["extraction"], newest, uses)
        of = self.run
        run = Run(of.site, gathered, part, work, of.steps, of.jobs, of.memory_limit, of.mask, remember=True, kept=kept)
        run.go(self.vocabulary, self.named)
        return part, run

    def _gather(self, out: Path) -> None:
        """A shards folder of every line of what is `gone`, and of the new deliveries and the shared types, which are not copied."""
        shards: list[Shard] = []
        searched: list[Shard] = []
        for shard in self.manifest.shards:
            if shard.delivery > self._last or shard.resource_type in SHARED:
                place = shard.place(self.run.shards).resolve()
                shards.append(Shard(shard.resource_type, str(place), shard.delivery, shard.resources, shard.bytes))
            else:
                searched.append(shard)
        out.mkdir()
        for shard, places in self._places(searched):
            place = out / shard.path
            place.parent.mkdir(exist_ok=True)
            with shard.place(self.run.shards).open("rb") as lines, place.open("xb") as sink:
                for start, size in places:
                    lines.seek(start)
                    sink.write(lines.read(size))
            shards.append(
                Shard(shard.resource_type, shard.path, shard.delivery, len(places), sum(size for _, size in places))
            )
        for name in _COPIED:
            (out / name).symlink_to((self.run.shards / name).resolve())
        Manifest(self.manifest.deliveries, tuple(shards), ()).write(out)

    def _places(self, shards: Sequence[Shard]) -> list[tuple[Shard, list[tuple[int, int]]]]:
        """Where the lines of what is gone stand, per shard."""
        files = [places_of(shard.place(self.run.shards)) for shard in shards]
        if not all(file.is_file() for file in files):
            raise MapAll("it is not known where the resources stand")
        if not files:
            return []
        rows = ", ".join(
            f"({number}, {literal(str(file))}, {literal(shard.resource_type)})"
            for number, (file, shard) in enumerate(zip(files, shards, strict=True))
        )
        self._run(
            "CREATE OR REPLACE TABLE file (number INTEGER, name VARCHAR, resource_type VARCHAR)",
            f"INSERT INTO file VALUES {rows}",
        )
        listed = ", ".join(literal(str(file)) for file in files)
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, start, size in self.connection.execute(
            f"SELECT f.number, p.start, p.bytes FROM read_parquet([{listed}], filename = 'name') p JOIN file f USING (name) "
            "SEMI JOIN gone g ON g.resource_type = f.resource_type AND g.resource_id = p.resource_id ORDER BY ALL"
        ).fetchall():
            found[number].append((start, size))
        return [(shards[number], places) for number, places in sorted(found.items())]

    def _finish(self, part: Path, counts: dict[str, int], started: datetime) -> "MapResult":
        """Balance the merged slice and write its manifest."""
        out = self.run.out
        found = merging.balance(self.connection, out, counts)
        manifest = json.loads((part / "manifest.json").read_text(encoding="utf-8"))
        manifest |= {
            "tables": counts,
            "resources": found,
            "exclusions": ledger.exclusions(self.connection),
            **memory.counted(
                self.connection,
                out,
                self.run.site.id,
                f"(SELECT country_source_value FROM read_parquet({literal(str(out / 'location.parquet'))}))",
            ),
        }
        told = memory.read(part)
        assert told is not None
        told["shards"] = [asdict(shard) for shard in self.manifest.shards]
        memory.write(out, told)
        patients = self._one("SELECT count(DISTINCT person) FROM chosen SEMI JOIN patient USING (person)")
        return tell(self.run.shards, out, manifest, started, self.run.steps.seconds, self.named, patients)

    def _run(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement)

    def _one(self, question: str) -> Any:
        row = self.connection.execute(question).fetchone()
        return row[0] if row else None

    def _side(self, name: str) -> str:
        return f"read_parquet({literal(str(self.previous / 'side' / f'{name}.parquet'))})"

    def _accepted(self, name: str) -> str:
        return f"read_parquet({literal(str(self.run.shards / f'{name}.parquet'))})"


def _is_later(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is not None
    return datetime.fromisoformat(one) > datetime.fromisoformat(other)
