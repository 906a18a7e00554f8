-- One row per patient and named analysis: who belongs to it, as the cohort folder says.
SELECT
    patient, analysis, member,
    CASE WHEN member THEN start_date - index_date END AS start_day
FROM analysis_member
JOIN released USING (person_id)
ORDER BY patient, analysis
