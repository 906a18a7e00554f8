-- Samples taken from the patient.
SELECT
    e.row_id AS specimen_id,
    e.person_id,
    e.concept_id AS specimen_concept_id,
    e.type_concept_id AS specimen_type_concept_id,
    e.start_datetime::DATE AS specimen_date,
    e.start_datetime AS specimen_datetime,
    e.quantity,
    e.unit_concept_id,
    coalesce(e.site_concept_id, 0) AS anatomic_site_concept_id,
    NULL::INTEGER AS disease_status_concept_id,
    -- the sample's number is a business identifier (f2o-020)
    NULL::VARCHAR AS specimen_source_id,
    e.source_value AS specimen_source_value,
    e.unit_source_value,
    e.site_source_value AS anatomic_site_source_value,
    NULL::VARCHAR AS disease_status_source_value
FROM event e
WHERE e.cdm_table = 'specimen'
