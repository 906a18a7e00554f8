-- Everyone who is eligible
SELECT person_id, TRUE AS member, index_date AS start_date FROM eligible_person
