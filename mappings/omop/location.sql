-- Places of care with their address; places of residence no finer than the state.
SELECT
    row_id AS location_id,
    address_1,
    NULL::VARCHAR AS address_2,
    city,
    state,
    zip,
    NULL::VARCHAR AS county,
    location_source_value,
    coalesce(country_concept(country_source_value), 0) AS country_concept_id,
    country_source_value,
    latitude,
    longitude
FROM row_location
