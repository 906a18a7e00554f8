-- AllergyIntolerance → observation. An exception to the rule of domains: a substance (domain Drug) is here what the patient must
-- not get, so a drug_exposure would say the opposite. Only an allergic disease (domain Condition) goes to condition_occurrence.

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
    is_partial(start_text) OR only_known_to_end AS start_imputed,
    type_concept('AllergyIntolerance', 'default', '') AS type_concept_id,
    reported_by(asserter, subject) AS reported,
    left(clinical_statuses[1], 50) AS qualifier_source_value
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (
        -- of a period without a start the end, and the last reaction, are days on which it was so
        SELECT
            *,
            coalesce(recorded, onset_datetime, onset_start, onset_end, last_occurrence) AS start_text,
            coalesce(recorded, onset_datetime, onset_start) IS NULL AS only_known_to_end
        FROM flat
    )
)

-- ## event
SELECT
    CASE WHEN c.cdm_table = 'condition_occurrence' THEN c.cdm_table ELSE 'observation' END AS cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    -- the substance is the question and the answer
    coalesce(c.value_concept_id, c.concept_id, 0) AS value_as_concept_id,
    c.source_value AS value_source_value,
    c.code_no AS value_no,
    r.qualifier_source_value
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
