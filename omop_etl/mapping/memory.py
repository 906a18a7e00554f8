"""What a slice remembers of its patients, so that a later run maps some of them again and keeps the rest.

It stands in `side/` and stays in the hospital:

    members.parquet   resource_type, resource_id, person     every resource that was read, and whose it is
    linked.parquet    person, label                          patients' files that `Patient.link` ties together: mapped together
    uses.parquet      person, resource_id                    the Medications that a patient's resources refer to
    reach.parquet     person, is_open, newest                whose rows reach the extraction, which a later one moves; the newest record
    tallies.parquet   person, what, name, …, records         the counts of manifest and worklist, patient by patient
    memory.json       when the extraction was, which shards were read, whether ids moved, a digest of places, staff and drugs

`person` is the id that the person has, or would have; of files tied together the smallest; of a resource without patient its own.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.knowledge import table
from omop_etl.mapping import slice
from omop_etl.mapping.codesets import literal
from omop_etl.mapping.reading import Reader

FORMAT = 2
FILE = "side/memory.json"
# what other resources refer to whose patient they do not share
SHARED = ("Location", "Medication", "Organization", "Practitioner", "PractitionerRole")
# the tables through which shared resources reach a patient's rows
_SHARED_TABLES = ("provider_of", "care_site_of", "role_of", "medication", "row_provider", "row_care_site")
_REACHES = "start_datetime >= extraction() OR end_datetime >= extraction()"


class MapAll(Exception):
    """Only a run over all patients gives this slice; says why."""


@dataclass(frozen=True)
class Kept:
    """What a run over some patients has to know of the others. `of` says what dates the extraction: updates or records."""

    of: str | None
    moment: str | None  # of the run before, local to the site
    newest: str | None  # record of the others
    uses: Path  # Parquet: resource_id of the Medications that the others refer to


def use_medications(connection: duckdb.DuckDBPyConnection, kept: Kept) -> None:
    """A Medication is in use when another patient's resource refers to it."""
    connection.execute(
        "INSERT INTO medication_in_use SELECT NULL, resource_key('Medication', resource_id) FROM "
        f"read_parquet({literal(str(kept.uses))})"
    )


def tallies(connection: duckdb.DuckDBPyConnection, folder: Path, site: str, remember: bool) -> dict[str, Any]:
    """Count what manifest and worklist tell, per patient where that is to be remembered; write the worklist; the counts of the whole."""
    connection.execute(f"CREATE TABLE tally AS {_unmapped(remember)} UNION ALL BY NAME {_links(remember)}")
    for row in table("conformance", "losses.csv"):
        try:
            connection.execute(
                f"INSERT INTO tally BY NAME SELECT id_of({row['person']}) AS person, 'loss' AS what, {literal(row['loss'])} AS name, "
                f"count(*) AS records FROM {row['rows']} GROUP BY 1"
            )
        except duckdb.CatalogException:
            continue  # no resource of this type in the delivery
    if remember:
        slice.copy(connection, "SELECT * FROM tally ORDER BY ALL", folder / "side" / "tallies.parquet")
    return counted(connection, folder, site, "(SELECT country_source_value FROM row_location)")


