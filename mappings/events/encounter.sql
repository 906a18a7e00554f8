-- Encounter → visit_occurrence; an encounter that is part of another → visit_detail of that visit.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'planned' THEN 'X-PLANNED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN period_start IS NOT NULL AND starts_at(period_start) IS NULL THEN 'Q-DATE'
        WHEN period_end IS NOT NULL AND ends_at(period_end) IS NULL THEN 'Q-DATE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    first_provider_key(participants) AS provider_key,
    coalesce(reference_key(service_provider, 'Organization'), reference_key(location, 'Location')) AS care_site_key,
    reference_key(part_of, 'Encounter') AS parent_key,
    visit_concept(class_code) AS visit_concept_id,
    left(class_code, 50) AS source_value,
    starts_at(period_start) AS start_datetime,
    is_partial(period_start) AS start_imputed,
    ends_at(period_end) AS end_datetime,
    is_partial(period_end) AS end_imputed,
    left(admit_source, 50) AS admitted_from_source_value,
    left(discharge_disposition, 50) AS discharged_to_source_value
FROM flat

-- ## visit
SELECT
    r.id AS resource_id,
    r.key AS hash,
    r.key,
    r.parent_key,
    r.person_id,
    coalesce(r.visit_concept_id, 0) AS visit_concept_id,
    r.source_value,
    -- no period: the first and last day of what refers to the encounter
    coalesce(r.start_datetime, least(d.first_datetime, r.end_datetime)) AS start_datetime,
    r.start_imputed OR r.start_datetime IS NULL AS start_imputed,
    -- a stated end is kept as it is, also one before the start: the gate shows it. An open stay ends with its last event; any other
    -- visit on the day it began (CDM)
    coalesce(
        r.end_datetime,
        greatest(
            CASE WHEN r.start_datetime IS NULL OR is_stay(r.visit_concept_id) THEN d.last_datetime END,
            coalesce(r.start_datetime, d.first_datetime)
        )
    ) AS end_datetime,
    CASE WHEN r.end_datetime IS NOT NULL THEN r.end_imputed ELSE r.start_datetime IS NULL OR is_stay(r.visit_concept_id) END AS end_imputed,
    origin(
        false,
        r.start_datetime IS NULL OR r.start_imputed OR r.end_imputed OR r.end_datetime IS NULL AND is_stay(r.visit_concept_id),
        type_concept('Encounter', 'default', '')
    ) AS type_concept_id,
    r.provider_id,
    r.care_site_key,
    r.admitted_from_source_value,
    r.discharged_to_source_value
FROM included r
LEFT JOIN visit_dates d ON d.visit_key = r.key
