-- Everyone in the warehouse, with the site that holds the record and the token that links persons between sites.
CREATE TEMP TABLE study_person AS
SELECT
    person.person_id,
    person_site.site,
    person_link.linkage_token AS token,
    person.year_of_birth,
    person.month_of_birth,
    sex.value AS sex
FROM person
JOIN palmares.person_site USING (person_id)
LEFT JOIN palmares.person_link USING (person_id)
LEFT JOIN concept_set AS sex ON sex.concept_set = 'sex' AND sex.concept_id = person.gender_concept_id;
