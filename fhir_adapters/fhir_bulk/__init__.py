"""The `fhir_bulk` source: a server's Bulk Data `$export`."""

from fhir_adapters.fhir_bulk.source import FhirBulk

__all__ = ["FhirBulk"]
