"""All that speaks FHIR; knows nothing of OMOP.

A source adapter turns what a hospital has into FHIR R4; landing keeps the newest version of each resource as NDJSON shards;
validation says which of them are sound; a view turns them into flat tables.
"""
