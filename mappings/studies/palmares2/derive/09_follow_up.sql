-- What the endpoints of a patient are made from: day 0, death, last activity, first progression, the lines around it.
-- Where the sites disagree on the day of death, or it lies before day 0, no endpoint is given and the site is asked.
CREATE TEMP TABLE follow_up AS
SELECT
    patient.person_id,
    patient.index_date AS start_date,
    patient.death_date, recorded_death.source_id AS death_id,
    patient.last_contact,
    index_line.line_number, index_line.end_date AS line_end,
    coalesce(index_line.next_start, later.start_date) AS next_line,
    first_progression.day AS progression, first_progression.source_id AS progression_id
FROM patient
LEFT JOIN recorded_death USING (person_id)
LEFT JOIN line AS index_line ON index_line.person_id = patient.person_id AND index_line.is_index
LEFT JOIN (
    SELECT person_id, min(line.start_date) AS start_date
    FROM line JOIN patient USING (person_id)
    WHERE line.start_date > patient.index_date
    GROUP BY person_id
) AS later ON later.person_id = patient.person_id
LEFT JOIN (
    SELECT person_id, min(day) AS day, arg_min(source_id, day) AS source_id
    FROM progression_day JOIN patient USING (person_id)
    WHERE progression_day.day > patient.index_date
    GROUP BY person_id
) AS first_progression ON first_progression.person_id = patient.person_id
WHERE patient.index_date IS NOT NULL AND patient.in_doubt IS NULL;

-- The end of progression follow-up, for each length of the gap: the last assessment before a gap, else the last one.
CREATE TEMP TABLE assessed AS
SELECT
    follow_up.person_id, assessment.day, min(assessment.source_id) AS source_id,
    lead(assessment.day) OVER (PARTITION BY follow_up.person_id ORDER BY assessment.day) AS next_day
FROM follow_up
JOIN assessment ON assessment.person_id = follow_up.person_id AND assessment.day > follow_up.start_date
GROUP BY follow_up.person_id, assessment.day;

CREATE TEMP TABLE progression_follow_up AS
SELECT
    follow_up.person_id, gap.gap_days, from_day,
    CASE
        WHEN last_day IS NOT NULL THEN last_day
        -- nobody was assessed yet: a death before one was due is an event, else nothing is known after day 0
        WHEN death_date <= start_date + first_assessment_days() THEN death_date
        ELSE start_date
    END AS end_date,
    CASE
        WHEN last_day IS NULL THEN 'never-assessed'
        WHEN in_gap THEN 'gap-in-assessments'
        ELSE 'last-assessment'
    END AS reason,
    source_id
FROM (
    SELECT person_id, start_date AS from_day, start_date, death_date FROM follow_up
    UNION ALL
    -- beyond progression, from the first progression on
    SELECT person_id, progression, start_date, death_date FROM follow_up WHERE progression IS NOT NULL
) AS follow_up
CROSS JOIN (SELECT DISTINCT gap_days FROM endpoint_rule WHERE gap_days IS NOT NULL) AS gap
LEFT JOIN (
    SELECT
        person_id, gap_days, from_date,
        min(day) AS last_day, arg_min(source_id, day) AS source_id, arg_min(next_day IS NOT NULL, day) AS in_gap
    FROM (
        SELECT assessed.*, gap_days, from_date
        FROM assessed
        JOIN (
            SELECT person_id, start_date AS from_date FROM follow_up
            UNION ALL SELECT person_id, progression FROM follow_up WHERE progression IS NOT NULL
        ) USING (person_id)
        CROSS JOIN (SELECT DISTINCT gap_days FROM endpoint_rule WHERE gap_days IS NOT NULL)
        -- the assessments after which none follows within the gap
        WHERE assessed.day >= from_date AND coalesce(next_day - day > gap_days, TRUE)
    )
    GROUP BY ALL
) AS ended ON ended.person_id = follow_up.person_id AND ended.gap_days = gap.gap_days AND ended.from_date = follow_up.from_day;
