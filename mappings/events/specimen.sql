-- Specimen → specimen. Unlike other records it is always one: a type without a concept, or of another domain, keeps its row.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    NULL::UHUGEINT AS visit_key,
    NULL::UHUGEINT AS provider_key,
    code_codings,
    site_codings,
    start_datetime,
    is_partial(start_text) OR open_start AS start_imputed,
    type_concept('Specimen', 'default', '') AS type_concept_id,
    quantity_value AS quantity,
    coalesce(quantity_system, CASE WHEN coalesce(quantity_code, quantity_unit) IS NOT NULL THEN 'http://unitsofmeasure.org' END)
        AS unit_system,
    coalesce(quantity_code, quantity_unit) AS unit_code,
    coalesce(quantity_unit, quantity_code) AS unit_text
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (
        -- of a period without a start the end is a day on which it was taken
        SELECT
            *,
            coalesce(collected_datetime, collected_start, collected_end, received) AS start_text,
            collected_end IS NOT NULL AND collected_start IS NULL AS open_start
        FROM flat
    )
)

-- ## event
SELECT
    'specimen' AS cdm_table,
    '' AS discriminator,
    c.code_no,
    CASE WHEN c.domain_id = 'Specimen' THEN c.concept_id ELSE 0 END AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.quantity,
    u.code_no AS unit_no,
    u.concept_id AS unit_concept_id,
    left(r.unit_text, 50) AS unit_source_value,
    s.code_no AS site_no,
    coalesce(s.concept_id, CASE WHEN r.site_key IS NOT NULL THEN 0 END) AS site_concept_id,
    s.source_value AS site_source_value
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
LEFT JOIN chosen_site s ON s.list_key = r.site_key
LEFT JOIN unit u ON u.system = r.unit_system AND u.code = r.unit_code
