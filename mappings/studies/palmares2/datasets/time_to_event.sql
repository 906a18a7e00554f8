-- One row per patient and endpoint, as deriving has it. Days count from day 0.
SELECT
    patient,
    paramcd AS PARAMCD,
    param AS PARAM,
    main,
    start_date - index_date AS STARTDT,
    end_date - index_date AS ADT,
    days AS AVAL,
    'DAYS' AS AVALU,
    round(days / days_per_month(), 2) AS months,
    cnsr AS CNSR,
    1 - cnsr AS event,
    evntdesc AS EVNTDESC,
    cnsdtdsc AS CNSDTDSC,
    entry_day,
    -- those who entered on the day of the end or later were never under observation while at risk
    coalesce(entry_day < days, TRUE) AS at_risk,
    list_contains(flags, 'early-progression') AS early_progression,
    source_table AS SRCDOM
FROM derived_endpoint
JOIN released USING (person_id)
JOIN endpoint_word USING (paramcd)
ORDER BY place, endpoint_word.position
