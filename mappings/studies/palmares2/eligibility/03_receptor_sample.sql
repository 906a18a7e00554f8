-- A receptor sample lies on or before index + {receptor_days_after_index} days
SELECT
    person_id,
    CASE WHEN index_date IS NULL OR origin IS NULL THEN 'UNKNOWN' ELSE 'PASS' END AS answer,
    CASE
        WHEN index_date IS NULL THEN 'no-index'
        WHEN origin = 'metastatic' THEN 'sample-metastatic'
        WHEN origin = 'primary' THEN 'sample-primary'
        WHEN person_id IN (SELECT person_id FROM receptor_sample) THEN 'sample-late'
        ELSE 'no-sample'
    END AS reason,
    sample_date AS date_used,
    CASE WHEN discordant THEN 'receptor-discordance' END AS flag
FROM study_person
LEFT JOIN index_start USING (person_id)
LEFT JOIN chosen_sample USING (person_id)
