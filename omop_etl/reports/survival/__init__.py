"""The survival report: what a lock or a release says of time to an event, by treatment.

`report` reads the datasets as they are and writes one folder: `report.html` (opens from disk), and the same numbers as
`results.json`, `cox.csv`, `balance.csv`, `survival.csv` (a grid of months, no event times) and `at_risk.csv`. What is compared and
adjusted for stands in the study's `reports/survival.toml`.
"""

from omop_etl.reports.survival.report import SurvivalReport, report

__all__ = ["SurvivalReport", "report"]
