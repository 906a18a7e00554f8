-- Who is released: the eligible persons with their day 0; and every person of the warehouse who is the same patient.
CREATE TEMP TABLE released AS
SELECT
    person_id, patient, row_number() OVER (ORDER BY patient) AS place,
    site, sex, year_of_birth, month_of_birth, advanced_date, index_date, index_drug, last_contact,
    -- a death before day 0 is an error that the site is asked about
    coalesce(death_date < index_date, FALSE) AS in_doubt,
    CASE WHEN death_date >= index_date THEN death_date END AS death_date,
    least(cut_off(), CASE WHEN death_date >= index_date THEN death_date END) AS until
FROM (SELECT *, released_id(person_id) AS patient FROM verdict)
JOIN study_person USING (person_id, site)
JOIN advanced_disease USING (person_id)
JOIN index_start USING (person_id)
JOIN vital_status USING (person_id)
WHERE eligible;

-- Baseline comes from the initiating site, follow-up from all sites of the patient.
CREATE TEMP TABLE released_member AS
SELECT
    other.person_id AS member_id, released.person_id, released.index_date, released.until,
    CASE WHEN other.person_id = released.person_id THEN DATE '0001-01-01' ELSE CAST(index_date + 1 AS DATE) END AS since
FROM released
JOIN linked_person AS own ON own.person_id = released.person_id
JOIN linked_person AS other ON other.patient_id = own.patient_id;

-- What deriving states of each patient at day 0, one row per patient: one reading for every dataset.
CREATE TEMP TABLE stated AS
SELECT
    person_id,
    any_value(value) FILTER (name = 'de-novo') = 'yes' AS de_novo,
    CAST(any_value(number) FILTER (name = 'de-novo') AS INTEGER) AS days_primary_to_advanced,
    any_value(value) FILTER (name = 'endocrine-resistance') AS endocrine_sensitivity,
    -- no site known, or none that is named: unknown; an empty list: no metastasis (locally advanced)
    CASE
        WHEN any_value(number) FILTER (name = 'metastatic-sites') = 0 THEN CAST([] AS VARCHAR[])
        ELSE string_split(any_value(value) FILTER (name = 'metastatic-sites'), '+')
    END AS sites,
    any_value(value) FILTER (name = 'visceral') = 'yes' AS visceral,
    any_value(value) FILTER (name = 'bone-only') = 'yes' AS bone_only,
    any_value(number) FILTER (name = 'ki67') AS ki67_percent,
    any_value(value) FILTER (name = 'grade') AS grade,
    any_value(value) FILTER (name = 'menopause') AS menopause,
    any_value(day) FILTER (name = 'consent') AS consent_date
FROM derived_state
JOIN released USING (person_id)
WHERE name <> 'metastatic-site'
GROUP BY person_id;

CREATE TEMP TABLE histology AS      -- a named histology wins over an unspecified one; the first on record
SELECT person_id, arg_min(value, (value = 'unspecified', start_date, value)) AS value, min(start_date) AS day
FROM released
JOIN disease_row USING (person_id)
WHERE kind = 'primary' AND start_date <= index_date
GROUP BY person_id;

CREATE TEMP TABLE metastatic_day AS
SELECT person_id, value AS site, min(day) AS day
FROM derived_state
JOIN released USING (person_id)
WHERE name = 'metastatic-site' AND day <= until
GROUP BY ALL;
