"""The machine-learning report: how well the outcome of a line can be told from what was known when it was chosen.

`report` learns on `lines` of a lock or a release with a random survival forest and gradient-boosted survival trees
(scikit-survival), tests on patients who were kept apart, and writes `report.html`, `results.json`, `performance.csv` and
`calibration.csv`. What is learnt from what stands in the study's `reports/ml.toml`.
"""

from omop_etl.reports.ml.report import MlReport, report

__all__ = ["MlReport", "report"]
