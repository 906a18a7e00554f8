-- The patient is counted once, at the site that began the CDK4/6 inhibitor
WITH ranked AS (
    SELECT
        person_id,
        count(*) OVER patient AS persons,
        -- the earliest index initiates; then the earliest advanced diagnosis, the lowest site, the lowest person
        row_number() OVER (
            PARTITION BY patient_id
            ORDER BY index_date NULLS LAST, advanced_date NULLS LAST, site, person_id
        ) AS place
    FROM study_person
    JOIN linked_person USING (person_id)
    LEFT JOIN index_start USING (person_id)
    LEFT JOIN advanced_disease USING (person_id)
    WINDOW patient AS (PARTITION BY patient_id)
),
-- two persons at two sites who may be one, of whom at least one has no token; a human decides
candidate AS (
    SELECT *
    FROM study_person
    JOIN index_start USING (person_id)
    JOIN advanced_disease USING (person_id)
),
look_alike AS (
    SELECT one.person_id AS one_id, other.person_id AS other_id
    FROM candidate AS one
    JOIN candidate AS other
        ON one.year_of_birth = other.year_of_birth
        AND one.month_of_birth = other.month_of_birth
        AND one.sex = other.sex
        AND one.index_drug = other.index_drug
        AND one.site <> other.site
    WHERE one.token IS NULL
        AND abs(one.index_date - other.index_date) <= link_start_days()
        AND abs(one.advanced_date - other.advanced_date) <= link_diagnosis_days()
),
to_review AS (
    SELECT one_id AS person_id FROM look_alike UNION SELECT other_id FROM look_alike
)
SELECT
    person_id,
    CASE
        WHEN deaths_conflict OR to_review.person_id IS NOT NULL THEN 'UNKNOWN'
        WHEN place > 1 THEN 'FAIL'
        ELSE 'PASS'
    END AS answer,
    CASE
        WHEN deaths_conflict THEN 'deaths-conflict'
        WHEN to_review.person_id IS NOT NULL THEN 'link-review'
        WHEN persons = 1 THEN 'single-site'
        WHEN place = 1 THEN 'initiating-site'
        ELSE 'duplicate-of-other-site'
    END AS reason,
    index_date AS date_used,
    NULL AS flag
FROM ranked
JOIN vital_status USING (person_id)
LEFT JOIN index_start USING (person_id)
LEFT JOIN to_review USING (person_id)
