-- Location → care_site and location: where care is given. (Where patients live: see Patient.)

-- ## read
SELECT
    CASE WHEN modified THEN 'Q-MODIFIER' END AS reason,
    left(name, 255) AS name,
    left(type_code, 50) AS type_code,
    nullif(left(array_to_string(lines, ' '), 50), '') AS address_1,
    left(city, 50) AS city,
    left(state, 50) AS state,
    left(postal_code, 9) AS zip,
    left(country, 80) AS country,
    latitude,
    longitude
FROM flat

-- ## location
SELECT
    id AS resource_id,
    key AS hash,
    address_1,
    city,
    CASE WHEN strlen(state) <= 2 THEN state END AS state,
    zip,
    state AS location_source_value,
    country AS country_source_value,
    latitude,
    longitude
FROM stage
WHERE reason IS NULL

-- ## care_site
SELECT
    id AS resource_id,
    key AS hash,
    key,
    name AS care_site_name,
    key AS location_hash,
    left(id, 50) AS care_site_source_value,
    type_code AS place_of_service_source_value
FROM stage
WHERE reason IS NULL
