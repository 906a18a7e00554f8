"""Derive: what follows from the records by the study's rules: eras, lines of therapy, progressions, endpoints, states.

`derive` reads the warehouse and a study of `mappings/studies/`, and writes one folder of Parquet with its manifest:

    drug_era, condition_era, episode, episode_event     CDM tables; also put into the warehouse, beside the old file, by rename
    line, disagreement                                  lines of therapy; where the sites' own lines differ from the rule's
    progression, endpoint, state                        what the endpoints and the datasets are made from, each with its source row

Columns and their meaning stand in the study's `derived.csv`. The folder holds dates and person ids: it stays inside the
secure environment. Observation periods need no rule here: the slices bring them.
"""

from omop_etl.derive.run import Derived, derive

__all__ = ["Derived", "derive"]
