-- Death and last contact of each patient, from all persons who are that patient.
CREATE TEMP TABLE patient_death AS
SELECT
    linked_person.patient_id,
    min(death.death_date) AS death_date,
    count(DISTINCT death.death_date) > 1 AS deaths_conflict
FROM linked_person
JOIN death USING (person_id)
WHERE death.death_date <= cut_off()
GROUP BY linked_person.patient_id;

-- The latest day on which anything happened. A stay that runs over the cut-off counts up to it.
CREATE TEMP TABLE patient_contact AS
SELECT linked_person.patient_id, max(contact.day) AS last_contact
FROM linked_person
JOIN (
    SELECT person_id, greatest(visit_start_date, least(visit_end_date, cut_off())) AS day
    FROM visit_occurrence WHERE visit_start_date <= cut_off()
    UNION ALL
    SELECT person_id, condition_start_date FROM condition_occurrence WHERE condition_start_date <= cut_off()
    UNION ALL
    SELECT person_id, drug_exposure_start_date FROM drug_exposure WHERE drug_exposure_start_date <= cut_off()
    UNION ALL
    SELECT person_id, verbatim_end_date FROM drug_exposure WHERE verbatim_end_date <= cut_off()
    UNION ALL
    SELECT person_id, procedure_date FROM procedure_occurrence WHERE procedure_date <= cut_off()
    UNION ALL
    SELECT person_id, measurement_date FROM measurement WHERE measurement_date <= cut_off()
    UNION ALL
    SELECT person_id, observation_date FROM observation WHERE observation_date <= cut_off()
) AS contact USING (person_id)
GROUP BY linked_person.patient_id;

CREATE TEMP TABLE vital_status AS
SELECT
    linked_person.person_id,
    patient_death.death_date,
    coalesce(patient_death.deaths_conflict, FALSE) AS deaths_conflict,
    -- what is dated after death is no contact
    least(patient_contact.last_contact, patient_death.death_date) AS last_contact
FROM linked_person
LEFT JOIN patient_death USING (patient_id)
LEFT JOIN patient_contact USING (patient_id);
