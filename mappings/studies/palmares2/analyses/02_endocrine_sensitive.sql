-- The disease is endocrine-sensitive (ESO-ESMO) at the index
SELECT person_id, state.value = 'sensitive' AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (FROM state WHERE name = 'endocrine-resistance') AS state USING (person_id)
