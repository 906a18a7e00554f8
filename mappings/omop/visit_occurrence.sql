-- Encounters that are not part of another.
SELECT
    r.row_id AS visit_occurrence_id,
    r.person_id,
    r.visit_concept_id,
    r.start_datetime::DATE AS visit_start_date,
    r.start_datetime AS visit_start_datetime,
    r.end_datetime::DATE AS visit_end_date,
    r.end_datetime AS visit_end_datetime,
    r.type_concept_id AS visit_type_concept_id,
    r.provider_id,
    c.care_site_id,
    -- the class code (f2o-033), not the encounter's id: that stands in side/trace.parquet
    r.source_value AS visit_source_value,
    0 AS visit_source_concept_id,
    0 AS admitted_from_concept_id,
    r.admitted_from_source_value,
    0 AS discharged_to_concept_id,
    r.discharged_to_source_value,
    -- FHIR's partOf is the whole, not what came before: see visit_detail
    NULL::BIGINT AS preceding_visit_occurrence_id
FROM row_visit r
LEFT JOIN care_site_of c ON c.key = r.care_site_key
WHERE r.visit_occurrence_id IS NULL
