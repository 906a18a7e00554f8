-- One patient, several persons: equal linkage tokens, computed at the sites. A person who is linked to no one is a patient alone.
CREATE TEMP TABLE linked_person AS
SELECT
    person_id,
    CASE WHEN token IS NULL THEN person_id ELSE min(person_id) OVER (PARTITION BY token) END AS patient_id
FROM study_person;
