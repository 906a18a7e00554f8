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
    reported_by(recorder, subject) AS reported
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(dated, detected, recorded) AS start_text FROM flat)
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
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
