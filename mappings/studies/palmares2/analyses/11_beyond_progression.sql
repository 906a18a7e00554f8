-- Treated with the same drugs beyond the first progression; the cohort begins with that progression
SELECT
    person_id,
    -- where endpoints are withheld (deaths that conflict), it is not known
    CASE WHEN withheld.person_id IS NULL THEN beyond.person_id IS NOT NULL END AS member,
    beyond.start_date
FROM eligible_person
LEFT JOIN (FROM endpoint WHERE paramcd = 'RWPFSBP') AS beyond USING (person_id)
LEFT JOIN (FROM state WHERE name = 'endpoints-withheld') AS withheld USING (person_id)
