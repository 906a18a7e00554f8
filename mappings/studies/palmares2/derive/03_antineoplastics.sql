-- Systemic antineoplastic drugs as they were given: what line_classes.csv lists. Ovarian suppression and bone agents are not in it.
CREATE TEMP TABLE given AS
WITH row AS (
    SELECT
        member.person_id,
        member.member_id,
        study_drug.drug_exposure_id,
        study_drug.drug_class,
        study_drug.drug,
        coalesce(one.line_class, class.line_class) AS line_class,
        coalesce(one.kind, class.kind) AS kind,
        study_drug.start_date,
        greatest(study_drug.latest_start, study_drug.start_date) AS latest_start,
        -- an end before the start is an error; greatest() alone would take a missing end for the start
        CASE WHEN study_drug.end_date IS NOT NULL THEN greatest(study_drug.end_date, study_drug.start_date) END AS stated_end,
        stop.reason AS stop_reason,
        coalesce(patient.death_date, patient.last_contact) AS last_contact
    FROM study_drug
    JOIN line_class AS class ON class.concept_set = study_drug.drug_class AND class.drug IS NULL
    LEFT JOIN line_class AS one ON one.concept_set = study_drug.drug_class AND one.drug = study_drug.drug
    LEFT JOIN stop_word AS stop ON stop.text = lower(trim(study_drug.stop_reason))
    JOIN member ON member.member_id = study_drug.person_id
    JOIN patient ON patient.person_id = member.person_id
    WHERE study_drug.start_date <= patient.dies
)
SELECT
    person_id, member_id, drug_exposure_id, drug_class, drug, line_class, kind, start_date, latest_start,
    -- a last dose shortly before death or the last contact, and no reason to stop: no stop is known
    CASE
        WHEN stop_reason IS NULL AND start_date = last_start AND stated_end >= last_contact - still_given_days() THEN NULL
        ELSE stated_end
    END AS end_date,
    stated_end AS given_to,     -- up to this day it was given in any case; NULL: no end is known
    stop_reason
FROM (
    SELECT *, max(start_date) OVER (PARTITION BY person_id, drug) AS last_start FROM row
);
