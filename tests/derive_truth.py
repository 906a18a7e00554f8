"""Synthetic hospitals from FHIR to derived tables, held against the truth that was written beside them.

Left out of the comparison, by what the truth says of them: the hospital that a gate must block and whoever was treated
there too; pairs that no token links, or whose deaths conflict; and a patient whose record holds a planted defect that
changes drugs or deaths. Where those must land is asked by `planted`.
"""

import os
from pathlib import Path
from typing import Any

import duckdb

from omop_etl.cohorts import run as run_cohort
from omop_etl.config import load_site, site_ids
from omop_etl.derive import Derived, derive
from omop_etl.mapping import map_folder, origins
from omop_etl.synthetic import generate
from omop_etl.warehouse import build

# what is planted into drugs or deaths; other defects stand in records that neither lines nor endpoints read
CHANGES_THE_COURSE = ("two-cdk46-at-once", "death-before-index", "heaping", "unmapped-drug")


def run(folder: Path, *, sites: int, patients: int, dirty: bool, seed: int = 11, jobs: int | None = None) -> Derived:
    """Generate, map every site but the one that is to be blocked, build, derive, all below `folder`."""
    generate(folder / "hospitals", sites=sites, patients=patients, seed=seed, dirty=dirty, jobs=jobs)
    before = os.environ.get("PALMARES_SITES")
    os.environ["PALMARES_SITES"] = str(folder / "hospitals" / "sites")
    try:
        names = site_ids()
        if dirty and sites > 2:
            names = names[:-1]  # the last one is bad on purpose: the gate keeps it out
        for name in names:
            fhir = folder / "hospitals" / "hospitals" / name / "fhir"
            map_folder(load_site(name), fhir, folder / "slices" / name, skip_unreadable=True, jobs=jobs)
    finally:
        if before is None:
            del os.environ["PALMARES_SITES"]
        else:
            os.environ["PALMARES_SITES"] = before
    build([folder / "slices" / name for name in names], folder / "warehouse.duckdb")
    return derive(folder / "warehouse.duckdb", folder / "derived")


def opened(folder: Path) -> duckdb.DuckDBPyConnection:
    """The truth (schema truth), what was derived (schema derived), and who is who (person, patient, site, sound)."""
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA truth; CREATE SCHEMA derived")
    for schema, path in (("truth", folder / "hospitals" / "truth"), ("derived", folder / "derived")):
        for file in sorted(path.glob("*.parquet")):
            connection.execute(f"CREATE VIEW {schema}.{file.stem} AS FROM '{file}'")
    traces = " UNION ALL ".join(
        f"SELECT '{slice_.name}' AS site, cdm_id AS person_id, resource_id AS patient FROM {origins(slice_)} "
        "WHERE cdm_table = 'person' AND resource_type = 'Patient'"
        for slice_ in sorted((folder / "slices").iterdir())
    )
    planted = ", ".join(f"'{kind}'" for kind in CHANGES_THE_COURSE)
    connection.execute(
        f"""
        CREATE TABLE who AS
        WITH trace AS ({traces})
        SELECT
            trace.*, patients.pair,
            patients.role = 'single' OR links.kind = 'linked' AND bool_and(trace.site IS NOT NULL) OVER (PARTITION BY patients.pair)
                AS told,
            patient IN (SELECT patient FROM truth.defects WHERE kind IN ({planted})) AS spoiled
        FROM truth.patients
        LEFT JOIN trace USING (site, patient)
        LEFT JOIN truth.links USING (site, patient)
        """
    )
    connection.execute("DELETE FROM who WHERE person_id IS NULL")
    return connection


