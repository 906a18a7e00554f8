-- observation_period: derived from the visits; for a person without any, from the records.

-- ## observation_period
SELECT
    person_id,
    min(start_datetime) AS start_datetime,
    max(end_datetime) AS end_datetime
FROM (
    SELECT person_id, start_datetime, greatest(start_datetime, end_datetime) AS end_datetime, true AS is_visit FROM row_visit
    UNION ALL
    SELECT person_id, start_datetime, greatest(start_datetime, end_datetime), false FROM event WHERE cdm_table IS NOT NULL
    UNION ALL
    SELECT person_id, start_datetime, start_datetime, false FROM row_note
)
GROUP BY person_id, is_visit
QUALIFY is_visit = bool_or(is_visit) OVER (PARTITION BY person_id)
