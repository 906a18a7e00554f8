-- What mappings/events is written in. {site} and {zone} are literals of the site, {mask} the bits of an id.

CREATE OR REPLACE MACRO site() AS {site};
CREATE OR REPLACE MACRO site_name() AS {site_name};
CREATE OR REPLACE MACRO vocabulary_release() AS {release};

-- 128 bits that stand for a resource within a site; its low 53 bits are its id
CREATE OR REPLACE MACRO resource_key(type, id) AS md5_number({site} || '|' || type || '/' || id);
CREATE OR REPLACE MACRO id_of(hash) AS greatest(1::BIGINT, (hash & {mask}::UHUGEINT)::BIGINT);
CREATE OR REPLACE MACRO row_hash(key, discriminator) AS
    CASE WHEN discriminator = '' THEN key ELSE md5_number(to_hex(key) || '|' || discriminator) END;

-- who live in one state of one country live in one place; the length tells where the one word ends
CREATE OR REPLACE MACRO residence_hash(state, country) AS
    md5_number({site} || '|residence|' || strlen(coalesce(state, '')) || '|' || coalesce(state, '') || '|' || coalesce(country, ''));

-- what a reference points to when it may point to this type: relative, absolute (with a version or not) or urn.
-- Contained (#), conditional (?) and logical references (no text) point to nothing here
CREATE OR REPLACE MACRO reference_key(reference, type) AS CASE
    WHEN starts_with(reference, type || '/') AND strlen(reference) > strlen(type) + 1 AND NOT reference LIKE '%/%/%' THEN md5_number({site} || '|' || reference)
    WHEN starts_with(reference, 'urn:uuid:') THEN md5_number({site} || '|' || type || '/' || substring(reference, 10))
    WHEN starts_with(reference, 'urn:oid:') THEN md5_number({site} || '|' || type || '/' || substring(reference, 9))
    WHEN reference LIKE '%/%/%' AND contains(reference, type || '/') THEN md5_number({site} || '|'
        || nullif(regexp_extract(reference, '(?:^|/)(' || type || '/[^/?#]+)(?:/_history/[^/]+)?$', 1), ''))
END;
CREATE OR REPLACE MACRO provider_key(reference) AS
    coalesce(reference_key(reference, 'Practitioner'), reference_key(reference, 'PractitionerRole'));

-- the first of several that is a member of staff
CREATE OR REPLACE MACRO first_provider_key(refs) AS coalesce(
    provider_key(refs[1]),
    CASE WHEN len(refs) > 1 THEN list_filter(list_transform(refs, lambda r: provider_key(r)), lambda k: k IS NOT NULL)[1] END);

-- the first of several that is a record which another can be about
CREATE OR REPLACE MACRO record_key(reference) AS coalesce(
    reference_key(reference, 'Condition'), reference_key(reference, 'Observation'), reference_key(reference, 'Procedure'),
    reference_key(reference, 'MedicationAdministration'), reference_key(reference, 'MedicationStatement'));
CREATE OR REPLACE MACRO first_focus_key(refs) AS CASE WHEN len(refs) > 0 THEN
    list_filter(list_transform(refs, lambda r: record_key(r)), lambda k: k IS NOT NULL)[1] END;

-- the contained resource that a reference within the resource names
CREATE OR REPLACE MACRO contained_of(resources, reference) AS list_filter(resources, lambda r: reference = '#' || r.id)[1];

-- the patient himself, or a relative, said so
CREATE OR REPLACE MACRO reported_by(reference, subject) AS coalesce(
    reference = subject OR contains(reference, 'Patient/') OR contains(reference, 'RelatedPerson/'), false);
-- of several the first; where it is an organization or a device, they together with it when nobody of the staff is named
CREATE OR REPLACE MACRO reported_by_one(refs, subject) AS reported_by(refs[1], subject) OR CASE
    WHEN len(refs) > 1 THEN first_provider_key(refs) IS NULL AND len(list_filter(refs, lambda r: reported_by(r, subject))) > 0 ELSE false END;

-- dates, local to the site
CREATE OR REPLACE MACRO starts_at(text) AS fhir_datetime(text, {zone});
CREATE OR REPLACE MACRO ends_at(text) AS fhir_end_datetime(text, {zone});
CREATE OR REPLACE MACRO is_partial(text) AS coalesce(strlen(text) < 10, false);
CREATE OR REPLACE MACRO no_date(text) AS CASE WHEN text IS NULL THEN 'X-NO-DATE' ELSE 'Q-DATE' END;

-- codes
CREATE OR REPLACE MACRO list_key(codings) AS CASE WHEN len(codings) > 0 THEN hash(codings) END;
CREATE OR REPLACE MACRO origin(reported, imputed, type_concept_id) AS CASE
    WHEN reported THEN type_concept('*', 'patient-reported', '')
    WHEN imputed THEN type_concept('*', 'imputed', '')
    ELSE type_concept_id
END;
CREATE OR REPLACE MACRO known_category_type(resource, codes) AS coalesce(
    type_concept(resource, 'category', codes[1]),
    CASE WHEN len(codes) > 1
        THEN list_filter(list_transform(codes, lambda c: type_concept(resource, 'category', c)), lambda t: t IS NOT NULL)[1] END);
CREATE OR REPLACE MACRO first_category_type(resource, codes) AS
    coalesce(known_category_type(resource, codes), type_concept(resource, 'default', ''));
-- of several codings of one status the first that the table knows: the hospital's own may stand beside FHIR's
CREATE OR REPLACE MACRO first_status(element, codes) AS coalesce(
    condition_status(element, codes[1]),
    CASE WHEN len(codes) > 1
        THEN list_filter(list_transform(codes, lambda c: condition_status(element, c)), lambda s: s IS NOT NULL)[1] END);
CREATE OR REPLACE MACRO absent_code(codes) AS CASE
    WHEN len(codes) > 1 THEN coalesce(list_filter(codes, lambda c: absent_row(c) IS NOT NULL)[1], codes[1]) ELSE codes[1] END;
CREATE OR REPLACE MACRO absent_without_row(code) AS coalesce(absent_row(code), 'yes') = 'no';

-- left or right of a body site (mCODE's laterality)
CREATE OR REPLACE MACRO side_of(extensions) AS list_filter(
    extensions, lambda e: e.url = 'http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-laterality-qualifier'
)[1].valueCodeableConcept.coding;

-- what the worklist may repeat of a code or a system: what is too long for one, or spaced as none is, may be anything
CREATE OR REPLACE MACRO shown_code(text) AS CASE
    WHEN strlen(text) <= 50 AND NOT regexp_matches(text, '[[:cntrl:]]|^\s|\s$|\s\s') THEN text ELSE '' END;
CREATE OR REPLACE MACRO shown_system(text) AS CASE WHEN strlen(text) <= 255 AND NOT regexp_matches(text, '\s') THEN text ELSE '' END;

-- values
CREATE OR REPLACE MACRO boolean_concept(value) AS boolean_value(value::VARCHAR);
CREATE OR REPLACE MACRO number_text(value) AS regexp_replace(value::VARCHAR, '\.0$', '');
CREATE OR REPLACE MACRO value_text(truth, moment, clock, low, high, numerator, denominator, begun, ended) AS coalesce(
    truth::VARCHAR, moment, clock,
    CASE WHEN low IS NOT NULL OR high IS NOT NULL THEN concat_ws(' - ', number_text(low), number_text(high)) END,
    CASE WHEN numerator IS NOT NULL THEN concat_ws(':', number_text(numerator), number_text(denominator)) END,
    CASE WHEN begun IS NOT NULL OR ended IS NOT NULL THEN concat_ws(' / ', begun, ended) END);
-- a supply of more than a hundred years is a slip, and would end on no date
-- (the unit is UCUM's, else a word for it; another unit, such as boxes, tells no days)
CREATE OR REPLACE MACRO days_of(value, unit) AS list_filter([round(value * CASE
    WHEN unit IS NULL OR lower(unit) IN ('d', 'day', 'days', 'giorno', 'giorni') THEN 1
    WHEN lower(unit) IN ('wk', 'week', 'weeks', 'settimana', 'settimane') THEN 7
    WHEN lower(unit) IN ('mo', 'month', 'months', 'mese', 'mesi') THEN 30
    WHEN lower(unit) IN ('a', 'year', 'years', 'anno', 'anni') THEN 365
    WHEN lower(unit) IN ('h', 'hour', 'hours', 'ora', 'ore') THEN 1.0 / 24 END)], lambda d: abs(d) <= 36525)[1]::INTEGER;
CREATE OR REPLACE MACRO sig(dose, unit, frequency, period, period_unit) AS nullif(concat_ws('; ',
    CASE WHEN dose IS NOT NULL THEN concat_ws(' ', number_text(dose), left(unit, 20)) END,
    CASE WHEN frequency IS NOT NULL AND period IS NOT NULL
        THEN number_text(frequency) || ' per ' || concat_ws(' ', number_text(period), left(period_unit, 3)) END), '');
