-- The rows on their way from resources to CDM tables. `hash` is the whole hash of a row's identity, `row_id` its id.

-- every coded clinical record, whichever table its concept's domain sends it to; cdm_table is null where it is no row.
-- The records of each section of mappings/events stand in a table of their own with the columns that it gives; `event` is the
-- view over them, and this empty table has all columns
CREATE TABLE event_of_nothing (
    cdm_table VARCHAR, exclusion VARCHAR, row_id BIGINT, hash UHUGEINT, key UHUGEINT, resource_type VARCHAR, resource_id VARCHAR,
    person_id BIGINT, visit_occurrence_id BIGINT, visit_detail_id BIGINT, visit_by_date BOOLEAN, provider_id BIGINT,
    code_no INTEGER, concept_id INTEGER, source_value VARCHAR, source_concept_id INTEGER,
    start_datetime TIMESTAMP, start_imputed BOOLEAN, end_datetime TIMESTAMP, end_imputed BOOLEAN, verbatim_end_date DATE,
    type_concept_id INTEGER, status_concept_id INTEGER, status_source_value VARCHAR, stop_reason VARCHAR,
    value_as_number DOUBLE, value_as_string VARCHAR, value_shown VARCHAR, value_no INTEGER, value_as_concept_id INTEGER, value_source_value VARCHAR,
    operator_concept_id INTEGER, unit_no INTEGER, unit_concept_id INTEGER, unit_source_value VARCHAR, unit_source_concept_id INTEGER,
    range_low DOUBLE, range_high DOUBLE, qualifier_source_value VARCHAR, focus_key UHUGEINT,
    quantity DOUBLE, days_supply INTEGER, refills INTEGER, sig VARCHAR, lot_number VARCHAR, dose_unit_source_value VARCHAR,
    route_no INTEGER, route_concept_id INTEGER, route_source_value VARCHAR,
    unique_device_id VARCHAR, production_id VARCHAR, site_no INTEGER, site_concept_id INTEGER, site_source_value VARCHAR
);
CREATE VIEW event AS SELECT * FROM event_of_nothing;
CREATE TABLE row_person (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, gender_source_value VARCHAR, birth_date VARCHAR,
    birth_precision VARCHAR, race_concept_id INTEGER, race_source_value VARCHAR, ethnicity_concept_id INTEGER,
    ethnicity_source_value VARCHAR, location_hash UHUGEINT, provider_key UHUGEINT, care_site_key UHUGEINT
);
CREATE TABLE row_location (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, address_1 VARCHAR, city VARCHAR, state VARCHAR, zip VARCHAR,
    location_source_value VARCHAR, country_source_value VARCHAR, latitude DOUBLE, longitude DOUBLE
);
CREATE TABLE row_care_site (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, care_site_name VARCHAR,
    location_hash UHUGEINT, care_site_source_value VARCHAR, place_of_service_source_value VARCHAR
);
CREATE TABLE role_of (
    key UHUGEINT, provider_key UHUGEINT, specialty_concept_id INTEGER, specialty_source_value VARCHAR,
    specialty_source_concept_id INTEGER, care_site_key UHUGEINT
);
CREATE TABLE row_provider (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, gender_source_value VARCHAR,
    specialty_concept_id INTEGER, specialty_source_value VARCHAR, specialty_source_concept_id INTEGER, care_site_key UHUGEINT
);
CREATE TABLE row_visit (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, parent_key UHUGEINT, person_id BIGINT,
    visit_concept_id INTEGER, source_value VARCHAR, start_datetime TIMESTAMP, start_imputed BOOLEAN, end_datetime TIMESTAMP,
    end_imputed BOOLEAN, type_concept_id INTEGER, provider_id BIGINT, care_site_key UHUGEINT,
    admitted_from_source_value VARCHAR, discharged_to_source_value VARCHAR,
    visit_occurrence_id BIGINT, parent_visit_detail_id BIGINT
);
CREATE TABLE row_note (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, person_id BIGINT,
    visit_occurrence_id BIGINT, visit_detail_id BIGINT, visit_by_date BOOLEAN, provider_id BIGINT,
    start_datetime TIMESTAMP, start_imputed BOOLEAN, type_concept_id INTEGER, note_class_concept_id INTEGER, note_title VARCHAR,
    kind_no INTEGER, source_value VARCHAR
);
CREATE TABLE row_payer_plan_period (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, person_id BIGINT,
    start_datetime TIMESTAMP, start_imputed BOOLEAN, end_datetime TIMESTAMP, payer_source_value VARCHAR, plan_source_value VARCHAR
);
CREATE TABLE row_image (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, person_id BIGINT,
    visit_occurrence_id BIGINT, start_datetime TIMESTAMP, study_uid VARCHAR, series_uid VARCHAR, modality_concept_id INTEGER,
    anatomic_site_concept_id INTEGER
);
CREATE TABLE row_feature (
    resource_type VARCHAR, resource_id VARCHAR, hash UHUGEINT, row_id BIGINT, key UHUGEINT, person_id BIGINT, measure_key UHUGEINT,
    series_uid VARCHAR, report_uid VARCHAR, tracking_uid VARCHAR, software VARCHAR, type_concept_id INTEGER,
    anatomic_site_concept_id INTEGER, image_finding_concept_id INTEGER
);
CREATE TABLE death_told (
    resource_type VARCHAR, resource_id VARCHAR, person_id BIGINT, priority INTEGER, start_datetime TIMESTAMP, start_imputed BOOLEAN,
    type_concept_id INTEGER, cause_concept_id INTEGER, cause_source_value VARCHAR, cause_source_concept_id INTEGER
);
CREATE TABLE row_observation_period (person_id BIGINT, row_id BIGINT, start_datetime TIMESTAMP, end_datetime TIMESTAMP);
-- who is who: a patient's file that was replaced by another points to that one
CREATE TABLE person_of (key UHUGEINT, target UHUGEINT, person_id BIGINT);
CREATE TABLE visit_of (key UHUGEINT, person_id BIGINT, visit_occurrence_id BIGINT, visit_detail_id BIGINT);
CREATE TABLE visit_dates (visit_key UHUGEINT, first_datetime TIMESTAMP, last_datetime TIMESTAMP);
CREATE TABLE provider_of (key UHUGEINT, provider_id BIGINT);
CREATE TABLE care_site_of (key UHUGEINT, care_site_id BIGINT);
CREATE TABLE medication (key UHUGEINT, code_key UBIGINT);
CREATE TABLE medication_in_use (person_id BIGINT, key UHUGEINT);
-- resources without a row of their own: why
CREATE TABLE no_row (resource_type VARCHAR, resource_id VARCHAR, reason VARCHAR);
