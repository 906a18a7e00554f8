"""Source code → standard concept, for all codes of a run at once, in SQL.

The site's code map answers before the study's, the study's before the vocabulary's own `Maps to`. A target counts
when the relationship is valid and the concept is valid and standard; a valid standard concept stands for itself even
where a subset lost its row to itself. What has no answer keeps concept 0 and the reason, so that no code disappears.
"""

import json

import duckdb

from omop_etl.config import Site
from omop_etl.vocabulary.athena import RESOLVING, Vocabulary
from omop_etl.vocabulary.code_maps import MapRow, keys_of, read_folder, study_folder
from omop_etl.vocabulary.systems import FORMS, system_key, vocabularies

ORIGINS = ("site", "study", "vocabulary")
# a value belongs to a row that can hold one
VALUE_DOMAINS = ("Measurement", "Observation")


def attach(
    connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary, *, site: Site | None = None, codes_used: str
) -> None:
    """Create `code_concept`, `code_ancestor` and the view `concept` in `connection`.

    `codes_used` names a relation with columns `system` (address as in FHIR, '' when the coding has none) and `code`.

    `code_concept` has one row per answer, at least one per (system, code):
    - `system`, `code` as given; `vocabulary_id` (null when the system is not known)
    - `source_concept_id` (0 when the vocabulary does not hold the code), `source_domain_id`
    - `target_concept_id` (0 when unmapped), `target_domain_id`, `target_vocabulary_id`
    - `value_concept_id` of `Maps to value` or of a code map's MAPS_TO_VALUE, else null
    - `map_rank` 1 … n, the same on every run: code maps by line, the vocabulary by concept id
    - `origin` site, study or vocabulary; `reason` a code of reasons.csv, null when mapped

    `concept` is the vocabulary's table. `code_ancestor` (ancestor_concept_id, descendant_concept_id) tells of all
    source and target concepts in `code_concept` which is above which, so that the more specific of two codings can
    win.
    """
    rows = read_folder(study_folder(), "study")
    if site is not None and site.codes is not None:
        rows = read_folder(site.codes, "site") + rows
    connection.execute(f"CREATE OR REPLACE VIEW concept AS SELECT * FROM {vocabulary.relation('concept')}")
    _tell_candidates(connection, codes_used)
    _tell_map_rows(connection, rows)
    connection.execute(_SOURCES.format(wanted=_wanted(connection)))
    connection.execute(_TARGETS.format(relationship=vocabulary.relation(RESOLVING)))
    connection.execute(_ANSWERS.format(domains=", ".join(f"'{domain}'" for domain in VALUE_DOMAINS)))
    _tell_ancestors(connection, vocabulary)
    for table in _HELPERS:
        connection.execute(f"DROP TABLE {table}")


_HELPERS = (
    "vocabulary_code",
    "vocabulary_candidate",
    "vocabulary_rule",
    "vocabulary_form",
    "vocabulary_map",
    "vocabulary_source",
    "vocabulary_answer",
    "vocabulary_standard",
)


def _fill(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str], rows: list[tuple]) -> None:
    """A temporary table from Python rows, handed over as JSON: bound parameters would make DuckDB import pandas."""
    typed = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({typed})")
    shape = json.dumps({name: [type_] for name, type_ in columns.items()})
    for start in range(0, len(rows), 50_000):
        chunk = rows[start : start + 50_000]
        lists = dict(zip(columns, zip(*chunk, strict=True), strict=True))
        literal = json.dumps(lists).replace("'", "''")
        picked = ", ".join(f"unnest(lists.{name})" for name in columns)
        connection.execute(
            f"INSERT INTO {table} SELECT {picked} FROM (SELECT from_json('{literal}', '{shape}') AS lists)"
        )


