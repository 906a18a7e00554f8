-- DocumentReference → note: that there is a document, of which kind and when. Its text stays in the hospital.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' OR doc_status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'superseded' THEN 'X-SUPERSEDED'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    first_provider_key(performers) AS provider_key,
    code_codings,
    CASE WHEN list_contains(list_transform(code_codings, lambda c: c.display), code_text) THEN left(code_text, 250) END AS note_title,
    start_datetime,
    is_partial(start_text) AS start_imputed
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(period_start, dated) AS start_text FROM flat)
)

-- ## note
SELECT
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, type_concept('DocumentReference', 'default', '')) AS type_concept_id,
    coalesce(k.concept_id, 0) AS note_class_concept_id,
    r.note_title,
    k.code_no AS kind_no,
    k.source_value
FROM included r
LEFT JOIN chosen_kind k ON k.list_key = r.code_key
