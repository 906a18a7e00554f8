-- Progressions as declared by the physician, with the line during which each came, and the new sites around them.
CREATE TEMP TABLE metastatic_row AS
SELECT
    member.person_id, disease_row.value AS site, disease_row.start_date AS day, disease_row.row_table, disease_row.row_id,
    -- baseline comes from the initiating site, follow-up from all
    member.member_id = member.person_id OR disease_row.start_date > coalesce(patient.index_date, patient.advanced_date) AS counts,
    min(disease_row.start_date) OVER (PARTITION BY member.person_id, disease_row.value) AS first_day    -- at any site
FROM disease_row
JOIN member ON member.member_id = disease_row.person_id
JOIN patient ON patient.person_id = member.person_id
WHERE disease_row.kind = 'metastasis' AND disease_row.value <> 'unspecified' AND disease_row.start_date <= patient.dies;

CREATE TEMP TABLE metastatic_site AS
SELECT
    person_id, site, min(day) AS day, min(first_day) AS first_day,
    arg_min(row_table, (day, row_table, row_id)) AS source_table,
    arg_min(row_id, (day, row_table, row_id)) AS source_id
FROM metastatic_row
WHERE counts
GROUP BY person_id, site;

-- new is what no site of the patient knew before
CREATE TEMP TABLE new_site AS
SELECT metastatic_site.*
FROM metastatic_site
JOIN patient USING (person_id)
WHERE metastatic_site.day > patient.advanced_date AND metastatic_site.day = metastatic_site.first_day;

CREATE TEMP TABLE declared_progression AS
SELECT
    progression_day.person_id, progression_day.day, progression_day.source_id,
    CASE WHEN EXISTS (
        FROM new_site
        WHERE new_site.person_id = progression_day.person_id
            AND new_site.day >= progression_day.day - new_site_days() AND new_site.day <= progression_day.day + new_site_days()
    ) THEN 'new-site' ELSE 'response' END AS kind,
    line.line_number
FROM progression_day
ASOF LEFT JOIN line ON line.person_id = progression_day.person_id AND line.start_date < progression_day.day;
