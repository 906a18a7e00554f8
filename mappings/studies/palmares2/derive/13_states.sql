-- What is true of a patient at day 0 (or at the advanced diagnosis, where nothing was started), each with the row that says it.
CREATE TEMP TABLE baseline_day AS
SELECT * EXCLUDE (site), coalesce(index_date, advanced_date) AS day FROM patient WHERE advanced_date IS NOT NULL;

-- De novo: the advanced diagnosis at most de_novo_days after the primary one. Not known without a primary diagnosis before it.
CREATE TEMP TABLE de_novo AS
SELECT
    person_id, advanced_date AS day,
    CASE WHEN primary_date <= advanced_date THEN advanced_date - primary_date <= de_novo_days() END AS is_de_novo,
    CASE WHEN primary_date <= advanced_date THEN advanced_date - primary_date END AS days,
    source_table, source_id
FROM baseline_day
LEFT JOIN primary_tumour USING (person_id)
LEFT JOIN (
    SELECT person_id, arg_min(row_table, (start_date, row_id)) AS source_table, arg_min(row_id, (start_date, row_id)) AS source_id
    FROM disease_row WHERE kind = 'primary' GROUP BY person_id
) USING (person_id);

-- Endocrine resistance (ESO-ESMO), as far as it is known at day 0.
CREATE TEMP TABLE resistance AS
WITH adjuvant AS (      -- endocrine therapy begun before the advanced diagnosis, as the initiating site knows it: it is baseline
    SELECT
        person_id,
        min(start_date) AS first_day,
        min(latest_start) AS first_day_at_latest,       -- where only the month is known
        max(end_date) AS last_day,
        bool_or(end_date IS NULL OR end_date >= advanced_date - relapse_on_et_days()) AS at_relapse,
        arg_max(drug_exposure_id, (start_date, drug_exposure_id)) AS source_id
    FROM given JOIN baseline_day USING (person_id)
    WHERE kind = 'endocrine' AND start_date < advanced_date AND member_id = person_id
    GROUP BY person_id
),
first_line AS (         -- endocrine therapy alone for advanced disease, before day 0, and a progression on it within 6 months
    SELECT person_id, arg_min(progression_day.source_id, progression_day.day) AS source_id
    FROM line
    JOIN baseline_day USING (person_id)
    JOIN progression_day USING (person_id)
    WHERE line.line_number = 1
        AND line.start_date < baseline_day.day
        AND NOT line.is_index
        AND progression_day.day > line.start_date
        AND progression_day.day <= least(CAST(line.start_date + to_months(first_line_resistance_months()) AS DATE), baseline_day.day)
        AND NOT EXISTS (
            FROM line_drug
            WHERE line_drug.person_id = line.person_id AND line_drug.line_number = 1 AND line_drug.kind <> 'endocrine'
        )
    GROUP BY person_id
)
SELECT
    person_id, baseline_day.day,
    CASE
        WHEN first_line.person_id IS NOT NULL THEN 'primary-resistant'
        WHEN is_de_novo THEN 'sensitive'
        WHEN is_de_novo IS NULL THEN NULL
        WHEN at_relapse AND advanced_date < first_day + to_months(primary_resistance_months()) THEN 'primary-resistant'
        WHEN at_relapse AND advanced_date >= first_day_at_latest + to_months(primary_resistance_months()) THEN 'secondary-resistant'
        -- begun in a month in which either may be: which of the two cannot be told
        WHEN at_relapse THEN 'resistant'
        WHEN advanced_date <= last_day + to_months(secondary_resistance_months()) THEN 'secondary-resistant'
        ELSE 'sensitive'
    END AS value,
    CASE
        WHEN first_line.person_id IS NOT NULL THEN 'measurement'
        WHEN NOT is_de_novo AND adjuvant.person_id IS NOT NULL THEN 'drug_exposure'
        ELSE de_novo.source_table
    END AS source_table,
    CASE
        WHEN first_line.person_id IS NOT NULL THEN first_line.source_id
        WHEN NOT is_de_novo AND adjuvant.person_id IS NOT NULL THEN adjuvant.source_id
        ELSE de_novo.source_id
    END AS source_id
