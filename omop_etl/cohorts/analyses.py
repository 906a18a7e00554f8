"""The named analyses of a study: who of the eligible belongs to each, who does not, and of whom it cannot be told.

An analysis stands on what is derived (lines, endpoints, states). `lay_derived` puts that beside the warehouse, from the folder
that `palmares derive` wrote or, without one, by deriving anew.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.cohorts.eligibility import Progress
from omop_etl.cohorts.small_cells import HIDDEN
from omop_etl.cohorts.together import Family, Place, hide
from omop_etl.derive.rules import apply, load_rules
from omop_etl.study.reading import content_sha256, literal, trouble
from omop_etl.study.rules import Analysis, Study

TABLES = ("line", "disagreement", "endpoint", "state")


@dataclass(frozen=True)
class Counts:
    """Of the eligible: how many belong to an analysis, how many do not, of how many it cannot be told."""

    analysis: Analysis
    persons: int
    others: int
    unknown: int


def lay_derived(
    connection: duckdb.DuckDBPyConnection, study: Study, derived: Path | None, progress: Progress | None = None
) -> None:
    """Make the tables of the derived folder known to the connection, on which `evaluate` has answered.

    Raises E-COHORT-03 when the folder was derived from another warehouse, by other rules or for another cut-off.
    """
    if derived is None:
        rules = load_rules(study.name, cut_off=study.cut_off)
        rules = replace(rules, study=study, parameters={**rules.parameters, **study.parameters})
        apply(connection, rules, progress, episodes=False)
        return
    derived = Path(derived)
    try:
        manifest = json.loads((derived / "manifest.json").read_text(encoding="utf-8"))
        said = tuple(manifest[key] for key in ("study", "cut_off", "study_sha256", "warehouse_content_sha256"))
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-COHORT-03", derived.name, detail="it has no manifest of derived tables") from None
    is_so = (study.name, study.cut_off.isoformat(), study.sha256(), content_sha256(connection))
    for what, one, other in zip(("study", "cut-off", "rules", "warehouse"), said, is_so, strict=True):
        if one != other:
            raise PalmaresError("E-COHORT-03", derived.name, detail=f"another {what}")
    for table in TABLES:
        path = literal(str(derived / f"{table}.parquet"))
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS FROM read_parquet({path})")


def place(connection: duckdb.DuckDBPyConnection, study: Study) -> None:
    """Make `analysis_member` (cohort_definition_id, analysis, person_id, member, start_date), one row per analysis and eligible
    person; `member` is NULL where it cannot be told.

    Stands on `evaluate` and `lay_derived`. Raises E-STUDY-03 (its SQL does not run), E-COHORT-01 (someone is left out, answered
    twice, or belongs without a first day).
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE eligible_person AS
        SELECT person_id, site, index_date FROM verdict JOIN index_start USING (person_id) WHERE eligible
        """
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE analysis_member (
            cohort_definition_id BIGINT, analysis VARCHAR, person_id BIGINT, member BOOLEAN, start_date DATE
        )
        """
    )
    for one in study.analyses:
        try:
            connection.execute(
                f"INSERT INTO analysis_member SELECT {one.cohort_definition_id}, {literal(one.name)}, "
                f"person_id, member, start_date FROM ({one.sql})"
            )
        except duckdb.Error as error:
            raise PalmaresError("E-STUDY-03", f"{study.name}/analyses/{one.name}", detail=trouble(error)) from None
        wrong = connection.execute(
            """
            SELECT count(*)
            FROM (SELECT person_id, count(*) AS answers, bool_or(member AND start_date IS NULL) AS undated
                  FROM analysis_member WHERE analysis = ? GROUP BY person_id)
            FULL JOIN eligible_person USING (person_id)
            WHERE answers IS DISTINCT FROM 1 OR undated OR eligible_person.site IS NULL
            """,
            [one.name],
        ).fetchall()[0][0]
        if wrong:
            raise PalmaresError(
                "E-COHORT-01",
                f"{study.name}/analyses/{one.name}",
                count=wrong,
                detail="persons without exactly one answer",
            )


def counts(connection: duckdb.DuckDBPyConnection, study: Study) -> list[Counts]:
    """The exact counts of each analysis."""
    found = {
        name: (persons, others, unknown)
        for name, persons, others, unknown in connection.execute(
            "SELECT analysis, count(*) FILTER (member), count(*) FILTER (NOT member), count(*) FILTER (member IS NULL) "
            "FROM analysis_member GROUP BY analysis"
        ).fetchall()
    }
    return [Counts(one, *found.get(one.name, (0, 0, 0))) for one in study.analyses]


ANSWERS = (True, False, None)


def families(connection: duckdb.DuckDBPyConnection, study: Study) -> list[Family]:
    """The answers of each analysis as parts of all eligible persons, in the order of their ids."""
    import numpy as np

    answers: dict[str, list[int]] = {one.name: [] for one in study.analyses}
    for analysis, member in connection.execute(
        "SELECT analysis, member FROM analysis_member ORDER BY analysis, person_id"
    ).fetchall():
        answers[analysis].append(ANSWERS.index(member))
    return [Family(name, len(ANSWERS), np.array(codes, dtype=int), grouped=False) for name, codes in answers.items()]


def small(connection: duckdb.DuckDBPyConnection, study: Study, *, threshold: int) -> dict[str, dict[Place, bool]]:
    """Which numbers of the analyses are hidden where nothing else is counted of the same persons."""
    import numpy as np

    found = families(connection, study)
    persons = len(found[0].codes) if found else 0
    return hide(found, np.full(persons, -1), [], whole=not 0 < persons < threshold, threshold=threshold)


def shown(counted: Sequence[Counts], hidden: Mapping[str, Mapping[Place, bool]]) -> list[dict[str, Any]]:
    """The analyses as they may be shown: `hidden` says which numbers are not."""
    table = []
    for one in counted:
        exact = (one.persons, one.others, one.unknown)
        own = hidden.get(one.analysis.name, {})
        # of nobody at all nothing can be told
        said = [HIDDEN if any(exact) and own.get((part, None), True) else n for part, n in enumerate(exact)]
        table.append(
            {
                "analysis": one.analysis.name,
                "sentence": one.analysis.sentence,
                "cohort_definition_id": one.analysis.cohort_definition_id,
                "persons": said[0],
                "others": said[1],
                "unknown": said[2],
            }
        )
    return table


def write_csv(table: Sequence[dict[str, Any]], path: Path) -> None:
    """One row per analysis."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.DictWriter(
            lines,
            ["analysis", "sentence", "cohort_definition_id", "persons", "others", "unknown"],
            lineterminator="\n",
        )
        rows.writeheader()
        rows.writerows(table)
