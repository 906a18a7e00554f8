-- The disease is primarily or secondarily endocrine-resistant (ESO-ESMO) at the index
SELECT person_id, state.value IN ('primary-resistant', 'secondary-resistant', 'resistant') AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (FROM state WHERE name = 'endocrine-resistance') AS state USING (person_id)
