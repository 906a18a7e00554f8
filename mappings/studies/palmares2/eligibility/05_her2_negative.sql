-- The tumour is HER2 negative: IHC 0 or 1+, or 2+ without amplification
SELECT
    person_id,
    CASE
        WHEN reason IN ('ihc-0', 'ihc-1', 'ihc-negative', 'ihc-2-not-amplified', 'ihc-low-amplified') THEN 'PASS'
        WHEN reason IN ('ihc-3', 'ihc-2-amplified') THEN 'FAIL'
        ELSE 'UNKNOWN'
    END AS answer,
    reason,
    sample_date AS date_used,
    NULL AS flag
FROM (
    SELECT
        person_id, sample_date,
        CASE
            WHEN index_date IS NULL THEN 'no-index'
            WHEN her2_ihc = '3+' THEN 'ihc-3'
            WHEN her2_ihc = '2+' AND her2_ish = 'amplified' THEN 'ihc-2-amplified'
            WHEN her2_ihc = '2+' AND her2_ish = 'not-amplified' THEN 'ihc-2-not-amplified'
            WHEN her2_ihc = '2+' THEN 'ish-missing'
            -- 0 or 1+ with amplification contradicts itself: it passes, and is adjudicated
            WHEN her2_ihc IS NOT NULL AND her2_ish = 'amplified' THEN 'ihc-low-amplified'
            WHEN her2_ihc = '1+' THEN 'ihc-1'
            WHEN her2_ihc = '0' THEN 'ihc-0'
            WHEN her2_ihc = 'negative' THEN 'ihc-negative'
            ELSE 'her2-unknown'
        END AS reason
    FROM study_person
    LEFT JOIN index_start USING (person_id)
    LEFT JOIN chosen_sample USING (person_id)
)
