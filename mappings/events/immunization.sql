-- Immunization → drug_exposure.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'not-done' THEN 'X-NOT-DONE'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(occurrence)
        WHEN len(code_codings) = 0 AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    first_provider_key(performers) AS provider_key,
    code_codings,
    route_codings,
    start_datetime,
    is_partial(occurrence) AS start_imputed,
    type_concept('Immunization', 'default', '') AS type_concept_id,
    -- who vaccinated did not write this record, and the one who told it was the patient
    NOT coalesce(primary_source, true) AND recalled AS reported,
    -- a dose that does not count as one: the exposure was one all the same, and is counted among the losses
    coalesce(subpotent, false) AS subpotent,
    lot_number,
    dose_value AS quantity,
    left(coalesce(dose_code, dose_unit), 50) AS dose_unit_source_value
FROM (SELECT *, starts_at(occurrence) AS start_datetime FROM flat)

-- ## event
SELECT
    coalesce(c.cdm_table, 'drug_exposure') AS cdm_table,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    r.start_datetime AS end_datetime,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.quantity,
    left(r.lot_number, 50) AS lot_number,
    route.code_no AS route_no,
    coalesce(route.concept_id, CASE WHEN r.route_key IS NOT NULL THEN 0 END) AS route_concept_id,
    route.source_value AS route_source_value,
    r.dose_unit_source_value
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
LEFT JOIN chosen_route route ON route.list_key = r.route_key