def counted(connection: duckdb.DuckDBPyConnection, folder: Path, site: str, locations: str) -> dict[str, Any]:
    """Write `unmapped.csv`, the worklist of curation, from the table `tally`; the manifest's counts."""
    rows = connection.execute(
        "SELECT vocabulary_id, source_system, source_code, min(source_name), name, sum(records)::BIGINT AS records, reason "
        "FROM tally WHERE what = 'unmapped' GROUP BY ALL UNION ALL "
        "SELECT NULL, '', shown_code(country_source_value), NULL, 'location.country_concept_id', count(*), 'not-in-code-set' "
        f"FROM {locations} WHERE country_source_value IS NOT NULL AND country_concept(country_source_value) IS NULL GROUP BY ALL "
        "ORDER BY records DESC, name, source_system, source_code"
    ).fetchall()
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(
        ("site", "vocabulary_id", "source_system", "source_code", "source_name", "cdm_field", "records", "reason")
    )
    fields: dict[str, int] = {}
    for row in rows:
        lines.writerow((site, *("" if value is None else value for value in row)))
        fields[row[4]] = fields.get(row[4], 0) + row[5]
    (folder / "unmapped.csv").write_text(text.getvalue(), encoding="utf-8")
    told = dict(
        connection.execute(
            "SELECT what, sum(records)::BIGINT FROM tally WHERE what NOT IN ('unmapped', 'loss') GROUP BY 1"
        ).fetchall()
    )
    records, by_reference, by_date = (told.get(what, 0) for what in ("records", "by_reference", "by_date"))
    losses = connection.execute(
        "SELECT name, sum(records)::BIGINT FROM tally WHERE what = 'loss' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {
        "losses": dict(losses),
        "visit_links": {"by_reference": by_reference, "by_date": by_date, "none": records - by_reference - by_date},
        "unmapped": fields,
        "mapped_share": round(told.get("mapped", 0) / records, 4) if records else None,
    }


def _links(remember: bool) -> str:
    """Of the clinical records: all, those with a concept, those linked to a visit by reference and by date."""
    counts = {
        "records": "true",
        "mapped": "concept_id > 0",
        "by_reference": "visit_occurrence_id IS NOT NULL AND NOT visit_by_date",
        "by_date": "visit_by_date",
    }
    filters = ", ".join(f"count(*) FILTER ({which}) AS {name}" for name, which in counts.items())
    whose = "person_id" if remember else "NULL::BIGINT"
    return (
        f"SELECT person, what, records FROM (SELECT {whose} AS person, {filters} FROM event WHERE cdm_table IS NOT NULL "
        f"GROUP BY 1) UNPIVOT (records FOR what IN ({', '.join(counts)}))"
    )


