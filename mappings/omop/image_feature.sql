-- Which measurement was taken on which image (Medical Imaging extension). Only measurements that have a row of their own.
SELECT
    f.row_id AS image_feature_id,
    f.person_id,
    o.image_occurrence_id,
    o.concept_id AS image_feature_concept_id,
    f.type_concept_id AS image_feature_type_concept_id,
    o.field_concept_id AS image_feature_event_field_concept_id,
    o.event_id AS image_feature_event_id,
    f.image_finding_concept_id,
    -- one number per finding that the report tracks: its features share it, in every later report too
    CASE WHEN f.tracking_uid IS NOT NULL THEN id_of(resource_key('tracking', f.tracking_uid)) END AS image_finding_id,
    f.anatomic_site_concept_id,
    f.software AS alg_system,
    -- a report does not say when its software ran
    NULL::TIMESTAMP AS alg_datetime
FROM row_feature f
JOIN feature_of o ON o.hash = f.hash
