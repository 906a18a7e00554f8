-- Patient → person, death, and a location no finer than state and country.

-- ## read
SELECT
    CASE
        WHEN modified THEN 'Q-MODIFIER'
        -- a file that was replaced needs none where the other file has one
        WHEN birth_date IS NULL AND reference_key(replaced_by, 'Patient') IS NULL THEN 'X-NO-BIRTH-YEAR'
        WHEN birth_date IS NOT NULL AND starts_at(birth_date) IS NULL THEN 'Q-DATE'
    END AS reason,
    reference_key(replaced_by, 'Patient') AS replaced_key,
    birth_date IS NOT NULL AS born,
    birth_date,
    gender,
    birthsex,
    race_code,
    race_text,
    race_omop_code,
    race_omop_display,
    ethnicity_code,
    ethnicity_text,
    ethnicity_omop_code,
    ethnicity_omop_display,
    nullif(left(trim(state), 50), '') AS state,
    nullif(left(trim(country), 80), '') AS country,
    first_provider_key(general_practitioners) AS provider_key,
    reference_key(managing_organization, 'Organization') AS care_site_key,
    deceased_datetime,
    deceased_boolean,
    -- 64 hexadecimal digits that the site computed with the linkage key; anything else is no token
    CASE WHEN regexp_full_match(linkage_token, '[0-9a-f]{64}') THEN linkage_token END AS linkage_token
FROM flat

-- ## merged
-- the hospital merged two files of one patient: the other file's row stands, and gets this one's events
SELECT s.key, CASE WHEN p.key IS NULL THEN 'X-NO-BIRTH-YEAR' ELSE 'M-REPLACED' END AS reason
FROM stage s
LEFT JOIN person_of p ON p.key = s.key
WHERE s.reason IS NULL AND p.target IS DISTINCT FROM s.key

-- ## location
-- country and state only: an address identifies (f2o-022). One row for all who live there
SELECT
    min_by(id, key) AS resource_id,
    residence_hash(state, country) AS hash,
    CASE WHEN strlen(state) <= 2 THEN state END AS state,
    state AS location_source_value,
    country AS country_source_value
FROM stage
WHERE reason IS NULL AND key IN (SELECT key FROM person_of WHERE target = key) AND (state IS NOT NULL OR country IS NOT NULL)
GROUP BY state, country

-- ## person
SELECT
    s.id AS resource_id,
    s.key AS hash,
    -- the sex assigned at birth where US Core tells it, else the administrative gender
    coalesce(s.birthsex, s.gender) AS gender_source_value,
    s.birth_date,
    fhir_precision(s.birth_date) AS birth_precision,
    -- a concept that the source itself names, else the OMB category
    coalesce(standard_concept(s.race_omop_code, 'Race'), race_concept(s.race_code), 0) AS race_concept_id,
    left(coalesce(s.race_omop_display, s.race_text, s.race_code), 50) AS race_source_value,
    coalesce(standard_concept(s.ethnicity_omop_code, 'Ethnicity'), ethnicity_concept(s.ethnicity_code), 0) AS ethnicity_concept_id,
    left(coalesce(s.ethnicity_omop_display, s.ethnicity_text, s.ethnicity_code), 50) AS ethnicity_source_value,
    residence_hash(s.state, s.country) AS location_hash,
    s.provider_key,
    s.care_site_key
FROM stage s
WHERE s.reason IS NULL AND s.key IN (SELECT key FROM person_of WHERE target = key)

-- ## death
-- a day of death that is known to the month is its last day; "deceased" without a day is a row only where a cause of death has one, and
-- is counted as a loss
SELECT
    s.id AS resource_id,
    p.person_id,
    1 AS priority,
    ends_at(s.deceased_datetime) AS start_datetime,
    is_partial(s.deceased_datetime) AS start_imputed,
    origin(false, is_partial(s.deceased_datetime), type_concept('Patient', 'default', '')) AS type_concept_id
FROM stage s
JOIN person_of p ON p.key = s.key
WHERE s.reason IS NULL AND (ends_at(s.deceased_datetime) IS NOT NULL OR s.deceased_boolean)
