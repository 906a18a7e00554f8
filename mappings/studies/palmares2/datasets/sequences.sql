-- One row per patient and event, in the order of days; on one day in the order of what leads to what, then by name. The last
-- one is death or the end of what is known.
WITH happened AS (
    SELECT person_id, day, 1 AS rank, 'diagnosis' AS kind, 'DIAGNOSIS//primary//' || value AS token, NULL AS number, NULL AS unit
    FROM histology
    UNION ALL
    SELECT person_id, advanced_date, 1, 'diagnosis', 'DIAGNOSIS//advanced', NULL, NULL FROM released
    UNION ALL
    SELECT person_id, day, 2, 'metastasis', 'METASTASIS//' || site, NULL, NULL FROM metastatic_day
    UNION ALL
    SELECT
        person_id, CAST(index_date + day_number AS DATE),
        CASE kind WHEN 'marker' THEN 3 WHEN 'status' THEN 4 ELSE 5 END,
        kind, CASE WHEN word IS NULL THEN token ELSE token || '//' || word END, value, unit
    FROM finding
    JOIN released USING (person_id)
    JOIN feature_source USING (feature_number)
    LEFT JOIN finding_word USING (word_number)
    UNION ALL
    SELECT person_id, day, 6, 'assessment', 'ASSESSMENT//' || response, NULL, NULL FROM assessment_day
    UNION ALL
    SELECT released_member.person_id, end_date, 7, 'drug', 'DRUG//' || drug || '//STOP' || coalesce('//' || stop_word.reason, ''), NULL, NULL
    FROM study_drug
    JOIN released_member ON released_member.member_id = study_drug.person_id
    LEFT JOIN stop_word ON stop_word.text = lower(trim(stop_reason))
    WHERE drug IS NOT NULL AND end_date BETWEEN greatest(since, start_date) AND until
    UNION ALL
    SELECT released_member.person_id, start_date, 8, 'drug', 'DRUG//' || drug || '//START', NULL, NULL
    FROM study_drug
    JOIN released_member ON released_member.member_id = study_drug.person_id
    WHERE drug IS NOT NULL AND start_date BETWEEN since AND until
    UNION ALL
    SELECT person_id, start_date, 9, 'line', 'LINE//' || line_number, NULL, NULL FROM course_line
    UNION ALL
    SELECT released_member.person_id, procedure_date, 10, 'procedure', 'PROCEDURE//' || vocabulary_id || '//' || concept_code, NULL, NULL
    FROM procedure_occurrence
    JOIN concept ON concept.concept_id = procedure_concept_id AND procedure_concept_id <> 0
        AND vocabulary_id <> 'None' AND NOT starts_with(concept_code, '(unknown')
    JOIN released_member ON released_member.member_id = procedure_occurrence.person_id
    WHERE procedure_date BETWEEN since AND until
    UNION ALL
    SELECT person_id, death_date, 11, 'death', 'DEATH', NULL, NULL FROM released WHERE death_date IS NOT NULL
    UNION ALL
    SELECT person_id, least(last_contact, until), 11, 'end', 'END', NULL, NULL FROM released WHERE death_date IS NULL
)
SELECT
    patient,
    row_number() OVER one AS position,
    day - index_date AS day,
    coalesce(day - lag(day) OVER one, 0) AS days_since_previous,
    kind,
    token,
    number AS value,
    unit
FROM happened
JOIN released USING (person_id)
WHERE day IS NOT NULL
WINDOW one AS (PARTITION BY place ORDER BY day, rank, token, number)
ORDER BY place, position
