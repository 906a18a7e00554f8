-- Everything else that is known about the patient.
SELECT
    e.row_id AS observation_id,
    e.person_id,
    e.concept_id AS observation_concept_id,
    e.start_datetime::DATE AS observation_date,
    e.start_datetime AS observation_datetime,
    e.type_concept_id AS observation_type_concept_id,
    -- observation has no column for an operator: "less than 5" stands in value_source_value
    CASE WHEN e.operator_concept_id IS NULL THEN e.value_as_number END AS value_as_number,
    left(e.value_as_string, 60) AS value_as_string,
    e.value_as_concept_id,
    -- interpretation codes have no agreed standard concepts: the code is kept
    NULL::INTEGER AS qualifier_concept_id,
    e.unit_concept_id,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS observation_source_value,
    e.source_concept_id AS observation_source_concept_id,
    e.unit_source_value,
    e.qualifier_source_value,
    e.value_source_value,
    f.event_id AS observation_event_id,
    f.field_concept_id AS obs_event_field_concept_id
FROM event e
LEFT JOIN focus_event f ON f.key = e.focus_key AND f.person_id = e.person_id
WHERE e.cdm_table = 'observation'
