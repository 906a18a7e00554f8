-- Advanced disease is diagnosed, with a date
SELECT
    person_id,
    CASE WHEN advanced_date IS NULL THEN 'FAIL' ELSE 'PASS' END AS answer,
    CASE WHEN advanced_date IS NULL THEN 'no-advanced-disease' ELSE 'advanced-dated' END AS reason,
    advanced_date AS date_used,
    NULL AS flag
FROM study_person
LEFT JOIN advanced_disease USING (person_id)
