"""Shards → stage tables, one row per resource: the newest version of each, with the reason when it is left out.

Two lanes. The fast one reads all shards of a type at once, strictly. When DuckDB stops there, the shards that it refuses go line by
line through `fhir_adapters.landing.explain_shards`, which quarantines what is wrong and writes the rest anew; then the fast lane reads
again. So the fate of a resource does not depend on its neighbours.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import orjson

from fhir_adapters.landing import DELETED_SQL, LAST_UPDATED_SQL, VERSION_NUMBER_SQL, Shard
from fhir_adapters.landing.careful import REFUSED, Suspect, explain_shards
from fhir_adapters.views import CompiledView, compile_view, read_shards
from omop_etl.mapping.codes import coded_elements
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.recipes import Recipe
from omop_etl.mapping.workers import side_by_side

# the characters of FHIR's datatype id; the careful lane judges others
_FIT_ID = r"regexp_full_match(id, '[A-Za-z0-9\-.]{1,64}')"
_HEAD = f"""id, resource_key({{type}}, id) AS key, delivery::INTEGER AS delivery,
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
_NEWEST = "last_updated DESC NULLS LAST, version_number DESC NULLS LAST, delivery DESC, tie DESC"
_TIE = "count(*) OVER (PARTITION BY key, last_updated, version_number, delivery) > 1"


