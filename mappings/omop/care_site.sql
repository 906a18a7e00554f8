-- Organizations and locations where care is given.
SELECT
    r.row_id AS care_site_id,
    r.care_site_name,
    -- neither an organization's type nor SNOMED's kinds of building map to a standard place of service
    0 AS place_of_service_concept_id,
    l.row_id AS location_id,
    r.care_site_source_value,
    r.place_of_service_source_value
FROM row_care_site r
LEFT JOIN row_location l ON l.hash = r.location_hash AND l.resource_type = 'Location'
