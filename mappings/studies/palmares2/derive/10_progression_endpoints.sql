-- rwPFS in each of its variants, and rwPFS beyond progression: the first progression on or before the end of progression
-- follow-up; else death within 30 days after it; else censored there, not at last contact.
CREATE TEMP TABLE beyond AS
-- the first progression with the same drugs continued; it is over with the first later progression at which the line has ended
SELECT
    follow_up.person_id, follow_up.progression AS start_date,
    min(later.day) AS progression, arg_min(later.source_id, later.day) AS progression_id
FROM follow_up
LEFT JOIN progression_day AS later
    ON later.person_id = follow_up.person_id
    AND later.day > follow_up.progression
    AND follow_up.line_end <= later.day + beyond_progression_days()
WHERE follow_up.line_number IS NOT NULL
    AND follow_up.progression + beyond_progression_days() < coalesce(follow_up.line_end, follow_up.last_contact)
    -- it came while the index line ran
    AND coalesce(follow_up.progression < follow_up.next_line, TRUE)
GROUP BY ALL;

CREATE TEMP TABLE progression_endpoint AS
WITH asked AS (
    SELECT
        rule.paramcd, rule.new_line AS new_line_rule, follow_up.person_id, follow_up.line_number, follow_up.death_date, follow_up.death_id,
        follow_up.start_date, follow_up.progression, follow_up.progression_id,
        -- a new line without a progression before it
        CASE
            WHEN rule.new_line <> 'follow' AND coalesce(follow_up.progression > follow_up.next_line, TRUE) THEN follow_up.next_line
        END AS new_line,
        rule.gap_days
    FROM follow_up CROSS JOIN endpoint_rule AS rule
    WHERE rule.kind = 'progression'
    UNION ALL
    SELECT
        rule.paramcd, rule.new_line, follow_up.person_id, follow_up.line_number, follow_up.death_date, follow_up.death_id,
        beyond.start_date, beyond.progression, beyond.progression_id, NULL, rule.gap_days
    FROM beyond JOIN follow_up USING (person_id) CROSS JOIN endpoint_rule AS rule
    WHERE rule.kind = 'beyond-progression'
),
answered AS (
    SELECT
        asked.*, ended.end_date AS followed_to, ended.reason, ended.source_id AS assessment_id,
        CASE
            WHEN progression <= ended.end_date AND coalesce(progression <= new_line, TRUE) THEN 'progression'
            WHEN new_line <= ended.end_date THEN 'new-line'
            WHEN death_date <= ended.end_date + death_after_assessment_days() THEN 'death'
            ELSE 'end'
        END AS what
    FROM asked
    JOIN progression_follow_up AS ended
        ON ended.person_id = asked.person_id AND ended.gap_days = asked.gap_days AND ended.from_day = asked.start_date
)
SELECT
    person_id, paramcd, line_number, start_date,
    CASE what WHEN 'progression' THEN progression WHEN 'new-line' THEN new_line WHEN 'death' THEN death_date ELSE followed_to END
        AS end_date,
    CASE WHEN what IN ('progression', 'death') OR what = 'new-line' AND new_line_rule = 'event' THEN what END AS evntdesc,
    CASE WHEN what = 'new-line' AND new_line_rule = 'censor' THEN 'new-line' WHEN what = 'end' THEN reason END AS cnsdtdsc,
    CASE WHEN what = 'progression' OR what = 'end' AND reason <> 'never-assessed' THEN 'measurement' WHEN what = 'death' THEN 'death' END
        AS source_table,
    CASE what WHEN 'progression' THEN progression_id WHEN 'death' THEN death_id WHEN 'end' THEN assessment_id END AS source_id
FROM answered;
