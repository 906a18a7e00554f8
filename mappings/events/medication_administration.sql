-- MedicationAdministration → drug_exposure: a drug that was given.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'not-done' THEN 'X-NOT-DONE'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        -- 'stopped' stays: some of it was given
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN len(code_codings) = 0 AND medication IS NULL AND NOT code_has_text THEN 'X-NO-CODE'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    first_provider_key(performers) AS provider_key,
    CASE WHEN starts_with(medication, '#') THEN contained_of(contained_medications, medication).code.coding ELSE code_codings END AS code_codings,
    reference_key(medication, 'Medication') AS medication_key,
    route_codings,
    start_datetime,
    is_partial(start_text) AS start_imputed,
    ends_at(coalesce(effective_end, effective_datetime)) AS end_datetime,
    is_partial(effective_end) AS end_imputed,
    ends_at(effective_end)::DATE AS verbatim_end_date,
    effective_end IS NULL AND effective_datetime IS NULL AND status IN ('in-progress', 'on-hold') AS still_given,
    starts_at(last_updated_text) AS last_known,
    type_concept('MedicationAdministration', 'default', '') AS type_concept_id,
    reported_by_one(performers, subject) AS reported,
    left(stop_reason, 20) AS stop_reason,
    dose_value AS quantity,
    left(coalesce(dose_code, dose_unit), 50) AS dose_unit_source_value
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(effective_datetime, effective_start) AS start_text FROM flat)
)

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
    -- still given: true until the record was last touched, else until the extraction. verbatim_end_date stays empty
    coalesce(
        r.end_datetime, CASE WHEN r.still_given THEN greatest(coalesce(r.last_known, extraction()), r.start_datetime) END, r.start_datetime
    ) AS end_datetime,
    r.end_imputed,
    r.verbatim_end_date,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.stop_reason,
    r.quantity,
    route.code_no AS route_no,
    coalesce(route.concept_id, CASE WHEN r.route_key IS NOT NULL THEN 0 END) AS route_concept_id,
    route.source_value AS route_source_value,
    r.dose_unit_source_value
FROM (
    SELECT r.* REPLACE (coalesce(r.code_key, m.code_key) AS code_key)
    FROM included r LEFT JOIN medication m ON m.key = r.medication_key
) r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
LEFT JOIN chosen_route route ON route.list_key = r.route_key
