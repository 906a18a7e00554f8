"""Eligibility: each criterion's SELECT answers PASS, FAIL or UNKNOWN for everyone, with a reason; UNKNOWN never passes."""

from collections.abc import Callable

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.study.reading import prepare, trouble
from omop_etl.study.rules import Study

Progress = Callable[[str], None]


def evaluate(connection: duckdb.DuckDBPyConnection, study: Study, progress: Progress | None = None) -> None:
    """Answer every criterion for every person of the warehouse that the connection reads.

    Makes the temporary tables `eligibility` (person_id, site, criterion, criterion_name, answer, reason, flag, action,
    date_used), one row per person and criterion, and `verdict` (person_id, site, eligible, failed, failed_reason), one
    row per person: `failed` is the first criterion that is not PASS, in the order of the attrition table.

    Raises E-COHORT-01 when a criterion leaves a person out, answers twice, or gives a reason that the study's list does
    not hold with that answer.
    """
    prepare(connection, study)
    lost = connection.execute(
        "SELECT count(*) FROM person LEFT JOIN study_person USING (person_id) WHERE study_person.site IS NULL"
    ).fetchone()
    if lost and lost[0]:
        raise PalmaresError("E-COHORT-01", study.name, count=lost[0], detail="persons without a site")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE reason (kind TEXT, criterion INT, code TEXT, answer TEXT, action TEXT)"
    )
    connection.executemany(
        "INSERT INTO reason VALUES (?, ?, ?, ?, ?)",
        [[one.kind, one.criterion, one.code, one.answer, one.action] for one in study.reasons],
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE answer (
            criterion INT, criterion_name TEXT, person_id BIGINT, answer TEXT, reason TEXT, date_used DATE, flag TEXT
        )
        """
    )
    for criterion in study.criteria:
        if progress:
            progress(f"{criterion.number}. {criterion.sentence}")
        try:
            connection.execute(
                f"INSERT INTO answer SELECT {criterion.number}, '{criterion.name}', person_id, answer, reason, date_used, flag"
                f" FROM ({criterion.sql})"
            )
        except duckdb.Error as error:
            raise PalmaresError(
                "E-STUDY-03", f"{study.name}/eligibility/{criterion.name}", detail=trouble(error)
            ) from None
    _check(connection, study)
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE eligibility AS
        SELECT
            answer.person_id,
            study_person.site,
            answer.criterion,
            answer.criterion_name,
            answer.answer,
            answer.reason,
            -- a reason that someone must act on is its own flag
            coalesce(answer.flag, CASE WHEN reason.action <> 'none' THEN answer.reason END) AS flag,
            coalesce(flags.action, reason.action) AS action,
            answer.date_used
        FROM answer
        JOIN study_person USING (person_id)
        JOIN reason ON reason.kind = 'reason' AND reason.criterion = answer.criterion AND reason.code = answer.reason
        LEFT JOIN reason AS flags
            ON flags.kind = 'flag' AND flags.criterion = answer.criterion AND flags.code = answer.flag
        """
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE verdict AS
        SELECT
            person_id,
            any_value(site) AS site,
            bool_and(answer = 'PASS') AS eligible,
            arg_min(criterion, criterion) FILTER (answer <> 'PASS') AS failed,
            arg_min(criterion_name, criterion) FILTER (answer <> 'PASS') AS failed_name,
            arg_min(reason, criterion) FILTER (answer <> 'PASS') AS failed_reason,
            bool_or(answer = 'FAIL') AS settled
        FROM eligibility
        GROUP BY person_id
        """
    )


def _check(connection: duckdb.DuckDBPyConnection, study: Study) -> None:
    """Every person once at every criterion, with a reason of the list that has this answer, and a flag of the list."""
    numbers = [criterion.number for criterion in study.criteria]
    wrong = connection.execute(
        """
        SELECT criterion, count(*) FROM (
            FROM (SELECT criterion, person_id, count(*) AS answers FROM answer GROUP BY criterion, person_id)
            FULL JOIN (SELECT person_id, unnest(?) AS criterion, TRUE AS known FROM study_person)
                USING (criterion, person_id)
            SELECT criterion
            WHERE answers IS DISTINCT FROM 1 OR known IS NULL
        ) GROUP BY criterion ORDER BY criterion
        """,
        [numbers],
    ).fetchall()
    what = "persons without exactly one answer"
    if not wrong:
        what = "answers whose reason or flag is not in reasons.csv"
        wrong = connection.execute(
            """
            SELECT answer.criterion, count(*)
            FROM answer
            LEFT JOIN reason AS given
                ON given.kind = 'reason' AND given.criterion = answer.criterion AND given.code = answer.reason
                AND given.answer = answer.answer
            LEFT JOIN reason AS flags
                ON flags.kind = 'flag' AND flags.criterion = answer.criterion AND flags.code = answer.flag
            WHERE given.code IS NULL OR (answer.flag IS NOT NULL AND flags.code IS NULL)
            GROUP BY answer.criterion ORDER BY answer.criterion
            """
        ).fetchall()
    if wrong:
        number, persons = wrong[0]
        name = next(criterion.name for criterion in study.criteria if criterion.number == number)
        raise PalmaresError("E-COHORT-01", f"{study.name}/{number} {name}", count=persons, detail=what)
