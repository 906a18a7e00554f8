-- No CDK4/6 inhibitor was given for localised disease, ever
WITH adjuvant AS (
    SELECT person_id, min(start_date) AS start_date
    FROM study_drug
    JOIN advanced_disease USING (person_id)
    WHERE drug_class = 'cdk46' AND start_date < advanced_date
    GROUP BY person_id
)
SELECT
    person_id,
    CASE WHEN index_date IS NULL THEN 'UNKNOWN' WHEN start_date IS NULL THEN 'PASS' ELSE 'FAIL' END AS answer,
    CASE
        WHEN index_date IS NULL THEN 'no-index'
        WHEN start_date IS NULL THEN 'no-adjuvant-cdk46'
        ELSE 'adjuvant-cdk46'
    END AS reason,
    start_date AS date_used,
    NULL AS flag
FROM study_person
LEFT JOIN index_start USING (person_id)
LEFT JOIN adjuvant USING (person_id)
