-- DiagnosticReport → a note per report, and an event for a code that is no kind of document. The results are Observations.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'registered' THEN 'X-PLANNED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND code_text IS NULL AND NOT has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    first_provider_key(performers) AS provider_key,
    code_codings,
    -- a title that is no more than the name of the code; any other text may hold a name
    CASE WHEN list_contains(list_transform(code_codings, lambda c: c.display), code_text) THEN left(code_text, 250) END AS note_title,
    start_datetime,
    is_partial(start_text) OR effective_start IS NULL AND effective_end IS NOT NULL AS start_imputed,
    known_category_type('DiagnosticReport', categories) AS type_concept_id,
    nullif(conclusions, []) AS conclusions
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(effective_datetime, effective_start, effective_end, issued) AS start_text FROM flat)
)

-- ## stage diagnostic_report_conclusion
-- what it concludes, where that is coded
SELECT id, key, position, list_key(s.coding) AS code_key, s.coding AS code_codings
FROM (
    SELECT id, key, unnest(conclusions) AS s, generate_subscripts(conclusions, 1) AS position
    FROM stage
    WHERE conclusions IS NOT NULL
)
WHERE len(s.coding) > 0

-- ## event
SELECT
    c.cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    c.concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, coalesce(
        r.type_concept_id, type_concept('DiagnosticReport', 'domain', c.domain_id), type_concept('DiagnosticReport', 'default', '')
    )) AS type_concept_id
FROM included r
JOIN chosen_code c ON c.list_key = r.code_key
-- a kind of document, or a code without a concept: the note says it
WHERE c.concept_id > 0 AND c.domain_id <> 'Note'

-- ## event conclusion
-- a finding of its own, by the domain of its code (f2o-081)
SELECT
    coalesce(c.cdm_table, 'observation') AS cdm_table,
    'conclusion/' || s.position || coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    c.value_concept_id AS value_as_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, coalesce(r.type_concept_id, type_concept('DiagnosticReport', 'default', ''))) AS type_concept_id
FROM stage_diagnostic_report_conclusion s
JOIN included r ON r.key = s.key
LEFT JOIN chosen_conclusion c ON c.list_key = s.code_key

-- ## note
SELECT
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, type_concept('DiagnosticReport', 'default', '')) AS type_concept_id,
    coalesce(k.concept_id, 0) AS note_class_concept_id,
    r.note_title,
    k.code_no AS kind_no,
    k.source_value
FROM included r
LEFT JOIN chosen_kind k ON k.list_key = r.code_key
