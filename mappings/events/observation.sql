-- Observation → measurement or observation, by the domain of its code; each component is a row of its own.

-- ## read
SELECT
    CASE
        WHEN status = 'entered-in-error' THEN 'X-ERROR'
        WHEN status = 'cancelled' THEN 'X-CANCELLED'
        WHEN status = 'registered' THEN 'X-PLANNED'
        WHEN status = 'unknown' THEN 'X-UNKNOWN-STATUS'
        WHEN modified THEN 'Q-MODIFIER'
        WHEN start_datetime IS NULL THEN no_date(start_text)
        WHEN codes = 0 AND NOT code_has_text AND parts = 0 THEN 'X-NO-CODE'
        -- nothing was measured or asked; "performed, result unknown" stays as a row without a value
        WHEN NOT has_value AND parts = 0 AND data_absent AND absent_without_row(data_absent_code) THEN 'X-DATA-ABSENT'
        -- a panel without a value of its own: its members hold the values
        WHEN NOT has_value AND parts = 0 AND NOT data_absent AND has_members THEN 'X-PANEL'
    END AS reason,
    reference_key(subject, 'Patient') AS person_key,
    reference_key(encounter, 'Encounter') AS visit_key,
    first_provider_key(performers) AS provider_key,
    code_codings,
    value_codings,
    start_datetime,
    is_partial(start_text) OR open_start AS start_imputed,
    first_category_type('Observation', categories) AS type_concept_id,
    reported_by_one(performers, subject) AS reported,
    -- an unmapped code stays where its kind of observation is at home
    CASE WHEN has_number OR list_has_any(categories, ['laboratory', 'vital-signs']) THEN 'measurement' ELSE 'observation' END
        AS home_table,
    has_value,
    data_absent,
    coalesce(value_number, value_integer, value_numerator / nullif(value_denominator, 0)) AS value_as_number,
    coalesce(value_comparator, value_numerator_comparator) AS comparator,
    CASE WHEN unit_code IS NOT NULL THEN coalesce(value_unit_system, 'http://unitsofmeasure.org') END AS unit_system,
    unit_code,
    coalesce(value_unit, unit_code) AS unit_text,
    value_string,
    value_text(value_boolean, value_datetime, value_time, value_low, value_high, value_numerator, value_denominator, value_start,
        value_end) AS value_shown,
    boolean_concept(value_boolean) AS value_boolean_concept_id,
    CASE WHEN NOT has_value AND data_absent THEN coalesce(data_absent_code, 'unknown') END AS absent,
    interpretation,
    range_low,
    range_high,
    first_focus_key(focuses) AS focus_key,
    value_sampled,
    parts > 0 AS has_components,
    nullif(components, []) AS components
FROM (
    SELECT
        *,
        has_number OR len(value_codings) > 0 OR value_has_text
            OR coalesce(value_string, value_datetime, value_time, value_start, value_end, interpretation) IS NOT NULL
            OR value_boolean IS NOT NULL OR coalesce(value_low, value_high, value_numerator) IS NOT NULL AS has_value
    FROM (
        SELECT
            *,
            starts_at(start_text) AS start_datetime,
            value_number IS NOT NULL OR value_integer IS NOT NULL AS has_number,
            len(code_codings) AS codes,
            absent_code(data_absent_codes) AS data_absent_code,
            len(components) AS parts,
            coalesce(value_unit_code, value_unit, value_range_unit) AS unit_code
        FROM (
            -- of a period without a start the end is a day on which it was so; the day of issue only where there is no other
            SELECT
                *,
                coalesce(effective_datetime, effective_start, effective_instant, effective_event, effective_end, issued) AS start_text,
                effective_end IS NOT NULL AND effective_start IS NULL AS open_start
            FROM flat
        )
    )
)

