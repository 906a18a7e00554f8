"""A site's way in: its settings, what its sources hold, and the search for its known identifiers in all that would leave."""

from omop_etl.onboarding.known import Known, gather, read_known, write_known
from omop_etl.onboarding.phi import Finding, PhiCheck, hold_back, hold_back_files, phi_check

__all__ = [
    "Finding",
    "Known",
    "PhiCheck",
    "gather",
    "hold_back",
    "hold_back_files",
    "phi_check",
    "read_known",
    "write_known",
]
