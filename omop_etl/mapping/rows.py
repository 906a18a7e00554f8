"""Stage tables → rows: who the persons are, where they were seen, what is known about them.

The order is that of knowing: providers and places, persons, visits, then every record with the links to these. Each row's id comes from
the hash of its identity; what else it holds is written in `mappings/events`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import duckdb

from omop_etl.mapping.codes import offer
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.identity import settle
from omop_etl.mapping.recipes import Recipe, derived_rows
from omop_etl.mapping.workers import side_by_side

# the last file of the chain that has a year of birth; files that replace each other in a circle stay what they are
_PERSON_OF = """
INSERT INTO person_of
WITH RECURSIVE edge AS (
    SELECT s.key, s.replaced_key AS onward
    FROM stage_patient s
    JOIN stage_patient t ON t.key = s.replaced_key AND t.reason IS NULL
    WHERE s.reason IS NULL
),
reach AS (
    SELECT key, onward FROM edge
    UNION
    SELECT r.key, e.onward FROM reach r JOIN edge e ON e.key = r.onward
),
chain AS (
    SELECT key, key AS target, 0 AS steps FROM stage_patient WHERE reason IS NULL
    UNION ALL
    SELECT c.key, e.onward, c.steps + 1
    FROM chain c
    JOIN edge e ON e.key = c.target AND e.key NOT IN (SELECT key FROM reach WHERE key = onward)
)
SELECT c.key, arg_max(c.target, c.steps), NULL
FROM chain c
JOIN stage_patient t ON t.key = c.target AND t.born
GROUP BY c.key
"""
# events that begin on a day of exactly one visit of their person
_VISIT_BY_DATE = """
SELECT s.key, p.person_id, any_value(v.key) AS visit_key
FROM {stage} s
JOIN person_of p ON p.key = s.person_key
JOIN row_visit v ON v.person_id = p.person_id AND v.visit_occurrence_id IS NULL
    AND s.start_datetime::DATE BETWEEN v.start_datetime::DATE AND v.end_datetime::DATE
WHERE s.reason IS NULL AND s.visit_key IS NULL
GROUP BY s.key, p.person_id
HAVING count(*) = 1
"""
# part of a visit of the same person: a detail of the outermost one. A circle of parts has no whole: its encounters stay visits
_DETAILS = (
    """CREATE TEMP TABLE visit_part AS
    SELECT r.key, p.key AS above FROM row_visit r
    JOIN row_visit p ON p.key = r.parent_key AND p.person_id = r.person_id AND p.key <> r.key""",
    """UPDATE row_visit SET visit_occurrence_id = w.whole, parent_visit_detail_id = w.above FROM (
        WITH RECURSIVE climb AS (
            SELECT key, above AS direct, above AS outer_key, 1 AS steps FROM visit_part
            UNION ALL
            SELECT c.key, c.direct, p.above, c.steps + 1 FROM climb c JOIN visit_part p ON p.key = c.outer_key WHERE c.steps < 16
        )
        SELECT c.key, o.row_id AS whole, CASE WHEN c.direct <> c.outer_key THEN d.row_id END AS above
        FROM climb c
        JOIN row_visit o ON o.key = c.outer_key
        JOIN row_visit d ON d.key = c.direct
        WHERE c.outer_key NOT IN (SELECT key FROM visit_part)
    ) w WHERE w.key = row_visit.key""",
)
# of what is told about a death the patient's own record comes first, then the earliest; a cause alone (priority 3) is no death
_DEATH = """
CREATE TABLE row_death AS
SELECT
    person_id,
    arg_min(resource_type, (priority, start_datetime, resource_type, resource_id)) FILTER (start_datetime IS NOT NULL) AS resource_type,
    arg_min(resource_id, (priority, start_datetime, resource_type, resource_id)) FILTER (start_datetime IS NOT NULL) AS resource_id,
    arg_min(start_datetime, (priority, start_datetime, resource_type, resource_id)) FILTER (start_datetime IS NOT NULL) AS start_datetime,
    arg_min(start_imputed, (priority, start_datetime, resource_type, resource_id)) FILTER (start_datetime IS NOT NULL) AS start_imputed,
    arg_min(type_concept_id, (priority, start_datetime, resource_type, resource_id)) FILTER (start_datetime IS NOT NULL)
        AS type_concept_id,
    arg_min(cause_concept_id, (priority, start_datetime, resource_type, resource_id)) FILTER (cause_concept_id IS NOT NULL) AS cause_concept_id,
    arg_min(cause_source_value, (priority, start_datetime, resource_type, resource_id)) FILTER (cause_concept_id IS NOT NULL)
        AS cause_source_value,
    arg_min(cause_source_concept_id, (priority, start_datetime, resource_type, resource_id)) FILTER (cause_concept_id IS NOT NULL)
        AS cause_source_concept_id
