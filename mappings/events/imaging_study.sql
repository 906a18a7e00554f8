-- ImagingStudy → one procedure_occurrence per study and one image_occurrence per series (Medical Imaging extension).

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'registered' THEN 'X-PLANNED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    NULL::UHUGEINT AS provider_key,
    code_codings,
    start_datetime,
    is_partial(start_text) AS start_imputed,
    type_concept('ImagingStudy', 'default', '') AS type_concept_id,
    -- the UIDs are those of the hospital's DICOM adapter, which re-hashes them
    replace(study_uid, 'urn:oid:', '') AS study_uid,
    nullif(series, []) AS series
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(started, series[1].started) AS start_text FROM flat)
)

-- ## stage imaging_study_series
SELECT
    id,
    key,
    s.uid AS series_uid,
    s.modality.code AS modality,
    s.modality.system AS modality_system,
    list_key(CASE WHEN s.bodySite IS NOT NULL THEN [s.bodySite] END) AS site_key,
    CASE WHEN s.bodySite IS NOT NULL THEN [s.bodySite] END AS site_codings,
    starts_at(s.started) AS started,
    position
FROM (
    SELECT id, key, unnest(series) AS s, generate_subscripts(series, 1) AS position
    FROM stage
    WHERE series IS NOT NULL
)

-- ## event
SELECT
    'procedure_occurrence' AS cdm_table,
    '' AS discriminator,
    coalesce(c.code_no, m.code_no) AS code_no,
    coalesce(CASE WHEN c.domain_id = 'Procedure' THEN c.concept_id END, imaging_procedure(r.series[1].modality.code), 0) AS concept_id,
    coalesce(c.source_value, left(r.series[1].modality.code, 50)) AS source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, r.type_concept_id) AS type_concept_id
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
LEFT JOIN unit m ON m.system = r.series[1].modality.system AND m.code = r.series[1].modality.code

-- ## image
SELECT
    'series/' || s.series_uid AS discriminator,
    coalesce(a.concept_id, 0) AS anatomic_site_concept_id,
    coalesce(s.started, r.start_datetime) AS start_datetime,
    r.study_uid,
    s.series_uid,
    coalesce(m.concept_id, 0) AS modality_concept_id
FROM stage_imaging_study_series s
JOIN included r ON r.key = s.key AND r.study_uid IS NOT NULL AND s.series_uid IS NOT NULL
LEFT JOIN chosen_series_site a ON a.list_key = s.site_key
LEFT JOIN unit m ON m.system = s.modality_system AND m.code = s.modality
