"""Verbs of the report room: `palmares report survival` and `palmares report ml`."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

study_report_app = typer.Typer(
    rich_markup_mode=None, help="Reports on a lock or a release, as pages that open from disk.", no_args_is_help=True
)
FolderArgument = Annotated[Path, typer.Argument(help="A lock folder, or a release that `palmares publish` wrote.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write; replaced whole, or not at all.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same report.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]


@study_report_app.command(
    "survival",
    help="Kaplan-Meier, Cox, weighting and balance of an analysis, as a page and as numbers.\n\n"
    "Example: palmares report survival locks/lock-3 --analysis lobular --out report/",
)
def survival(
    folder: FolderArgument,
    out: OutOption,
    analysis: Annotated[str, typer.Option(help="A named analysis of the study.")] = "all-comers",
    endpoint: Annotated[str | None, typer.Option(help="A PARAMCD; default: that of the analysis.")] = None,
    imputations: Annotated[int | None, typer.Option(min=2, help="Default: the study's.")] = None,
    seed: SeedOption = 1,
    json: JsonOption = False,
) -> None:
    from omop_etl.reports.survival import report

    started = time.monotonic()
    found = report(
        folder, out, analysis=analysis, endpoint=endpoint, imputations=imputations, seed=seed, progress=_teller(json)
    )
    _show(found, json, started)


def _teller(quiet: bool) -> Any:
    return None if quiet else lambda step: typer.echo(f"  {step}", err=True)


def _show(found: Any, as_json: bool, started: float) -> None:
    from dataclasses import asdict

    import orjson

    if as_json:
        sys.stdout.write(orjson.dumps(asdict(found)).decode() + "\n")
        return
    for name, value in asdict(found).items():
        if isinstance(value, dict):
            for key, one in value.items():
                text = ", ".join(f"{a} {b}" for a, b in one.items()) if isinstance(one, dict) else one
                typer.echo(f"{key}: {text}")
        else:
            typer.echo(f"{name.replace('_', ' ')}: {value}")
    typer.echo(f"seconds: {time.monotonic() - started:.1f}")


@study_report_app.command(
    "ml",
    help="Random survival forest and gradient-boosted survival trees on lines: how well an outcome can be told.\n\n"
    "Example: palmares report ml locks/lock-3 --outcome pfs --out ml/",
)
def ml(
    folder: FolderArgument,
    out: OutOption,
    analysis: Annotated[str, typer.Option(help="A named analysis of the study.")] = "all-comers",
    outcome: Annotated[str | None, typer.Option(help="pfs, ttnt or os; default: the study's.")] = None,
    seed: SeedOption = 1,
    json: JsonOption = False,
) -> None:
    from omop_etl.reports.ml import report

    started = time.monotonic()
    _show(report(folder, out, analysis=analysis, outcome=outcome, seed=seed, progress=_teller(json)), json, started)