def _tell_candidates(connection: duckdb.DuckDBPyConnection, codes_used: str) -> None:
    """vocabulary_code (number, system, code) and vocabulary_candidate (number, form, place, vocabulary_id, key, code).

    A candidate is where and how a code is looked for: `form` 0 as written, 1 in the form of its system; `place` of the
    vocabulary among the system's; `key` as code maps use it. A system that is not known has one candidate, without vocabulary.
    """
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE vocabulary_code AS "
        f"SELECT (row_number() OVER (ORDER BY system, code))::INTEGER AS number, system, code "
        f"FROM (SELECT DISTINCT coalesce(system, '') AS system, code FROM {codes_used} WHERE code IS NOT NULL)"
    )
    rules, others = [], []
    for (system,) in connection.execute("SELECT DISTINCT system FROM vocabulary_code ORDER BY 1").fetchall():
        known = vocabularies().get(system_key(system), ())
        rules += [(system, place, known[place][0] if known else None, key) for place, key in enumerate(keys_of(system))]
        for place, (_, form) in enumerate(known):
            if form:
                others.append((system, place, FORMS[form]))
    rule_types = {"system": "VARCHAR", "place": "INTEGER", "vocabulary_id": "VARCHAR", "key": "VARCHAR"}
    _fill(connection, "vocabulary_rule", rule_types, rules)
    forms = []
    for system, place, form_of in others:
        literal = "'" + system.replace("'", "''") + "'"
        found = connection.execute(f"SELECT number, code FROM vocabulary_code WHERE system = {literal}").fetchall()
        forms += [(number, place, form_of(code)) for number, code in found]
    _fill(connection, "vocabulary_form", {"number": "INTEGER", "place": "INTEGER", "code": "VARCHAR"}, forms)
    connection.execute(_CANDIDATES)


def _tell_map_rows(connection: duckdb.DuckDBPyConnection, rows: list[MapRow]) -> None:
    """vocabulary_map: one line per approved row and key."""
    types = {
        "origin": "INTEGER",
        "key": "VARCHAR",
        "code": "VARCHAR",
        "concept_id": "INTEGER",
        "is_value": "BOOLEAN",
        "place": "INTEGER",
    }
    lines = [
        (ORIGINS.index(row.origin), key, row.code, row.concept_id, row.is_value, row.place)
        for row in rows
        for key in row.keys
    ]
    _fill(connection, "vocabulary_map", types, lines)


def _wanted(connection: duckdb.DuckDBPyConnection) -> str:
    """The vocabularies to look in, as literals, so that the Parquet reader skips the others' row groups."""
    found = connection.execute(
        "SELECT DISTINCT vocabulary_id FROM vocabulary_rule WHERE vocabulary_id IS NOT NULL ORDER BY 1"
    ).fetchall()
    return ", ".join("'" + name.replace("'", "''") + "'" for (name,) in found) or "''"


_CANDIDATES = """
CREATE OR REPLACE TEMP TABLE vocabulary_candidate AS
SELECT u.number, 0 AS form, r.place, r.vocabulary_id, r.key, u.code
FROM vocabulary_code u JOIN vocabulary_rule r ON r.system = u.system
UNION ALL
SELECT u.number, 1 AS form, r.place, r.vocabulary_id, r.key, f.code
FROM vocabulary_form f
JOIN vocabulary_code u ON u.number = f.number
JOIN vocabulary_rule r ON r.system = u.system AND r.place = f.place
WHERE f.code <> u.code AND f.code <> ''
"""

# the vocabulary's own concept of each code: as written before in another form, then the system's first vocabulary
_SOURCES = """
CREATE OR REPLACE TEMP TABLE vocabulary_source AS
SELECT number, concept_id, domain_id, vocabulary_id, standard_concept = 'S' AND invalid_reason IS NULL AS standard
FROM (
    SELECT t.number, t.form, t.place, c.*
    FROM concept c
    JOIN vocabulary_candidate t ON t.vocabulary_id = c.vocabulary_id AND t.code = c.concept_code
    WHERE c.vocabulary_id IN ({wanted})
)
QUALIFY row_number() OVER (PARTITION BY number ORDER BY form, place, invalid_reason IS NOT NULL, concept_id) = 1
"""

