-- Death and last contact as the endpoints have them: none where they are withheld (the sites disagree, or death before day 0).
CREATE TEMP TABLE course AS
SELECT
    person_id, CASE WHEN evntdesc = 'death' THEN end_date END AS death_date, end_date AS last_contact
FROM derived_endpoint
JOIN released USING (person_id)
WHERE paramcd = 'RWOS';

-- The lines of each patient with what came before and what comes next.
CREATE TEMP TABLE course_line AS
SELECT
    line.*,
    lag(start_date) OVER one AS previous_start,
    lag(line_number) OVER one AS previous_number,
    lag(regimen) OVER one AS previous_regimen,
    lag(array_to_string(classes, '+')) OVER one AS previous_classes,
    lag(end_reason) OVER one AS previous_end_reason,
    count(*) OVER earlier AS previous_lines,
    coalesce(bool_or(list_contains(classes, 'cdk46')) OVER earlier, FALSE) AS prior_cdk46,
    coalesce(bool_or(list_contains(classes, 'chemotherapy')) OVER earlier, FALSE) AS prior_chemotherapy,
    lead(start_date) OVER one AS next_start,
    lead(regimen) OVER one AS next_regimen,
    lead(array_to_string(classes, '+')) OVER one AS next_classes
FROM derived_line AS line
JOIN released USING (person_id)
WINDOW
    one AS (PARTITION BY line.person_id ORDER BY line_number),
    earlier AS (PARTITION BY line.person_id ORDER BY line_number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

-- Progression-free survival of each line: the rule of RWPFS, counted from the line's first day. The gap is that of RWPFS.
CREATE TEMP TABLE line_follow_up AS
WITH assessed AS (
    SELECT
        person_id, line_number, day,
        lead(day) OVER (PARTITION BY person_id, line_number ORDER BY day) AS next_day
    FROM (
        SELECT DISTINCT course_line.person_id, line_number, day
        FROM course_line
        JOIN assessment_day ON assessment_day.person_id = course_line.person_id AND assessment_day.day > start_date
    )
)
SELECT person_id, line_number, min(day) AS last_day
FROM assessed
WHERE coalesce(next_day - day > (SELECT gap_days FROM endpoint_rule WHERE paramcd = 'RWPFS'), TRUE)
GROUP BY ALL;

CREATE TEMP TABLE line_outcome AS
SELECT
    person_id, line_number,
    CASE
        WHEN progression <= followed_to THEN progression
        WHEN death_date <= followed_to + death_after_assessment_days() THEN death_date
        ELSE followed_to
    END AS pfs_date,
    coalesce(progression <= followed_to, FALSE) OR coalesce(death_date <= followed_to + death_after_assessment_days(), FALSE)
        AS pfs_event,
    coalesce(least(next_start, death_date), last_contact) AS ttnt_date,
    next_start IS NOT NULL OR death_date IS NOT NULL AS ttnt_event,
    coalesce(death_date, last_contact) AS os_date,
    death_date IS NOT NULL AS os_event,
    last_contact
FROM (
    SELECT
        course_line.person_id, course_line.line_number, next_start, death_date, last_contact,
        CASE
            WHEN last_day IS NOT NULL THEN last_day
            -- nobody was assessed yet: a death before one was due is an event, else nothing is known after the first day
            WHEN death_date <= start_date + first_assessment_days() THEN death_date
            ELSE start_date
        END AS followed_to,
        (
            SELECT min(day) FROM assessment_day
            WHERE assessment_day.person_id = course_line.person_id AND response = 'PD' AND assessment_day.day > course_line.start_date
        ) AS progression
    FROM course_line
    JOIN course USING (person_id)
    LEFT JOIN line_follow_up ON line_follow_up.person_id = course_line.person_id AND line_follow_up.line_number = course_line.line_number
);
