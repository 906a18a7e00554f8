"""The warehouse: one DuckDB file built beside the old one from all sites' slices, and swapped in.

    build(slices, out)                slices or received submissions → a new warehouse; never patched, never half-written
    summary(warehouse)                rows per site and table, with each site's verdict
    serve(warehouse, url)             finished tables → PostgreSQL, for OHDSI tools and SQL users

Schema `main` holds every table of CDM 5.4 and its imaging extension; schema `palmares` holds what the CDM has no place for:
submission, site_verdict, ledger_summary, table_rows, person_site, person_link, unmapped.
"""

from omop_etl.warehouse.building import Build, build
from omop_etl.warehouse.reading import SiteSummary, summary
from omop_etl.warehouse.serving import Served, serve

__all__ = ["Build", "Served", "SiteSummary", "build", "serve", "summary"]