# every concept that somebody proposes for a code, with whether it may be a target
_TARGETS = """
CREATE OR REPLACE TEMP TABLE vocabulary_answer AS
WITH proposed AS (
    SELECT number, origin, concept_id, is_value, min(place) AS place, true AS valid
    FROM (
        SELECT k.number, m.origin, m.concept_id, m.is_value, m.place, k.form
        FROM vocabulary_candidate k JOIN vocabulary_map m ON m.key = k.key AND m.code = k.code
        QUALIFY k.form = min(k.form) OVER (PARTITION BY k.number, m.origin)
    )
    GROUP BY number, origin, concept_id, is_value
    UNION ALL
    SELECT s.number, 2, r.concept_id_2, r.relationship_id = 'Maps to value', r.concept_id_2, bool_or(r.invalid_reason
    IS NULL) FROM vocabulary_source s JOIN {relationship} r ON r.concept_id_1 = s.concept_id WHERE r.relationship_id
    IN ('Maps to', 'Maps to value') GROUP BY s.number, r.concept_id_2, r.relationship_id
)
SELECT p.*, coalesce(p.valid AND c.standard_concept = 'S' AND c.invalid_reason IS NULL, false) AS standard,
    c.domain_id, c.vocabulary_id
FROM proposed p LEFT JOIN concept c ON c.concept_id = p.concept_id
"""

_ANSWERS = """
CREATE OR REPLACE TEMP TABLE vocabulary_standard AS
SELECT * FROM (
    SELECT number, origin, concept_id, is_value, place, domain_id, vocabulary_id FROM vocabulary_answer WHERE standard
    UNION ALL BY NAME
    -- a standard concept stands for itself, also where its row to itself is not in the subset
    SELECT s.number, 2 AS origin, s.concept_id, false AS is_value, s.concept_id AS place, s.domain_id, s.vocabulary_id
    FROM vocabulary_source s
    WHERE s.standard AND NOT EXISTS (
        FROM vocabulary_answer a WHERE a.number = s.number AND a.origin = 2 AND a.standard AND NOT a.is_value
    )
    UNION ALL BY NAME
    -- a person looked and found no standard concept: an answer too
    SELECT number, origin, 0 AS concept_id, false AS is_value, place FROM vocabulary_answer
    WHERE origin < 2 AND concept_id = 0 AND NOT is_value
)
-- the first origin that names a target answers alone
QUALIFY origin = min(origin) FILTER (NOT is_value) OVER (PARTITION BY number);

CREATE OR REPLACE TABLE code_concept AS
WITH target AS (
    SELECT t.*, coalesce(domain_id IN ({domains}), false) AS holds_value
    FROM vocabulary_standard t
    WHERE NOT is_value AND (concept_id > 0 OR NOT EXISTS (
        FROM vocabulary_standard o WHERE o.number = t.number AND NOT o.is_value AND o.concept_id > 0
    ))
    -- several rows of a map may say 0
    QUALIFY row_number() OVER (PARTITION BY number, concept_id ORDER BY place) = 1
),
answer AS (
    SELECT t.*, v.concept_id AS value_concept_id, v.place AS value_place
    FROM (SELECT *, bool_or(holds_value) OVER (PARTITION BY number) AS some_hold FROM target) t
    LEFT JOIN vocabulary_standard v
        ON v.number = t.number AND v.is_value AND t.concept_id > 0 AND (t.holds_value OR NOT t.some_hold)
),
told AS (
    SELECT number, bool_or(origin < 2) AS by_map, bool_or(origin = 2 AND NOT is_value) AS by_vocabulary
    FROM vocabulary_answer GROUP BY number
),
known AS (
    SELECT number, first(vocabulary_id ORDER BY place) AS vocabulary_id,
        bool_or(vocabulary_id IN (SELECT vocabulary_id FROM concept) OR key IN (SELECT key FROM vocabulary_map)) AS loaded
    FROM vocabulary_candidate GROUP BY number
)
SELECT
    u.system,
    u.code,
    coalesce(s.vocabulary_id, known.vocabulary_id) AS vocabulary_id,
    coalesce(s.concept_id, 0) AS source_concept_id,
    s.domain_id AS source_domain_id,
    coalesce(a.concept_id, 0) AS target_concept_id,
    a.domain_id AS target_domain_id,
    a.vocabulary_id AS target_vocabulary_id,
    a.value_concept_id,
    row_number() OVER (
        PARTITION BY u.number ORDER BY a.place, a.concept_id, a.value_place, a.value_concept_id
    )::INTEGER AS map_rank,
    CASE a.origin WHEN 0 THEN 'site' WHEN 1 THEN 'study' WHEN 2 THEN 'vocabulary' END AS origin,
    CASE
        WHEN a.concept_id > 0 THEN NULL
        WHEN a.concept_id = 0 THEN 'approved-without-concept'
        WHEN told.by_map THEN 'map-target-not-standard'
        WHEN u.system = '' THEN 'no-system'
        WHEN told.by_vocabulary THEN 'target-not-standard'
        WHEN s.number IS NOT NULL THEN 'no-standard-concept'
        WHEN known.loaded THEN 'unknown-code'
        WHEN known.vocabulary_id IS NOT NULL THEN 'vocabulary-not-loaded'
        ELSE 'unknown-system'
    END AS reason
FROM vocabulary_code u
LEFT JOIN vocabulary_source s ON s.number = u.number
LEFT JOIN answer a ON a.number = u.number
LEFT JOIN told ON told.number = u.number
LEFT JOIN known ON known.number = u.number
ORDER BY u.number, map_rank
"""


