-- Samples: the receptors measured on one day from one origin. Metastatic when the measurement is linked to a metastasis.
CREATE TEMP TABLE receptor_value AS
SELECT
    measurement.person_id,
    measurement.measurement_date AS sample_date,
    CASE WHEN lesion.row_id IS NULL THEN 'primary' ELSE 'metastatic' END AS origin,
    marker.concept_set AS marker,
    coalesce(comparator.value, '=') AS comparator,
    -- outside 0-100 it is no percentage
    CASE WHEN measurement.value_as_number BETWEEN 0 AND 100 THEN measurement.value_as_number END AS percent,
    -- HER2 0 and a plain 'negative' share a concept: what the source wrote tells them apart
    coalesce(written.value, score.value) AS score
FROM measurement
JOIN concept_set AS marker ON marker.concept_id = measurement.measurement_concept_id
LEFT JOIN concept_set AS comparator
    ON comparator.concept_set = 'comparator' AND comparator.concept_id = measurement.operator_concept_id
LEFT JOIN concept_set AS written
    ON written.concept_set = marker.concept_set || '-value'
    AND written.concept_id = measurement.value_as_concept_id
    AND written.source_value = measurement.value_source_value
LEFT JOIN concept_set AS score
    ON score.concept_set = marker.concept_set || '-value'
    AND score.concept_id = measurement.value_as_concept_id
    AND score.source_value IS NULL
LEFT JOIN concept_set AS link
    ON link.concept_set = 'linked-row' AND link.concept_id = measurement.meas_event_field_concept_id
LEFT JOIN disease_row AS lesion
    ON lesion.row_table = link.value
    AND lesion.row_id = measurement.measurement_event_id
    AND lesion.person_id = measurement.person_id
    AND lesion.kind = 'metastasis'
WHERE marker.concept_set IN ('estrogen-receptor', 'progesterone-receptor', 'her2-ihc', 'her2-ish')
    AND measurement.measurement_date <= cut_off();

-- A percentage with its comparator is an interval: '< 1' lies in 0-1, '>= 10' in 10-100.
-- Level 2 is surely at least 1 %, 0 surely below, 1 cannot be told.
CREATE TEMP TABLE receptor_level AS
SELECT
    * EXCLUDE (comparator),
    CASE
        WHEN percent IS NULL THEN NULL
        WHEN comparator IN ('=', '>', '>=') AND percent >= receptor_positive_percent() THEN 2
        WHEN comparator IN ('=', '<=') AND percent < receptor_positive_percent() THEN 0
        WHEN comparator = '<' AND percent <= receptor_positive_percent() THEN 0
        ELSE 1
    END AS level,
    CASE WHEN comparator IN ('>', '>=') AND percent IS NOT NULL THEN 100 ELSE percent END AS at_most
FROM receptor_value;

-- Of two values of one marker in one sample the highest counts: it cannot hide a HER2 3+.
CREATE TEMP TABLE receptor_sample AS
SELECT
    *,
    CASE
        WHEN er_level = 2 OR pgr_level = 2 THEN TRUE
        WHEN er_level = 0 AND pgr_level = 0 THEN FALSE
    END AS hr_positive,
    CASE
        WHEN her2_ihc = '3+' OR her2_ihc = '2+' AND her2_ish = 'amplified' THEN TRUE
        WHEN her2_ihc IN ('0', 'negative', '1+') OR her2_ihc = '2+' AND her2_ish = 'not-amplified' THEN FALSE
    END AS her2_positive
FROM (
    SELECT
        person_id, sample_date, origin,
        max(level) FILTER (marker = 'estrogen-receptor') AS er_level,
        max(level) FILTER (marker = 'progesterone-receptor') AS pgr_level,
        max(percent) FILTER (marker = 'estrogen-receptor') AS er_percent,
        max(percent) FILTER (marker = 'progesterone-receptor') AS pgr_percent,
        max(at_most) FILTER (marker IN ('estrogen-receptor', 'progesterone-receptor')) AS hr_at_most,
        arg_max(score, list_position(['0', 'negative', '1+', '2+', '3+'], score)) FILTER (marker = 'her2-ihc') AS her2_ihc,
        min(score) FILTER (marker = 'her2-ish') AS her2_ish,      -- 'amplified' before 'not-amplified'
        count(DISTINCT level) FILTER (marker = 'estrogen-receptor') > 1
        OR count(DISTINCT level) FILTER (marker = 'progesterone-receptor') > 1
        OR count(DISTINCT score) FILTER (marker = 'her2-ihc') > 1
        OR count(DISTINCT score) FILTER (marker = 'her2-ish') > 1 AS contradicts_itself
    FROM receptor_level
    GROUP BY person_id, sample_date, origin
);

-- The sample that decides: the latest metastatic one up to the window after the index, else the latest primary one.
-- Its own values decide; what it lacks is not borrowed from another.
CREATE TEMP TABLE chosen_sample AS
SELECT
    receptor_sample.*,
    contradicts_itself
    OR count(DISTINCT hr_positive) OVER person > 1
    OR count(DISTINCT her2_positive) OVER person > 1 AS discordant
FROM receptor_sample
JOIN index_start USING (person_id)
WHERE sample_date <= index_date + receptor_days_after_index()
WINDOW person AS (PARTITION BY person_id)
QUALIFY row_number() OVER (PARTITION BY person_id ORDER BY origin = 'metastatic' DESC, sample_date DESC) = 1;
