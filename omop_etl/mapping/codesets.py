"""The small tables of `mappings/codes/fhir` as DuckDB macros and tables, so that the SQL of `mappings/events` can name them."""

import duckdb

from fhir_adapters.knowledge import table

# macro → (file, columns that are looked up, column that answers)
_LOOKUPS = {
    "type_concept": ("types.csv", ("resource_type", "context", "code"), "type_concept_id"),
    "condition_status": ("condition_status.csv", ("element", "code"), "condition_status_concept_id"),
    "visit_concept": ("visit_class.csv", ("class_code",), "visit_concept_id"),
    "gender_concept": ("gender.csv", ("code",), "gender_concept_id"),
    "gender_source_concept": ("gender.csv", ("code",), "gender_source_concept_id"),
    "race_concept": ("race.csv", ("code",), "race_concept_id"),
    "ethnicity_concept": ("ethnicity.csv", ("code",), "ethnicity_concept_id"),
    "operator_concept": ("operators.csv", ("comparator",), "operator_concept_id"),
    "country_concept": ("countries.csv", ("country",), "country_concept_id"),
    "imaging_procedure": ("imaging_modality.csv", ("modality",), "procedure_concept_id"),
    "boolean_value": ("booleans.csv", ("value",), "value_as_concept_id"),
    "absent_row": ("absent_reasons.csv", ("code",), "row"),
    "identifying_code": ("identifying_codes.csv", ("code",), "system"),
    "event_field": ("event_fields.csv", ("cdm_table",), "field_concept_id"),
}
# table → (file, columns)
_TABLES = {
    "domain_table": ("domain_tables.csv", ("domain_id", "cdm_table")),
    "priority": ("coding_priority.csv", ("profile", "vocabulary_id", "rank")),
    "profile_rule": ("profile_rules.csv", ("profile", "avoid_domain_id")),
    "unmapped_field": ("unmapped_fields.csv", ("cdm_table", "kind", "cdm_field")),
}


def literal(text: str | None) -> str:
    """A text as an SQL literal."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def _answer(text: str) -> str:
    return text if text.isdecimal() else literal(text)


def _case(subject: str, pairs: dict[str, str]) -> str:
    return f"CASE {subject} " + " ".join(f"WHEN {literal(key)} THEN {value}" for key, value in pairs.items()) + " END"


def _members(file: str, column: str, where: tuple[str, str] | None = None) -> str:
    rows = [row for row in table("codes", "fhir", file) if where is None or row[where[0]] == where[1]]
    return ", ".join(sorted({row[column] for row in rows}, key=int))


def define(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the macros (NULL for a code that the table does not hold) and the tables."""
    for name, (file, columns, answer) in _LOOKUPS.items():
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        for row in table("codes", "fhir", file):
            *before, last = (row[column] for column in columns)
            groups.setdefault(tuple(before), {}).setdefault(last, _answer(row[answer]))
        *before, last = (f"{column}_" for column in columns)
        body = "CASE " + " ".join(
            f"WHEN {' AND '.join(f'{name_} = {literal(value)}' for name_, value in zip(before, values, strict=True)) or 'true'} "
            f"THEN {_case(last, pairs)}"
            for values, pairs in groups.items()
        )
        # what stands before the last column is constant where it is used, so DuckDB keeps only one of the inner tables
        connection.execute(f"CREATE OR REPLACE MACRO {name}({', '.join((*before, last))}) AS ({body} END)")
    causes = _members("causes_of_death.csv", "observation_concept_id")
    stays = _members("visit_class.csv", "visit_concept_id", ("stay", "yes"))
    connection.execute(f"CREATE OR REPLACE MACRO is_cause_of_death(concept_id_) AS concept_id_ IN ({causes})")
    connection.execute(f"CREATE OR REPLACE MACRO is_stay(concept_id_) AS coalesce(concept_id_ IN ({stays}), false)")
    for name, (file, columns) in _TABLES.items():
        lines = ", ".join(
            "(" + ", ".join(_answer(row[column]) for column in columns) + ")" for row in table("codes", "fhir", file)
        )
        connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM (VALUES {lines}) t({', '.join(columns)})")
