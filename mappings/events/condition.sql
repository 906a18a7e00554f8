-- Condition → condition_occurrence, or the table of its code's domain.

-- ## read
SELECT
    CASE
        WHEN verification_status = 'entered-in-error' THEN 'X-ERROR'
        WHEN verification_status = 'refuted' THEN 'X-REFUTED'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    coalesce(provider_key(asserter), provider_key(recorder)) AS provider_key,
    code_codings,
    start_datetime,
    is_partial(start_text) AS start_imputed,
    ends_at(end_text) AS end_datetime,
    is_partial(end_text) AS end_imputed,
    -- a category says whether this is a diagnosis of an encounter or an entry of the problem list
    first_category_type('Condition', categories) AS type_concept_id,
    reported_by(asserter, subject) AS reported,
    -- how sure it is says more than whether it lasts
    coalesce(condition_status('verificationStatus', verification_status), condition_status('clinicalStatus', clinical_status), 0)
        AS status_concept_id,
    left(clinical_status, 50) AS status_source_value,
    abatement_string
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (
        SELECT
            *,
            -- onset, not the day somebody wrote it down; that only where onset is not known
            coalesce(onset_datetime, onset_start, recorded) AS start_text,
            coalesce(abatement_datetime, abatement_end) AS end_text
        FROM flat
    )
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
    r.status_source_value
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
