-- Devices in or on the patient.
SELECT
    e.row_id AS device_exposure_id,
    e.person_id,
    e.concept_id AS device_concept_id,
    e.start_datetime::DATE AS device_exposure_start_date,
    e.start_datetime AS device_exposure_start_datetime,
    e.end_datetime::DATE AS device_exposure_end_date,
    e.end_datetime AS device_exposure_end_datetime,
    e.type_concept_id AS device_type_concept_id,
    -- the device identifier names a model, not a patient; the serial number is never read
    e.unique_device_id,
    e.production_id,
    NULL::INTEGER AS quantity,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS device_source_value,
    e.source_concept_id AS device_source_concept_id,
    NULL::INTEGER AS unit_concept_id,
    NULL::VARCHAR AS unit_source_value,
    NULL::INTEGER AS unit_source_concept_id
FROM event e
WHERE e.cdm_table = 'device_exposure'
