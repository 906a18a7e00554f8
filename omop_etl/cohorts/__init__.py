"""Cohorts: who may be analysed, and for each person who may not, at which criterion and why.

`run` reads the warehouse and a study of `mappings/studies/`, answers each criterion PASS, FAIL or UNKNOWN for everyone,
and writes one folder:

    eligibility.parquet        one row per person and criterion: answer, reason, flag, action, date used
    persons.parquet            one row per person: eligible, first failed criterion, index, death, last contact
    attrition.{csv,json,svg,png}   the steps, small cells hidden
    analyses.parquet           one row per named analysis and eligible person: member (NULL: cannot be told), first day
    analyses.csv               the number of each analysis, small cells hidden
    queries.csv                what the sites are asked and what is adjudicated, by site and person
    cohort.parquet, cohort_definition.parquet   the persons of each analysis as OMOP has them
    manifest.json              hashes of what went in and came out; parameters; cut-off

All of it holds dates or person ids: it stays inside the secure environment. `omop_etl.publish` makes what may leave.
"""

from omop_etl.cohorts.run import CohortResult, run

__all__ = ["CohortResult", "run"]
