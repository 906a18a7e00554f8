-- Drugs prescribed, dispensed, given or taken: the type concept says which.
SELECT
    e.row_id AS drug_exposure_id,
    e.person_id,
    e.concept_id AS drug_concept_id,
    e.start_datetime::DATE AS drug_exposure_start_date,
    e.start_datetime AS drug_exposure_start_datetime,
    -- required by the CDM; verbatim_end_date is empty where the source does not state it
    coalesce(e.end_datetime, e.start_datetime)::DATE AS drug_exposure_end_date,
    coalesce(e.end_datetime, e.start_datetime) AS drug_exposure_end_datetime,
    e.verbatim_end_date,
    e.type_concept_id AS drug_type_concept_id,
    e.stop_reason,
    e.refills,
    -- dispensed or prescribed: how many units; given or taken: the amount of one dose, in dose_unit_source_value
    e.quantity,
    e.days_supply,
    -- put together from the coded dose and frequency; the free text of the instruction is never read
    e.sig,
    e.route_concept_id,
    e.lot_number,
    e.provider_id,
    e.visit_occurrence_id,
    e.visit_detail_id,
    e.source_value AS drug_source_value,
    e.source_concept_id AS drug_source_concept_id,
    e.route_source_value,
    e.dose_unit_source_value
FROM event e
WHERE e.cdm_table = 'drug_exposure'
