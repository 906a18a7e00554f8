-- Findings: what was measured, each on its day, under the name that feature_sources.csv gives it. Nothing after death or cut-off.
CREATE TEMP TABLE finding_concept AS
SELECT feature_number, how, low, high, unit_code, concept.concept_id
FROM feature_source
JOIN concept ON concept.vocabulary_id = 'LOINC' AND concept.concept_code = feature_source.code
UNION
SELECT feature_number, how, low, high, unit_code, concept_set.concept_id
FROM feature_source
JOIN concept_set USING (concept_set);

-- The meaning of each answer: as the source wrote it (HER2 0 and a plain 'negative' share a concept), by its concept, or as a number.
CREATE TEMP TABLE finding_answer AS
SELECT DISTINCT
    feature_number, concept_set.concept_id, concept_set.source_value, concept_set.value,
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
        person_id, measurement_date AS day, value_as_number AS number, value_as_concept_id, value_source_value, unit_concept_id,
        FALSE AS observed, measurement_id AS source_id, feature_number, how, low, high, unit_code
    FROM measurement
    JOIN finding_concept ON finding_concept.concept_id = measurement_concept_id
    UNION ALL
    -- no concept is known of it: it is found by its code
    SELECT
        person_id, measurement_date, value_as_number, value_as_concept_id, value_source_value, unit_concept_id,
        FALSE, measurement_id, feature_number, how, low, high, unit_code
    FROM measurement
    JOIN feature_source ON feature_source.code = measurement_source_value
    WHERE measurement_concept_id = 0
    UNION ALL
    SELECT
        person_id, observation_date, value_as_number, value_as_concept_id, NULL, unit_concept_id,
        TRUE, observation_id, feature_number, how, low, high, unit_code
    FROM observation
    JOIN finding_concept ON finding_concept.concept_id = observation_concept_id
    UNION ALL
    -- ECOG as a finding: the concept itself says the score
    SELECT
        person_id, measurement_date, CAST(concept_set.value AS DOUBLE), NULL, NULL, NULL,
        FALSE, measurement_id, feature_number, how, low, high, unit_code
    FROM measurement
    JOIN concept_set ON concept_set.concept_set = 'ecog-finding' AND concept_set.concept_id = measurement_concept_id
    JOIN feature_source ON feature = 'ecog'
),
kept AS (
    SELECT
        released_member.person_id, feature_number, CAST(measured.day - released_member.index_date AS INTEGER) AS day_number,
        CASE WHEN how = 'number' THEN number END AS value,
        how, value_as_concept_id, value_source_value, observed, source_id,
        -- a score that was sent as a number
        CASE WHEN how = 'word' AND value_as_concept_id IS NULL THEN number END AS score
    FROM measured
    JOIN released_member ON released_member.member_id = measured.person_id
    LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
    WHERE measured.day BETWEEN since AND until
        AND (
            how = 'word'
            -- in the unit asked for, or in none; another unit is not converted: it is no value
            OR number BETWEEN low AND high
                AND (coalesce(unit_concept_id, 0) = 0 OR coalesce(unit.concept_code = unit_code, FALSE))
        )
)
SELECT person_id, feature_number, day_number, value, CAST(NULL AS SMALLINT) AS word_number, observed, source_id
FROM kept
WHERE how = 'number'
UNION ALL
SELECT
    person_id, kept.feature_number, day_number, NULL,
    coalesce(written.word_number, answer.word_number, scored.word_number), observed, source_id
FROM kept
LEFT JOIN finding_answer AS written
    ON written.feature_number = kept.feature_number AND written.concept_id = value_as_concept_id
    AND written.source_value = value_source_value
LEFT JOIN finding_answer AS answer
    ON answer.feature_number = kept.feature_number AND answer.concept_id = value_as_concept_id AND answer.source_value IS NULL
LEFT JOIN (SELECT DISTINCT feature_number, word_number, TRY_CAST(value AS DOUBLE) AS score FROM finding_answer) AS scored
    ON scored.feature_number = kept.feature_number AND scored.score = kept.score
WHERE how = 'word' AND coalesce(written.word_number, answer.word_number, scored.word_number) IS NOT NULL;

CREATE TEMP TABLE assessment_day AS
SELECT released_member.person_id, measurement_date AS day, response.value AS response
FROM measurement
JOIN concept_set AS response ON response.concept_set = 'response' AND response.concept_id = measurement_concept_id
JOIN released_member ON released_member.member_id = measurement.person_id
WHERE measurement_date <= until
GROUP BY ALL;