FROM death_told
GROUP BY person_id
HAVING min(priority) < 3 AND count(start_datetime) > 0
"""
# what an observation is about, where that is a record of ours: the resource's own row, which has the resource's hash, and none of its
# details or parts. That it is one of the same person the SELECTs of mappings/omop see to
_FOCUS = """
CREATE TABLE focus_event AS
SELECT
    key,
    any_value(person_id) AS person_id,
    arg_min(row_id, cdm_table) AS event_id,
    arg_min(event_field(cdm_table), cdm_table) AS field_concept_id
FROM event
WHERE hash = key AND event_field(cdm_table) IS NOT NULL AND key IN (SELECT focus_key FROM event WHERE focus_key IS NOT NULL)
GROUP BY key
"""
# the row that a measurement on an image became, and the image; a feature without one of them is a loss that is counted
_FEATURES = (
    """CREATE TABLE feature_of AS
    SELECT
        f.hash,
        arg_min(i.row_id, (i.series_uid IS DISTINCT FROM f.series_uid, i.hash)) AS image_occurrence_id,
        arg_min(e.row_id, (e.hash <> e.key, e.cdm_table, e.hash)) AS event_id,
        arg_min(e.concept_id, (e.hash <> e.key, e.cdm_table, e.hash)) AS concept_id,
        arg_min(event_field(e.cdm_table), (e.hash <> e.key, e.cdm_table, e.hash)) AS field_concept_id
    FROM row_feature f
    JOIN event e ON e.key = f.measure_key AND e.person_id = f.person_id AND event_field(e.cdm_table) IS NOT NULL
    JOIN row_image i ON i.person_id = f.person_id AND i.series_uid IN (f.series_uid, f.report_uid)
    GROUP BY f.hash""",
    "DELETE FROM row_feature WHERE hash NOT IN (SELECT hash FROM feature_of)",
)
# records that refer to a patient, an encounter and a provider
_LINKED = ("event", "note", "image", "feature", "payer_plan_period")


@dataclass
class Rows:
    """Builds the rows of one site. `columns` is stage table → its columns; `mask` the bits of an id."""

    connection: duckdb.DuckDBPyConnection
    recipes: dict[str, Recipe]
    columns: dict[str, list[str]]
    mask: int
    events: list[str] = field(default_factory=list)  # the tables of events
    moved: bool = False  # an id was taken, and its row took another

    def has(self, stage: str) -> bool:
        return stage in self.columns

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement)

    def add(self, table: str, recipe: Recipe, sql: str) -> None:
        """Insert rows that name their resource themselves."""
        self.run(
            f"INSERT INTO {table} BY NAME SELECT {literal(recipe.resource_type)} AS resource_type, x.*"
            f"{', id_of(x.hash) AS row_id' if table.startswith('row_') else ''} FROM ({sql}) x"
        )

    def stage(self, recipe: Recipe) -> None:
        self.run(f"CREATE OR REPLACE TEMP VIEW stage AS SELECT * FROM stage_{recipe.stage}")
        offer(self.connection, recipe)

    def places_and_staff(self) -> None:
        """care_site, location of places, provider."""
        for stage in ("location", "organization"):
            if self.has(stage):
                recipe = self._recipe(stage)
                self.stage(recipe)
                for name in ("location", "care_site"):
                    for sql in recipe.parts(name):
                        self.add(f"row_{name}", recipe, sql)
        self._settle("row_care_site")
        self.run("INSERT INTO care_site_of SELECT key, row_id FROM row_care_site")
        if self.has("practitioner_role"):
            recipe = self._recipe("practitioner_role")
            self.stage(recipe)
            for sql in recipe.parts("role"):
                self.run(f"INSERT INTO role_of BY NAME {sql}")
        if self.has("practitioner"):
            recipe = self._recipe("practitioner")
            self.stage(recipe)
            for sql in recipe.parts("provider"):
                self.add("row_provider", recipe, sql)
        self._settle("row_provider")
        self.run("INSERT INTO provider_of SELECT key, row_id FROM row_provider")
        if self.has("practitioner_role"):
            # a reference may name the role; as a urn it does not say which of the two it names
            self.run(
                "INSERT INTO provider_of SELECT unnest([s.key, resource_key('Practitioner', s.id)]), p.provider_id "
                "FROM stage_practitioner_role s JOIN provider_of p ON p.key = s.provider_key WHERE s.reason IS NULL"
            )

    def persons(self) -> None:
        """person, with the table of who is who; the region of residence."""
        if self.has("patient"):
            self.run(
                _PERSON_OF
                if self._count("stage_patient WHERE replaced_key IS NOT NULL")
                else "INSERT INTO person_of SELECT key, key, NULL FROM stage_patient WHERE reason IS NULL"
            )
            self.run(
                "CREATE OR REPLACE TEMP TABLE named_concept AS SELECT concept_id, domain_id FROM concept "
                "WHERE standard_concept = 'S' AND invalid_reason IS NULL AND concept_id IN ("
                "SELECT try_cast(unnest([race_omop_code, ethnicity_omop_code]) AS INTEGER) FROM stage_patient)"
                if self._count("stage_patient WHERE race_omop_code IS NOT NULL OR ethnicity_omop_code IS NOT NULL")
                else "CREATE OR REPLACE TEMP TABLE named_concept (concept_id INTEGER, domain_id VARCHAR)",
                "CREATE OR REPLACE MACRO standard_concept(code_, domain_) AS (SELECT n.concept_id FROM named_concept n "
                "WHERE n.concept_id = try_cast(code_ AS INTEGER) AND n.domain_id = domain_)",
            )
            recipe = self._recipe("patient")
            self.stage(recipe)
            for name in ("location", "person"):
                for sql in recipe.parts(name):
                    self.add(f"row_{name}", recipe, sql)
        self._settle("row_location")
        self._settle("row_person")
        self.run("UPDATE person_of SET person_id = p.row_id FROM row_person p WHERE p.hash = person_of.target")
        if self.has("patient"):
            for sql in self._recipe("patient").parts("death"):
                self.add("death_told", self._recipe("patient"), sql)

    def visits(self) -> None:
        """visit_occurrence and visit_detail; which visit each encounter is."""
        if not self.has("encounter"):
            return
        recipe = self._recipe("encounter")
        self.stage(recipe)
        self._dates_of_visits()
        self.run(
            "CREATE OR REPLACE TEMP VIEW included AS SELECT s.*, p.person_id, d.provider_id FROM stage_encounter s "
            "JOIN person_of p ON p.key = s.person_key LEFT JOIN provider_of d ON d.key = s.provider_key WHERE s.reason IS NULL"
        )
        for sql in recipe.parts("visit"):
            self.add("row_visit", recipe, f"SELECT * FROM ({sql}) WHERE start_datetime IS NOT NULL")
        self.run(
            "UPDATE row_visit SET end_datetime = greatest(extraction(), start_datetime) WHERE end_imputed AND end_datetime > extraction()"
        )
        self._settle("row_visit")
        if self._count("stage_encounter WHERE parent_key IS NOT NULL"):
            self.run(*_DETAILS)
        self.run(
            "INSERT INTO visit_of SELECT key, person_id, coalesce(visit_occurrence_id, row_id), "
            "CASE WHEN visit_occurrence_id IS NOT NULL THEN row_id END FROM row_visit"
        )

    def _dates_of_visits(self) -> None:
        """First and last day of what refers to the encounters that lack a start or an end."""
        if not self._count("stage_encounter WHERE reason IS NULL AND (start_datetime IS NULL OR end_datetime IS NULL)"):
            return
        parts = [
            f"SELECT visit_key, start_datetime, {'end_datetime' if 'end_datetime' in columns else 'NULL'} AS end_datetime, "
            f"person_key FROM stage_{stage} WHERE reason IS NULL AND visit_key IS NOT NULL"
            for stage, columns in self.columns.items()
            if "visit_key" in columns and "start_datetime" in columns
        ]
        if parts:
            self.run(
                "INSERT INTO visit_dates SELECT e.key, min(x.start_datetime), "
                "max(greatest(x.start_datetime, CASE WHEN x.end_datetime::DATE = x.start_datetime::DATE THEN x.end_datetime END)) "
                f"FROM ({' UNION ALL '.join(parts)}) x JOIN stage_encounter e ON e.key = x.visit_key AND e.person_key = x.person_key "
                "WHERE e.reason IS NULL AND (e.start_datetime IS NULL OR e.end_datetime IS NULL) GROUP BY e.key"
            )

    def records(self, progress: Callable[[str], None]) -> None:
        """Every clinical record, note, image and plan, linked to its person, visit and provider."""
        if self.has("medication"):
            self.run("INSERT INTO medication SELECT key, code_key FROM stage_medication WHERE reason IS NULL")
        kinds = [r for r in self.recipes.values() if self.has(r.stage) and any(r.parts(word) for word in _LINKED)]
        # the largest first: a small type keeps one core busy, and there are more
        kinds.sort(key=lambda recipe: -self._count(f"stage_{recipe.stage}"))

        def make(cursor: duckdb.DuckDBPyConnection, recipe: Recipe) -> list[str]:
            progress(f"mapping {recipe.resource_type}")
            return replace(self, connection=cursor, events=[])._records_of(recipe)

        made = side_by_side(self.connection, make, kinds)
        self.events = sorted(name for names in made for name in names)
        for table in ("row_note", "row_image", "row_feature", "row_payer_plan_period"):
            self._settle(table)
        self.moved |= settle(self.connection, self.events, self.mask, "cdm_table")
        self._tie_to_what_names_them(kinds)
        every = " UNION ALL BY NAME ".join(f"SELECT * FROM {table}" for table in ("event_of_nothing", *self.events))
        self.run(
            f"CREATE OR REPLACE VIEW event AS {every}",
            "UPDATE death_told SET start_datetime = extraction() WHERE start_imputed AND start_datetime > extraction()",
            _DEATH,
            _FOCUS,
            *_FEATURES,
        )
        for name, sql in derived_rows().items():
            self.run(f"INSERT INTO row_{name} BY NAME SELECT *, person_id AS row_id FROM ({sql})")

    def _tie_to_what_names_them(self, kinds: list[Recipe]) -> None:
        """A record that does not say what it is about, and that another resource of its patient names as being about it, is."""
        self.run("CREATE TABLE focus_told (key UHUGEINT, person_id BIGINT, focus_key UHUGEINT)")
        for recipe in kinds:
            for sql in recipe.parts("focus"):
                self.run(f"INSERT INTO focus_told BY NAME {sql}")
        if not self._count("focus_told"):
            return
        for table in self.events:
            if "focus_key" in self._names(table):
                self.run(
                    f"UPDATE {table} SET focus_key = t.focus_key FROM focus_told t "
                    f"WHERE t.key = {table}.key AND t.person_id = {table}.person_id AND {table}.focus_key IS NULL"
                )

    def _records_of(self, recipe: Recipe) -> list[str]:
        """The records of one resource type; the tables of events that they stand in."""
        self.stage(recipe)
        self._include(recipe)
        for word in _LINKED:
            for sql in recipe.parts(word):
                self._link(word, recipe, sql)
        if "medication_key" in self.columns[recipe.stage]:
            self.run(
                "INSERT INTO medication_in_use SELECT person_id, medication_key FROM included WHERE medication_key IS NOT NULL"
            )
        if recipe.stage != "patient":
            for sql in recipe.parts("death"):
                self.add("death_told", recipe, sql)
        return self.events

    def _include(self, recipe: Recipe) -> None:
        """The view `included`: what was read and is not left out, with its links."""
        stage = f"stage_{recipe.stage}"
        by_date, joined = "false", ""
        referred = '"encounter"' in str(recipe.view).replace("'", '"')
        if referred and self._count("row_visit") and self._count(f"{stage} WHERE visit_key IS NULL AND reason IS NULL"):
            self.run(f"CREATE OR REPLACE TEMP TABLE visit_by_date AS {_VISIT_BY_DATE.format(stage=stage)}")
            by_date, joined = "b.key IS NOT NULL", "LEFT JOIN visit_by_date b ON b.key = s.key"
        visit = "coalesce(s.visit_key, b.visit_key)" if joined else "s.visit_key"
        self.run(
            "CREATE OR REPLACE TEMP VIEW included AS "
            f"SELECT s.*, p.person_id, v.visit_occurrence_id, v.visit_detail_id, {by_date} AS visit_by_date, d.provider_id "
            f"FROM {stage} s JOIN person_of p ON p.key = s.person_key {joined} "
            f"LEFT JOIN visit_of v ON v.key = {visit} AND v.person_id = p.person_id "
            "LEFT JOIN provider_of d ON d.key = s.provider_key WHERE s.reason IS NULL"
        )

    def _link(self, word: str, recipe: Recipe, sql: str) -> None:
        """Make the rows of a section over `included`; id, key and links are put in front."""
        head, body = sql.split("SELECT\n", 1)
        shape = "event_of_nothing" if word == "event" else f"row_{word}"
        links = (
            "resource_id",
            "key",
            "person_id",
            "visit_occurrence_id",
            "visit_detail_id",
            "visit_by_date",
            "provider_id",
        )
        names = self._names(shape)
        front = ", ".join(
            "r.id AS resource_id" if name == "resource_id" else f"r.{name}" for name in links if name in names
        )
        inner = f"{head}SELECT\n    {front},\n{body}"
        told = "AS discriminator" in body
        # an imputed end does not lie after the extraction
        end = (
            "REPLACE (CASE WHEN x.end_imputed AND x.end_datetime > extraction() THEN greatest(extraction(), x.start_datetime) "
            "ELSE x.end_datetime END AS end_datetime)"
            if "end_imputed" in body
            else ""
        )
        rows = (
            f"SELECT {literal(recipe.resource_type)} AS resource_type, y.*, id_of(y.hash) AS row_id FROM ("
            f"SELECT x.* {'EXCLUDE (discriminator)' if told else ''} {end}, "
            f"row_hash(x.key, {'x.discriminator' if told else repr('')}) AS hash FROM ({inner}) x) y"
        )
        if word == "event":
            table = f"event_{recipe.stage}_{len(self.events) + 1}"
            self.events.append(table)
            self.run(f"CREATE TABLE {table} AS {rows}")
        else:
            self.run(f"INSERT INTO row_{word} BY NAME {rows}")

    def _names(self, table: str) -> set[str]:
        return {name for (name,) in self.connection.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall()}

    def _settle(self, table: str) -> None:
        self.moved |= settle(self.connection, [table], self.mask)

    def _count(self, what: str) -> int:
        row = self.connection.execute(f"SELECT count(*) FROM {what}").fetchone()
        return row[0] if row else 0

    def _recipe(self, stage: str) -> Recipe:
        return next(recipe for recipe in self.recipes.values() if recipe.stage == stage)
