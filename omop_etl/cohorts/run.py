"""From the warehouse to the cohort folder."""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts.attrition import attrition, shown, write_csv
from omop_etl.cohorts.eligibility import Progress, evaluate
from omop_etl.cohorts.picture import draw
from omop_etl.study.reading import content_sha256, literal, open_warehouse
from omop_etl.study.rules import Study, load_study


@dataclass(frozen=True)
class CohortResult:
    """What a run found: persons answered for, how many are eligible, what is asked; the attrition as it may be shown."""

    persons: int
    eligible: int
    queries: int
    adjudications: int
    steps: tuple[dict[str, Any], ...]
    out: str


def run(
    warehouse: Path,
    out: Path,
    *,
    study: str = "palmares2",
    cut_off: date | None = None,
    variant: str | None = None,
    progress: Progress | None = None,
) -> CohortResult:
    """Answer a study's eligibility for everyone in the warehouse and write the cohort folder, whole or not at all.

    `cut_off` is the study's own unless given; nothing dated later enters. `variant` names a sensitivity variant of the
    study. `progress` is called with each criterion's sentence.

    Raises E-STUDY-01 to -03 (study, variant), E-WAREHOUSE-01 (no warehouse), E-COHORT-01 (answers do not balance),
    E-DISK-01 and -02.
    """
    rules = load_study(study, cut_off=cut_off, variant=variant)
    out = Path(out)
    with whole_folder(out) as folder, open_warehouse(warehouse, spill=folder / "spill") as connection:
        evaluate(connection, rules, progress)
        if progress:
            progress("write the cohort")
        steps = attrition(connection, rules)
        _write_tables(connection, rules, folder)
        table = shown(steps, rules, public=False)
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
    persons = steps[0].came if steps else 0
    return CohortResult(
        persons=persons,
        eligible=steps[-1].left if steps else 0,
        queries=counts.get("query", 0),
        adjudications=counts.get("adjudication", 0),
        steps=tuple(
            {key: step[key] for key in ("criterion", "name", "sentence", "excluded", "left")} for step in table["steps"]
        ),
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
        f"""
        SELECT
            CAST({study.cohort_definition_id} AS BIGINT) AS cohort_definition_id,
            person_id AS subject_id,
            index_date AS cohort_start_date,
            coalesce(death_date, last_contact) AS cohort_end_date
        FROM verdict
        JOIN index_start USING (person_id)
        JOIN vital_status USING (person_id)
        WHERE eligible
        ORDER BY person_id
        """,
        folder / "cohort.parquet",
    )
    rules = "\n\n".join(f"-- {criterion.number}. {criterion.sentence}\n{criterion.sql}" for criterion in study.criteria)
    _copy(
        connection,
        f"""
        SELECT
            CAST({study.cohort_definition_id} AS BIGINT) AS cohort_definition_id,
            {literal(study.cohort_name)} AS cohort_definition_name,
            {literal(study.title)} AS cohort_definition_description,
            0 AS definition_type_concept_id,
            {literal(rules)} AS cohort_definition_syntax,
            0 AS subject_concept_id,
            CAST(NULL AS DATE) AS cohort_initiation_date
        """,
        folder / "cohort_definition.parquet",
    )
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
