-- EPISODE, EPISODE_EVENT, DRUG_ERA and CONDITION_ERA as the CDM has them.
CREATE TEMP TABLE cdm_episode AS
SELECT
    row.row_id AS episode_id, row.person_id, word.concept_id AS episode_concept_id,
    row.start_date AS episode_start_date, CAST(row.start_date AS TIMESTAMP) AS episode_start_datetime,
    row.end_date AS episode_end_date, CAST(row.end_date AS TIMESTAMP) AS episode_end_datetime,
    CASE WHEN row.kind <> 'disease' THEN parent.row_id END AS episode_parent_id,
    CAST(row.number AS INTEGER) AS episode_number,
    row.object_concept_id AS episode_object_concept_id,
    origin.concept_id AS episode_type_concept_id,
    row.source_value AS episode_source_value,
    0 AS episode_source_concept_id
FROM episode_row AS row
JOIN episode_word AS word ON word.word = row.word
JOIN episode_word AS origin ON origin.word = row.origin
LEFT JOIN episode_row AS parent ON parent.person_id = row.person_id AND parent.kind = 'disease';

CREATE TEMP TABLE cdm_episode_event AS
SELECT DISTINCT episode_id, event_id, field.concept_id AS episode_event_field_concept_id
FROM (
    SELECT row.row_id AS episode_id, line_drug.drug_exposure_id AS event_id, 'drug_exposure' AS word
    FROM episode_row AS row
    JOIN line_drug ON line_drug.person_id = row.person_id AND line_drug.line_number = row.number
    WHERE row.kind = 'line'
    UNION ALL
    SELECT row.row_id, disease.row_id, disease.row_table
    FROM episode_row AS row JOIN disease USING (person_id)
    WHERE row.kind = 'disease'
    UNION ALL
    SELECT row.row_id, assessment.source_id, 'measurement'
    FROM episode_row AS row
    JOIN assessment ON assessment.person_id = row.person_id AND assessment.response = row.word
        AND assessment.day BETWEEN row.start_date AND row.end_date
    WHERE row.kind = 'status'
) AS event
JOIN episode_word AS field ON field.word = event.word;

CREATE TEMP TABLE cdm_drug_era AS
SELECT
    row_id AS drug_era_id, person_id, concept_id AS drug_concept_id, start_date AS drug_era_start_date, end_date AS drug_era_end_date,
    CAST(occurrences AS INTEGER) AS drug_exposure_count, CAST(gap_days AS INTEGER) AS gap_days
FROM drug_era_row;

CREATE TEMP TABLE cdm_condition_era AS
SELECT
    row_id AS condition_era_id, person_id, concept_id AS condition_concept_id, start_date AS condition_era_start_date,
    end_date AS condition_era_end_date, CAST(occurrences AS INTEGER) AS condition_occurrence_count
FROM condition_era_row;

CREATE TEMP TABLE line_with_episode AS
SELECT line.*, row.row_id AS episode_id
FROM line
JOIN episode_row AS row ON row.person_id = line.person_id AND row.kind = 'line' AND row.number = line.line_number;
