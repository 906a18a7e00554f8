-- ImagingStudy → one procedure_occurrence per study, one image_occurrence per series, and one image_feature per measurement that a
-- structured report of the study holds (Medical Imaging extension). The measurements themselves are Observations.

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
    nullif(series, []) AS series,
    nullif(features, []) AS features
FROM (
    SELECT *, starts_at(start_text) AS start_datetime
    FROM (SELECT *, coalesce(started, series[1].started) AS start_text FROM flat)
)

-- ## stage imaging_study_series
SELECT
    id,
    key,
    nullif(s.uid, '') AS series_uid,
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

-- ## stage imaging_study_feature
SELECT
    id,
    key,
    position,
    observation,
    reference_key(observation, 'Observation') AS measure_key,
    series_uid,
    report_uid,
    tracking_uid,
    software,
    list_key(site_codings) AS feature_site_key,
    site_codings AS feature_site_codings,
    list_key(finding_codings) AS finding_key,
    finding_codings
FROM (
    SELECT
        id,
        key,
        position,
        list_filter(f.extension, lambda e: e.url = 'observation')[1].valueReference.reference AS observation,
        replace(list_filter(f.extension, lambda e: e.url = 'series')[1].valueOid, 'urn:oid:', '') AS series_uid,
        replace(list_filter(f.extension, lambda e: e.url = 'report')[1].valueOid, 'urn:oid:', '') AS report_uid,
        replace(list_filter(f.extension, lambda e: e.url = 'tracking')[1].valueOid, 'urn:oid:', '') AS tracking_uid,
        list_filter(f.extension, lambda e: e.url = 'software')[1].valueString AS software,
        nullif(list_transform(list_filter(f.extension, lambda e: e.url = 'site'), lambda e: e.valueCoding), []) AS site_codings,
        nullif(list_transform(list_filter(f.extension, lambda e: e.url = 'finding'), lambda e: e.valueCoding), []) AS finding_codings
    FROM (
        SELECT id, key, unnest(features) AS f, generate_subscripts(features, 1) AS position
        FROM stage
        WHERE features IS NOT NULL
    )
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
-- a series that is told twice is one
QUALIFY row_number() OVER (PARTITION BY s.key, s.series_uid ORDER BY s.position) = 1

-- ## feature
SELECT
    'feature/' || s.observation AS discriminator,
    s.measure_key,
    -- where the image that was measured is not told, the report's own series stands for it
    s.series_uid,
    s.report_uid,
    s.tracking_uid,
    s.software,
    type_concept('ImagingStudy', 'feature', CASE WHEN s.software IS NOT NULL THEN 'software' ELSE '' END) AS type_concept_id,
    a.concept_id AS anatomic_site_concept_id,
    CASE WHEN d.domain_id = 'Condition' THEN d.concept_id ELSE 0 END AS image_finding_concept_id
FROM stage_imaging_study_feature s
JOIN included r ON r.key = s.key AND s.measure_key IS NOT NULL
LEFT JOIN chosen_feature_site a ON a.list_key = s.feature_site_key
LEFT JOIN chosen_finding d ON d.list_key = s.finding_key
QUALIFY row_number() OVER (PARTITION BY s.key, s.measure_key ORDER BY s.position) = 1
