-- The endpoints as they are written, with the day of entry of those who consented after the start.
CREATE TEMP TABLE consent AS
SELECT person_id, min(day) AS day, arg_min(source_table, (day, source_table, source_id)) AS source_table,
    arg_min(source_id, (day, source_table, source_id)) AS source_id
FROM said
WHERE word = consent_code()
GROUP BY person_id;

CREATE TEMP TABLE endpoint AS
SELECT
    one.person_id, paramcd, line_number, start_date, end_date,
    CAST(end_date - start_date AS INTEGER) AS days,
    CAST(evntdesc IS NULL AS INTEGER) AS cnsr,
    evntdesc, cnsdtdsc,
    CAST(CASE WHEN consent.day > start_date THEN consent.day - start_date END AS INTEGER) AS entry_day,
    list_filter([
        CASE WHEN evntdesc = 'progression' AND paramcd <> 'RWPFSBP' AND days <= early_progression_days() THEN 'early-progression' END,
        CASE WHEN entry_day > days THEN 'entry-after-end' END
    ], lambda flag: flag IS NOT NULL) AS flags,
    one.source_table, one.source_id
FROM (FROM progression_endpoint UNION ALL BY NAME FROM other_endpoint) AS one
LEFT JOIN consent ON consent.person_id = one.person_id;
