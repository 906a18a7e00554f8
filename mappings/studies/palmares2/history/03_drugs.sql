-- Every drug of the study begun up to the cut-off, with its class and its last day (NULL: still given, or no end is known).
-- drug_class is NULL for a drug that no one could map: what it is is not known.
CREATE TEMP TABLE drug_row AS
SELECT
    drug_exposure.person_id,
    drugs.concept_set AS drug_class,
    drugs.value AS drug,
    drug_exposure.drug_exposure_start_date AS start_date,
    imputed.value IS NOT NULL AS imputed,
    CASE
        -- the end as the source gave it
        WHEN drug_exposure.verbatim_end_date IS NOT NULL THEN drug_exposure.verbatim_end_date
        -- what was handed over or prescribed lasts as long as its supply
        WHEN drug_exposure.days_supply IS NOT NULL THEN drug_exposure.drug_exposure_end_date
        -- one dose given, handed over or prescribed, no supply stated: that day
        WHEN moment.value IS NOT NULL AND drug_exposure.drug_exposure_end_date = drug_exposure.drug_exposure_start_date
            THEN drug_exposure.drug_exposure_end_date
        -- else the CDM's required end is a stand-in (the day on which somebody last said that it was taken)
    END AS known_end,
    drug_exposure.drug_exposure_id,
    drug_exposure.stop_reason
FROM drug_exposure
LEFT JOIN concept_set AS drugs
    ON drugs.concept_id = drug_exposure.drug_concept_id
    AND drugs.concept_set IN (
        'cdk46', 'aromatase-inhibitor', 'tamoxifen', 'fulvestrant', 'oral-serd', 'other-endocrine',
        'lhrh-analogue', 'chemotherapy', 'targeted', 'antibody-drug-conjugate', 'bone-agent'
    )
LEFT JOIN concept_set AS moment
    ON moment.concept_set = 'drug-moment' AND moment.concept_id = drug_exposure.drug_type_concept_id
LEFT JOIN concept_set AS imputed
    ON imputed.concept_set = 'imputed-start' AND imputed.concept_id = drug_exposure.drug_type_concept_id
WHERE drug_exposure.drug_exposure_start_date <= cut_off()
    AND (drugs.value IS NOT NULL OR drug_exposure.drug_concept_id = 0);

CREATE TEMP TABLE study_drug AS
SELECT
    person_id, drug_class, drug,
    -- known to the month only, and imputed to its first day: in the month of the advanced diagnosis it was begun for it
    CASE
        WHEN imputed
            AND date_trunc('month', start_date) = date_trunc('month', advanced_date)
            AND (known_end IS NULL OR known_end >= advanced_date)
            THEN greatest(start_date, advanced_date)
        ELSE start_date
    END AS start_date,
    -- the last day on which it may have been begun: later than start_date only where no more than the month is known
    CASE
        WHEN imputed AND date_trunc('month', start_date) IS DISTINCT FROM date_trunc('month', advanced_date)
            THEN greatest(start_date, least(last_day(start_date), known_end))
        ELSE start_date
    END AS latest_start,
    -- an end after the cut-off is not known at the cut-off
    CASE WHEN known_end <= cut_off() THEN known_end END AS end_date,
    drug_exposure_id,
    -- the reason of a stop after the cut-off is not known at the cut-off either
    CASE WHEN known_end <= cut_off() THEN stop_reason END AS stop_reason
FROM drug_row
LEFT JOIN advanced_disease USING (person_id);
