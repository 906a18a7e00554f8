-- Which coding of a CodeableConcept speaks, and for which concepts: the guide's Code Prioritization Framework (f2o-034 to -036),
-- once per distinct list of codings. Reads code_item, code_concept, code_ancestor, domain_table, priority, profile_rule, unit_used.

CREATE TABLE chosen_coding AS
WITH answer AS (
    SELECT
        i.profile,
        i.list_key,
        i.position,
        i.system,
        i.code,
        i.display,
        i.user_selected,
        a.vocabulary_id,
        a.source_concept_id,
        bool_or(a.target_concept_id > 0) AS resolved,
        bool_and(a.target_domain_id = r.avoid_domain_id) AS avoided,
        min(a.target_concept_id) AS target_concept_id
    FROM code_item i
    JOIN code_concept a ON a.system = i.system AND a.code = i.code
    LEFT JOIN profile_rule r ON r.profile = i.profile
    GROUP BY ALL
),
-- a coding beside which a more specific one of the same vocabulary stands
general AS (
    SELECT DISTINCT a.profile, a.list_key, a.position
    FROM answer a
    JOIN answer o ON o.profile = a.profile AND o.list_key = a.list_key AND o.vocabulary_id = a.vocabulary_id AND o.position <> a.position
    JOIN code_ancestor h ON h.ancestor_concept_id = a.source_concept_id AND h.descendant_concept_id = o.source_concept_id
    UNION
    SELECT a.profile, a.list_key, a.position
    FROM answer a
    JOIN answer o ON o.profile = a.profile AND o.list_key = a.list_key AND o.vocabulary_id = a.vocabulary_id AND o.position <> a.position
    JOIN code_ancestor h ON h.ancestor_concept_id = a.target_concept_id AND h.descendant_concept_id = o.target_concept_id
)
SELECT a.profile, a.list_key, a.system, a.code, a.display
FROM answer a
LEFT JOIN priority p ON p.profile = a.profile AND p.vocabulary_id = a.vocabulary_id
LEFT JOIN general g ON g.profile = a.profile AND g.list_key = a.list_key AND g.position = a.position
QUALIFY row_number() OVER (
    PARTITION BY a.profile, a.list_key
    ORDER BY
        a.resolved DESC,
        coalesce(a.avoided, false),
        -- 1. the vocabulary, in the order of the kind of record
        coalesce(p.rank, 1000),
        -- 2. of a general and a more specific code of one vocabulary, the specific one
        g.position IS NOT NULL,
        -- 3. the coding that the user chose
        a.user_selected DESC,
        -- 4. the first
        a.position
) = 1;

CREATE TABLE choice AS
SELECT
    c.profile,
    c.list_key,
    w.identifying,
    (row_number() OVER (ORDER BY c.profile, c.system, c.code, c.list_key, a.map_rank))::INTEGER AS code_no,
    row_number() OVER (PARTITION BY c.profile, c.list_key ORDER BY a.target_concept_id, a.value_concept_id) AS lowest,
    CASE WHEN a.map_rank = 1 THEN '' ELSE '/concept/' || concat_ws('/', a.target_concept_id, a.value_concept_id) END AS discriminator,
    a.target_concept_id AS concept_id,
    a.target_domain_id AS domain_id,
    d.cdm_table,
    left(c.code, 50) AS source_value,
    a.source_concept_id,
    a.vocabulary_id AS source_vocabulary_id,
    a.value_concept_id,
    c.system,
    c.code,
    c.display,
    a.reason
FROM chosen_coding c
-- what it says may tell who it is about: a name, a number
JOIN (
    SELECT profile, list_key, coalesce(bool_or(identifying_code(code) = system), false) AS identifying FROM code_item GROUP BY ALL
) w ON w.profile = c.profile AND w.list_key = c.list_key
JOIN code_concept a ON a.system = c.system AND a.code = c.code
LEFT JOIN domain_table d ON d.domain_id = a.target_domain_id AND a.target_concept_id > 0;

-- units and modalities: one system and code each
CREATE TABLE unit AS
SELECT
    u.system,
    u.code,
    (-row_number() OVER (ORDER BY u.system, u.code))::INTEGER AS code_no,
    a.target_concept_id AS concept_id,
    a.source_concept_id,
    a.vocabulary_id AS source_vocabulary_id,
    a.reason
FROM unit_used u
JOIN code_concept a ON a.system = u.system AND a.code = u.code
QUALIFY row_number() OVER (PARTITION BY u.system, u.code ORDER BY a.target_concept_id) = 1;
