-- Coverage → payer_plan_period. No payer vocabulary is mapped: the names are kept, the concepts are 0.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'draft' THEN 'X-PLANNED'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN starts_at(coalesce(period_start, period_end)) IS NULL THEN no_date(coalesce(period_start, period_end))
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    NULL::UHUGEINT AS visit_key,
    NULL::UHUGEINT AS provider_key,
    coalesce(starts_at(period_start), starts_at(period_end)) AS start_datetime,
    is_partial(coalesce(period_start, period_end)) AS start_imputed,
    coalesce(ends_at(period_end), ends_at(period_start)) AS end_datetime,
    -- who pays for himself or a relative is a person: no name
    CASE WHEN payor IS NULL OR NOT (contains(payor, 'Patient/') OR contains(payor, 'RelatedPerson/') OR starts_with(payor, 'urn:'))
        THEN left(payor_display, 50) END AS payer_source_value,
    left(coalesce(type_code, type_text), 50) AS plan_source_value
FROM flat

-- ## payer_plan_period
SELECT
    r.start_datetime,
    r.start_imputed,
    r.end_datetime,
    r.payer_source_value,
    r.plan_source_value
FROM included r
