-- One row per patient of the delivery.
SELECT
    r.row_id AS person_id,
    -- other and unknown have no standard concept: 0, the code is kept
    coalesce(gender_concept(r.gender_source_value), 0) AS gender_concept_id,
    left(r.birth_date, 4)::INTEGER AS year_of_birth,
    -- no finer than the source is
    CASE WHEN r.birth_precision <> 'year' THEN substring(r.birth_date, 6, 2)::INTEGER END AS month_of_birth,
    CASE WHEN r.birth_precision IN ('day', 'time') THEN substring(r.birth_date, 9, 2)::INTEGER END AS day_of_birth,
    CASE WHEN r.birth_precision IN ('day', 'time') THEN starts_at(r.birth_date) END AS birth_datetime,
    r.race_concept_id,
    r.ethnicity_concept_id,
    l.row_id AS location_id,
    p.provider_id,
    c.care_site_id,
    -- the logical id (at PALMARES sites the pseudonym), never a business identifier (f2o-020)
    left(r.resource_id, 50) AS person_source_value,
    left(r.gender_source_value, 50) AS gender_source_value,
    coalesce(gender_source_concept(r.gender_source_value), 0) AS gender_source_concept_id,
    r.race_source_value,
    -- the OMB codes are no concepts of their own in Athena
    0 AS race_source_concept_id,
    r.ethnicity_source_value,
    0 AS ethnicity_source_concept_id
FROM row_person r
LEFT JOIN row_location l ON l.hash = r.location_hash AND l.resource_type = 'Patient'
LEFT JOIN provider_of p ON p.key = r.provider_key
LEFT JOIN care_site_of c ON c.key = r.care_site_key