@dataclass(frozen=True)
class _Task:
    """All shards of one type: its stage table, the view it is read by, and the SELECT over the view's rows."""

    stage: str
    resource_type: str
    view: CompiledView
    select: str
    places: list[tuple[int, Path]]  # delivery, file
    bytes: int
    recipe: Recipe | None


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

    def read(self, shards: Sequence[Shard], recipes: Mapping[str, Recipe]) -> None:
        """Fill a stage table for each type, and the tables below it, from the shards; `quarantine` and `deleted` from landing."""
        for name in ("quarantine", "deleted"):
            path = literal(str(self.folder / f"{name}.parquet"))
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet({path})")
        grouped: dict[str, list[Shard]] = defaultdict(list)
        for shard in shards:
            if shard.bytes:  # an empty file is no shard
                grouped[shard.resource_type].append(shard)
        tasks = [self._task(kind, these, recipes.get(kind)) for kind, these in sorted(grouped.items())]
        # the largest first, so that the others fill what it leaves idle
        tasks.sort(key=lambda task: -task.bytes)
        good = side_by_side(self.connection, self._fast, tasks)
        for task, done in zip(tasks, good, strict=True):
            if not done:
                self._load(self.connection, task, self._careful(task), fit="true")
                self._finish(self.connection, task)

    def _task(self, resource_type: str, shards: Sequence[Shard], recipe: Recipe | None) -> _Task:
        places = [(shard.delivery, shard.place(self.folder).absolute()) for shard in shards]
        if recipe is None:
            stage, view = resource_type.lower(), compile_view({**_BARE, "resource": resource_type})
            select = f"SELECT {_HEAD}, 'X-NO-TARGET' AS reason FROM flat"
        else:
            stage, view = recipe.stage, compile_view(recipe.view)
            lists = sorted({row["list"] for row in coded_elements() if row["stage"] == stage})
            keys = "".join(f", list_key({name}_codings) AS {name}_key" for name in lists)
            if not recipe.read.startswith("SELECT\n"):
                raise ValueError(f"events/{stage}.sql: the section read must begin with SELECT")
            select = f"SELECT *{keys} FROM (SELECT {_HEAD}, {recipe.read.removeprefix('SELECT')})"
        self.types[stage] = resource_type
        return _Task(stage, resource_type, view, select, places, sum(shard.bytes for shard in shards), recipe)

    def _fast(self, connection: duckdb.DuckDBPyConnection, task: _Task) -> bool:
        """Read all shards of a type strictly; False when DuckDB refuses one. Its words may show a value: they go no further."""
        try:
            self._load(connection, task, task.places, fit=_FIT_ID)
        except REFUSED:
            return False
        self._finish(connection, task)
        return True

    def _load(
        self, connection: duckdb.DuckDBPyConnection, task: _Task, places: Sequence[tuple[int, Path]], fit: str
    ) -> None:
        several = len({delivery for delivery, _ in places}) > 1
        source = read_shards([place for _, place in places], task.view.columns, filename=several)
        if several:
            files = ", ".join(f"({literal(str(place))}, {delivery})" for delivery, place in places)
            source = f"{source} LEFT JOIN (VALUES {files}) _f(filename, delivery) USING (filename)"
        told = "delivery" if several else f"{places[0][0]} AS delivery"
        # in the column that the view asks for: a condition beside the view's own may be passed over for it
        sound = (
            f'CASE WHEN "resourceType" = {literal(task.resource_type)} AND {fit}{" AND delivery IS NOT NULL" if several else ""} '
            "THEN \"resourceType\" ELSE error('careful') END"
        )
        source = f'(SELECT * EXCLUDE ("resourceType"{", delivery" if several else ""}), {sound} AS "resourceType", {told} FROM {source})'
        body = task.select.replace("{type}", literal(task.resource_type))
        connection.execute(
            f"CREATE OR REPLACE TABLE stage_{task.stage} AS WITH flat AS ({task.view.sql(source, ['delivery'])}) {body}"
        )

    def _finish(self, connection: duckdb.DuckDBPyConnection, task: _Task) -> None:
        """Keep the newest versions; make the tables below the resource."""
        self._note(connection, task.stage)
        self._keep_newest(connection, task.stage, task.resource_type)
        for table, sql in task.recipe.below() if task.recipe else ():
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW stage AS SELECT * FROM stage_{task.stage} WHERE reason IS NULL"
            )
            connection.execute(f"CREATE TABLE stage_{table} AS {sql}")
            self._note(connection, table)

    def _careful(self, task: _Task) -> list[tuple[int, Path]]:
        """Quarantine the lines that cannot be read; the places where the others stand."""
        columns, resource_type, places = task.view.columns, task.resource_type, list(task.places)
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
        except REFUSED:
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

    def _note(self, connection: duckdb.DuckDBPyConnection, stage: str) -> None:
        rows = connection.execute(f"SELECT column_name FROM (DESCRIBE stage_{stage})").fetchall()
        self.columns[stage] = [name for (name,) in rows]

    def _keep_newest(self, connection: duckdb.DuckDBPyConnection, stage: str, resource_type: str) -> None:
        """One row per id, the newest version; a deleted resource keeps its row and gets the reason."""

        def one(sql: str) -> tuple:
            row = connection.execute(sql).fetchone()
            assert row is not None
            return row

        rows, keys = one(f"SELECT count(*), count(DISTINCT key) FROM stage_{stage}")
        if rows != keys:
            # a row as text is slow to make: only for those that nothing else puts in order
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE version AS SELECT s.rowid AS number, key, last_updated, version_number, delivery, "
                f"CASE WHEN {_TIE} THEN md5(s::VARCHAR) END AS tie FROM stage_{stage} s "
                f"SEMI JOIN (SELECT key FROM stage_{stage} GROUP BY key HAVING count(*) > 1) USING (key)"
            )
            connection.execute(
                f"DELETE FROM stage_{stage} WHERE rowid IN (SELECT number FROM version "
                f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY {_NEWEST}, number) > 1)"
            )
        if one(f"SELECT count(*) FROM deleted WHERE resource_type = {literal(resource_type)}")[0]:
            connection.execute(
                f"UPDATE stage_{stage} SET reason = 'X-DELETED' WHERE rowid IN ("
                f"SELECT v.rowid FROM stage_{stage} v JOIN (SELECT resource_key(resource_type, resource_id) AS key, delivery, "
                f"{LAST_UPDATED_SQL.replace('last_updated_text', 'deleted_at')} AS deleted_at FROM deleted "
                f"WHERE resource_type = {literal(resource_type)}) d ON d.key = v.key WHERE {DELETED_SQL})"
            )
