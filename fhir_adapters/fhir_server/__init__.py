"""The `fhir_server` source: a FHIR R4 server's search, page by page."""

from fhir_adapters.fhir_server.source import FhirServer

__all__ = ["FhirServer"]