def differences(folder: Path) -> dict[str, list[Any]]:
    """Where the derived tables and the truth differ, for everyone whose course was not planted as wrong."""
    connection = opened(folder)
    sound = "JOIN who USING (site, patient) WHERE told AND NOT spoiled AND start_date <= DATE '2025-01-01'"
    asked = {
        "lines": (
            f"SELECT site, patient, line, start_date, end_date, regimen, drugs, end_reason FROM truth.study_lines {sound}",
            "SELECT site, patient, line_number, start_date, end_date, regimen, drugs, end_reason FROM derived.line "
            "JOIN who USING (person_id) WHERE told AND NOT spoiled",
        ),
        "endpoints": (
            "SELECT site, patient, paramcd, start_date, end_date, cnsr, event, censored, "
            "CASE WHEN consent_date > start_date AND consent_date <= DATE '2025-01-01' THEN consent_date - start_date END "
            f"FROM truth.endpoints JOIN truth.patients USING (site, patient) {sound}",
            "SELECT site, patient, paramcd, start_date, end_date, cnsr, evntdesc, cnsdtdsc, entry_day FROM derived.endpoint "
            "JOIN who USING (person_id) WHERE told AND NOT spoiled",
        ),
        "progressions": (
            "SELECT DISTINCT site, patient, progression_date FROM truth.progressions JOIN who USING (site, patient) "
            "WHERE told AND progression_date <= DATE '2025-01-01'",
            "SELECT site, patient, date FROM derived.progression JOIN who USING (person_id) WHERE told",
        ),
        "resistance": (
            "SELECT site, patient, CASE resistance WHEN 'sensitive' THEN resistance ELSE resistance || '-resistant' END, "
            "CASE WHEN de_novo THEN 'yes' ELSE 'no' END "
            "FROM truth.patients JOIN who USING (site, patient) WHERE told AND role <> 'second' AND NOT spoiled "
            "AND advanced_date <= DATE '2025-01-01'",
            # begun in a month that may be either: resistant, of a kind that the truth knows and the record does not tell
            "SELECT site, patient, CASE WHEN said = 'resistant' AND month_only AND resistance <> 'sensitive' "
            "THEN resistance || '-resistant' ELSE said END, de_novo FROM ("
            "SELECT site, patient, any_value(value) FILTER (name = 'endocrine-resistance') AS said, any_value(value) FILTER "
            "(name = 'de-novo') AS de_novo FROM derived.state JOIN who USING (person_id) WHERE told AND NOT spoiled GROUP BY ALL "
            "HAVING count(*) FILTER (name = 'de-novo') > 0) "
            "JOIN (SELECT site, patient, resistance, patient IN (SELECT patient FROM truth.defects WHERE kind = 'month-only') "
            "AS month_only FROM truth.patients) USING (site, patient)",
        ),
    }
    found = {}
    for name, (truth, derived) in asked.items():
        missing = connection.execute(f"({truth}) EXCEPT ({derived}) ORDER BY ALL").fetchall()
        too_much = connection.execute(f"({derived}) EXCEPT ({truth}) ORDER BY ALL").fetchall()
        found[name] = [("truth", *row) for row in missing] + [("derived", *row) for row in too_much]
    return found


def eligibility_differences(folder: Path) -> dict[str, list[Any]]:
    """Answers, reasons and attrition against the truth, for everyone in the warehouse: no planted defect changes eligibility."""
    run_cohort(folder / "warehouse.duckdb", folder / "cohort", derived=folder / "derived")
    connection = opened(folder)
    connection.execute(f"CREATE VIEW answer AS FROM '{folder}/cohort/eligibility.parquet'")
    # who is not in the truth at all is a planted stranger without disease
    connection.execute(f"CREATE VIEW person AS FROM '{folder}/cohort/persons.parquet' SEMI JOIN who USING (person_id)")
    # counted out at the first criterion that is not PASS, in the order of the attrition table
    attrition = "SELECT {failed} AS failed, {reason} AS reason, count(*) FROM {source} GROUP BY ALL"
    ordered = (
        "(SELECT site, patient, arg_min(criterion, place) FILTER (answer <> 'PASS') AS failed, "
        "arg_min(reason, place) FILTER (answer <> 'PASS') AS reason FROM truth.eligibility "
        "JOIN (SELECT DISTINCT criterion_name AS criterion, criterion AS place FROM answer) USING (criterion) "
        "JOIN who USING (site, patient) GROUP BY ALL)"
    )
    asked = {
        "eligibility": (
            "SELECT site, patient, criterion, answer, reason FROM truth.eligibility JOIN who USING (site, patient)",
            "SELECT who.site, patient, criterion_name, answer, reason FROM answer JOIN who USING (person_id)",
        ),
        "attrition": (
            attrition.format(failed="failed", reason="reason", source=ordered),
            attrition.format(failed="failed_criterion_name", reason="failed_reason", source="person"),
        ),
    }
    found = {}
    for name, (truth, derived) in asked.items():
        missing = connection.execute(f"({truth}) EXCEPT ({derived}) ORDER BY ALL").fetchall()
        too_much = connection.execute(f"({derived}) EXCEPT ({truth}) ORDER BY ALL").fetchall()
        found[name] = [("truth", *row) for row in missing] + [("derived", *row) for row in too_much]
    return found