-- ## stage observation_component
-- one row per component that says something; a component with a modifier extension must not be read as if it had none
SELECT
    id,
    key,
    position,
    list_key(c.code.coding) AS code_key,
    c.code.coding AS code_codings,
    list_key(c.valueCodeableConcept.coding) AS value_key,
    c.valueCodeableConcept.coding AS value_codings,
    coalesce(
        try_cast(c.valueQuantity.value AS DOUBLE), try_cast(c.valueInteger AS DOUBLE),
        try_cast(c.valueRatio.numerator.value AS DOUBLE) / nullif(try_cast(c.valueRatio.denominator.value AS DOUBLE), 0)
    ) AS value_as_number,
    coalesce(c.valueQuantity.comparator, c.valueRatio.numerator.comparator) AS comparator,
    coalesce(c.valueQuantity.system, CASE WHEN coalesce(c.valueQuantity.code, c.valueQuantity.unit, c.valueRange.low.code)
        IS NOT NULL THEN 'http://unitsofmeasure.org' END) AS unit_system,
    coalesce(c.valueQuantity.code, c.valueQuantity.unit, c.valueRange.low.code) AS unit_code,
    coalesce(c.valueQuantity.unit, c.valueQuantity.code, c.valueRange.low.code) AS unit_text,
    c.valueString AS value_string,
    value_text(try_cast(c.valueBoolean AS BOOLEAN), c.valueDateTime, c.valueTime,
        try_cast(c.valueRange.low.value AS DOUBLE), try_cast(c.valueRange.high.value AS DOUBLE),
        try_cast(c.valueRatio.numerator.value AS DOUBLE), try_cast(c.valueRatio.denominator.value AS DOUBLE),
        c.valuePeriod.start, c.valuePeriod.end) AS value_shown,
    boolean_concept(try_cast(c.valueBoolean AS BOOLEAN)) AS value_boolean_concept_id,
    c.dataAbsentReason IS NOT NULL AS data_absent,
    absent_code(list_transform(c.dataAbsentReason.coding, lambda d: d.code)) AS data_absent_code,
    c.valueCodeableConcept.text IS NOT NULL AS value_has_text,
    c.interpretation[1].coding[1].code AS interpretation,
    try_cast(c.referenceRange[1].low.value AS DOUBLE) AS range_low,
    try_cast(c.referenceRange[1].high.value AS DOUBLE) AS range_high,
    coalesce(len(c.modifierExtension), 0) + len(flatten(list_transform(coalesce(c.referenceRange, []), lambda r: r.modifierExtension))) > 0
        AS modified,
    -- it holds a value, or the word that there was a result which is not known
    NOT modified AND code_key IS NOT NULL AND (
        value_key IS NOT NULL OR value_as_number IS NOT NULL OR value_string IS NOT NULL OR value_shown IS NOT NULL
        OR interpretation IS NOT NULL
        OR value_boolean_concept_id IS NOT NULL OR value_has_text OR data_absent AND NOT absent_without_row(data_absent_code)
    ) AS speaks
FROM (
    SELECT id, key, unnest(components) AS c, generate_subscripts(components, 1) AS position
    FROM stage
    WHERE has_components
)

-- ## event
-- the observation itself
SELECT
    CASE WHEN r.has_value OR r.data_absent OR coalesce(c.source_vocabulary_id, '') <> 'LOINC' AND NOT r.has_components
        THEN coalesce(c.cdm_table, r.home_table) END AS cdm_table,
    -- a LOINC code asks; without an answer it says nothing. Another code (a finding, a RECIST response) is the answer itself
    CASE WHEN r.has_value OR r.data_absent OR coalesce(c.source_vocabulary_id, '') <> 'LOINC' AND NOT r.has_components
        THEN NULL WHEN NOT r.has_components THEN 'X-NO-VALUE' ELSE 'X-PANEL' END AS exclusion,
    coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    -- "less than 5" is no 5: a comparator that OMOP has no operator for leaves the number to value_source_value
    CASE WHEN r.comparator IS NULL OR operator_concept(r.comparator) IS NOT NULL THEN r.value_as_number END AS value_as_number,
    CASE WHEN c.identifying IS NOT TRUE THEN coalesce(r.value_string, r.value_shown) END AS value_as_string,
    CASE WHEN c.identifying IS NOT TRUE THEN r.value_shown END AS value_shown,
    -- an answer that does not map is 0; where the code itself says a value ("Maps to value"), that
    coalesce(v.concept_id, r.value_boolean_concept_id, c.value_concept_id, CASE WHEN r.value_key IS NOT NULL THEN 0 END)
        AS value_as_concept_id,
    coalesce(
        v.source_value, r.absent,
        CASE WHEN r.comparator IS NOT NULL THEN concat_ws(' ', r.comparator, coalesce(r.value_shown, number_text(r.value_as_number))) END,
        CASE WHEN r.value_as_number IS NULL THEN r.interpretation END
    ) AS value_source_value,
    v.code_no AS value_no,
    operator_concept(r.comparator) AS operator_concept_id,
    u.code_no AS unit_no,
    u.concept_id AS unit_concept_id,
    left(r.unit_text, 50) AS unit_source_value,
    u.source_concept_id AS unit_source_concept_id,
    r.range_low,
    r.range_high,
    left(r.interpretation, 50) AS qualifier_source_value,
    r.focus_key
