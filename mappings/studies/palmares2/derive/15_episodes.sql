-- OMOP episodes: the disease, its treatment lines and its status, and the rows that each was made from.
CREATE TEMP TABLE disease_row_of AS
-- the row that dates the advanced disease, and its concept
SELECT
    baseline_day.person_id,
    arg_min(disease_row.row_table, (disease_row.row_table, disease_row.row_id)) AS row_table,
    arg_min(disease_row.row_id, (disease_row.row_table, disease_row.row_id)) AS row_id
FROM baseline_day
JOIN disease_row
    ON disease_row.person_id = baseline_day.person_id
    AND disease_row.start_date = baseline_day.advanced_date
    AND disease_row.kind IN ('metastasis', 'advanced')
GROUP BY baseline_day.person_id;

CREATE TEMP TABLE disease AS
SELECT
    baseline_day.person_id, baseline_day.advanced_date AS start_date, baseline_day.death_date AS end_date, row_table, row_id,
    row.concept_id AS object_concept_id
FROM baseline_day
JOIN disease_row_of USING (person_id)
JOIN (
    SELECT 'condition_occurrence' AS row_table, condition_occurrence_id AS row_id, condition_concept_id AS concept_id
    FROM condition_occurrence
    UNION ALL
    SELECT 'measurement', measurement_id, measurement_concept_id FROM measurement
) AS row USING (row_table, row_id);

-- a status lasts from the first assessment that finds it to the last before another one is found
CREATE TEMP TABLE status AS
SELECT person_id, response, min(day) AS start_date, max(day) AS end_date, row_number() OVER (PARTITION BY person_id ORDER BY min(day), response) AS number
FROM (
    SELECT *, sum(begins) OVER (PARTITION BY person_id ORDER BY day, response ROWS UNBOUNDED PRECEDING) AS run
    FROM (
        SELECT *, CAST(lag(response) OVER (PARTITION BY person_id ORDER BY day, response) IS DISTINCT FROM response AS INTEGER) AS begins
        FROM assessment JOIN disease USING (person_id)
    )
)
GROUP BY person_id, response, run;

CREATE TEMP TABLE episode_row AS
SELECT
    episode_hash(person_id, kind, number) AS hash, low_bits(hash) AS row_id,
    *
FROM (
    SELECT person_id, 'disease' AS kind, 1 AS number, 'disease' AS word, start_date, end_date, object_concept_id,
        'derived' AS origin, 'advanced breast cancer' AS source_value
    FROM disease
    UNION ALL
    -- no public source gives the concept of a regimen: 0, the regimen's name is kept
    SELECT person_id, 'line', line_number, 'treatment-regimen', start_date, end_date, 0,
        CASE WHEN list_contains(flags, 'declared') THEN 'declared' ELSE 'derived' END, left(regimen, 50)
    FROM line
    UNION ALL
    -- complete response has no episode concept that a public source gives: it stays an assessment
    SELECT status.person_id, 'status', number, response, status.start_date, status.end_date, object_concept_id, 'derived', response
    FROM status JOIN disease USING (person_id)
    WHERE response IN (SELECT word FROM episode_word)
);
