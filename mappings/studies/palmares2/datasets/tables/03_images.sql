-- Images and what was measured on them: radiomic, or pathology where the image is a slide. Where an image has no modality of its
-- own the procedure's code is it. A name that is no concept must look like a code: free text never leaves.
CREATE TEMP TABLE image AS
SELECT
    released_member.person_id, image_occurrence_id, image_occurrence_date AS day, modality,
    CASE WHEN modality = 'SM' THEN 'pathology' ELSE 'radiomic' END AS family
FROM (
    SELECT
        image_occurrence.*,
        CASE
            WHEN regexp_full_match(procedure_source_value, '[A-Z]{2,4}') THEN procedure_source_value
            ELSE 'other'
        END AS modality
    FROM image_occurrence
    LEFT JOIN procedure_occurrence USING (procedure_occurrence_id)
) AS image_occurrence
JOIN released_member ON released_member.member_id = image_occurrence.person_id
WHERE image_occurrence_date BETWEEN since AND until;

CREATE TEMP TABLE image_finding AS
SELECT
    image.person_id, image.family, lower(image.modality) || '//' || name AS feature, measurement_date AS day,
    value_as_number AS value, unit.concept_code AS unit, image_feature_id AS source_id
FROM image
JOIN image_feature USING (image_occurrence_id)
JOIN concept_set AS link
    ON link.concept_set = 'linked-row' AND link.value = 'measurement' AND link.concept_id = image_feature_event_field_concept_id
JOIN (
    SELECT
        measurement.*,
        CASE
            WHEN measurement_concept_id <> 0 AND concept.vocabulary_id <> 'None' THEN concept_name
            WHEN regexp_full_match(measurement_source_value, '[A-Za-z0-9._:^-]{1,40}') THEN measurement_source_value
        END AS name
    FROM measurement
    LEFT JOIN concept ON concept.concept_id = measurement_concept_id
    WHERE value_as_number IS NOT NULL
) AS measured ON measured.measurement_id = image_feature_event_id
LEFT JOIN concept AS unit ON unit.concept_id = unit_concept_id AND unit.vocabulary_id = 'UCUM'
JOIN released ON released.person_id = image.person_id
WHERE name IS NOT NULL AND measurement_date <= until;
