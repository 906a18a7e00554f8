-- Drug and condition eras by OHDSI's rules: exposures to one ingredient at most 30 days apart are one era, and so are
-- occurrences of one condition. A person's own, as the CDM has it; a concept that nobody could map (0) makes no era.
CREATE TEMP TABLE drug_ingredient AS
SELECT descendant_concept_id AS concept_id, ancestor_concept_id AS ingredient_id
FROM concept_ancestor
JOIN concept ON concept.concept_id = ancestor_concept_id
WHERE concept.concept_class_id = 'Ingredient' AND concept.standard_concept = 'S'
UNION
SELECT concept_id, concept_id FROM concept WHERE concept_class_id = 'Ingredient' AND standard_concept = 'S';

CREATE TEMP TABLE drug_era_row AS
WITH exposure AS (
    SELECT
        drug_exposure.person_id, drug_ingredient.ingredient_id AS concept_id,
        drug_exposure_start_date AS start_date,
        least(
            greatest(
                coalesce(drug_exposure_end_date, drug_exposure_start_date + CAST(days_supply AS INTEGER), drug_exposure_start_date + 1),
                drug_exposure_start_date
            ),
            cut_off()
        ) AS end_date
    FROM drug_exposure
    JOIN drug_ingredient ON drug_ingredient.concept_id = drug_exposure.drug_concept_id
    WHERE drug_exposure_start_date <= cut_off()
),
-- what overlaps or touches is one stretch: the days between stretches are the era's gap days
stretch AS (
    SELECT person_id, concept_id, min(start_date) AS start_date, max(end_date) AS end_date, count(*) AS occurrences
    FROM (
        SELECT *, sum(begins) OVER (PARTITION BY person_id, concept_id ORDER BY start_date, end_date ROWS UNBOUNDED PRECEDING) AS number
        FROM (
            SELECT
                *,
                CAST(coalesce(start_date > max(end_date) OVER (
                    PARTITION BY person_id, concept_id ORDER BY start_date, end_date ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ), TRUE) AS INTEGER) AS begins
            FROM exposure
        )
    )
    GROUP BY person_id, concept_id, number
)
SELECT
    era_hash(person_id, concept_id, min(start_date)) AS hash, low_bits(hash) AS row_id,
    person_id, concept_id, min(start_date) AS start_date, max(end_date) AS end_date, sum(occurrences) AS occurrences,
    (max(end_date) - min(start_date)) - sum(end_date - start_date) AS gap_days
FROM (
    SELECT *, sum(begins) OVER (PARTITION BY person_id, concept_id ORDER BY start_date ROWS UNBOUNDED PRECEDING) AS number
    FROM (
        SELECT
            *,
            CAST(coalesce(start_date - lag(end_date) OVER (PARTITION BY person_id, concept_id ORDER BY start_date) > era_gap_days(), TRUE)
                AS INTEGER) AS begins
        FROM stretch
    )
)
GROUP BY person_id, concept_id, number;

CREATE TEMP TABLE condition_era_row AS
WITH occurrence AS (
    SELECT
        person_id, condition_concept_id AS concept_id, condition_start_date AS start_date,
        least(greatest(coalesce(condition_end_date, condition_start_date + 1), condition_start_date), cut_off())
            AS end_date
    FROM condition_occurrence
    WHERE condition_start_date <= cut_off() AND condition_concept_id <> 0
)
SELECT
    era_hash(person_id, concept_id, min(start_date)) AS hash, low_bits(hash) AS row_id,
    person_id, concept_id, min(start_date) AS start_date, max(end_date) AS end_date, count(*) AS occurrences
FROM (
    SELECT *, sum(begins) OVER (PARTITION BY person_id, concept_id ORDER BY start_date, end_date ROWS UNBOUNDED PRECEDING) AS number
    FROM (
        SELECT
            *,
            CAST(coalesce(start_date - max(end_date) OVER (
                PARTITION BY person_id, concept_id ORDER BY start_date, end_date ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) > era_gap_days(), TRUE) AS INTEGER) AS begins
        FROM occurrence
    )
)
GROUP BY person_id, concept_id, number;
