-- HER2 is low in the sample that decides: IHC 1+, or 2+ without amplification
SELECT person_id, state.value = 'low' AS member, index_date AS start_date
FROM eligible_person
-- 'negative' without a score is 0 or 1+: unknown
LEFT JOIN (FROM state WHERE name = 'her2' AND value IN ('zero', 'low')) AS state USING (person_id)
