-- Members of staff, by a number that stands for them.
SELECT
    r.row_id AS provider_id,
    -- a name identifies a person; so does a licence number
    NULL::VARCHAR AS provider_name,
    NULL::VARCHAR AS npi,
    NULL::VARCHAR AS dea,
    r.specialty_concept_id,
    c.care_site_id,
    NULL::INTEGER AS year_of_birth,
    coalesce(gender_concept(r.gender_source_value), 0) AS gender_concept_id,
    left(r.resource_id, 50) AS provider_source_value,
    r.specialty_source_value,
    r.specialty_source_concept_id,
    left(r.gender_source_value, 50) AS gender_source_value,
    coalesce(gender_source_concept(r.gender_source_value), 0) AS gender_source_concept_id
FROM row_provider r
LEFT JOIN care_site_of c ON c.key = r.care_site_key
