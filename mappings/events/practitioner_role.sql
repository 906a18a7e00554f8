-- PractitionerRole → specialty and organization of the provider.

-- ## read
SELECT
    CASE WHEN modified THEN 'Q-MODIFIER' END AS reason,
    reference_key(practitioner, 'Practitioner') AS provider_key,
    reference_key(organization, 'Organization') AS care_site_key,
    specialty_codings
FROM flat

-- ## role
-- of several roles the one whose specialty maps, then the one with an organization, then the lowest key
SELECT
    s.key,
    s.provider_key,
    CASE WHEN c.domain_id = 'Provider' THEN c.concept_id END AS specialty_concept_id,
    c.source_value AS specialty_source_value,
    c.source_concept_id AS specialty_source_concept_id,
    s.care_site_key
FROM stage s
LEFT JOIN chosen_specialty c ON c.list_key = s.specialty_key
WHERE s.reason IS NULL AND s.provider_key IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY s.provider_key
    ORDER BY coalesce(c.domain_id, '') = 'Provider' DESC, s.care_site_key IS NULL, s.key
) = 1

-- ## merged
SELECT
    key,
    CASE WHEN provider_key IN (SELECT key FROM row_provider) THEN 'M-ROLE' ELSE 'X-UNREFERENCED' END AS reason
FROM stage
