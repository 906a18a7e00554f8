-- One row per eligible patient: what was known at the index, and the days to death or last contact. De novo, endocrine
-- sensitivity, metastatic sites, menopause, grade and Ki-67 are those that deriving states: there is one reading of each.
-- Nothing measured after the index is used, but where the protocol's own window reaches beyond it: ECOG, the receptor
-- sample, the endocrine partner. Days count from the index. NULL is UNKNOWN.
WITH patient AS (
    SELECT *
    FROM released
    JOIN chosen_sample USING (person_id)
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
adjuvant AS (       -- begun before the advanced diagnosis
    SELECT
        person_id,
        bool_or(drug_class = 'chemotherapy') AS chemotherapy,
        bool_or(drug_class IN ('aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd', 'other-endocrine')) AS endocrine
    FROM patient
    JOIN study_drug USING (person_id)
    WHERE start_date < advanced_date
    GROUP BY person_id
)
SELECT
    patient,
    site,
    year(index_date) AS index_year,
    least(
        year(index_date) - year_of_birth - CAST(month(index_date) < coalesce(month_of_birth, 1) AS INTEGER),
        age_top_code()
    ) AS age_at_index,
    sex,
    CASE WHEN sex = 'M' THEN 'not-applicable' ELSE stated.menopause END AS menopausal_status,
    CAST(ecog.value AS VARCHAR) AS ecog,
    round(weight / (height / 100) ^ 2, 1) AS bmi,
    de_novo,
    days_primary_to_advanced,
    index_date - advanced_date AS days_advanced_to_index,
    histology.value AS histology,
    stated.grade,
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
    stated.ki67_percent,
    discordant AS receptor_discordance,
    list_contains(stated.sites, 'bone') AS met_bone,
    list_contains(stated.sites, 'liver') AS met_liver,
    list_contains(stated.sites, 'lung') AS met_lung,
    list_contains(stated.sites, 'CNS') AS met_cns,
    list_contains(stated.sites, 'node') AS met_node,
    list_contains(stated.sites, 'skin') AS met_skin,
    list_has_any(stated.sites, ['peritoneum', 'pleura', 'other']) AS met_other,
    len(stated.sites) AS metastatic_sites,
    stated.bone_only,
    stated.visceral,
    coalesce(adjuvant.chemotherapy, FALSE) AS adjuvant_chemotherapy,
    coalesce(adjuvant.endocrine, FALSE) AS adjuvant_et,
    endocrine_sensitivity,      -- as derived: the one reading of ESO-ESMO
    index_drug,
    partner.value AS et_partner,
    suppression.person_id IS NOT NULL AS ovarian_suppression,
    -- a death before the index is an error that the site is asked about: neither time nor event is known
    CASE WHEN NOT in_doubt THEN coalesce(death_date, last_contact) - index_date END AS days_to_death_or_last_contact,
    CASE WHEN NOT in_doubt THEN CAST(death_date IS NOT NULL AS INTEGER) END AS death,
    -- in whole years: in days it would give the index date away
    CAST(floor((cut_off() - index_date) / 365.25) AS INTEGER) AS potential_follow_up_years
FROM patient
JOIN stated USING (person_id)
LEFT JOIN histology USING (person_id)
LEFT JOIN ecog USING (person_id)
LEFT JOIN body USING (person_id)
LEFT JOIN partner USING (person_id)
LEFT JOIN suppression USING (person_id)
LEFT JOIN adjuvant USING (person_id)
ORDER BY place
