"""Verbs of the cohort room: `palmares circe check` and `palmares circe run`, for definitions of other groups."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fhir_adapters.errors import PalmaresError

circe_app = typer.Typer(
    rich_markup_mode=None,
    help="Cohort definitions of others, as ATLAS exports them (Circe JSON).",
    no_args_is_help=True,
)
DefinitionArgument = Annotated[Path, typer.Argument(help="A Circe expression, or ATLAS's export around one, as JSON.")]


@circe_app.command(
    "check",
    help="Read a definition, strictly, and say it in words.\n\nExample: palmares circe check definition.json",
)
def check(definition: DefinitionArgument) -> None:
    from circe.api import cohort_print_friendly

    from omop_etl.cohorts.circe import read

    found = read(definition)
    typer.echo(cohort_print_friendly(found.expression, title=found.name, include_concept_sets=True).strip())
    for notice in found.notices:
        typer.echo(f"notice: {notice}", err=True)


@circe_app.command(
    "run",
    help="Run a definition on a warehouse, or on the PostgreSQL that `palmares serve` filled (address in PALMARES_POSTGRES).\n\n"
    "Example: palmares circe run definition.json --warehouse warehouse.duckdb --out circe/",
)
def run(
    definition: DefinitionArgument,
    out: Annotated[Path, typer.Option("--out", help="Where to write; replaced whole, or not at all.")],
    warehouse: Annotated[Path | None, typer.Option(help="A warehouse that `palmares build` wrote.")] = None,
    schema: Annotated[str | None, typer.Option(help="The schema of PostgreSQL that `palmares serve` filled.")] = None,
    number: Annotated[int, typer.Option("--id", min=1, help="The cohort_definition_id of its rows.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")] = False,
) -> None:
    from dataclasses import asdict

    import orjson

    from omop_etl.cohorts.circe import run as run_definition

    if (warehouse is None) == (schema is None):
        raise typer.BadParameter("give either --warehouse or --schema")
    address = os.environ.get("PALMARES_POSTGRES")
    if schema is not None and not address:
        raise PalmaresError("E-SERVE-03", schema)
    started = time.monotonic()
    found = run_definition(
        definition,
        out,
        warehouse=warehouse,
        postgresql=address if schema is not None else None,
        schema=schema or "omop",
        cohort_definition_id=number,
    )
    if json:
        sys.stdout.write(orjson.dumps(asdict(found)).decode() + "\n")
        return
    typer.echo(f"{found.name}: {found.persons} persons, {found.periods} periods ({found.candidates} came to its rules)")
    for notice in found.notices:
        typer.echo(f"notice: {notice}")
    typer.echo(f"{found.out}  ({found.engine}, {time.monotonic() - started:.1f} s)")