FROM baseline_day
JOIN de_novo USING (person_id)
LEFT JOIN adjuvant USING (person_id)
LEFT JOIN first_line USING (person_id);

-- Metastatic sites known on or before day 0. An unspecified one leaves them unknown where none is named.
CREATE TEMP TABLE baseline_sites AS
SELECT
    baseline_day.person_id, baseline_day.day,
    CASE
        WHEN len(list_filter(list(metastatic_site.site), lambda one: one IS NOT NULL)) > 0 OR NOT bool_or(coalesce(unspecified, FALSE))
            THEN list_sort(list_filter(list(metastatic_site.site), lambda one: one IS NOT NULL))
    END AS sites
FROM baseline_day
LEFT JOIN metastatic_site ON metastatic_site.person_id = baseline_day.person_id AND metastatic_site.day <= baseline_day.day
LEFT JOIN (
    SELECT DISTINCT person_id, TRUE AS unspecified
    FROM disease_row JOIN baseline_day USING (person_id)
    WHERE kind = 'metastasis' AND value = 'unspecified' AND start_date <= baseline_day.day
) AS unnamed ON unnamed.person_id = baseline_day.person_id
GROUP BY ALL;

-- The receptors of the sample that decides (the latest metastatic one, else the latest primary one), each with its measurement.
CREATE TEMP TABLE receptor_row AS
SELECT
    chosen_sample.person_id, marker.concept_set AS marker, measurement.measurement_id, measurement.value_as_number,
    chosen_sample.sample_date AS day
FROM chosen_sample
JOIN measurement ON measurement.person_id = chosen_sample.person_id AND measurement.measurement_date = chosen_sample.sample_date
JOIN concept_set AS marker
    ON marker.concept_id = measurement.measurement_concept_id
    AND marker.concept_set IN ('estrogen-receptor', 'progesterone-receptor', 'her2-ihc', 'her2-ish');

CREATE TEMP TABLE pathology AS
-- Ki-67 and grade of the day of that sample, else the last up to its window
SELECT
    person_id,
    arg_max({'number': percent, 'day': day, 'id': id}, (day = sample_date, day, percent)) FILTER (percent IS NOT NULL) AS ki67,
    arg_max({'value': grade, 'day': day, 'id': id}, (day = sample_date, day, grade)) FILTER (grade IS NOT NULL) AS grade
FROM (
    SELECT
        person_id, measurement_id AS id, measurement_date AS day, sample_date,
        CASE WHEN measurement_source_value = ki67_code() AND value_as_number BETWEEN 0 AND 100 THEN value_as_number END AS percent,
        score.value AS grade
    FROM measurement
    JOIN baseline_day USING (person_id)
    LEFT JOIN chosen_sample USING (person_id)
    LEFT JOIN concept_set AS question ON question.concept_set = 'grade' AND question.concept_id = measurement_concept_id
    LEFT JOIN concept_set AS score
        ON question.concept_set IS NOT NULL AND score.concept_set = 'grade-value' AND score.concept_id = value_as_concept_id
    WHERE (measurement_source_value = ki67_code() OR question.concept_id IS NOT NULL)
        AND measurement_date <= least(cut_off(), baseline_day.day + receptor_days_after_index())
)
GROUP BY person_id;

CREATE TEMP TABLE menopause AS
SELECT
    person_id, arg_max(status.value, (observation_date, status.value)) AS value,
    max(observation_date) AS day, arg_max(observation_id, (observation_date, status.value)) AS source_id
FROM baseline_day
JOIN observation USING (person_id)
JOIN concept_set AS question ON question.concept_set = 'menopause' AND question.concept_id = observation_concept_id
JOIN concept_set AS status ON status.concept_set = 'menopause-value' AND status.concept_id = value_as_concept_id
WHERE observation_date <= baseline_day.day
GROUP BY person_id;

