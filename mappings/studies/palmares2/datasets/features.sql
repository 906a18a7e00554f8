-- One row per patient, landmark and feature: the last value at or before the landmark, with its day and where it came from.
-- A patient has a landmark when alive and followed up to it. Nothing that became known after it is read.
WITH at_landmark AS (
    SELECT
        released.*, landmark.landmark, landmark.day AS landmark_day, CAST(index_date + landmark.day AS DATE) AS landmark_date
    FROM released
    CROSS JOIN landmark
    WHERE landmark.day = 0 OR last_contact >= index_date + landmark.day AND coalesce(death_date > index_date + landmark.day, TRUE)
),
asked AS NOT MATERIALIZED (      -- what was measured at or before the landmark, within the feature's age
    SELECT finding.*, landmark.landmark
    FROM finding
    JOIN feature_source USING (feature_number)
    JOIN landmark ON day_number <= landmark.day AND coalesce(day_number >= landmark.day - max_age_days, TRUE)
),
last_finding AS (           -- the last one; of several on one day the highest
    SELECT
        person_id, landmark, feature_number, day_number,
        arg_max(value, (value, source_id)) AS value, arg_max(word, (word, source_id)) AS word,
        CASE WHEN bool_or(observed) THEN 'observation' ELSE 'measurement' END AS source
    FROM asked
    JOIN (SELECT person_id, landmark, feature_number, max(day_number) AS day_number FROM asked GROUP BY ALL)
        USING (person_id, landmark, feature_number, day_number)
    LEFT JOIN finding_word USING (word_number)
    GROUP BY person_id, landmark, feature_number, day_number
),
spread AS (
    SELECT
        at_landmark.person_id, landmark,
        CASE
            WHEN count(metastatic_day.site) > 0 THEN list(metastatic_day.site)
            WHEN any_value(stated.sites) = [] THEN CAST([] AS VARCHAR[])
        END AS sites,
        coalesce(max(metastatic_day.day), any_value(advanced_date)) AS last_day
    FROM at_landmark
    JOIN stated USING (person_id)
    LEFT JOIN metastatic_day ON metastatic_day.person_id = at_landmark.person_id AND metastatic_day.day <= landmark_date
    GROUP BY ALL
),
described AS (
    SELECT person_id, landmark, family, feature, CAST(index_date + day_number AS DATE) AS day, value, word, unit, source
    FROM last_finding
    JOIN released USING (person_id)
    JOIN feature_source USING (feature_number)
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'metastatic_sites', last_day, len(sites), NULL, 'sites', 'condition_occurrence'
    FROM spread WHERE sites IS NOT NULL
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'met_' || name, last_day, CAST(list_has_any(sites, members) AS INTEGER), NULL, NULL, 'condition_occurrence'
    FROM spread
    CROSS JOIN (VALUES
        ('bone', ['bone']), ('liver', ['liver']), ('lung', ['lung']), ('cns', ['CNS']), ('node', ['node']), ('skin', ['skin']),
        ('other', ['peritoneum', 'pleura', 'other'])
    ) AS group_of_sites (name, members)
    WHERE sites IS NOT NULL
    UNION ALL
    SELECT
        person_id, landmark, 'clinical', 'age', landmark_date,
        least(
            year(landmark_date) - year_of_birth - CAST(month(landmark_date) < coalesce(month_of_birth, 1) AS INTEGER),
            age_top_code()
        ),
        NULL, 'years', 'person'
    FROM at_landmark
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'sex', index_date, NULL, sex, NULL, 'person' FROM at_landmark WHERE sex IS NOT NULL
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'index_drug', index_date, NULL, index_drug, NULL, 'drug_exposure' FROM at_landmark
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'de_novo', advanced_date, CAST(de_novo AS INTEGER), NULL, NULL, 'derived'
    FROM at_landmark JOIN stated USING (person_id) WHERE de_novo IS NOT NULL
    UNION ALL
    SELECT person_id, landmark, 'clinical', 'endocrine_sensitivity', index_date, NULL, endocrine_sensitivity, NULL, 'derived'
    FROM at_landmark JOIN stated USING (person_id) WHERE endocrine_sensitivity IS NOT NULL
    UNION ALL
    SELECT
        at_landmark.person_id, landmark, 'clinical', 'progressions', coalesce(max(progression.date), any_value(index_date)), count(progression.date), NULL,
        'progressions', 'measurement'
    FROM at_landmark
    LEFT JOIN derived_progression AS progression
        ON progression.person_id = at_landmark.person_id AND progression.date > index_date AND progression.date <= landmark_date
    GROUP BY at_landmark.person_id, landmark
    UNION ALL
    SELECT
        person_id, landmark, 'clinical', 'line_number', arg_max(start_date, line_number), max(line_number), NULL, 'line', 'derived'
    FROM at_landmark
    JOIN course_line USING (person_id)
    WHERE start_date <= landmark_date
    GROUP BY ALL
    UNION ALL
    SELECT person_id, landmark, 'pathology', 'histology', histology.day, NULL, value, NULL, 'condition_occurrence'
    FROM at_landmark JOIN histology USING (person_id)
    UNION ALL
    SELECT person_id, landmark, image.family, 'image-' || lower(modality), max(image.day), count(*), NULL, 'images', 'image_occurrence'
    FROM at_landmark JOIN image USING (person_id)
    WHERE image.day <= landmark_date
    GROUP BY ALL
    UNION ALL
    SELECT
        person_id, landmark, image_finding.family, feature, max(image_finding.day), arg_max(value, (image_finding.day, source_id, value)), NULL,
        arg_max(unit, (image_finding.day, source_id, value)), 'image_feature'
    FROM at_landmark JOIN image_finding USING (person_id)
    WHERE image_finding.day <= landmark_date
    GROUP BY ALL
)
SELECT
    patient, landmark, landmark_day, family, feature,
    described.day - index_date AS day,
    value, word, unit, source
FROM described
JOIN at_landmark USING (person_id, landmark)
ORDER BY place, landmark_day, family, feature
