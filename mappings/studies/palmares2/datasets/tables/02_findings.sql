-- Findings: what was measured, each on its day, under the name that feature_sources.csv gives it. Nothing after death or cut-off.
CREATE TEMP TABLE finding_concept AS
SELECT DISTINCT feature, concept_id, CAST(NULL AS VARCHAR) AS source_code
FROM feature_source
JOIN concept ON concept.vocabulary_id = 'LOINC' AND concept.concept_code = feature_source.code
UNION
SELECT DISTINCT feature, concept_set.concept_id, NULL
FROM feature_source
JOIN concept_set USING (concept_set);

-- The meaning of each answer: as the source wrote it (HER2 0 and a plain 'negative' share a concept), by its concept, or as a number.
CREATE TEMP TABLE finding_answer AS
SELECT DISTINCT
    feature, concept_set.concept_id, concept_set.source_value, concept_set.value,
    CAST(dense_rank() OVER (ORDER BY concept_set.value) AS SMALLINT) AS word_number
FROM feature_source
JOIN concept_set ON concept_set.concept_set = value_set
WHERE how = 'word';

CREATE TEMP TABLE finding_word AS
SELECT DISTINCT word_number, value AS word FROM finding_answer;

-- One row per value, narrow: there are many. What a feature is stands in feature_source, a word in finding_word; day_number counts
-- from day 0.
CREATE TEMP TABLE finding AS
WITH measured AS (
    SELECT
        person_id, feature, measurement_date AS day, value_as_number AS number, value_as_concept_id, value_source_value,
        unit_concept_id, FALSE AS observed, measurement_id AS source_id
    FROM measurement
    JOIN finding_concept ON finding_concept.concept_id = measurement_concept_id
    UNION ALL
    -- no concept is known of it: it is found by its code
    SELECT
        person_id, feature, measurement_date, value_as_number, value_as_concept_id, value_source_value,
        unit_concept_id, FALSE, measurement_id
    FROM measurement
    JOIN feature_source ON feature_source.code = measurement_source_value
    WHERE measurement_concept_id = 0
    UNION ALL
    SELECT
        person_id, feature, observation_date, value_as_number, value_as_concept_id, NULL,
        unit_concept_id, TRUE, observation_id
    FROM observation
    JOIN finding_concept ON finding_concept.concept_id = observation_concept_id
    UNION ALL
    -- ECOG as a finding: the concept itself says the score
    SELECT
        person_id, 'ecog', measurement_date, CAST(concept_set.value AS DOUBLE), NULL, NULL, NULL, FALSE, measurement_id
    FROM measurement
    JOIN concept_set ON concept_set.concept_set = 'ecog-finding' AND concept_set.concept_id = measurement_concept_id
)
SELECT
    released_member.person_id, feature_number, CAST(measured.day - released_member.index_date AS INTEGER) AS day_number,
    CASE WHEN how = 'number' THEN number END AS value,
    coalesce(written.word_number, answer.word_number, scored.word_number) AS word_number,
    observed, source_id
FROM measured
JOIN feature_source USING (feature)
JOIN released_member ON released_member.member_id = measured.person_id AND measured.day BETWEEN since AND until
LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
LEFT JOIN finding_answer AS written
    ON written.feature = feature_source.feature AND written.concept_id = value_as_concept_id AND written.source_value = value_source_value
LEFT JOIN finding_answer AS answer
    ON answer.feature = feature_source.feature AND answer.concept_id = value_as_concept_id AND answer.source_value IS NULL
LEFT JOIN (SELECT DISTINCT feature, word_number, TRY_CAST(value AS DOUBLE) AS score FROM finding_answer) AS scored
    ON scored.feature = feature_source.feature AND value_as_concept_id IS NULL AND scored.score = number
WHERE CASE how
    -- in the unit asked for, or in none; another unit is not converted: it is no value
    WHEN 'number' THEN number BETWEEN low AND high
        AND (coalesce(unit_concept_id, 0) = 0 OR coalesce(unit.concept_code = unit_code, FALSE))
    ELSE coalesce(written.word_number, answer.word_number, scored.word_number) IS NOT NULL
END;

CREATE TEMP TABLE assessment_day AS
SELECT released_member.person_id, measurement_date AS day, response.value AS response
FROM measurement
JOIN concept_set AS response ON response.concept_set = 'response' AND response.concept_id = measurement_concept_id
JOIN released_member ON released_member.member_id = measurement.person_id
WHERE measurement_date <= until
GROUP BY ALL;
