-- Who pays.
SELECT
    r.row_id AS payer_plan_period_id,
    r.person_id,
    r.start_datetime::DATE AS payer_plan_period_start_date,
    r.end_datetime::DATE AS payer_plan_period_end_date,
    0 AS payer_concept_id,
    r.payer_source_value,
    NULL::INTEGER AS payer_source_concept_id,
    0 AS plan_concept_id,
    r.plan_source_value,
    NULL::INTEGER AS plan_source_concept_id,
    0 AS sponsor_concept_id,
    NULL::VARCHAR AS sponsor_source_value,
    NULL::INTEGER AS sponsor_source_concept_id,
    -- the subscriber's number identifies a family
    NULL::VARCHAR AS family_source_value,
    0 AS stop_reason_concept_id,
    NULL::VARCHAR AS stop_reason_source_value,
    NULL::INTEGER AS stop_reason_source_concept_id
FROM row_payer_plan_period r
