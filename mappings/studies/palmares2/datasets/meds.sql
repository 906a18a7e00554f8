-- Every recorded event of the released patients, as MEDS has them: a code, a day, a value. Baseline comes from the initiating site,
-- follow-up from all; nothing after death or cut-off. A code is VOCABULARY//CODE of the OMOP concept; a record that no one could map
-- has none and is left out, but for what the study knows by its LOINC code. Text of a source never leaves: text_value is a concept's name.
WITH coded AS (
    SELECT
        concept_id,
        -- a concept whose code no public source tells is known by its id
        CASE
            WHEN vocabulary_id = 'None' OR starts_with(concept_code, '(unknown') THEN 'OMOP//' || concept_id
            ELSE vocabulary_id || '//' || concept_code
        END AS code,
        concept_name AS description
    FROM concept
    WHERE concept_id <> 0
),
recorded AS (
    SELECT condition_occurrence.person_id AS member_id, condition_start_date AS day, code, description, NULL AS number, NULL AS text, NULL AS unit
    FROM condition_occurrence JOIN coded ON concept_id = condition_concept_id
    UNION ALL
    SELECT drug_exposure.person_id, drug_exposure_start_date, code, description, quantity, NULL, NULL
    FROM drug_exposure JOIN coded ON concept_id = drug_concept_id
    UNION ALL
    SELECT drug_exposure.person_id, verbatim_end_date, code || '//STOP', description || ', last day', NULL, NULL, NULL
    FROM drug_exposure JOIN coded ON concept_id = drug_concept_id
    WHERE verbatim_end_date >= drug_exposure_start_date
    UNION ALL
    SELECT procedure_occurrence.person_id, procedure_date, code, description, NULL, NULL, NULL
    FROM procedure_occurrence JOIN coded ON concept_id = procedure_concept_id
    UNION ALL
    SELECT visit_occurrence.person_id, visit_start_date, code, description, NULL, NULL, NULL
    FROM visit_occurrence JOIN coded ON concept_id = visit_concept_id
    UNION ALL
    SELECT measurement.person_id, measurement_date, coded.code, coded.description, value_as_number, answer.description, unit.concept_code
    FROM measurement
    JOIN coded ON coded.concept_id = measurement_concept_id
    LEFT JOIN coded AS answer ON answer.concept_id = value_as_concept_id
    LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
    UNION ALL
    SELECT measurement.person_id, measurement_date, 'LOINC//' || code, label, value_as_number, NULL, unit.concept_code
    FROM measurement
    JOIN feature_source ON feature_source.code = measurement_source_value
    LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
    WHERE measurement_concept_id = 0
    UNION ALL
    SELECT observation.person_id, observation_date, coded.code, coded.description, value_as_number, answer.description, NULL
    FROM observation
    JOIN coded ON coded.concept_id = observation_concept_id
    LEFT JOIN coded AS answer ON answer.concept_id = value_as_concept_id
),
happened AS (
    SELECT person_id, day - index_date AS day, code, description, number, text, unit
    FROM recorded
    JOIN released_member USING (member_id)
    WHERE day BETWEEN since AND until
    UNION ALL
    SELECT person_id, 0, 'PALMARES//INDEX', 'Day 0: first CDK4/6 inhibitor for advanced disease', NULL, NULL, NULL FROM released
    UNION ALL
    SELECT person_id, start_date - index_date, 'PALMARES//LINE//' || line_number, 'First day of this line of therapy', NULL, regimen, NULL
    FROM course_line JOIN released USING (person_id)
    UNION ALL
    SELECT person_id, death_date - index_date, 'MEDS_DEATH', 'Death', NULL, NULL, NULL FROM released WHERE death_date IS NOT NULL
    UNION ALL
    -- in whole years before day 0: in days it would give the birth date away
    SELECT
        person_id,
        -CAST(floor(365.25 * least(
            year(index_date) - year_of_birth - CAST(month(index_date) < coalesce(month_of_birth, 1) AS INTEGER), age_top_code()
        )) AS INTEGER),
        'MEDS_BIRTH', 'Birth, in whole years before day 0, age top-coded', NULL, NULL, NULL
    FROM released WHERE year_of_birth IS NOT NULL
    UNION ALL
    SELECT person_id, NULL, 'PALMARES//INDEX_YEAR', 'Calendar year of day 0', year(index_date), NULL, NULL FROM released
    UNION ALL
    SELECT person_id, NULL, 'SITE//' || site, 'Hospital', NULL, NULL, NULL FROM released WHERE site IS NOT NULL
    UNION ALL
    SELECT person_id, NULL, 'GENDER//' || sex, 'Sex', NULL, NULL, NULL FROM released WHERE sex IS NOT NULL
)
SELECT
    place, patient, day, code, description, CAST(number AS FLOAT) AS numeric_value, text AS text_value, unit
FROM happened
JOIN released USING (person_id)
