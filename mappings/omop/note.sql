-- That there is a report or document, of which kind and when. What it says stays in the hospital (f2o-022).
SELECT
    r.row_id AS note_id,
    r.person_id,
    r.start_datetime::DATE AS note_date,
    r.start_datetime AS note_datetime,
    r.type_concept_id AS note_type_concept_id,
    r.note_class_concept_id,
    r.note_title,
    -- required by the CDM; the document itself is free text that nobody de-identified
    '[text withheld: it stays in the hospital]' AS note_text,
    -- UTF-8
    32678 AS encoding_concept_id,
    -- English language: that of the words above
    4180186 AS language_concept_id,
    r.provider_id,
    r.visit_occurrence_id,
    r.visit_detail_id,
    r.source_value AS note_source_value,
    NULL::BIGINT AS note_event_id,
    NULL::INTEGER AS note_event_field_concept_id
FROM row_note r
