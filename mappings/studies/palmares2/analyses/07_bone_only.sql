-- Bone is the only metastatic site at the index
SELECT person_id, state.value = 'yes' AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (FROM state WHERE name = 'bone-only') AS state USING (person_id)
