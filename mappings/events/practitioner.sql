-- Practitioner → provider, without name and number: they identify a person.

-- ## read
SELECT
    CASE WHEN modified THEN 'Q-MODIFIER' END AS reason,
    gender
FROM flat

-- ## provider
SELECT
    s.id AS resource_id,
    s.key AS hash,
    s.key,
    s.gender AS gender_source_value,
    -- no specialty in the source is no specialty here
    coalesce(r.specialty_concept_id, 0) AS specialty_concept_id,
    r.specialty_source_value,
    coalesce(r.specialty_source_concept_id, 0) AS specialty_source_concept_id,
    r.care_site_key
FROM stage s
LEFT JOIN role_of r ON r.provider_key = s.key
WHERE s.reason IS NULL
