-- The tumour is hormone-receptor positive: ER or PgR at least {receptor_positive_percent} %
SELECT
    person_id,
    CASE
        WHEN index_date IS NULL OR hr_positive IS NULL THEN 'UNKNOWN'
        WHEN hr_positive THEN 'PASS'
        ELSE 'FAIL'
    END AS answer,
    CASE
        WHEN index_date IS NULL THEN 'no-index'
        WHEN hr_positive IS NULL THEN 'hr-unknown'
        WHEN NOT hr_positive THEN 'hr-negative'
        WHEN hr_at_most <= receptor_low_percent() THEN 'hr-low'     -- the higher of the two, as far as known
        ELSE 'hr-positive'
    END AS reason,
    sample_date AS date_used,
    NULL AS flag
FROM study_person
LEFT JOIN index_start USING (person_id)
LEFT JOIN chosen_sample USING (person_id)
