-- The drugs of each line: begun in it, carried into it, or (endocrine therapy with the CDK4/6 inhibitor of day 0, when there is
-- no other) given in the window of criterion 7.
CREATE TEMP TABLE line_drug AS
WITH begun AS (
    SELECT given.*, line_span.line_number, 'begun' AS how, given.start_date <= line_span.anchor + regimen_days() AS in_regimen
    FROM given
    ASOF JOIN line_span ON line_span.person_id = given.person_id AND given.start_date >= line_span.start_date
),
carried AS (
    SELECT given.*, line_span.line_number, 'carried', TRUE
    FROM given
    JOIN line_span ON line_span.person_id = given.person_id AND given.start_date < line_span.start_date
    WHERE coalesce(given.given_to > line_span.start_date + regimen_days(), given.start_date >= line_span.since)
),
regimen AS (
    FROM begun UNION ALL FROM carried
),
partnered AS (
    SELECT DISTINCT person_id, line_number
    FROM regimen
    WHERE in_regimen AND drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd')
)
FROM regimen
UNION ALL
SELECT given.*, line_span.line_number, 'window', TRUE
FROM given
JOIN line_span ON line_span.person_id = given.person_id AND line_span.is_index AND given.start_date < line_span.start_date
ANTI JOIN partnered ON partnered.person_id = line_span.person_id AND partnered.line_number = line_span.line_number
WHERE given.drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd')
    AND coalesce(given.given_to >= line_span.index_date - partner_days_before_index(), TRUE);
