-- MedicationDispense → drug_exposure: a drug that was handed over.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'declined' THEN 'X-NOT-DONE'
        WHEN status = 'preparation' THEN 'X-PLANNED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
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
    type_concept('MedicationDispense', 'default', '') AS type_concept_id,
    false AS reported,
    quantity_value AS quantity,
    days_of(days, days_unit) AS days_supply,
    sig(dose_value, coalesce(dose_code, dose_unit), frequency, period, period_unit) AS sig,
    left(coalesce(dose_code, dose_unit), 50) AS dose_unit_source_value
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(handed_over, prepared) AS start_text FROM flat)
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
    -- CDM: start + days of supply - 1; without them the day itself. verbatim_end_date stays empty
    r.start_datetime + to_days(greatest(coalesce(r.days_supply, 1), 1) - 1) AS end_datetime,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    r.quantity,
    r.days_supply,
    r.sig,
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
