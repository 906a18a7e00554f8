"""A warehouse with every CDM table for tests of Circe definitions: 240 persons whose days lie on and around the windows."""

import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from omop_etl import cdm

PALBOCICLIB, RIBOCICLIB, LETROZOLE, PACLITAXEL = 45892075, 1592911, 1315946, 1378382
BONE, LIVER, ER, IHC, IHC_1, IHC_2 = 78097, 198700, 36203168, 36203114, 45878548, 45881916
PD, SD, FEMALE, MALE = 1633597, 1634680, 8532, 8507
DESCENDANT = 2_000_000_001  # a product of ribociclib: known only by its ancestor
CONCEPTS = (
    PALBOCICLIB, RIBOCICLIB, LETROZOLE, PACLITAXEL, BONE, LIVER, ER, IHC, IHC_1, IHC_2, PD, SD, FEMALE, MALE, DESCENDANT,
)  # fmt: skip
EDGES = (-366, -365, -364, -91, -90, -89, -1, 0, 1, 29, 30, 31, 179, 180, 181, 364, 365, 366)


def warehouse(path: Path, persons: int = 240) -> Path:
    """Write it. The same call gives the same rows."""
    rng = random.Random(20)
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    ids = iter(range(1, 1_000_000))
    for person in range(1, persons + 1):
        start = date(2019, 6, 1) + timedelta(days=rng.randrange(1100))
        last = start + timedelta(days=rng.choice((20, 200, 700, 1200)))
        sex = rng.choice((FEMALE, FEMALE, FEMALE, MALE))
        rows["person"].append((person, sex, start.year - rng.choice((45, 49, 50, 69, 70, 71)), 0, 0))
        rows["observation_period"].append(
            (person, person, start - timedelta(days=rng.choice((10, 29, 30, 31, 800))), last, 0)
        )
        for _ in range(rng.randrange(1, 5)):
            day = start + timedelta(days=rng.choice((0, 0, 0, 0, 0, *EDGES)))
            end = day + timedelta(days=rng.choice((0, 20, 60, 150)))
            drug = rng.choice((RIBOCICLIB, RIBOCICLIB, DESCENDANT, PALBOCICLIB, LETROZOLE, LETROZOLE, PACLITAXEL))
            rows["drug_exposure"].append((next(ids), person, drug, day, end, 0))
        for concept in rng.sample((BONE, LIVER), rng.randrange(1, 3)):
            day = start + timedelta(days=rng.choice(EDGES))
            rows["condition_occurrence"].append((next(ids), person, concept, day, 0))
        for _ in range(rng.randrange(2, 14)):
            day = start + timedelta(days=rng.choice(EDGES))
            concept = rng.choice((ER, ER, ER, IHC, IHC, PD, SD, SD, SD))
            number = rng.choice((0, 0.5, 1, 90)) if concept == ER else None
            word = rng.choice((IHC_1, IHC_1, IHC_2)) if concept == IHC else None
            rows["measurement"].append((next(ids), person, concept, day, 0, number, word))
        if rng.random() < 0.4:
            rows["death"].append((person, start + timedelta(days=rng.choice((0, 1, 364, 365, 366)))))
    with duckdb.connect(str(path)) as connection:
        for statement in cdm.ddl("duckdb", keys=False):
            connection.execute(statement)
        connection.execute("CREATE SCHEMA palmares")
        connection.execute("CREATE TABLE palmares.person_site AS SELECT 1::BIGINT AS person_id, 's01' AS site")
        connection.execute("CREATE TABLE palmares.person_link (person_id BIGINT, linkage_token VARCHAR)")
        connection.execute("CREATE TABLE palmares.table_rows (site VARCHAR, cdm_table VARCHAR, rows BIGINT)")
        for concept in CONCEPTS:
            connection.execute(
                "INSERT INTO concept VALUES (?, 'a concept', 'a domain', 'a vocabulary', 'a class', 'S', ?, "
                "DATE '1970-01-01', DATE '2099-12-31', NULL)",
                [concept, str(concept)],
            )
            connection.execute("INSERT INTO concept_ancestor VALUES (?, ?, 0, 0)", [concept, concept])
        connection.execute("INSERT INTO concept_ancestor VALUES (?, ?, 1, 1)", [RIBOCICLIB, DESCENDANT])
        for table, columns in _COLUMNS.items():
            batch = pa.table(dict(zip(columns.split(", "), map(list, zip(*rows[table], strict=True)), strict=True)))
            connection.register("batch", batch)
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT * FROM batch")
            connection.unregister("batch")
    return path


