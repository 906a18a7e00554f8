-- Organization → care_site.

-- ## read
SELECT
    CASE WHEN modified THEN 'Q-MODIFIER' END AS reason,
    left(name, 255) AS name,
    left(type_code, 50) AS type_code
FROM flat

-- ## care_site
SELECT
    id AS resource_id,
    key AS hash,
    key,
    name AS care_site_name,
    NULL::UHUGEINT AS location_hash,
    left(id, 50) AS care_site_source_value,
    -- "healthcare provider" or "team" is no place of service: 0, the code is kept
    type_code AS place_of_service_source_value
FROM stage
WHERE reason IS NULL
