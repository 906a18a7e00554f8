-- Follow-up is possible for {follow_up_months} calendar months before the cut-off
-- Potential, not observed: a patient who dies on day 40 stays in. The observed reading is a named variant only.
SELECT
    person_id,
    CASE
        WHEN reason = 'no-index' THEN 'UNKNOWN'
        WHEN reason = 'potential-follow-up' THEN 'PASS'
        ELSE 'FAIL'
    END AS answer,
    reason,
    date_used,
    -- someone dead cannot begin a drug: one of the two dates is wrong
    CASE WHEN death_date < index_date THEN 'death-before-index' END AS flag
FROM (
    SELECT
        person_id, index_date, death_date,
        CAST(index_date + to_months(follow_up_months()) AS DATE) AS date_used,      -- clipped to the month's end
        CASE
            WHEN index_date IS NULL THEN 'no-index'
            WHEN date_used > cut_off() THEN 'cut-off-too-early'
            WHEN follow_up_rule() = 'observed' AND coalesce(death_date, last_contact) < date_used THEN 'observed-too-short'
            ELSE 'potential-follow-up'
        END AS reason
    FROM study_person
    LEFT JOIN index_start USING (person_id)
    LEFT JOIN vital_status USING (person_id)
)
