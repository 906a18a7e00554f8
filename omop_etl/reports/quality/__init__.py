"""The quality of all sites, or of one, as one document.

`shape.py` says what stands in it.
"""

from omop_etl.reports.quality.shape import FORMAT, QualityData

__all__ = ["FORMAT", "QualityData"]
