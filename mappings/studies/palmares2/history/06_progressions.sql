-- Progressions, as declared by the physician at a tumour assessment.
CREATE TEMP TABLE progression AS
SELECT DISTINCT measurement.person_id, measurement.measurement_date AS progression_date
FROM measurement
JOIN concept_set AS response ON response.concept_id = measurement.measurement_concept_id
WHERE response.concept_set = 'response' AND response.value = 'PD'
    AND measurement.measurement_date <= cut_off();
