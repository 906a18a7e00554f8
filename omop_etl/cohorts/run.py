"""From the warehouse to the cohort folder."""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts import analyses
from omop_etl.cohorts.attrition import attrition, shown, write_csv
from omop_etl.cohorts.eligibility import Progress, evaluate
from omop_etl.cohorts.picture import draw
from omop_etl.study.reading import content_sha256, literal, open_warehouse, trouble
from omop_etl.study.rules import Study, load_study
from omop_etl.study.writing import swap_in

CDM_TABLES = ("cohort", "cohort_definition")


@dataclass(frozen=True)
class CohortResult:
    """What a run found: persons answered for, how many are eligible, what is asked; attrition and analyses as they may be shown."""

    persons: int
    eligible: int
    queries: int
    adjudications: int
    steps: tuple[dict[str, Any], ...]
    analyses: dict[str, int | str]
    out: str


def run(
    warehouse: Path,
    out: Path,
    *,
    study: str = "palmares2",
    cut_off: date | None = None,
    variant: str | None = None,
    derived: Path | None = None,
    into_warehouse: bool = False,
    progress: Progress | None = None,
) -> CohortResult:
    """Answer a study's eligibility for everyone in the warehouse and write the cohort folder, whole or not at all.

    `cut_off` is the study's own unless given; nothing dated later enters. `variant` names a sensitivity variant of the
    study. `derived` is the folder of `omop_etl.derive` for this warehouse and cut-off; without it what the analyses need is
    derived anew. `into_warehouse` also puts the OMOP cohorts into the warehouse (copied beside, filled, renamed). `progress`
    is called with each criterion's sentence.

    Raises E-STUDY-01 to -03 (study, variant), E-WAREHOUSE-01 (no warehouse), E-COHORT-01 (answers do not balance), E-COHORT-03
    (`derived` belongs to something else), E-DISK-01 and -02.
    """
    rules = load_study(study, cut_off=cut_off, variant=variant)
    out = Path(out)
    with whole_folder(out) as folder, open_warehouse(warehouse, spill=folder / "spill") as connection:
        evaluate(connection, rules, progress)
        if progress:
            progress("place the eligible in the named analyses")
        analyses.lay_derived(connection, rules, derived, progress)
        analyses.place(connection, rules)
        if progress:
            progress("write the cohort")
        steps = attrition(connection, rules)
        _write_tables(connection, rules, folder)
        table = shown(steps, rules, public=False)
        hidden = analyses.small(connection, rules, threshold=rules.thresholds["inside"])
        table["analyses"] = analyses.shown(analyses.counts(connection, rules), hidden)
        analyses.write_csv(table["analyses"], folder / "analyses.csv")
        (folder / "attrition.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_csv(table, folder / "attrition.csv")
        draw(table, folder)
        counts = dict(connection.execute("SELECT action, count(*) FROM question GROUP BY action").fetchall())
        files = described(folder)
        manifest = {
            "format": 1,
            "study": rules.name,
            "variant": rules.variant,
            "cut_off": rules.cut_off.isoformat(),
            "parameters": dict(rules.parameters),
            "study_sha256": rules.sha256(),
            "warehouse_content_sha256": content_sha256(connection),
            "code_version": __version__,
            "files": files,
        }
        # from what only this folder holds: released ids can be computed again here, and nowhere else
        manifest["release_salt"] = hashlib.sha256(
            f"{files['persons.parquet']['sha256']} {rules.sha256()}".encode()
        ).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if into_warehouse:
        if progress:
            progress("put the cohorts into the warehouse")
        swap_in(Path(warehouse), out, CDM_TABLES)
    persons = steps[0].came if steps else 0
    return CohortResult(
        persons=persons,
        eligible=steps[-1].left if steps else 0,
        queries=counts.get("query", 0),
        adjudications=counts.get("adjudication", 0),
        steps=tuple(
            {key: step[key] for key in ("criterion", "name", "sentence", "excluded", "left")} for step in table["steps"]
        ),
        analyses={one["analysis"]: one["persons"] for one in table["analyses"]},
        out=str(out),
    )


def _write_tables(connection: duckdb.DuckDBPyConnection, study: Study, folder: Path) -> None:
    """Write the tables, each in a fixed order, so that the same warehouse gives the same bytes."""
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE question AS
        SELECT site, action, person_id, criterion, criterion_name, flag AS code
        FROM eligibility
        JOIN verdict USING (person_id, site)
        -- a person with a FAIL stays out whatever the answer is: no one is asked
        WHERE action <> 'none' AND NOT settled
        """
    )
    _copy(connection, "SELECT * FROM eligibility ORDER BY person_id, criterion", folder / "eligibility.parquet")
    _copy(
        connection,
        """
        SELECT
            person_id, verdict.site, linked_person.patient_id, eligible,
            failed AS failed_criterion, failed_name AS failed_criterion_name, failed_reason,
            advanced_date, index_date, index_drug,
            origin AS sample_origin, sample_date,
            death_date, last_contact
        FROM verdict
        JOIN linked_person USING (person_id)
        JOIN vital_status USING (person_id)
        LEFT JOIN advanced_disease USING (person_id)
        LEFT JOIN index_start USING (person_id)
        LEFT JOIN chosen_sample USING (person_id)
        ORDER BY person_id
        """,
        folder / "persons.parquet",
    )
    _copy(
        connection,
        "SELECT analysis, person_id, member, start_date FROM analysis_member ORDER BY cohort_definition_id, person_id",
        folder / "analyses.parquet",
    )
    _copy(
        connection,
        """
        SELECT
            cohort_definition_id,
            person_id AS subject_id,
            start_date AS cohort_start_date,
            -- a death before the index is an error that the site is asked about; a cohort does not end before it begins
            greatest(start_date, coalesce(death_date, last_contact)) AS cohort_end_date
        FROM analysis_member
        JOIN vital_status USING (person_id)
        WHERE member
        ORDER BY ALL
        """,
        folder / "cohort.parquet",
    )
    criteria = "\n\n".join(f"-- {one.number}. {one.sentence}\n{one.sql}" for one in study.criteria)
    definitions = [
        [
            one.cohort_definition_id,
            f"{study.cohort_name}, {one.name.replace('-', ' ')}",
            f"{study.title}: {one.sentence}",
            f"{criteria}\n\n{one.sql}",
        ]
        for one in study.analyses
    ]
    connection.execute("CREATE OR REPLACE TEMP TABLE definition (id BIGINT, name TEXT, description TEXT, syntax TEXT)")
    connection.executemany("INSERT INTO definition VALUES (?, ?, ?, ?)", definitions)
    _copy(
        connection,
        """
        SELECT
            id AS cohort_definition_id,
            name AS cohort_definition_name,
            description AS cohort_definition_description,
            0 AS definition_type_concept_id,
            syntax AS cohort_definition_syntax,
            0 AS subject_concept_id,
            CAST(NULL AS DATE) AS cohort_initiation_date
        FROM definition
        ORDER BY id
        """,
        folder / "cohort_definition.parquet",
    )
    _write_questions(connection, study, folder)


def _write_questions(connection: duckdb.DuckDBPyConnection, study: Study, folder: Path) -> None:
    """What the sites are asked and what is adjudicated: by criterion, and about the course of those who are in."""
    try:
        connection.execute(
            f"""
            INSERT INTO question
            SELECT site, action, person_id, criterion, 'course', code
            FROM ({study.findings}) AS found
            JOIN eligible_person USING (person_id)
            JOIN reason USING (code)
            WHERE kind = 'finding'
            """
        )
    except duckdb.Error as error:
        raise PalmaresError("E-STUDY-03", f"{study.name}/findings.sql", detail=trouble(error)) from None
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE explanation (criterion INT, code TEXT, explanation TEXT, remedy TEXT)"
    )
    connection.executemany(
        "INSERT INTO explanation VALUES (?, ?, ?, ?)",
        [[one.criterion, one.code, one.explanation, one.remedy] for one in study.reasons],
    )
    connection.execute(
        f"""
        COPY (
            SELECT site, action, person_id, criterion, criterion_name, code, explanation, remedy
            FROM question JOIN explanation USING (criterion, code)
            ORDER BY site, action, person_id, criterion
        ) TO {literal(str(folder / "queries.csv"))} (HEADER)
        """
    )


def _copy(connection: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    connection.execute(f"COPY ({select}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
