-- When the hospital would have seen something: first to last visit; for a person without visits, first to last record.
SELECT
    row_id AS observation_period_id,
    person_id,
    start_datetime::DATE AS observation_period_start_date,
    end_datetime::DATE AS observation_period_end_date,
    -- derived, by an algorithm: 44814724 is not standard (f2o-050)
    type_concept('ObservationPeriod', 'default', '') AS period_type_concept_id
FROM row_observation_period
