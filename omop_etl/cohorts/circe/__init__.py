"""Cohort definitions of others: ATLAS exports its cohorts as Circe JSON, and here they run as they are.

`read` takes a definition in, strictly; `run` renders it as OHDSI SQL (ohdsi-circepy), translates that for DuckDB or PostgreSQL
(its port of SqlRender), runs it on a warehouse or on the schema that `palmares serve` filled, and writes one folder:

    cohort.parquet, cohort_definition.parquet     as OMOP has them
    inclusion.csv                                 the inclusion rules, one after the other, small cells hidden
    definition.json, definition.md                what was asked, for machines and in words
    statements.sql                                what ran
    manifest.json                                 hashes, engine, what was noticed

It holds dates and person ids: it stays inside the secure environment.
"""

from omop_etl.cohorts.circe.definition import Definition, read
from omop_etl.cohorts.circe.run import CirceCohort, run

__all__ = ["CirceCohort", "Definition", "read", "run"]
