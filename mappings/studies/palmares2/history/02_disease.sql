-- What is known of the disease: the primary tumour, each metastasis with its site, and the first sign of advanced disease.
-- A metastasis is a condition, or a Cancer Modifier in measurement where only that concept is known. Regional nodes are no
-- metastasis: early disease has them.
CREATE TEMP TABLE disease_row AS
SELECT
    condition_occurrence.person_id,
    disease.concept_set AS kind,
    disease.value,
    condition_occurrence.condition_start_date AS start_date,
    'condition_occurrence' AS row_table,
    condition_occurrence.condition_occurrence_id AS row_id
FROM condition_occurrence
JOIN concept_set AS disease ON disease.concept_id = condition_occurrence.condition_concept_id
WHERE disease.concept_set IN ('primary', 'metastasis', 'advanced')
    -- a metastasis to the breast descends from cancer of the breast too; it is no primary
    AND (
        disease.concept_set <> 'primary'
        OR disease.concept_id NOT IN (SELECT concept_id FROM concept_set WHERE concept_set.concept_set = 'metastasis')
    )
    -- the axilla in ICD-10 and ICD-9-CM
    AND NOT regexp_matches(coalesce(condition_occurrence.condition_source_value, ''), '^(C77\.?3|196\.?3)')
    AND disease.concept_id NOT IN (SELECT concept_id FROM concept_set WHERE concept_set.concept_set = 'regional-node')
    AND condition_occurrence.condition_start_date <= cut_off()
UNION ALL
SELECT
    measurement.person_id,
    disease.concept_set,
    disease.value,
    measurement.measurement_date,
    'measurement',
    measurement.measurement_id
FROM measurement
JOIN concept_set AS disease ON disease.concept_id = measurement.measurement_concept_id
WHERE disease.concept_set IN ('metastasis', 'advanced')
    AND disease.concept_id NOT IN (SELECT concept_id FROM concept_set WHERE concept_set.concept_set = 'regional-node')
    AND measurement.measurement_date <= cut_off();

CREATE TEMP TABLE advanced_disease AS
SELECT person_id, min(start_date) AS advanced_date
FROM disease_row
WHERE kind IN ('metastasis', 'advanced')
GROUP BY person_id;

CREATE TEMP TABLE primary_tumour AS
SELECT person_id, min(start_date) AS primary_date
FROM disease_row
WHERE kind = 'primary'
GROUP BY person_id;
