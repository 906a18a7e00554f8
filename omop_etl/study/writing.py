"""What a study puts into the warehouse: CDM tables replaced in a copy beside it, which then takes its place by rename."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_file
from omop_etl import cdm
from omop_etl.study.reading import literal


def swap_in(warehouse: Path, folder: Path, tables: Sequence[str]) -> None:
    """Replace these CDM tables of the warehouse by `<table>.parquet` of the folder; readers see the old file or the new one.

    Raises E-WAREHOUSE-01 when DuckDB cannot write it, E-DISK-01 and -02.
    """
    with whole_file(warehouse) as partial:
        log = partial.with_name(f"{partial.name}.wal")
        log.unlink(missing_ok=True)
        shutil.copyfile(warehouse, partial)
        try:
            with duckdb.connect(str(partial)) as connection:
                for table in tables:
                    path = literal(str(folder / f"{table}.parquet"))
                    connection.execute(f"DROP TABLE IF EXISTS main.{table}")
                    for statement in cdm.ddl("duckdb", (table,), keys=False):
                        connection.execute(statement)
                    connection.execute(f"INSERT INTO main.{table} SELECT * FROM read_parquet({path})")
                connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise PalmaresError("E-WAREHOUSE-01", warehouse.name, detail=type(error).__name__) from None
        finally:
            log.unlink(missing_ok=True)