def _unmapped(remember: bool) -> str:
    """Records whose code has no concept, by person (null: of the hospital itself), code and CDM field."""
    kinds = {
        "code": "concept_id",
        "value": "value_as_concept_id",
        "unit": "unit_concept_id",
        "route": "route_concept_id",
        "site": "site_concept_id",
    }
    whose = "person_id" if remember else "NULL::BIGINT"
    parts = [
        f"SELECT {whose} AS person, cdm_table, '{kind}' AS kind, {kind}_no AS code_no, count(*) AS records FROM event "
        "WHERE cdm_table IS NOT NULL AND "
        + ("concept_id = 0" if kind == "code" else f"{column} = 0 AND {kind}_no IS NOT NULL")
        + " GROUP BY ALL"
        for kind, column in kinds.items()
    ]
    parts.append(
        f"SELECT {whose} AS person, 'note' AS cdm_table, 'kind' AS kind, kind_no AS code_no, count(*) AS records FROM row_note "
        "WHERE note_class_concept_id = 0 GROUP BY ALL"
    )
    codes = (
        "SELECT code_no, system, code, display, source_vocabulary_id, reason FROM choice "
        "UNION ALL SELECT code_no, system, code, NULL, source_vocabulary_id, reason FROM unit"
    )
    person_gender = "coalesce(gender_concept(gender_source_value), 0) = 0"
    sets = [  # CDM field, relation, whose, column, which rows
        (
            "visit_occurrence.visit_concept_id",
            "row_visit",
            "person_id",
            "source_value",
            "visit_concept_id = 0 AND visit_occurrence_id IS NULL",
        ),
        (
            "visit_detail.visit_detail_concept_id",
            "row_visit",
            "person_id",
            "source_value",
            "visit_concept_id = 0 AND visit_occurrence_id IS NOT NULL",
        ),
        ("person.gender_concept_id", "row_person", "row_id", "gender_source_value", person_gender),
        ("person.race_concept_id", "row_person", "row_id", "race_source_value", "race_concept_id = 0"),
        ("person.ethnicity_concept_id", "row_person", "row_id", "ethnicity_source_value", "ethnicity_concept_id = 0"),
        ("provider.gender_concept_id", "row_provider", "NULL", "gender_source_value", person_gender),
        ("provider.specialty_concept_id", "row_provider", "NULL", "specialty_source_value", "specialty_concept_id = 0"),
        ("care_site.place_of_service_concept_id", "row_care_site", "NULL", "place_of_service_source_value", "true"),
        *(
            (
                f"{table}.{end}_concept_id",
                "row_visit",
                "person_id",
                f"{end}_source_value",
                f"visit_occurrence_id {which} NULL",
            )
            for table, which in (("visit_occurrence", "IS"), ("visit_detail", "IS NOT"))
            for end in ("admitted_from", "discharged_to")
        ),
        # who pays, and by which plan, may be words: counted, not shown
        (
            "payer_plan_period.payer_concept_id",
            "row_payer_plan_period",
            "person_id",
            "left(payer_source_value, 0)",
            "true",
        ),
        (
            "payer_plan_period.plan_concept_id",
            "row_payer_plan_period",
            "person_id",
            "left(plan_source_value, 0)",
            "true",
        ),
    ]
    fixed = [
        f"SELECT {of if remember else 'NULL'}::BIGINT AS person, NULL AS vocabulary_id, '' AS source_system, "
        f"shown_code({column}) AS source_code, NULL AS source_name, "
        f"'{field}' AS name, count(*) AS records, 'not-in-code-set' AS reason FROM {relation} WHERE {column} IS NOT NULL AND {which} "
        "GROUP BY ALL"
        for field, relation, of, column, which in sets
    ]
    return (
        "SELECT person, 'unmapped' AS what, name, vocabulary_id, source_system, source_code, source_name, reason, records FROM ("
        "SELECT e.person, c.source_vocabulary_id AS vocabulary_id, coalesce(shown_system(c.system), '') AS source_system, "
        "coalesce(shown_code(c.code), '') AS source_code, "
        # a display of a code system that nobody knows may be anything
        "min(CASE WHEN c.source_vocabulary_id IS NOT NULL THEN c.display END) AS source_name, f.cdm_field AS name, "
        f"sum(e.records)::BIGINT AS records, coalesce(c.reason, 'no-code') AS reason FROM ({' UNION ALL '.join(parts)}) e "
        f"LEFT JOIN ({codes}) c ON c.code_no = e.code_no JOIN unmapped_field f ON f.cdm_table = e.cdm_table AND f.kind = e.kind GROUP BY ALL "
        f"UNION ALL BY NAME {' UNION ALL BY NAME '.join(fixed)})"
    )


def writers(side: Path, reader: Reader, of: str | None) -> dict[str, Callable[[duckdb.DuckDBPyConnection], Any]]:
    """What writes the rest of the memory, by name, to be called beside the slice's own files."""

    def copy(name: str, select: str) -> Callable[[duckdb.DuckDBPyConnection], Any]:
        return lambda connection: slice.copy(connection, select, side / name)

    label = "LEFT JOIN linked l ON l.person = m.person"
    members = " UNION ALL ".join(
        f"SELECT {literal(kind)} AS resource_type, s.id AS resource_id, {whose(reader, stage)} AS person FROM stage_{stage} s"
        for stage, kind in reader.types.items()
    )
    nobody = "SELECT NULL::VARCHAR AS resource_type, NULL::VARCHAR AS resource_id, NULL::BIGINT AS person WHERE false"
    uses = (
        "SELECT DISTINCT u.person_id AS person, s.id AS resource_id FROM medication_in_use u JOIN stage_medication s ON s.key = u.key "
        "WHERE u.person_id IS NOT NULL ORDER BY ALL"
        if "medication" in reader.columns
        else "SELECT NULL::BIGINT AS person, NULL::VARCHAR AS resource_id WHERE false"
    )
    return {
        # the largest, and in no order: nobody reads it but the next run
        "members": copy(
            "members.parquet",
            f"SELECT m.resource_type, m.resource_id, coalesce(l.label, m.person) AS person FROM ({members or nobody}) m {label}",
        ),
        "linked": copy("linked.parquet", "SELECT person, label FROM linked ORDER BY ALL"),
        "uses": copy("uses.parquet", uses),
        "reach": copy(
            "reach.parquet",
            "SELECT coalesce(l.label, m.person) AS person, bool_or(is_open) AS is_open, max(newest) AS newest "
            f"FROM ({_reach(reader, of)}) m {label} GROUP BY 1 ORDER BY 1",
        ),
    }


