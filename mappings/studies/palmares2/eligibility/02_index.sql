-- A CDK4/6 inhibitor was started for the advanced disease
-- Without it the person is registered, not analysable.
SELECT
    person_id,
    CASE WHEN index_date IS NULL THEN 'FAIL' ELSE 'PASS' END AS answer,
    CASE WHEN index_date IS NULL THEN 'not-started' ELSE 'cdk46-started' END AS reason,
    index_date AS date_used,
    CASE WHEN two_drugs THEN 'two-index-drugs' END AS flag
FROM study_person
LEFT JOIN index_start USING (person_id)
