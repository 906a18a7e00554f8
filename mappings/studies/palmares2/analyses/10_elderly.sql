-- Aged {elderly_years} years or more at the index
SELECT
    person_id,
    -- the age in full years lies between these two when the month of birth is not known
    CASE
        WHEN years - CAST(month(index_date) < coalesce(month_of_birth, 12) AS INTEGER) >= elderly_years() THEN TRUE
        WHEN years - CAST(month(index_date) < coalesce(month_of_birth, 1) AS INTEGER) < elderly_years() THEN FALSE
    END AS member,
    index_date AS start_date
FROM (SELECT *, year(index_date) - year_of_birth AS years FROM eligible_person JOIN study_person USING (person_id))