def whose(reader: Reader, stage: str) -> str:
    """The person of a row `s` of a stage table."""
    return "id_of(coalesce(s.person_key, s.key))" if "person_key" in reader.columns[stage] else "id_of(s.key)"


def _reach(reader: Reader, of: str | None) -> str:
    relations = (
        f"event WHERE cdm_table IS NOT NULL AND ({_REACHES})",
        f"row_visit WHERE {_REACHES}",
        f"row_payer_plan_period WHERE {_REACHES}",
        "row_death WHERE start_datetime >= extraction()",
    )
    parts = [
        f"SELECT DISTINCT person_id AS person, true AS is_open, NULL::TIMESTAMP AS newest FROM {one}"
        for one in relations
    ]
    if of == "records":
        parts += [
            f"SELECT {whose(reader, stage)}, false, max({name}) FROM stage_{stage} s WHERE reason IS NULL GROUP BY 1"
            for stage, name in dated(reader)
        ]
    return " UNION ALL ".join(parts)


def dated(reader: Reader) -> list[tuple[str, str]]:
    """Stage table and column of every time of a record that dates the extraction where no update does."""
    return [
        (stage, name)
        for stage, names in reader.columns.items()
        for name in ("start_datetime", "end_datetime")
        if name in names and "reason" in names and not (stage == "device" and name == "end_datetime")
    ]


def tie(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """The table `linked`: persons whose files a link ties together, whether the other file is there or not, and their label."""
    connection.execute("CREATE TABLE linked (person BIGINT, label BIGINT)")
    if "patient" not in reader.columns:
        return
    pairs = connection.execute(
        "SELECT id_of(key), id_of(replaced_key) FROM stage_patient WHERE replaced_key IS NOT NULL"
    ).fetchall()
    above: dict[int, int] = {}

    def top(one: int) -> int:
        while above.setdefault(one, one) != one:
            above[one] = above[above[one]]
            one = above[one]
        return one

    for one, other in pairs:
        low, high = sorted((top(one), top(other)))
        above[high] = low
    if above:
        # as text: DuckDB imports pandas, for half a second, to be given a parameter
        connection.execute("INSERT INTO linked VALUES " + ", ".join(f"({one}, {top(one)})" for one in sorted(above)))


def shared_digest(connection: duckdb.DuckDBPyConnection) -> str:
    """A hash over all through which places, staff and drugs reach a patient's rows."""
    parts = [f"SELECT hash({literal(name)}, t) AS line FROM {name} t" for name in _SHARED_TABLES]
    parts.append("SELECT hash('location', t) FROM row_location t WHERE resource_type = 'Location'")
    # a sum is the same in any order; as text, which md5 would need, a row with a key takes 0.2 ms
    row = connection.execute(
        f"SELECT count(*), coalesce(sum(line), 0), bit_xor(line) FROM ({' UNION ALL '.join(parts)})"
    ).fetchone()
    assert row is not None
    return "-".join(f"{number or 0:x}" for number in row)


def write(folder: Path, document: dict[str, Any]) -> None:
    """Write `memory.json`."""
    (folder / FILE).write_text(json.dumps({"format": FORMAT, **document}, indent=1) + "\n", encoding="utf-8")


def read(slice_: Path) -> dict[str, Any] | None:
    """The `memory.json` of a slice; None when it has none that is understood."""
    try:
        document = json.loads((slice_ / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None
