-- It is the first line: no earlier systemic antineoplastic line for advanced disease
-- A lead-in of endocrine therapy alone is allowed (lead_in_days) if no progression lies between.
-- Ovarian suppression and bone agents are never a line. What began before the advanced diagnosis is adjuvant.
WITH before_index AS (
    SELECT
        person_id,
        bool_or(drug_class IS NULL) AS unknown_drug,
        bool_or(drug_class = 'chemotherapy') AS chemotherapy,
        bool_or(drug_class IN ('targeted', 'antibody-drug-conjugate')) AS another_class,
        min(start_date) FILTER (
            drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd', 'other-endocrine')
        ) AS lead_in
    FROM study_drug
    JOIN advanced_disease USING (person_id)
    JOIN index_start USING (person_id)
    WHERE start_date >= advanced_date AND start_date < index_date
    GROUP BY person_id
),
progressed AS (
    SELECT DISTINCT person_id
    FROM before_index
    JOIN index_start USING (person_id)
    JOIN progression USING (person_id)
    WHERE progression_date > lead_in AND progression_date <= index_date
)
SELECT
    person_id,
    CASE
        WHEN reason IN ('first-line', 'et-lead-in') THEN 'PASS'
        WHEN reason = 'no-index' THEN 'UNKNOWN'
        ELSE 'FAIL'
    END AS answer,
    reason,
    date_used,
    flag
FROM (
    SELECT
        person_id,
        CASE
            WHEN index_date IS NULL THEN 'no-index'
            WHEN chemotherapy THEN 'induction-chemotherapy'
            WHEN another_class THEN 'prior-line'
            WHEN progressed.person_id IS NOT NULL THEN 'progression-in-lead-in'
            WHEN lead_in < index_date - lead_in_days() THEN 'lead-in-too-long'
            WHEN lead_in IS NOT NULL THEN 'et-lead-in'
            ELSE 'first-line'
        END AS reason,
        coalesce(lead_in, index_date) AS date_used,
        -- nobody knows what it was: the site is asked
        CASE WHEN unknown_drug THEN 'unmapped-drug' END AS flag
    FROM study_person
    LEFT JOIN index_start USING (person_id)
    LEFT JOIN before_index USING (person_id)
    LEFT JOIN progressed USING (person_id)
)
