-- One row per patient and line: what was known on its first day, the drugs, what became of it, the next line.
WITH asked AS NOT MATERIALIZED (             -- what was measured on or before the first day, within the feature's age
    SELECT finding.*, line_number, feature
    FROM (SELECT course_line.person_id, line_number, start_date - index_date AS start_day FROM course_line JOIN released USING (person_id)) AS line
    JOIN finding ON finding.person_id = line.person_id AND day_number <= start_day
    JOIN feature_source USING (feature_number)
    WHERE coalesce(day_number >= start_day - max_age_days, TRUE)
        AND feature IN (
            'ecog', 'ki67_percent', 'hemoglobin', 'neutrophils', 'platelets', 'alt', 'ast', 'alp', 'bilirubin', 'creatinine'
        )
),
last_finding AS (           -- the last one; of several on one day the highest
    SELECT person_id, line_number, feature, arg_max(value, (value, source_id)) AS value, arg_max(word, (word, source_id)) AS word
    FROM asked
    JOIN (SELECT person_id, line_number, feature_number, max(day_number) AS day_number FROM asked GROUP BY ALL)
        USING (person_id, line_number, feature_number, day_number)
    LEFT JOIN finding_word USING (word_number)
    GROUP BY ALL
),
known AS (
    SELECT
        person_id, line_number,
        any_value(word) FILTER (feature = 'ecog') AS ecog,
        any_value(value) FILTER (feature = 'ki67_percent') AS ki67_percent,
        any_value(value) FILTER (feature = 'hemoglobin') AS hemoglobin,
        any_value(value) FILTER (feature = 'neutrophils') AS neutrophils,
        any_value(value) FILTER (feature = 'platelets') AS platelets,
        any_value(value) FILTER (feature = 'alt') AS alt,
        any_value(value) FILTER (feature = 'ast') AS ast,
        any_value(value) FILTER (feature = 'alp') AS alp,
        any_value(value) FILTER (feature = 'bilirubin') AS bilirubin,
        any_value(value) FILTER (feature = 'creatinine') AS creatinine
    FROM last_finding
    GROUP BY ALL
),
sample AS (             -- as the rule of the index sample, at this line's first day: the latest metastatic one, else the latest primary one
    SELECT course_line.person_id, line_number, receptor_sample.* EXCLUDE (person_id)
    FROM course_line
    JOIN receptor_sample ON receptor_sample.person_id = course_line.person_id AND sample_date <= start_date
    QUALIFY row_number() OVER (
        PARTITION BY course_line.person_id, line_number ORDER BY origin = 'metastatic' DESC, sample_date DESC
    ) = 1
),
spread AS (
    SELECT
        course_line.person_id, line_number,
        -- none named by then: none where deriving knows that there is none, else unknown
        CASE
            WHEN count(metastatic_day.site) > 0 THEN list_sort(list(metastatic_day.site))
            WHEN any_value(stated.sites) = [] THEN CAST([] AS VARCHAR[])
        END AS known_sites
    FROM course_line
    JOIN stated USING (person_id)
    LEFT JOIN metastatic_day ON metastatic_day.person_id = course_line.person_id AND metastatic_day.day <= start_date
    GROUP BY ALL
),
progressed AS (
    SELECT
        course_line.person_id, course_line.line_number,
        count(*) AS progressions,
        bool_or(progression.line_number = previous_number) AS previous_progressed
    FROM course_line
    JOIN derived_progression AS progression
        ON progression.person_id = course_line.person_id AND progression.date <= course_line.start_date
    GROUP BY ALL
)
SELECT
    patient,
    site,
    line_number,
    is_index,
    start_date - index_date AS start_day,
    regimen,
    array_to_string(classes, '+') AS classes,
    list_filter(string_split(regimen, '+'), lambda one: one IN ('palbociclib', 'ribociclib', 'abemaciclib'))[1] AS cdk46,
    previous_lines,
    previous_regimen,
    previous_classes,
    previous_end_reason,
    start_date - previous_start AS previous_days,
    CASE WHEN previous_lines > 0 THEN coalesce(previous_progressed, FALSE) END AS previous_progressed,
    prior_cdk46,
    prior_chemotherapy,
    coalesce(progressions, 0) AS progressions,
    start_date - advanced_date AS days_advanced_to_start,
    year(start_date) - year(index_date) AS start_year,
    least(
        year(start_date) - year_of_birth - CAST(month(start_date) < coalesce(month_of_birth, 1) AS INTEGER),
        age_top_code()
    ) AS age_at_start,
    sex,
    de_novo,
    endocrine_sensitivity,
    histology.value AS histology,
    er_percent,
    pgr_percent,
    CASE WHEN her2_positive THEN 'positive' WHEN her2_ihc = '0' THEN 'zero' WHEN her2_ihc IN ('1+', '2+') AND NOT her2_positive THEN 'low' END
        AS her2_group,
    known.ki67_percent,
    ecog,
    list_contains(known_sites, 'bone') AS met_bone,
    list_contains(known_sites, 'liver') AS met_liver,
    list_contains(known_sites, 'lung') AS met_lung,
    list_contains(known_sites, 'CNS') AS met_cns,
    list_contains(known_sites, 'node') AS met_node,
    list_contains(known_sites, 'skin') AS met_skin,
    list_has_any(known_sites, ['peritoneum', 'pleura', 'other']) AS met_other,
    len(known_sites) AS metastatic_sites,
    list_has_any(known_sites, ['liver', 'lung', 'pleura', 'peritoneum']) AS visceral,
    hemoglobin, neutrophils, platelets, alt, ast, alp, bilirubin, creatinine,
    end_date - index_date AS end_day,
    end_reason,
    coalesce(end_date, line_outcome.last_contact) - start_date AS treatment_days,
    CASE WHEN line_outcome.last_contact IS NOT NULL OR end_date IS NOT NULL THEN CAST(end_date IS NOT NULL AS INTEGER) END
        AS treatment_ended,
    pfs_date - start_date AS pfs_days,
    CAST(pfs_event AS INTEGER) AS pfs_event,
    ttnt_date - start_date AS ttnt_days,
    CAST(ttnt_event AS INTEGER) AS ttnt_event,
    os_date - start_date AS os_days,
    CAST(os_event AS INTEGER) AS os_event,
    CASE WHEN consent_date > start_date THEN consent_date - start_date END AS entry_day,
    next_start - index_date AS next_line_day,
    next_regimen,
    next_classes,
    drugs,
    array_to_string(flags, '+') AS flags
FROM course_line
JOIN released USING (person_id)
JOIN stated USING (person_id)
JOIN spread USING (person_id, line_number)
LEFT JOIN known USING (person_id, line_number)
LEFT JOIN sample USING (person_id, line_number)
LEFT JOIN progressed USING (person_id, line_number)
LEFT JOIN line_outcome USING (person_id, line_number)
LEFT JOIN histology USING (person_id)
ORDER BY place, line_number
