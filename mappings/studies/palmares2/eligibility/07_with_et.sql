-- It is given with endocrine therapy, active within index - {partner_days_before_index} to + {partner_days_after_index} days
-- An LHRH analogue alone does not count.
WITH partner AS (
    SELECT person_id, min(start_date) AS start_date
    FROM study_drug
    JOIN index_start USING (person_id)
    WHERE drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd')
        AND start_date <= index_date + partner_days_after_index()
        AND (end_date IS NULL OR end_date >= index_date - partner_days_before_index())
    GROUP BY person_id
)
SELECT
    person_id,
    CASE WHEN index_date IS NULL THEN 'UNKNOWN' WHEN start_date IS NULL THEN 'FAIL' ELSE 'PASS' END AS answer,
    CASE WHEN index_date IS NULL THEN 'no-index' WHEN start_date IS NULL THEN 'no-et' ELSE 'with-et' END AS reason,
    start_date AS date_used,
    NULL AS flag
FROM study_person
LEFT JOIN index_start USING (person_id)
LEFT JOIN partner USING (person_id)
