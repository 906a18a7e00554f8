-- What was measured: laboratory, vital signs, pathology, staging, response.
SELECT
    e.row_id AS measurement_id,
    e.person_id,
    e.concept_id AS measurement_concept_id,
    e.start_datetime::DATE AS measurement_date,
    e.start_datetime AS measurement_datetime,
    -- kept by the CDM for old tools; measurement_datetime holds it
    NULL::VARCHAR AS measurement_time,
    e.type_concept_id AS measurement_type_concept_id,
    e.operator_concept_id,
    e.value_as_number,
    e.value_as_concept_id,
    e.unit_concept_id,
    e.range_low,
    e.range_high,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS measurement_source_value,
    e.source_concept_id AS measurement_source_concept_id,
    e.unit_source_value,
    e.unit_source_concept_id,
    -- measurement has no value_as_string: what is no free text (a range, a ratio, a moment) stands here
    left(coalesce(e.value_source_value, e.value_shown), 50) AS value_source_value,
    -- what was looked at: a tumour marker points to the tumour that was sampled
    f.event_id AS measurement_event_id,
    f.field_concept_id AS meas_event_field_concept_id
FROM event e
LEFT JOIN focus_event f ON f.key = e.focus_key AND f.person_id = e.person_id
WHERE e.cdm_table = 'measurement'
