-- AdverseEvent → the table of its event's domain, condition_occurrence where that is not known.

-- ## read
SELECT
    CASE
        WHEN actuality = 'potential' THEN 'X-POTENTIAL'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    provider_key(recorder) AS provider_key,
    code_codings,
    start_datetime,
    is_partial(start_text) AS start_imputed,
    type_concept('AdverseEvent', 'default', '') AS type_concept_id,
    reported_by(recorder, subject) AS reported,
    nullif(grade_codings, []) AS grade_codings,
    nullif(seriousness_codings, []) AS seriousness_codings,
    nullif(severity_codings, []) AS severity_codings,
    nullif(outcome_codings, []) AS outcome_codings
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(dated, detected, recorded) AS start_text FROM flat)
)

-- ## stage adverse_event_detail
-- its grade (CTCAE), whether it was serious, how severe it was and how it ended
SELECT id, key, kind, list_key(codings) AS code_key, codings AS code_codings
FROM (
    SELECT id, key, unnest(['grade', 'seriousness', 'severity', 'outcome']) AS kind,
        unnest([grade_codings, seriousness_codings, severity_codings, outcome_codings]) AS codings
    FROM stage
)
WHERE len(codings) > 0

-- ## event
SELECT
    coalesce(c.cdm_table, 'condition_occurrence') AS cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    c.value_concept_id AS value_as_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key

-- ## event detail
-- rows of their own, tied to the event (f2o-081)
SELECT
    coalesce(c.cdm_table, 'observation') AS cdm_table,
    s.kind || coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    c.value_concept_id AS value_as_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    s.kind AS qualifier_source_value,
    r.key AS focus_key
FROM stage_adverse_event_detail s
JOIN included r ON r.key = s.key
LEFT JOIN chosen_adverse_event_detail c ON c.list_key = s.code_key
