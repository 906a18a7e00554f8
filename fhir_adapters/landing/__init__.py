"""Landing: Bundles and NDJSON become shards, one resource a line, one folder per resource type."""