FROM included r
LEFT JOIN chosen_code c ON c.list_key = r.code_key
LEFT JOIN chosen_value v ON v.list_key = r.value_key
LEFT JOIN unit u ON u.system = r.unit_system AND u.code = r.unit_code

-- ## event component
-- its components: date, person and visit are the observation's
SELECT
    CASE WHEN s.speaks THEN coalesce(c.cdm_table, CASE WHEN s.value_as_number IS NOT NULL THEN 'measurement' ELSE r.home_table END) END
        AS cdm_table,
    CASE WHEN s.modified THEN 'Q-MODIFIER' WHEN s.code_key IS NULL THEN 'X-NO-CODE' WHEN NOT s.speaks THEN 'X-NO-VALUE' END AS exclusion,
    'component/' || s.position || coalesce(c.discriminator, '') AS discriminator,
    c.code_no,
    coalesce(c.concept_id, 0) AS concept_id,
    c.source_value,
    coalesce(c.source_concept_id, 0) AS source_concept_id,
    r.start_datetime,
    r.start_imputed,
    origin(r.reported, r.start_imputed, r.type_concept_id) AS type_concept_id,
    CASE WHEN s.comparator IS NULL OR operator_concept(s.comparator) IS NOT NULL THEN s.value_as_number END AS value_as_number,
    CASE WHEN c.identifying IS NOT TRUE THEN coalesce(s.value_string, s.value_shown) END AS value_as_string,
    CASE WHEN c.identifying IS NOT TRUE THEN s.value_shown END AS value_shown,
    coalesce(v.concept_id, s.value_boolean_concept_id, c.value_concept_id, CASE WHEN s.value_key IS NOT NULL THEN 0 END)
        AS value_as_concept_id,
    coalesce(v.source_value, CASE WHEN s.data_absent THEN coalesce(s.data_absent_code, 'unknown') END,
        CASE WHEN s.comparator IS NOT NULL THEN concat_ws(' ', s.comparator, coalesce(s.value_shown, number_text(s.value_as_number))) END,
        CASE WHEN s.value_as_number IS NULL THEN s.interpretation END) AS value_source_value,
    v.code_no AS value_no,
    operator_concept(s.comparator) AS operator_concept_id,
    u.code_no AS unit_no,
    u.concept_id AS unit_concept_id,
    left(s.unit_text, 50) AS unit_source_value,
    u.source_concept_id AS unit_source_concept_id,
    s.range_low,
    s.range_high,
    left(s.interpretation, 50) AS qualifier_source_value,
    -- unless both are about another record, a part belongs to its observation, where that has a row (the share of a variant's alleles)
    coalesce(r.focus_key, r.key) AS focus_key
FROM stage_observation_component s
JOIN included r ON r.key = s.key AND r.has_components
LEFT JOIN chosen_component_code c ON c.list_key = s.code_key
LEFT JOIN chosen_component_value v ON v.list_key = s.value_key
LEFT JOIN unit u ON u.system = s.unit_system AND u.code = s.unit_code

-- ## death
-- who has a disease as cause of death has died; its day counts where the patient's own record has none. Another answer (not applicable,
-- a code that does not map) is the cause of a death that the patient's record tells, and tells none
SELECT
    r.id AS resource_id,
    r.person_id,
    CASE WHEN v.domain_id = 'Condition' AND v.concept_id > 0 THEN 2 ELSE 3 END AS priority,
    r.start_datetime,
    r.start_imputed,
    origin(false, r.start_imputed, type_concept('Patient', 'default', '')) AS type_concept_id,
    v.concept_id AS cause_concept_id,
    v.source_value AS cause_source_value,
    v.source_concept_id AS cause_source_concept_id
FROM included r
JOIN chosen_code c ON c.list_key = r.code_key AND is_cause_of_death(c.concept_id)
JOIN chosen_value v ON v.list_key = r.value_key
