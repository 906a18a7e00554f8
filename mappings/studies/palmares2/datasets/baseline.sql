-- One row per eligible patient: what was known at the index, and the days to death or last contact.
-- Nothing measured after the index is used, but where the protocol's own window reaches beyond it: ECOG, the receptor
-- sample, the endocrine partner. Days count from the index. NULL is UNKNOWN.
WITH patient AS (
    SELECT *
    FROM verdict
    JOIN study_person USING (person_id, site)
    JOIN advanced_disease USING (person_id)
    JOIN index_start USING (person_id)
    JOIN chosen_sample USING (person_id)
    JOIN vital_status USING (person_id)
    LEFT JOIN primary_tumour USING (person_id)
    WHERE eligible
),
menopause AS (      -- the last status on or before the index
    SELECT person_id, arg_max(status.value, (observation_date, status.value)) AS value
    FROM patient
    JOIN observation USING (person_id)
    JOIN concept_set AS question ON question.concept_set = 'menopause' AND question.concept_id = observation_concept_id
    JOIN concept_set AS status ON status.concept_set = 'menopause-value' AND status.concept_id = value_as_concept_id
    WHERE observation_date <= index_date
    GROUP BY person_id
),
ecog AS (           -- the nearest to the index within the window; on a tie the earlier day, on one day the worse
    SELECT
        person_id,
        arg_min(score, (abs(measurement_date - index_date), measurement_date, -score)) AS value
    FROM (
        SELECT
            person_id, index_date, measurement_date,
            coalesce(
                CAST(finding.value AS INTEGER),
                CAST(answer.value AS INTEGER),
                CASE WHEN value_as_number IN (0, 1, 2, 3, 4) THEN CAST(value_as_number AS INTEGER) END
            ) AS score
        FROM patient
        JOIN measurement USING (person_id)
        LEFT JOIN concept_set AS finding
            ON finding.concept_set = 'ecog-finding' AND finding.concept_id = measurement_concept_id
        LEFT JOIN concept_set AS answer
            ON answer.concept_set = 'ecog-value' AND answer.concept_id = value_as_concept_id
        WHERE (
                finding.value IS NOT NULL
                OR measurement_concept_id IN (SELECT concept_id FROM concept_set WHERE concept_set = 'ecog')
            )
            AND abs(measurement_date - index_date) <= ecog_days()
            AND measurement_date <= cut_off()
    )
    WHERE score IS NOT NULL
    GROUP BY person_id
),
body AS (           -- in the unit asked for, or in none; a weight must be recent, a height need not
    SELECT
        person_id,
        arg_max(value_as_number, (measurement_date, value_as_number)) FILTER (
            what.concept_set = 'weight' AND coalesce(unit.value, 'kg') = 'kg' AND recent AND value_as_number BETWEEN 25 AND 300
        ) AS weight,
        arg_max(value_as_number, (measurement_date, value_as_number)) FILTER (
            what.concept_set = 'height' AND coalesce(unit.value, 'cm') = 'cm' AND value_as_number BETWEEN 100 AND 230
        ) AS height
    FROM (
        SELECT *, measurement_date >= index_date - weight_days_before_index() AS recent
        FROM patient JOIN measurement USING (person_id)
        WHERE measurement_date <= index_date
    )
    JOIN concept_set AS what ON what.concept_set IN ('weight', 'height') AND what.concept_id = measurement_concept_id
    LEFT JOIN concept_set AS unit ON unit.concept_set = 'unit' AND unit.concept_id = unit_concept_id
    -- another unit (pounds, inches) is not converted: it is no value
    WHERE unit.value IS NOT NULL OR coalesce(unit_concept_id, 0) = 0
    GROUP BY person_id
),
histology AS (      -- a named histology wins over an unspecified one; the first on record
    SELECT person_id, arg_min(value, (value = 'unspecified', start_date, value)) AS value
    FROM patient
    JOIN disease_row USING (person_id)
    WHERE kind = 'primary' AND start_date <= index_date
    GROUP BY person_id
),
pathology AS (      -- grade and Ki-67 of the day of the chosen sample, else the last one up to its window
    SELECT
        person_id,
        arg_max(grade, (measurement_date = sample_date, measurement_date, grade)) AS grade,
        arg_max(ki67, (measurement_date = sample_date, measurement_date, ki67)) AS ki67
    FROM (
        SELECT
            person_id, measurement_date, sample_date,
            score.value AS grade,
            -- no standard concept of Ki-67 is known from a public source: it is found by its LOINC code
            CASE WHEN measurement_source_value = '29593-1' AND value_as_number BETWEEN 0 AND 100 THEN value_as_number END AS ki67
        FROM patient
        JOIN measurement USING (person_id)
        LEFT JOIN concept_set AS question ON question.concept_set = 'grade' AND question.concept_id = measurement_concept_id
        LEFT JOIN concept_set AS score
            ON question.concept_set IS NOT NULL AND score.concept_set = 'grade-value' AND score.concept_id = value_as_concept_id
        WHERE measurement_date <= index_date + receptor_days_after_index() AND measurement_date <= cut_off()
    )
    GROUP BY person_id
),
metastases AS (     -- an unspecified metastasis adds nothing where a site is named, and leaves the sites unknown where none is
    SELECT
        patient.person_id,
        coalesce(list_sort(list_distinct(list(value) FILTER (value <> 'unspecified'))), []) AS sites,
        coalesce(bool_or(value = 'unspecified'), FALSE) AS unspecified
    FROM patient
    LEFT JOIN disease_row
        ON disease_row.person_id = patient.person_id AND kind = 'metastasis' AND disease_row.start_date <= index_date
    GROUP BY patient.person_id
),
partner AS (        -- still given at the index before stopped, then the latest begun
    SELECT
        person_id,
        arg_max(drug_class, (end_date IS NULL OR end_date >= index_date, start_date, drug_class)) AS value
    FROM patient
    JOIN study_drug USING (person_id)
    WHERE drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd')
        AND start_date <= index_date + partner_days_after_index()
        AND (end_date IS NULL OR end_date >= index_date - partner_days_before_index())
    GROUP BY person_id
),
suppression AS (
    SELECT DISTINCT person_id
    FROM patient
    JOIN study_drug USING (person_id)
    WHERE drug_class = 'lhrh-analogue'
        AND start_date <= index_date + partner_days_after_index()
        AND (end_date IS NULL OR end_date >= index_date - partner_days_before_index())
),
adjuvant AS (       -- begun after the primary and before the advanced diagnosis
    SELECT
        person_id,
        bool_or(drug_class = 'chemotherapy') AS chemotherapy,
        min(start_date) FILTER (endocrine) AS et_start,
        bool_or(end_date IS NULL OR end_date >= advanced_date - relapse_on_et_days()) FILTER (endocrine) AS et_at_relapse,
        max(end_date) FILTER (endocrine) AS et_end
    FROM (
        SELECT
            *,
            drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd', 'other-endocrine') AS endocrine
        FROM patient
        JOIN study_drug USING (person_id)
        WHERE start_date < advanced_date
    )
    GROUP BY person_id
),
known AS (
    SELECT
        *,
        -- NULL where no primary diagnosis is dated, or it lies after the advanced one
        CASE WHEN primary_date <= advanced_date THEN advanced_date - primary_date <= de_novo_days() END AS de_novo,
        CASE WHEN len(sites) > 0 OR NOT unspecified THEN sites END AS known_sites
    FROM patient
    JOIN metastases USING (person_id)
)
SELECT
    released_id(person_id) AS patient,
    site,
    year(index_date) AS index_year,
    least(
        year(index_date) - year_of_birth - CAST(month(index_date) < coalesce(month_of_birth, 1) AS INTEGER),
        age_top_code()
    ) AS age_at_index,
    sex,
    CASE WHEN sex = 'M' THEN 'not-applicable' ELSE menopause.value END AS menopausal_status,
    CAST(ecog.value AS VARCHAR) AS ecog,
    round(weight / (height / 100) ^ 2, 1) AS bmi,
    de_novo,
    CASE WHEN primary_date <= advanced_date THEN advanced_date - primary_date END AS days_primary_to_advanced,
    index_date - advanced_date AS days_advanced_to_index,
    histology.value AS histology,
    pathology.grade,
    origin AS sample_origin,
    sample_date - index_date AS sample_day,
    er_percent,
    pgr_percent,
    hr_at_most <= receptor_low_percent() AS hr_low,
    her2_ihc,
    her2_ish,
    CASE
        WHEN her2_ihc = '0' THEN 'zero'
        WHEN her2_ihc IN ('1+', '2+') THEN 'low'        -- 2+ is eligible only without amplification
    END AS her2_group,
    pathology.ki67 AS ki67_percent,
    discordant AS receptor_discordance,
    list_contains(known_sites, 'bone') AS met_bone,
    list_contains(known_sites, 'liver') AS met_liver,
    list_contains(known_sites, 'lung') AS met_lung,
    list_contains(known_sites, 'CNS') AS met_cns,
    list_contains(known_sites, 'node') AS met_node,
    list_contains(known_sites, 'skin') AS met_skin,
    list_has_any(known_sites, ['peritoneum', 'pleura', 'other']) AS met_other,
    len(known_sites) AS metastatic_sites,
    known_sites = ['bone'] AS bone_only,
    list_has_any(known_sites, ['liver', 'lung', 'pleura', 'peritoneum']) AS visceral,
    coalesce(adjuvant.chemotherapy, FALSE) AS adjuvant_chemotherapy,
    adjuvant.et_start IS NOT NULL AS adjuvant_et,
    CASE        -- ESO-ESMO, as far as it is known at the index
        WHEN de_novo THEN 'sensitive'
        WHEN de_novo IS NULL THEN NULL
        WHEN et_at_relapse AND advanced_date < et_start + to_months(primary_resistance_months()) THEN 'primary-resistant'
        WHEN et_at_relapse THEN 'secondary-resistant'
        WHEN advanced_date <= et_end + to_months(secondary_resistance_months()) THEN 'secondary-resistant'
        ELSE 'sensitive'
    END AS endocrine_sensitivity,
    index_drug,
    partner.value AS et_partner,
    suppression.person_id IS NOT NULL AS ovarian_suppression,
    -- a death before the index is an error that the site is asked about: neither time nor event is known
    CASE WHEN death_date < index_date THEN NULL ELSE coalesce(death_date, last_contact) - index_date END
        AS days_to_death_or_last_contact,
    CASE WHEN death_date < index_date THEN NULL ELSE CAST(death_date IS NOT NULL AS INTEGER) END AS death,
    -- in whole years: in days it would give the index date away
    CAST(floor((cut_off() - index_date) / 365.25) AS INTEGER) AS potential_follow_up_years
FROM known
LEFT JOIN menopause USING (person_id)
LEFT JOIN ecog USING (person_id)
LEFT JOIN body USING (person_id)
LEFT JOIN histology USING (person_id)
LEFT JOIN pathology USING (person_id)
LEFT JOIN partner USING (person_id)
LEFT JOIN suppression USING (person_id)
LEFT JOIN adjuvant USING (person_id)
ORDER BY patient
