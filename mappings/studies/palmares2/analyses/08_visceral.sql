-- Visceral disease at the index: liver, lung, pleura or peritoneum
SELECT person_id, state.value = 'yes' AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (FROM state WHERE name = 'visceral') AS state USING (person_id)
