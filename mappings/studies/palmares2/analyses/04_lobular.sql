-- The primary tumour is lobular; a tumour without a named histology is unknown
SELECT person_id, histology = 'ILC' AS member, index_date AS start_date
FROM eligible_person
LEFT JOIN (     -- a named histology wins over an unspecified one, the first on record: as in the baseline dataset
    SELECT person_id, nullif(arg_min(value, (value = 'unspecified', start_date, value)), 'unspecified') AS histology
    FROM disease_row
    JOIN eligible_person USING (person_id)
    WHERE kind = 'primary' AND disease_row.start_date <= index_date
    GROUP BY person_id
) USING (person_id)
