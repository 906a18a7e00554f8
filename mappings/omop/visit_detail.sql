-- Encounters that are part of another: wards, transfers, single services of a stay.
SELECT
    r.row_id AS visit_detail_id,
    r.person_id,
    r.visit_concept_id AS visit_detail_concept_id,
    r.start_datetime::DATE AS visit_detail_start_date,
    r.start_datetime AS visit_detail_start_datetime,
    r.end_datetime::DATE AS visit_detail_end_date,
    r.end_datetime AS visit_detail_end_datetime,
    r.type_concept_id AS visit_detail_type_concept_id,
    r.provider_id,
    c.care_site_id,
    r.source_value AS visit_detail_source_value,
    0 AS visit_detail_source_concept_id,
    0 AS admitted_from_concept_id,
    r.admitted_from_source_value,
    r.discharged_to_source_value,
    0 AS discharged_to_concept_id,
    NULL::BIGINT AS preceding_visit_detail_id,
    r.parent_visit_detail_id,
    r.visit_occurrence_id
FROM row_visit r
LEFT JOIN care_site_of c ON c.key = r.care_site_key
WHERE r.visit_occurrence_id IS NOT NULL
