-- Lines of therapy: line 1 begins with the first drug for advanced disease, the next one on the first day on which rule 3
-- holds for the line that runs. A patient whose site declared lines is gone through twice: by the rule alone, and with them.
CREATE TEMP MACRO in_line(started, ended, still_open, line_start, since) AS (
    -- begun in the line, or carried into it
    coalesce(started >= line_start, FALSE)
    OR coalesce(ended > line_start + regimen_days(), FALSE)
    OR coalesce(still_open >= since, FALSE)
);

CREATE TEMP TABLE line_start AS
WITH RECURSIVE line AS (
    SELECT
        person_id, declares, 0 AS number, DATE '0001-01-01' AS start_date, DATE '0001-01-01' AS anchor,
        DATE '0001-01-01' AS since, FALSE AS by_declaration
    FROM (
        SELECT DISTINCT person_id, FALSE AS declares FROM line_event WHERE declared IS NULL
        UNION ALL
        SELECT DISTINCT person_id, TRUE FROM line_event WHERE declared IS NOT NULL
    )
    UNION ALL
    SELECT
        person_id, declares,
        CASE WHEN by_declaration THEN declared_number ELSE number + 1 END,
        CASE WHEN by_declaration THEN declared_day ELSE rule_day END,
        CASE WHEN by_declaration THEN declared_anchor ELSE rule_anchor END,
        -- without a known end a drug is still given until a line begins after a progression on it
        CASE
            WHEN number > 0 AND CASE WHEN by_declaration THEN declared_progression ELSE rule_progression END > start_date
                THEN CASE WHEN by_declaration THEN declared_progression ELSE rule_progression END
            ELSE since
        END,
        by_declaration
    FROM (
        SELECT
            *,
            -- the site's next line, unless its number leaves a hole in which the rule finds one
            declared_day IS NOT NULL AND (rule_day IS NULL OR declared_number = number + 1 OR declared_day <= rule_day)
                AS by_declaration
        FROM (
            SELECT
                person_id, declares, number, start_date, since,
                min(day) FILTER (site_says) AS declared_day,
                arg_min(declared, day) FILTER (site_says) AS declared_number,
                arg_min(event_anchor, day) FILTER (site_says) AS declared_anchor,
                arg_min_null(last_progression, day) FILTER (site_says) AS declared_progression,
                min(day) FILTER (rule_holds) AS rule_day,
                arg_min(event_anchor, day) FILTER (rule_holds) AS rule_anchor,
                arg_min_null(last_progression, day) FILTER (rule_holds) AS rule_progression
            FROM (
                SELECT
                    line.person_id, line.declares, line.number, line.start_date, line.since,
                    event.day, event.declared, event.last_progression, event.anchor AS event_anchor,
                    line.declares AND coalesce(event.declared > line.number, FALSE) AS site_says,
                    event.declared IS NULL AND (
                        -- 1. the first drug after the advanced diagnosis
                        line.number = 0
                        -- 3a. a new drug after a progression
                        OR NOT in_line(event.drug_start, event.drug_end, event.drug_open, line.start_date, line.since)
                            AND coalesce(event.last_progression > line.start_date, FALSE)
                        -- 3b. a new class more than 28 days in, without a toxicity reason; not maintenance
                        OR NOT in_line(event.class_start, event.class_end, event.class_open, line.start_date, line.since)
                            AND event.day > line.anchor + regimen_days()
                            AND NOT coalesce(event.toxicity_stop >= line.start_date, FALSE)
                            AND NOT (
                                event.kind = 'endocrine'
                                AND coalesce(event.chemotherapy_start >= line.start_date, FALSE)
                                AND NOT coalesce(event.last_progression > line.start_date, FALSE)
                            )
                        -- 3c. a restart after a gap that holds a progression
                        OR in_line(event.drug_start, event.drug_end, event.drug_open, line.start_date, line.since)
                            AND coalesce(event.drug_open IS NULL AND event.day - event.drug_end > restart_gap_days(), FALSE)
                            AND coalesce(event.last_progression >= event.drug_end, FALSE)
                    ) AS rule_holds
                FROM line
                JOIN line_event AS event ON event.person_id = line.person_id AND event.day > line.start_date
            )
            WHERE site_says OR rule_holds
            GROUP BY person_id, declares, number, start_date, since
        )
    )
)
SELECT person_id, declares, number, start_date, anchor, since, by_declaration FROM line WHERE number > 0;

CREATE TEMP TABLE line_span AS
SELECT
    *,
    index_date >= start_date AND coalesce(index_date < next_start, TRUE) AS is_index
FROM (
    SELECT
        person_id, number AS line_number, start_date, anchor, since, by_declaration,
        lead(start_date) OVER (PARTITION BY person_id ORDER BY number) AS next_start
    FROM (
        SELECT *, bool_or(declares) OVER (PARTITION BY person_id) AS any_declared FROM line_start
    )
    WHERE declares = any_declared
)
JOIN (SELECT person_id, index_date FROM patient) USING (person_id);