CREATE TEMP TABLE state AS
SELECT person_id, name, value, CAST(number AS DOUBLE) AS number, day, source_table, source_id
FROM (
    SELECT person_id, 'de-novo' AS name, CASE WHEN is_de_novo THEN 'yes' WHEN NOT is_de_novo THEN 'no' END AS value,
        days AS number, day, source_table, source_id
    FROM de_novo
    UNION ALL
    SELECT person_id, 'endocrine-resistance', value, NULL, day, source_table, source_id FROM resistance
    UNION ALL
    SELECT person_id, 'metastatic-site', site, NULL, day, source_table, source_id FROM metastatic_site
    UNION ALL
    SELECT person_id, 'metastatic-sites', array_to_string(sites, '+'), len(sites), day, NULL, NULL FROM baseline_sites
    UNION ALL
    SELECT person_id, 'visceral', yes_no(list_has_any(sites, ['liver', 'lung', 'pleura', 'peritoneum'])), NULL, day, NULL, NULL
    FROM baseline_sites
    UNION ALL
    SELECT person_id, 'bone-only', yes_no(sites = ['bone']), NULL, day, NULL, NULL FROM baseline_sites
    UNION ALL
    SELECT person_id, 'sample-origin', origin, NULL, sample_date, NULL, NULL FROM chosen_sample
    UNION ALL
    SELECT person_id, 'receptor-discordance', yes_no(discordant), NULL, sample_date, NULL, NULL FROM chosen_sample
    UNION ALL
    SELECT
        person_id, marker.name,
        CASE marker.name
            WHEN 'er' THEN level_word(er_level)
            WHEN 'pgr' THEN level_word(pgr_level)
            WHEN 'her2-ihc' THEN her2_ihc
            WHEN 'her2-ish' THEN her2_ish
        END,
        CASE marker.name WHEN 'er' THEN er_percent WHEN 'pgr' THEN pgr_percent END,
        sample_date, 'measurement', found.source_id
    FROM chosen_sample
    CROSS JOIN (VALUES
        ('er', 'estrogen-receptor'), ('pgr', 'progesterone-receptor'), ('her2-ihc', 'her2-ihc'), ('her2-ish', 'her2-ish')
    ) AS marker (name, concept_set)
    JOIN (
        SELECT person_id, marker, arg_max(measurement_id, (coalesce(value_as_number, -1), measurement_id)) AS source_id
        FROM receptor_row GROUP BY ALL
    ) AS found USING (person_id)
    WHERE found.marker = marker.concept_set
    UNION ALL
    SELECT
        person_id, 'her2',
        CASE
            WHEN her2_positive THEN 'positive'
            WHEN her2_ihc = '0' THEN 'zero'
            WHEN her2_ihc = '1+' OR her2_ihc = '2+' AND NOT her2_positive THEN 'low'
            WHEN her2_ihc = 'negative' THEN 'negative'
        END,
        NULL, sample_date, NULL, NULL
    FROM chosen_sample
    UNION ALL
    SELECT person_id, 'hr', CASE WHEN hr_positive THEN 'positive' WHEN NOT hr_positive THEN 'negative' END, hr_at_most, sample_date, NULL, NULL
    FROM chosen_sample
    UNION ALL
    SELECT person_id, 'ki67', NULL, ki67.number, ki67.day, 'measurement', ki67.id FROM pathology WHERE ki67 IS NOT NULL
    UNION ALL
    SELECT person_id, 'grade', grade.value, CAST(grade.value AS DOUBLE), grade.day, 'measurement', grade.id
    FROM pathology WHERE grade IS NOT NULL
    UNION ALL
    SELECT person_id, 'menopause', value, NULL, day, 'observation', source_id FROM menopause
    UNION ALL
    SELECT person_id, 'consent', NULL, NULL, day, source_table, source_id FROM consent
    UNION ALL
    SELECT person_id, 'new-site-undeclared', site, NULL, day, source_table, source_id
    FROM new_site
    WHERE NOT EXISTS (
        FROM progression_day
        WHERE progression_day.person_id = new_site.person_id
            AND new_site.day >= progression_day.day - new_site_days() AND new_site.day <= progression_day.day + new_site_days()
    )
    UNION ALL
    SELECT
        person_id, 'endpoints-withheld', in_doubt, NULL, index_date, 'death', source_id
    FROM patient
    LEFT JOIN recorded_death USING (person_id)
    WHERE index_date IS NOT NULL AND in_doubt IS NOT NULL
);
