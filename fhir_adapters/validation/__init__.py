"""Validation: of what was landed, only sound FHIR R4 goes on; each resource is looked at once."""

from fhir_adapters.validation.validation import Validation, validate

__all__ = ["Validation", "validate"]
