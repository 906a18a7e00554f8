"""Landing: Bundles and NDJSON become shards, one resource a line, one folder per resource type."""

from fhir_adapters.landing.landing import Landing, land
from fhir_adapters.landing.rules import LARGEST_LINE, Reject
from fhir_adapters.landing.shards import Delivery, Manifest, Shard, read_manifest
from fhir_adapters.landing.versions import (
    DELETED_SQL,
    LAST_UPDATED_SQL,
    VERSION_NUMBER_SQL,
    VERSION_ORDER_SQL,
    Delete,
    Version,
    newest,
)

__all__ = [
    "DELETED_SQL",
    "LARGEST_LINE",
    "LAST_UPDATED_SQL",
    "VERSION_NUMBER_SQL",
    "VERSION_ORDER_SQL",
    "Delete",
    "Delivery",
    "Landing",
    "Manifest",
    "Reject",
    "Shard",
    "Version",
    "land",
    "newest",
    "read_manifest",
]
