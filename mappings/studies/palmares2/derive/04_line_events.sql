-- Each day on which a drug was begun in advanced disease, with all that rule 3 asks about it, whatever the line that runs.
CREATE TEMP TABLE declaration AS
SELECT
    person_id, number, day, source_table, source_id,
    -- numbers and days rise together, from 1, in advanced disease
    number >= 1
    AND day >= advanced_date
    AND number > coalesce(max(number) OVER before, 0)
    AND day > coalesce(max(day) OVER before, DATE '0001-01-01') AS counts
FROM (
    SELECT person_id, CAST(number AS INTEGER) AS number, day, source_table, min(source_id) AS source_id
    FROM said
    WHERE word = declared_line_code() AND number IS NOT NULL
    GROUP BY ALL
)
JOIN patient USING (person_id)
WINDOW before AS (PARTITION BY person_id ORDER BY day, number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

CREATE TEMP TABLE line_event AS
WITH began AS (
    SELECT
        person_id, drug, line_class, kind, start_date AS day,
        max(given_to) AS end_date,
        bool_or(given_to IS NULL) AS open
    FROM given
    GROUP BY ALL
),
declared AS (
    SELECT person_id, NULL, NULL, 'declared', day, NULL, FALSE, number FROM declaration WHERE counts
),
known AS (
    SELECT
        *,
        -- what was begun before, of the same drug, of the same class, of chemotherapy: its last start, its last known end, and
        -- the last start of what has no known end
        max(day) OVER same_drug AS drug_start,
        max(end_date) OVER same_drug AS drug_end,
        max(day) FILTER (open) OVER same_drug AS drug_open,
        max(day) OVER same_class AS class_start,
        max(end_date) OVER same_class AS class_end,
        max(day) FILTER (open) OVER same_class AS class_open,
        max(day) FILTER (kind = 'chemotherapy') OVER before AS chemotherapy_start,
        -- what is begun from this day on
        min(day) FILTER (kind = 'cdk46') OVER after AS next_cdk46,
        min(day) FILTER (kind NOT IN ('cdk46', 'endocrine', 'declared')) OVER after AS next_other
    FROM (SELECT *, CAST(NULL AS INTEGER) AS declared, day - DATE '1970-01-01' AS day_number FROM began
        UNION ALL SELECT *, day - DATE '1970-01-01' FROM declared)
    WINDOW
        same_drug AS (PARTITION BY person_id, drug ORDER BY day_number RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        same_class AS (PARTITION BY person_id, line_class ORDER BY day_number RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        before AS (PARTITION BY person_id ORDER BY day_number RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        after AS (PARTITION BY person_id ORDER BY day_number RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
),
toxicity AS (
    SELECT DISTINCT person_id, end_date AS toxicity_end FROM given WHERE stop_reason = 'toxicity' AND end_date IS NOT NULL
)
SELECT
    known.person_id, known.day, known.drug, known.kind, known.declared,
    drug_start, drug_end, drug_open, class_start, class_end, class_open, chemotherapy_start,
    last.day AS last_progression,       -- on this day or before
    CASE WHEN toxicity.toxicity_end >= known.day - toxicity_days() THEN toxicity.toxicity_end END AS toxicity_stop,
    -- endocrine therapy alone that leads in to a CDK4/6 inhibitor: a line that begins on this day counts its days from there
    CASE
        WHEN next_cdk46 > known.day
            AND next_cdk46 <= known.day + lead_in_days()
            AND coalesce(next_other >= next_cdk46, TRUE)
            AND coalesce(next.day > next_cdk46, TRUE)
            THEN next_cdk46
        ELSE known.day
    END AS anchor
FROM known
JOIN patient ON patient.person_id = known.person_id AND known.day >= patient.advanced_date
ASOF LEFT JOIN progression_day AS last ON last.person_id = known.person_id AND last.day <= known.day
ASOF LEFT JOIN progression_day AS next ON next.person_id = known.person_id AND next.day > known.day
ASOF LEFT JOIN toxicity ON toxicity.person_id = known.person_id AND toxicity.toxicity_end <= known.day;