# all that is above the concepts in use: CONCEPT_ANCESTOR where the download held it, else the 'Is a' rows, climbed
_ABOVE = """
SELECT ancestor_concept_id AS above, descendant_concept_id AS below FROM {ancestor}
"""
_CLIMB = """
WITH RECURSIVE parent AS MATERIALIZED (
    SELECT DISTINCT
        CASE relationship_id WHEN 'Is a' THEN concept_id_2 ELSE concept_id_1 END AS above,
        CASE relationship_id WHEN 'Is a' THEN concept_id_1 ELSE concept_id_2 END AS below
    FROM {relationship}
    WHERE relationship_id IN ('Is a', 'Subsumes') AND invalid_reason IS NULL
),
climb AS (
    SELECT above, below FROM parent SEMI JOIN vocabulary_in_use ON id = below
    UNION
    SELECT parent.above, climb.below FROM climb JOIN parent ON parent.below = climb.above
)
FROM climb
"""
_ANCESTORS = """
CREATE OR REPLACE TEMP TABLE vocabulary_in_use AS
SELECT DISTINCT unnest([source_concept_id, target_concept_id]) AS id FROM code_concept;

CREATE OR REPLACE TABLE code_ancestor AS
SELECT DISTINCT above AS ancestor_concept_id, below AS descendant_concept_id
FROM ({climbed})
SEMI JOIN vocabulary_in_use a ON a.id = above
SEMI JOIN vocabulary_in_use b ON b.id = below
WHERE above <> below
ORDER BY ALL;

DROP TABLE vocabulary_in_use
"""


def _tell_ancestors(connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary) -> None:
    """code_ancestor: which source and target concepts in code_concept are above which."""
    if vocabulary.has("concept_ancestor"):
        climbed = _ABOVE.format(ancestor=vocabulary.relation("concept_ancestor"))
    else:
        climbed = _CLIMB.format(relationship=vocabulary.relation(RESOLVING))
    connection.execute(_ANCESTORS.format(climbed=climbed))
