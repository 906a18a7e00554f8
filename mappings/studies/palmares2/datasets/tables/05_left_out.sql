-- The records of the released patients, in the days of meds.sql, that it leaves out: no one could map them, so they have no code.
CREATE TEMP TABLE meds_left_out AS
SELECT cdm_table, count(*) AS records
FROM (
    SELECT 'condition_occurrence' AS cdm_table, person_id, condition_start_date AS day, condition_concept_id AS concept_id
    FROM condition_occurrence
    UNION ALL
    SELECT 'drug_exposure', person_id, drug_exposure_start_date, drug_concept_id FROM drug_exposure
    UNION ALL
    SELECT 'procedure_occurrence', person_id, procedure_date, procedure_concept_id FROM procedure_occurrence
    UNION ALL
    SELECT 'visit_occurrence', person_id, visit_start_date, visit_concept_id FROM visit_occurrence
    UNION ALL
    -- what the study knows by its LOINC code is in
    SELECT 'measurement', person_id, measurement_date, measurement_concept_id
    FROM measurement
    WHERE measurement_concept_id <> 0
        OR measurement_source_value IS NULL
        OR measurement_source_value NOT IN (SELECT code FROM feature_source WHERE code IS NOT NULL)
    UNION ALL
    SELECT 'observation', person_id, observation_date, observation_concept_id FROM observation
) AS record
JOIN released_member ON released_member.member_id = record.person_id
LEFT JOIN concept ON concept.concept_id = record.concept_id AND concept.concept_id <> 0
WHERE day BETWEEN since AND until AND concept.concept_id IS NULL
GROUP BY cdm_table
ORDER BY cdm_table;
