"""Shards → stage tables, one row per resource: the newest version of each, with the reason when it is left out.

Two lanes. The fast one reads all shards of a type at once, strictly. When DuckDB stops there, the shards that it refuses go line by
line through `fhir_adapters.landing.explain_shards`, which quarantines what is wrong and writes the rest anew; then the fast lane reads
again. So the fate of a resource does not depend on its neighbours.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import orjson

from fhir_adapters.landing import DELETED_SQL, LAST_UPDATED_SQL, VERSION_NUMBER_SQL, Shard
from fhir_adapters.landing.careful import Suspect, explain_shards
from fhir_adapters.views import CompiledView, compile_view, read_shards
from omop_etl.mapping.codes import coded_elements
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.recipes import Recipe

# the characters of FHIR's datatype id; the careful lane judges others
_FIT_ID = r"regexp_full_match(id, '[A-Za-z0-9\-.]{1,64}')"
_HEAD = f"""id, resource_key({{type}}, id) AS key, {{delivery}}::INTEGER AS delivery,
    {LAST_UPDATED_SQL} AS last_updated, {VERSION_NUMBER_SQL} AS version_number"""
# a type without a recipe: who it is, and nothing more
_BARE = {
    "resourceType": "ViewDefinition",
    "status": "active",
    "select": [
        {
            "column": [
                {"name": "id", "path": "id"},
                {"name": "last_updated_text", "path": "meta.lastUpdated"},
                {"name": "version_text", "path": "meta.versionId"},
            ]
        }
    ],
}
# VERSION_ORDER_SQL of landing says md5 of the line; what was read of the line decides as well where only that is in sight
_NEWEST = "last_updated DESC NULLS LAST, version_number DESC NULLS LAST, delivery DESC, md5(s::VARCHAR) DESC"


@dataclass
class Reader:
    """The shards of a folder on their way into `connection`. `work` is a folder for the careful lane."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    work: Path
    jobs: int
    foreign: int = 0  # lines of another type than their shard
    columns: dict[str, list[str]] = field(default_factory=dict)  # stage table → its columns
    types: dict[str, str] = field(default_factory=dict)  # stage table of a type → the type

    def prepare(self) -> None:
        """Create `quarantine` and `deleted` from what landing wrote."""
        for name in ("quarantine", "deleted"):
            path = literal(str(self.folder / f"{name}.parquet"))
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet({path})")

    def read(self, recipe: Recipe, shards: Sequence[Shard]) -> None:
        """Fill `stage_<name>` and the tables below it from the shards of this type."""
        lists = sorted({row["list"] for row in coded_elements() if row["stage"] == recipe.stage})
        keys = "".join(f", list_key({name}_codings) AS {name}_key" for name in lists)
        body = recipe.read
        if not body.startswith("SELECT\n"):
            raise ValueError(f"events/{recipe.stage}.sql: the section read must begin with SELECT")
        select = f"SELECT *{keys} FROM (SELECT {_HEAD}, {body.removeprefix('SELECT')})"
        self._fill(recipe.view, recipe.stage, recipe.resource_type, select, shards)
        for table, sql in recipe.below():
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW stage AS SELECT * FROM stage_{recipe.stage} WHERE reason IS NULL"
            )
            self.connection.execute(f"CREATE TABLE stage_{table} AS {sql}")
            self._note(table)

    def read_bare(self, resource_type: str, shards: Sequence[Shard]) -> None:
        """Fill `stage_<type>` with no more than who is there, for a type that has no home in OMOP."""
        select = f"SELECT {_HEAD}, 'X-NO-TARGET' AS reason FROM flat"
        self._fill({**_BARE, "resource": resource_type}, resource_type.lower(), resource_type, select, shards)

    def _fill(self, view: dict, stage: str, resource_type: str, select: str, shards: Sequence[Shard]) -> None:
        compiled = compile_view(view)
        places = [(shard.delivery, shard.place(self.folder)) for shard in shards]
        try:
            self._load(compiled, stage, select, places, fit=_FIT_ID)
        except duckdb.InvalidInputException:
            # DuckDB's own words may show a value: they go no further
            places = self._careful(compiled.columns, resource_type, places)
            self._load(compiled, stage, select, places, fit="true")
        self.types[stage] = resource_type
        self._note(stage)
        self._keep_newest(stage, resource_type)

    def _load(self, compiled: CompiledView, stage: str, select: str, places: list[tuple[int, Path]], fit: str) -> None:
        self.connection.execute(f"DROP TABLE IF EXISTS stage_{stage}")
        by_delivery: dict[int, list[Path]] = defaultdict(list)
        for delivery, place in places:
            by_delivery[delivery].append(place)
        begin = f"CREATE TABLE stage_{stage} AS"
        for delivery, paths in by_delivery.items():
            source = (
                f"(SELECT * FROM {read_shards(paths, compiled.columns)} WHERE CASE "
                f"WHEN \"resourceType\" = {literal(compiled.resource)} AND {fit} THEN true ELSE error('careful') END)"
            )
            body = select.replace("{type}", literal(compiled.resource)).replace("{delivery}", str(delivery))
            self.connection.execute(f"{begin} WITH flat AS ({compiled.sql(source)}) {body}")
            begin = f"INSERT INTO stage_{stage}"

    def _careful(
        self, columns: dict[str, str], resource_type: str, places: list[tuple[int, Path]]
    ) -> list[tuple[int, Path]]:
        """Quarantine the lines that cannot be read; the places where the others stand."""
        suspects: list[tuple[int, Suspect]] = []
        for number, (_, place) in enumerate(places):
            if not self._strict(columns, resource_type, place):
                good = self.work / f"{resource_type}-{number}.ndjson"
                suspects.append((number, Suspect(place, columns, good, resource_type)))
        found = explain_shards([suspect for _, suspect in suspects], jobs=self.jobs, subject=resource_type)
        rejects = []
        for (number, suspect), these in zip(suspects, found, strict=True):
            places[number] = (places[number][0], suspect.good)
            rejects += these
        self.foreign += sum(one.reason == "Q-FOREIGN-TYPE" for one in rejects)
        self._quarantine([one._asdict() for one in rejects])
        return places

    def _strict(self, columns: dict[str, str], resource_type: str, place: Path) -> bool:
        fit = f'"resourceType" = {literal(resource_type)} AND {_FIT_ID}'
        try:
            self.connection.execute(
                f"SELECT count(COLUMNS(*)) FROM (SELECT * FROM {read_shards([place], columns)} "
                f"WHERE CASE WHEN {fit} THEN true ELSE error('careful') END)"
            )
        except duckdb.InvalidInputException:
            return False
        return True

    def _quarantine(self, rejects: list[dict]) -> None:
        if not rejects:
            return
        file = self.work / "rejects.ndjson"
        file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rejects))
        names = ("resource_type", "resource_id", "reason", "position", "element")
        self.connection.execute(
            f"INSERT INTO quarantine BY NAME SELECT * FROM {read_shards([file], dict.fromkeys(names, 'VARCHAR'))}"
        )
        file.unlink()

    def _note(self, stage: str) -> None:
        rows = self.connection.execute(f"SELECT column_name FROM (DESCRIBE stage_{stage})").fetchall()
        self.columns[stage] = [name for (name,) in rows]

    def _keep_newest(self, stage: str, resource_type: str) -> None:
        """One row per id, the newest version; a deleted resource keeps its row and gets the reason."""
        rows, keys = self._one(f"SELECT count(*), count(DISTINCT key) FROM stage_{stage}")
        if rows != keys:
            self.connection.execute(
                f"DELETE FROM stage_{stage} WHERE rowid IN (SELECT rowid FROM ("
                f"SELECT s.rowid, row_number() OVER (PARTITION BY key ORDER BY {_NEWEST}, s.rowid) AS place FROM stage_{stage} s "
                f"WHERE key IN (SELECT key FROM stage_{stage} GROUP BY key HAVING count(*) > 1)) WHERE place > 1)"
            )
        self.connection.execute(
            f"UPDATE stage_{stage} SET reason = 'X-DELETED' WHERE rowid IN ("
            f"SELECT v.rowid FROM stage_{stage} v JOIN (SELECT resource_key(resource_type, resource_id) AS key, delivery, "
            f"{LAST_UPDATED_SQL.replace('last_updated_text', 'deleted_at')} AS deleted_at FROM deleted "
            f"WHERE resource_type = {literal(resource_type)}) d ON d.key = v.key WHERE {DELETED_SQL})"
        ) if self._one(f"SELECT count(*) FROM deleted WHERE resource_type = {literal(resource_type)}")[0] else None

    def _one(self, sql: str) -> tuple:
        row = self.connection.execute(sql).fetchone()
        assert row is not None
        return row


def by_type(shards: Sequence[Shard]) -> Iterator[tuple[str, list[Shard]]]:
    """The shards of each resource type, in the order of types; an empty file is no shard."""
    grouped: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.bytes:
            grouped[shard.resource_type].append(shard)
    yield from sorted(grouped.items())
