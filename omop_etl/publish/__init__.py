"""Publishing: datasets that open in one line, and nothing in them that leads back to a patient.

`release` takes a cohort folder and the warehouse that it came from, and writes one folder that may leave:

    baseline.parquet, baseline.csv        one row per eligible patient
    dictionary.json, dictionary.html      type, unit, values, window, missing share, OMOP and FHIR source
    attrition.{csv,json,svg,png}          the steps, small cells hidden as for the public
    manifest.json                         SHA-256 of every file, parameters, hash of the cohort that it came from
"""

from omop_etl.publish.release import Release, release

__all__ = ["Release", "release"]
