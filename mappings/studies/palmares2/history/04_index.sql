-- Day 0: the first CDK4/6 inhibitor begun on or after the advanced diagnosis names the index drug.
CREATE TEMP TABLE index_start AS
SELECT
    study_drug.person_id,
    min(study_drug.start_date) AS index_date,
    -- two on the same day: the first by name, and the person is flagged
    arg_min(study_drug.drug, (study_drug.start_date, study_drug.drug)) AS index_drug,
    count(DISTINCT study_drug.drug) FILTER (study_drug.start_date = first.start_date) > 1 AS two_drugs
FROM study_drug
JOIN (
    SELECT study_drug.person_id, min(study_drug.start_date) AS start_date
    FROM study_drug
    JOIN advanced_disease USING (person_id)
    WHERE study_drug.drug_class = 'cdk46' AND study_drug.start_date >= advanced_disease.advanced_date
    GROUP BY study_drug.person_id
) AS first USING (person_id)
WHERE study_drug.drug_class = 'cdk46' AND study_drug.start_date >= first.start_date
GROUP BY study_drug.person_id;
