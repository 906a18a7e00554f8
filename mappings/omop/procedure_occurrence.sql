-- What was done to or for the patient.
SELECT
    e.row_id AS procedure_occurrence_id,
    e.person_id,
    e.concept_id AS procedure_concept_id,
    e.start_datetime::DATE AS procedure_date,
    e.start_datetime AS procedure_datetime,
    e.end_datetime::DATE AS procedure_end_date,
    e.end_datetime AS procedure_end_datetime,
    e.type_concept_id AS procedure_type_concept_id,
    -- body site and laterality have no place here: a documented loss
    NULL::INTEGER AS modifier_concept_id,
    NULL::INTEGER AS quantity,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS procedure_source_value,
    e.source_concept_id AS procedure_source_concept_id,
    NULL::VARCHAR AS modifier_source_value
FROM event e
WHERE e.cdm_table = 'procedure_occurrence'
