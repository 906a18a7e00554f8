-- What the patient has or had.
SELECT
    e.row_id AS condition_occurrence_id,
    e.person_id,
    e.concept_id AS condition_concept_id,
    e.start_datetime::DATE AS condition_start_date,
    e.start_datetime AS condition_start_datetime,
    -- empty where the source does not say that it ended
    e.end_datetime::DATE AS condition_end_date,
    e.end_datetime AS condition_end_datetime,
    e.type_concept_id AS condition_type_concept_id,
    coalesce(e.status_concept_id, 0) AS condition_status_concept_id,
    -- FHIR says how a condition ended in free text only, which is not de-identified
    NULL::VARCHAR AS stop_reason,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS condition_source_value,
    e.source_concept_id AS condition_source_concept_id,
    e.status_source_value AS condition_status_source_value
FROM event e
WHERE e.cdm_table = 'condition_occurrence'
