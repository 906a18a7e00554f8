"""A study as data, and the warehouse as a study reads it: what deriving, cohorts, datasets and locks stand on.

`rules` loads a folder of `mappings/studies/`; `reading` attaches a warehouse read-only and lays the study beside it.
"""

from omop_etl.study.rules import Study, load_study, studies

__all__ = ["Study", "load_study", "studies"]
