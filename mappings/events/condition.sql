-- Condition → condition_occurrence, or the table of its code's domain.

-- ## read
SELECT
    CASE
        -- whichever of its codings says so: the hospital's own code may stand before FHIR's
        WHEN list_contains(verification_statuses, 'entered-in-error') THEN 'X-ERROR'
        WHEN list_contains(verification_statuses, 'refuted') THEN 'X-REFUTED'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    coalesce(provider_key(asserter), provider_key(recorder)) AS provider_key,
    code_codings,
    start_datetime,
    is_partial(start_text) OR onset_end IS NOT NULL AND onset_start IS NULL AND start_text = onset_end AS start_imputed,
    ends_at(end_text) AS end_datetime,
    is_partial(end_text) AS end_imputed,
    -- a category says whether this is a diagnosis of an encounter or an entry of the problem list
    first_category_type('Condition', categories) AS type_concept_id,
    reported_by(asserter, subject) AS reported,
    -- how sure it is says more than whether it lasts
    coalesce(first_status('verificationStatus', verification_statuses), first_status('clinicalStatus', clinical_statuses), 0)
        AS status_concept_id,
    left(clinical_statuses[1], 50) AS status_source_value,
    abatement_string,
    -- a metastasis whose concept is a modifier of the tumour points to the primary
    coalesce(reference_key(related, 'Condition'), reference_key(related_mcode, 'Condition')) AS focus_key,
    nullif(histology_codings, []) AS histology_codings,
    nullif(severity_codings, []) AS severity_codings,
    nullif(sites, []) AS sites,
    nullif(stages, []) AS stages
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (
        SELECT
            *,
            -- onset, not the day somebody said so or wrote it down; these only where onset is not known
            coalesce(onset_datetime, onset_start, asserted, recorded, onset_end) AS start_text,
            coalesce(abatement_datetime, abatement_end) AS end_text
        FROM flat
    )
)

-- ## stage condition_detail
-- what qualifies it: one row per severity, histology, body site, side and stage that is coded here
SELECT id, key, kind, position, list_key(codings) AS code_key, codings AS code_codings
FROM (
    SELECT id, key, 'severity' AS kind, 1 AS position, severity_codings AS codings FROM stage WHERE severity_codings IS NOT NULL
    UNION ALL
    SELECT id, key, 'histology', 1, histology_codings FROM stage WHERE histology_codings IS NOT NULL
    UNION ALL
    SELECT id, key, 'site', position, s.coding
    FROM (SELECT id, key, unnest(sites) AS s, generate_subscripts(sites, 1) AS position FROM stage WHERE sites IS NOT NULL)
    UNION ALL
    SELECT id, key, 'side', position, side_of(s.extension)
    FROM (SELECT id, key, unnest(sites) AS s, generate_subscripts(sites, 1) AS position FROM stage WHERE sites IS NOT NULL)
    UNION ALL
    -- an Observation says a stage that it assessed
    SELECT id, key, 'stage', position, s.summary.coding
    FROM (SELECT id, key, unnest(stages) AS s, generate_subscripts(stages, 1) AS position FROM stage WHERE stages IS NOT NULL)
    WHERE coalesce(len(s.assessment), 0) = 0
)
WHERE len(codings) > 0

-- ## stage condition_assessment
-- the Observations that a stage was told from
SELECT unnest(named) AS reference, key
FROM (
    SELECT key, list_transform(flatten(list_transform(stages, lambda s: s.assessment)), lambda a: a.reference) AS named
    FROM stage
    WHERE stages IS NOT NULL
)

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
    r.end_datetime,
    r.end_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.status_concept_id,
    r.status_source_value,
    r.focus_key
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key

-- ## event detail
-- rows of their own, tied to the condition that they qualify (f2o-081)
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
FROM stage_condition_detail s
JOIN included r ON r.key = s.key
LEFT JOIN chosen_condition_detail c ON c.list_key = s.code_key

-- ## focus
-- the stage names the Observation; the Observation need not name the tumour
SELECT reference_key(a.reference, 'Observation') AS key, p.person_id, min(a.key) AS focus_key
FROM stage_condition_assessment a
JOIN stage_condition s ON s.key = a.key
JOIN person_of p ON p.key = s.person_key
WHERE reference_key(a.reference, 'Observation') IS NOT NULL
GROUP BY 1, 2
HAVING count(DISTINCT a.key) = 1
