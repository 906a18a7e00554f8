-- rwOS, TTD, TTNT, TTC: the first of what is asked for and death; else censored at the last day the patient is known to live.

-- The CDK4/6 inhibitor of day 0 is followed into every next line whose regimen holds it; one begun anew later is another.
CREATE TEMP TABLE cdk46_until AS
SELECT follow_up.person_id, min(line.start_date) AS until
FROM follow_up
JOIN line ON line.person_id = follow_up.person_id AND line.start_date > follow_up.start_date
ANTI JOIN (
    SELECT DISTINCT now.person_id, now.line_number
    FROM line_drug AS now
    JOIN line_drug AS before
        ON before.person_id = now.person_id AND before.drug = now.drug AND before.line_number < now.line_number
    JOIN follow_up ON follow_up.person_id = now.person_id AND before.line_number >= follow_up.line_number
    WHERE now.kind = 'cdk46' AND now.in_regimen
) AS continued ON continued.person_id = line.person_id AND continued.line_number = line.line_number
GROUP BY follow_up.person_id;

CREATE TEMP TABLE last_cdk46 AS
SELECT
    person_id,
    CASE WHEN NOT bool_or(last_day IS NULL) THEN max(last_day) END AS day,
    arg_max(drug_exposure_id, (last_day, drug_exposure_id)) AS source_id
FROM (
    SELECT
        person_id, drug_exposure_id,
        CASE
            WHEN end_date IS NOT NULL THEN end_date
            -- a line without it began: it was stopped by then, whether the stop was recorded or not
            WHEN cdk46_until.until IS NOT NULL THEN coalesce(given_to, CAST(cdk46_until.until - 1 AS DATE))
        END AS last_day
    FROM follow_up
    JOIN given USING (person_id)
    LEFT JOIN cdk46_until USING (person_id)
    WHERE given.kind = 'cdk46'
        AND given.start_date >= follow_up.start_date
        AND coalesce(given.start_date < cdk46_until.until, TRUE)
)
GROUP BY person_id;

CREATE TEMP TABLE first_chemotherapy AS
SELECT person_id, paramcd, min(given.start_date) AS day, arg_min(drug_exposure_id, (given.start_date, drug_exposure_id)) AS source_id
FROM follow_up
JOIN given USING (person_id)
CROSS JOIN endpoint_rule AS rule
WHERE rule.kind = 'chemotherapy'
    AND given.start_date >= follow_up.start_date
    AND (given.kind = 'chemotherapy' OR rule.adc_is_chemotherapy AND given.kind = 'antibody-drug-conjugate')
GROUP BY ALL;

CREATE TEMP TABLE first_of_next_line AS
SELECT person_id, min(drug_exposure_id) AS source_id
FROM follow_up
JOIN given USING (person_id)
WHERE given.start_date = follow_up.next_line
GROUP BY ALL;

CREATE TEMP TABLE other_endpoint AS
WITH asked AS (
    SELECT
        rule.paramcd, rule.kind, follow_up.*,
        CASE rule.kind
            WHEN 'discontinuation' THEN last_cdk46.day
            WHEN 'next-line' THEN follow_up.next_line
            WHEN 'chemotherapy' THEN first_chemotherapy.day
        END AS day,
        CASE rule.kind
            WHEN 'discontinuation' THEN last_cdk46.source_id
            WHEN 'next-line' THEN first_of_next_line.source_id
            WHEN 'chemotherapy' THEN first_chemotherapy.source_id
        END AS day_id
    FROM follow_up
    CROSS JOIN endpoint_rule AS rule
    LEFT JOIN last_cdk46 USING (person_id)
    LEFT JOIN first_of_next_line USING (person_id)
    LEFT JOIN first_chemotherapy ON first_chemotherapy.person_id = follow_up.person_id AND first_chemotherapy.paramcd = rule.paramcd
    WHERE rule.kind IN ('death', 'discontinuation', 'next-line', 'chemotherapy')
),
answered AS (
    SELECT
        *,
        CASE
            -- a dose or a line on the day of death: death is what ended it
            WHEN death_date <= coalesce(day, death_date) THEN 'death'
            WHEN day IS NOT NULL THEN kind
            ELSE 'end'
        END AS what
    FROM asked
)
SELECT
    person_id, paramcd, line_number, start_date,
    CASE what WHEN 'death' THEN death_date WHEN 'end' THEN last_contact ELSE day END AS end_date,
    CASE WHEN what <> 'end' THEN what END AS evntdesc,
    CASE WHEN what = 'end' THEN 'last-activity' END AS cnsdtdsc,
    CASE
        WHEN what = 'death' THEN 'death'
        WHEN what = 'end' OR day_id IS NULL THEN NULL
        ELSE 'drug_exposure'
    END AS source_table,
    CASE WHEN what = 'death' THEN death_id WHEN what <> 'end' THEN day_id END AS source_id
FROM answered;
