-- Patients: of a patient of two sites, the person at the initiating site stands for all that both sites know.
CREATE TEMP TABLE member AS
SELECT
    person_id AS member_id,
    -- as criterion 10: the earliest index initiates; then the earliest advanced diagnosis, the lowest site, the lowest person
    first_value(person_id) OVER (
        PARTITION BY patient_id
        ORDER BY index_date NULLS LAST, advanced_date NULLS LAST, site, person_id
    ) AS person_id
FROM linked_person
JOIN study_person USING (person_id)
LEFT JOIN index_start USING (person_id)
LEFT JOIN advanced_disease USING (person_id);

-- A death on which the sites disagree, or that lies before day 0, is in doubt: it ends nothing until the site has answered.
CREATE TEMP TABLE patient AS
SELECT
    * EXCLUDE (stated_death, contact),
    CASE WHEN in_doubt IS NULL THEN stated_death END AS death_date,
    coalesce(death_date, never()) AS dies,
    CASE WHEN in_doubt IS NULL THEN least(contact, stated_death) ELSE contact END AS last_contact
FROM (
    SELECT
        person_id, site, sex, advanced_date, index_date, index_drug,
        vital_status.death_date AS stated_death,
        patient_contact.last_contact AS contact,
        CASE
            WHEN deaths_conflict THEN 'deaths-conflict'
            WHEN vital_status.death_date < index_date THEN 'death-before-index'
        END AS in_doubt
    FROM (SELECT DISTINCT person_id FROM member)
    JOIN study_person USING (person_id)
    JOIN linked_person USING (person_id)
    JOIN vital_status USING (person_id)
    LEFT JOIN patient_contact USING (patient_id)
    LEFT JOIN advanced_disease USING (person_id)
    LEFT JOIN index_start USING (person_id)
);

CREATE TEMP TABLE recorded_death AS
SELECT member.person_id, min(death.person_id) AS source_id
FROM death
JOIN member ON member.member_id = death.person_id
JOIN vital_status ON vital_status.person_id = member.person_id AND vital_status.death_date = death.death_date
GROUP BY member.person_id;
