-- One row per DICOM series (Medical Imaging extension).
SELECT
    r.row_id AS image_occurrence_id,
    r.person_id,
    r.visit_occurrence_id,
    p.row_id AS procedure_occurrence_id,
    NULL::VARCHAR AS wadors_uri,
    -- a path may hold a name
    NULL::VARCHAR AS local_path,
    r.start_datetime::DATE AS image_occurrence_date,
    r.study_uid AS image_study_uid,
    r.series_uid AS image_series_uid,
    r.modality_concept_id,
    r.anatomic_site_concept_id
FROM row_image r
JOIN event p ON p.key = r.key AND p.cdm_table = 'procedure_occurrence' AND p.resource_type = 'ImagingStudy'
