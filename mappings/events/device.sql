-- Device → device_exposure, or the table of its code's domain.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status NOT IN ('active', 'inactive') THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(manufactured)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    NULL::UHUGEINT AS visit_key,
    NULL::UHUGEINT AS provider_key,
    code_codings,
    -- FHIR R4 has no date of use on Device: the day it was made stands for it, the day it expires for the end
    start_datetime,
    is_partial(manufactured) AS start_imputed,
    ends_at(expires) AS end_datetime,
    is_partial(expires) AS end_imputed,
    type_concept('Device', 'default', '') AS type_concept_id,
    left(device_identifier, 255) AS unique_device_id,
    left(lot_number, 255) AS production_id
FROM (SELECT *, starts_at(manufactured) AS start_datetime FROM flat)

-- ## event
SELECT
    coalesce(c.cdm_table, 'device_exposure') AS cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    r.end_datetime,
    r.end_imputed,
    origin(false, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.unique_device_id,
    r.production_id
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