_COLUMNS = {
    "person": "person_id, gender_concept_id, year_of_birth, race_concept_id, ethnicity_concept_id",
    "observation_period": "observation_period_id, person_id, observation_period_start_date, observation_period_end_date, "
    "period_type_concept_id",
    "drug_exposure": "drug_exposure_id, person_id, drug_concept_id, drug_exposure_start_date, drug_exposure_end_date, "
    "drug_type_concept_id",
    "condition_occurrence": "condition_occurrence_id, person_id, condition_concept_id, condition_start_date, "
    "condition_type_concept_id",
    "measurement": "measurement_id, person_id, measurement_concept_id, measurement_date, measurement_type_concept_id, "
    "value_as_number, value_as_concept_id",
    "death": "person_id, death_date",
}

# each definition of docs/examples/circe again, in plain SQL that nobody generated: person, first day, last day
_OBSERVED = """
    observed AS (SELECT person_id, observation_period_start_date AS since, observation_period_end_date AS until FROM observation_period)
"""
EXPECTED = {
    "ribociclib-with-bone-metastases": f"""
        WITH {_OBSERVED},
        taken AS (
            SELECT person_id, min(drug_exposure_start_date) AS day
            FROM drug_exposure WHERE drug_concept_id IN (1592911, 2000000001) GROUP BY person_id
        )
        SELECT person_id, day, least(day + 180, until)
        FROM taken JOIN observed USING (person_id)
        WHERE day BETWEEN since AND until
            AND EXISTS (FROM condition_occurrence AS c WHERE c.person_id = taken.person_id AND condition_concept_id = 78097
                        AND condition_start_date BETWEEN since AND least(day, until))
            AND EXISTS (FROM measurement AS m WHERE m.person_id = taken.person_id AND measurement_concept_id = 36203168
                        AND value_as_number >= 1 AND measurement_date BETWEEN day - 365 AND day + 30
                        AND measurement_date BETWEEN since AND until)
            AND NOT EXISTS (FROM drug_exposure AS d WHERE d.person_id = taken.person_id AND drug_concept_id = 1378382
                            AND drug_exposure_start_date BETWEEN day - 90 AND day - 1
                            AND drug_exposure_start_date BETWEEN since AND until)
    """,
    "her2-low-women-of-70": f"""
        -- to the end of observation: the periods of a person overlap and are one
        WITH {_OBSERVED}
        SELECT person_id, min(measurement_date), until
        FROM measurement JOIN observed USING (person_id) JOIN person USING (person_id)
        WHERE measurement_concept_id = 36203114 AND value_as_concept_id = 45878548 AND measurement_date BETWEEN since AND until
            AND gender_concept_id = 8532 AND year(measurement_date) - year_of_birth >= 70
        GROUP BY person_id, until
    """,
    "two-assessments-then-progression": f"""
        WITH {_OBSERVED},
        progressed AS (
            SELECT person_id, min(measurement_date) AS day FROM measurement WHERE measurement_concept_id = 1633597 GROUP BY person_id
        )
        -- a measurement ends a day after it was taken
        SELECT person_id, day, least(day + 31, until)
        FROM progressed JOIN observed USING (person_id)
        WHERE day BETWEEN since AND until
            AND EXISTS (FROM drug_exposure AS d WHERE d.person_id = progressed.person_id
                        AND drug_concept_id IN (45892075, 1592911, 2000000001)
                        AND drug_exposure_start_date BETWEEN greatest(since, day - 730) AND day)
            AND 2 <= (SELECT count(*) FROM measurement AS m WHERE m.person_id = progressed.person_id AND measurement_concept_id = 1634680
                      AND measurement_date BETWEEN greatest(since, day - 365) AND day - 1)
    """,
    "dead-within-a-year": f"""
        WITH {_OBSERVED},
        taken AS (
            SELECT person_id, min(drug_exposure_start_date) AS day
            FROM drug_exposure WHERE drug_concept_id IN (45892075, 1592911, 2000000001) GROUP BY person_id
        )
        SELECT person_id, day, until
        FROM taken JOIN observed USING (person_id) JOIN death USING (person_id)
        WHERE day BETWEEN since AND until AND death_date BETWEEN day AND day + 365
            AND 1 >= (SELECT count(*) FROM measurement AS m WHERE m.person_id = taken.person_id AND measurement_concept_id = 1633597
                      AND measurement_date BETWEEN day + 1 AND least(day + 365, until))
    """,
    "cdk46-until-stopped": f"""
        -- walk from exposure to exposure: each reaches 14 days (surveillance) and 30 days (gap) past its end
        WITH RECURSIVE {_OBSERVED},
        given AS (
            SELECT person_id, drug_exposure_start_date AS begun, drug_exposure_end_date AS ended
            FROM drug_exposure WHERE drug_concept_id IN (45892075, 1592911, 2000000001)
        ),
        first_given AS (
            SELECT person_id, min(begun) AS day FROM given JOIN observed USING (person_id)
            WHERE begun BETWEEN since AND until GROUP BY person_id
        ),
        reach AS (
            SELECT person_id, day, (SELECT max(ended) FROM given AS g WHERE g.person_id = f.person_id AND begun = day) AS ended
            FROM first_given AS f
            UNION
            SELECT reach.person_id, reach.day, greatest(reach.ended, given.ended)
            FROM reach JOIN given ON given.person_id = reach.person_id AND given.begun BETWEEN reach.day - 400 AND reach.ended + 44
                AND given.ended >= reach.day - 44
        ),
        stopped AS (SELECT person_id, day, max(ended) + 14 AS ended FROM reach GROUP BY ALL),
        chemotherapy AS (
            SELECT person_id, min(drug_exposure_start_date) AS chemo
            FROM stopped JOIN drug_exposure USING (person_id) JOIN observed USING (person_id)
            WHERE drug_concept_id = 1378382 AND drug_exposure_start_date >= day AND drug_exposure_start_date <= until
            GROUP BY person_id
        )
        SELECT person_id, day, least(ended, until, chemo)
        FROM stopped JOIN observed USING (person_id) LEFT JOIN chemotherapy USING (person_id)
    """,
    "aromatase-inhibitor-2019-to-2022": f"""
        WITH {_OBSERVED},
        event AS (
            SELECT person_id, drug_exposure_start_date AS day, least(drug_exposure_end_date, until) AS ended
            FROM drug_exposure JOIN observed USING (person_id) JOIN person USING (person_id)
            WHERE drug_concept_id = 1315946 AND drug_exposure_start_date BETWEEN DATE '2019-01-01' AND DATE '2022-12-31'
                AND drug_exposure_start_date BETWEEN since + 30 AND until
                AND (
                    year(drug_exposure_start_date) - year_of_birth < 50
                    OR EXISTS (FROM condition_occurrence AS c WHERE c.person_id = drug_exposure.person_id AND condition_concept_id = 198700
                               AND condition_start_date BETWEEN since AND drug_exposure_start_date)
                )
        ),
        marked AS (     -- a period begins where none before it reaches to within 60 days
            SELECT *, coalesce(day > max(ended) OVER before + 60, TRUE) AS begins
            FROM event WINDOW before AS (PARTITION BY person_id ORDER BY day, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ),
        numbered AS (SELECT *, sum(begins::INT) OVER (PARTITION BY person_id ORDER BY day, ended ROWS UNBOUNDED PRECEDING) AS period FROM marked)
        SELECT person_id, greatest(min(day), DATE '2019-01-01'), least(max(ended), DATE '2023-12-31')
        FROM numbered GROUP BY person_id, period
    """,
}
