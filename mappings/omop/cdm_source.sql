-- What this slice is made of. Both dates are required: a delivery without any date has no row.
SELECT
    left(site_name(), 255) AS cdm_source_name,
    left(site(), 25) AS cdm_source_abbreviation,
    left(site_name(), 255) AS cdm_holder,
    'PALMARES slice of one site, mapped from FHIR R4' AS source_description,
    NULL::VARCHAR AS source_documentation_reference,
    'https://hl7.org/fhir/uv/omop' AS cdm_etl_reference,
    -- the newest update that the delivery holds, else its newest record: never the day of the run
    extracted_to() AS source_release_date,
    extracted_to() AS cdm_release_date,
    '5.4' AS cdm_version,
    -- OMOP CDM Version 5.4.2
    705800 AS cdm_version_concept_id,
    left(vocabulary_release(), 20) AS vocabulary_version
WHERE extracted_to() IS NOT NULL
