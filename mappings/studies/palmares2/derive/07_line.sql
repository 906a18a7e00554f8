-- The lines as they are written: regimen, end and its reason, flags. A line ends with the last day of its last drug; one that goes
-- on is known to do so up to the last contact.
CREATE TEMP TABLE new_in_line AS
-- each start of a drug after the line began, and what it tells of the line
SELECT
    line_span.person_id, line_span.line_number,
    bool_or(event.day - event.drug_end > restart_gap_days() AND event.drug_open IS NULL AND event.drug_start >= line_span.start_date)
        AS gap,
    bool_or(
        event.kind = 'endocrine' AND event.day > line_span.anchor + regimen_days()
        AND event.chemotherapy_start >= line_span.start_date
        AND NOT in_line(event.class_start, event.class_end, event.class_open, line_span.start_date, line_span.since)
    ) AS maintenance,
    bool_or(
        event.day > line_span.anchor + regimen_days() AND event.toxicity_stop >= line_span.start_date
        AND NOT in_line(event.class_start, event.class_end, event.class_open, line_span.start_date, line_span.since)
    ) AS toxicity_switch
FROM line_event AS event
JOIN line_span ON line_span.person_id = event.person_id
    AND event.day > line_span.start_date AND coalesce(event.day < line_span.next_start, TRUE)
WHERE event.declared IS NULL
GROUP BY ALL;

CREATE TEMP TABLE unmapped_in_line AS
SELECT DISTINCT member.person_id, line_span.line_number
FROM study_drug
JOIN member ON member.member_id = study_drug.person_id
ASOF JOIN line_span ON line_span.person_id = member.person_id AND study_drug.start_date >= line_span.start_date
WHERE study_drug.drug_class IS NULL;

CREATE TEMP TABLE line AS
WITH of_drugs AS (
    SELECT
        person_id, line_number,
        array_to_string(list_sort(list_distinct(list(drug) FILTER (in_regimen))), '+') AS regimen,
        array_to_string(list_sort(list_distinct(list(drug))), '+') AS drugs,
        list_sort(list_distinct(list(line_class) FILTER (in_regimen))) AS classes,
        bool_or(end_date IS NULL) AS goes_on,
        max(end_date) AS last_end,
        -- of several reasons on one day the one that ends a line for the disease comes first
        arg_max(
            stop_reason,
            (end_date, -coalesce(list_position(['progression', 'death', 'toxicity', 'patient-choice', 'other'], stop_reason), 9))
        ) FILTER (stop_reason IS NOT NULL) AS last_reason,
        max(end_date) FILTER (stop_reason IS NOT NULL) AS reason_day,
        count(DISTINCT drug) FILTER (kind = 'cdk46') > 1 AS cdk46_switch,
        count(DISTINCT drug) FILTER (drug_class = 'aromatase-inhibitor' AND how <> 'window') > 1 AS ai_swap
    FROM line_drug
    GROUP BY person_id, line_number
),
dropped AS (
    SELECT person_id, line_number, min(last_day) AS first_dropped
    FROM (
        SELECT person_id, line_number, drug, max(coalesce(end_date, never())) AS last_day
        FROM line_drug WHERE how <> 'window' GROUP BY ALL HAVING bool_or(in_regimen)
    )
    GROUP BY ALL
),
ended AS (
    SELECT
        line_span.*, of_drugs.* EXCLUDE (person_id, line_number), patient.death_date, patient.last_contact, dropped.first_dropped,
        -- the day before the next line at the latest, and the day of death
        least(
            CASE WHEN NOT goes_on THEN last_end END,
            CAST(next_start - 1 AS DATE),
            patient.death_date,
            -- a declared line in which nothing was given ends where it began
            CASE WHEN goes_on IS NULL THEN line_span.start_date END
        ) AS end_date
    FROM line_span
    JOIN patient USING (person_id)
    LEFT JOIN of_drugs USING (person_id, line_number)
    LEFT JOIN dropped USING (person_id, line_number)
)
SELECT
    ended.person_id, line_number, coalesce(regimen, '') AS regimen, coalesce(drugs, '') AS drugs,
    coalesce(classes, []) AS classes,
    start_date, end_date,
    CASE
        WHEN end_date IS NULL THEN NULL
        WHEN NOT goes_on AND last_end = end_date AND reason_day = end_date THEN last_reason
        WHEN end_date = death_date THEN 'death'
        WHEN next_start - 1 = end_date THEN 'next-line'
        ELSE 'not-recorded'
    END AS end_reason,
    coalesce(is_index, FALSE) AS is_index,
    'advanced' AS intent,
    list_filter([
        CASE WHEN anchor > start_date THEN 'lead-in' END,
        CASE WHEN gap THEN 'gap' END,
        CASE WHEN cdk46_switch THEN 'cdk46-switch' END,
        CASE WHEN ai_swap THEN 'ai-swap' END,
        CASE WHEN toxicity_switch THEN 'toxicity-switch' END,
        CASE WHEN maintenance THEN 'maintenance' END,
        CASE WHEN EXISTS (
            FROM progression_day
            WHERE progression_day.person_id = ended.person_id AND progression_day.day > ended.start_date
                AND progression_day.day + beyond_progression_days() < coalesce(ended.end_date, ended.last_contact)
                AND coalesce(progression_day.day < ended.next_start, TRUE)
        ) THEN 'beyond-progression' END,
        CASE WHEN first_dropped < never() AND first_dropped + beyond_progression_days() < coalesce(end_date, last_contact) THEN 'dropped-drug' END,
        CASE WHEN by_declaration THEN 'declared' END,
        CASE WHEN unmapped_in_line.person_id IS NOT NULL THEN 'unmapped-drug' END
    ], lambda flag: flag IS NOT NULL) AS flags,
    declared.number AS declared_line,
    next_start, anchor
FROM ended
LEFT JOIN new_in_line USING (person_id, line_number)
LEFT JOIN unmapped_in_line USING (person_id, line_number)
LEFT JOIN (SELECT person_id, day, max(number) AS number FROM declaration GROUP BY ALL) AS declared
    ON declared.person_id = ended.person_id AND declared.day = ended.start_date;

-- Where the sites' lines and the rule's differ, number by number. A site need not declare every line: where it says nothing of a
-- number, only a line of the rule that did not stand is a disagreement.
CREATE TEMP TABLE disagreement AS
WITH rule AS (
    SELECT person_id, number, start_date FROM line_start
    WHERE NOT declares AND person_id IN (SELECT person_id FROM declaration WHERE counts)
),
site AS (
    SELECT person_id, number, day FROM declaration WHERE counts
)
SELECT
    coalesce(rule.person_id, site.person_id) AS person_id,
    site.number AS declared_line, site.day AS declared_start, rule.number AS rule_line, rule.start_date AS rule_start,
    CASE
        WHEN site.number IS NULL THEN 'only-rule'
        WHEN rule.number IS NULL THEN 'only-declared'
        ELSE 'start-differs'
    END AS kind
FROM rule
FULL JOIN site ON site.person_id = rule.person_id AND site.number = rule.number
LEFT JOIN line ON line.person_id = rule.person_id AND line.start_date = rule.start_date
WHERE CASE WHEN site.number IS NULL THEN line.person_id IS NULL ELSE site.day IS DISTINCT FROM rule.start_date END
UNION ALL
SELECT person_id, number, day, NULL, NULL, 'declaration-ignored'
FROM declaration
WHERE NOT counts;
