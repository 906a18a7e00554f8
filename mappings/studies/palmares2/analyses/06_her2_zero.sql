-- HER2 is zero in the sample that decides: IHC 0
SELECT person_id, state.value = 'zero' AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (FROM state WHERE name = 'her2' AND value IN ('zero', 'low')) AS state USING (person_id)
