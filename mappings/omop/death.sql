-- One row per person who died on a known day, whatever is known about the cause.
SELECT
    person_id,
    start_datetime::DATE AS death_date,
    start_datetime AS death_datetime,
    type_concept_id AS death_type_concept_id,
    -- from an observation of the cause; without one the death stays, and the cause is empty
    cause_concept_id,
    cause_source_value,
    cause_source_concept_id
FROM row_death
