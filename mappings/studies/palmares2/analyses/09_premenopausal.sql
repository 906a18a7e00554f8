-- Women who are premenopausal at the index
SELECT
    person_id,
    CASE WHEN sex = 'M' THEN FALSE ELSE state.value = 'pre' END AS member,
    index_date AS start_date
FROM eligible_person
JOIN study_person USING (person_id)
LEFT JOIN (FROM state WHERE name = 'menopause') AS state USING (person_id)
