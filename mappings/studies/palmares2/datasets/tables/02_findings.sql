-- Findings: what was measured, each on its day, under the name that feature_sources.csv gives it. Nothing after death or cut-off.
CREATE TEMP TABLE finding_concept AS
SELECT DISTINCT feature, concept_id, CAST(NULL AS VARCHAR) AS source_code
FROM feature_source
JOIN concept ON concept.vocabulary_id = 'LOINC' AND concept.concept_code = feature_source.code
UNION
SELECT DISTINCT feature, concept_set.concept_id, NULL
FROM feature_source
JOIN concept_set USING (concept_set);

CREATE TEMP TABLE finding AS
WITH measured AS (
    SELECT
        released_member.person_id, feature, measurement_date AS day, value_as_number AS number,
        value_as_concept_id, value_source_value, unit_concept_id, 'measurement' AS source, measurement_id AS source_id,
        measurement_concept_id AS concept_id
    FROM measurement
    JOIN finding_concept ON finding_concept.concept_id = measurement_concept_id
    JOIN released_member ON released_member.member_id = measurement.person_id
    WHERE measurement_date BETWEEN since AND until
    UNION ALL
    -- no concept is known of it: it is found by its code
    SELECT
        released_member.person_id, feature, measurement_date, value_as_number,
        value_as_concept_id, value_source_value, unit_concept_id, 'measurement', measurement_id, 0
    FROM measurement
    JOIN feature_source ON feature_source.code = measurement_source_value
    JOIN released_member ON released_member.member_id = measurement.person_id
    WHERE measurement_concept_id = 0 AND measurement_date BETWEEN since AND until
    UNION ALL
    SELECT
        released_member.person_id, feature, observation_date, value_as_number,
        value_as_concept_id, NULL, unit_concept_id, 'observation', observation_id, observation_concept_id
    FROM observation
    JOIN finding_concept ON finding_concept.concept_id = observation_concept_id
    JOIN released_member ON released_member.member_id = observation.person_id
    WHERE observation_date BETWEEN since AND until
)
SELECT
    measured.person_id, feature_source.feature, feature_source.family, feature_source.kind, feature_source.token,
    measured.day,
    CASE WHEN how = 'number' THEN number END AS value,
    CASE WHEN how = 'word' THEN coalesce(written.value, answer.value, scored.value) END AS word,
    feature_source.unit, source, source_id
FROM measured
JOIN feature_source USING (feature)
LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
-- HER2 0 and a plain 'negative' share a concept: what the source wrote tells them apart
LEFT JOIN concept_set AS written
    ON how = 'word' AND written.concept_set = value_set AND written.concept_id = value_as_concept_id
    AND written.source_value = value_source_value
LEFT JOIN concept_set AS answer
    ON how = 'word' AND answer.concept_set = value_set AND answer.concept_id = value_as_concept_id
    AND answer.source_value IS NULL
-- a score that was sent as a number
LEFT JOIN concept_set AS scored
    ON how = 'word' AND scored.concept_set = value_set AND value_as_concept_id IS NULL AND feature = 'ecog'
    AND scored.value = CAST(TRY_CAST(number AS INTEGER) AS VARCHAR) AND number = floor(number)
WHERE CASE how
    -- in the unit asked for, or in none; another unit is not converted: it is no value
    WHEN 'number' THEN number BETWEEN low AND high AND (unit_concept_id IS NULL OR unit_concept_id = 0 OR unit.concept_id IS NOT NULL) AND coalesce(unit.concept_code, unit_code) = unit_code
    ELSE coalesce(written.value, answer.value, scored.value) IS NOT NULL
END;

INSERT INTO finding
-- ECOG as a finding: the concept itself says the score
SELECT released_member.person_id, 'ecog', family, kind, token, measurement_date, NULL, concept_set.value, NULL, 'measurement', measurement_id
FROM measurement
JOIN concept_set ON concept_set.concept_set = 'ecog-finding' AND concept_set.concept_id = measurement_concept_id
JOIN feature_source ON feature = 'ecog'
JOIN released_member ON released_member.member_id = measurement.person_id
WHERE measurement_date BETWEEN since AND until;

CREATE TEMP TABLE assessment_day AS
SELECT released_member.person_id, measurement_date AS day, response.value AS response
FROM measurement
JOIN concept_set AS response ON response.concept_set = 'response' AND response.concept_id = measurement_concept_id
JOIN released_member ON released_member.member_id = measurement.person_id
WHERE measurement_date <= until
GROUP BY ALL;
