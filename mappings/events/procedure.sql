-- Procedure → procedure_occurrence, or the table of its code's domain.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'not-done' THEN 'X-NOT-DONE'
        WHEN status = 'preparation' THEN 'X-PLANNED'
        -- broken off: what was done is not the procedure that the code names (f2o-060)
        WHEN status = 'stopped' THEN 'X-STOPPED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    coalesce(first_provider_key(performers), provider_key(recorder)) AS provider_key,
    code_codings,
    -- of a period without a start the day on which it was done with
    start_datetime,
    is_partial(start_text) OR performed_start IS NULL AND performed_end IS NOT NULL AS start_imputed,
    ends_at(performed_end) AS end_datetime,
    is_partial(performed_end) AS end_imputed,
    type_concept('Procedure', 'default', '') AS type_concept_id,
    reported_by(asserter, subject) AS reported,
    nullif(sites, []) AS sites
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(performed_datetime, performed_start, performed_end) AS start_text FROM flat)
)

-- ## stage procedure_detail
-- where on the body, and on which side
SELECT id, key, kind, position, list_key(codings) AS code_key, codings AS code_codings
FROM (
    SELECT id, key, 'site' AS kind, position, s.coding AS codings
    FROM (SELECT id, key, unnest(sites) AS s, generate_subscripts(sites, 1) AS position FROM stage WHERE sites IS NOT NULL)
    UNION ALL
    SELECT id, key, 'side', position, side_of(s.extension)
    FROM (SELECT id, key, unnest(sites) AS s, generate_subscripts(sites, 1) AS position FROM stage WHERE sites IS NOT NULL)
)
WHERE len(codings) > 0

-- ## event
SELECT
    coalesce(c.cdm_table, 'procedure_occurrence') AS cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    c.value_concept_id AS value_as_concept_id,
    r.start_datetime,
    r.start_imputed,
    r.end_datetime,
    r.end_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key

-- ## event detail
-- rows of their own, tied to the procedure (f2o-081)
SELECT
    coalesce(c.cdm_table, 'observation') AS cdm_table,
    s.kind || '/' || s.position || coalesce(c.discriminator, '') AS discriminator,
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
FROM stage_procedure_detail s
JOIN included r ON r.key = s.key
LEFT JOIN chosen_procedure_detail c ON c.list_key = s.code_key
