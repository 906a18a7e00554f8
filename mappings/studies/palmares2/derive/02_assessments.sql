-- Tumour assessments, one row per patient, day and response; and the days of progression. What is dated after death is an error.
CREATE TEMP TABLE assessment AS
SELECT
    member.person_id,
    measurement.measurement_date AS day,
    response.value AS response,
    min(measurement.measurement_id) AS source_id
FROM measurement
JOIN concept_set AS response
    ON response.concept_set = 'response' AND response.concept_id = measurement.measurement_concept_id
JOIN member ON member.member_id = measurement.person_id
JOIN patient ON patient.person_id = member.person_id
WHERE measurement.measurement_date <= least(cut_off(), patient.dies)
GROUP BY ALL;

CREATE TEMP TABLE progression_day AS
SELECT person_id, day, source_id FROM assessment WHERE response = 'PD';

-- What a site says by a code of the registry of its own: lines that it declares, the day of the consent.
CREATE TEMP TABLE said AS
SELECT member.person_id, word, number, day, source_table, source_id
FROM (
    SELECT
        person_id, observation_source_value AS word, value_as_number AS number, observation_date AS day,
        'observation' AS source_table, observation_id AS source_id
    FROM observation
    WHERE observation_source_value IN (declared_line_code(), consent_code()) AND observation_date <= cut_off()
    UNION ALL
    -- an answer that is a number stands among the measurements
    SELECT
        person_id, measurement_source_value, value_as_number, measurement_date, 'measurement', measurement_id
    FROM measurement
    WHERE measurement_source_value IN (declared_line_code(), consent_code()) AND measurement_date <= cut_off()
) AS row
JOIN member ON member.member_id = row.person_id;
