"""Verbs of the quality room: `palmares gate` with `queries`, `answers` and `warehouse`, and `palmares report quality`."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.stages import stage

gate_app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    help=f"{stage('gate').sentence}\n\nExample: palmares gate --site site01 --slice slice/ --out gate/",
)
SiteOption = Annotated[str | None, typer.Option("--site", help="The site's id: the name of its TOML.")]
SliceOption = Annotated[Path | None, typer.Option("--slice", help="A slice that `palmares map` wrote.")]
GateOption = Annotated[Path | None, typer.Option("--gate", help="The gate folder of this slice.")]
BookOption = Annotated[Path, typer.Option("--book", help="The site's query book: a folder that stays in the hospital.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write; replaced whole, or not at all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]


@gate_app.callback()
def gate(
    context: typer.Context,
    site: SiteOption = None,
    slice_: SliceOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; replaced whole, or not at all.")] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            "--vocabulary",
            help="An Athena folder, or one that `palmares vocab load` wrote; default: the starter slice.",
        ),
    ] = None,
    book: Annotated[Path | None, typer.Option("--book", help="The site's query book, to count its queries.")] = None,
    json: JsonOption = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if site is None or slice_ is None or out is None:
        raise typer.BadParameter("give --site, --slice and --out (or a verb: queries, answers, warehouse)")
    from omop_etl.gates import gate as run

    started = time.monotonic()
    verdict = run(slice_, out, site=site, vocabulary=vocabulary, overrides=_overrides(site), book=book)
    _show(verdict, json, started, leave_out=("messages",))
    if not json:
        for message in verdict.messages:
            typer.echo(message)
    if verdict.verdict == "BLOCK":
        raise typer.Exit(int(Exit.BLOCKED))


def _overrides(site: str) -> tuple[dict[str, Any], ...]:
    """Those of the site's TOML; a slice may also be gated where the site has none."""
    from omop_etl.config import load_site

    try:
        return load_site(site).overrides
    except PalmaresError as error:
        if error.code == "E-SITE-01":
            return ()
        raise


def _language(site: str) -> str:
    from omop_etl.config import LANGUAGES, load_site

    try:
        return load_site(site).language
    except PalmaresError:
        return LANGUAGES[0]  # a slice may be gated where the site has no settings


def _language_of(slice_: Path) -> str:
    from omop_etl.gates.slices import open_slice

    return _language(open_slice(slice_).site)


def _language_of_book(book: Path) -> str:
    from omop_etl.gates.queries import site_of

    return _language(site_of(book))


@gate_app.command(
    "queries",
    help="Bring the site's query book up to a gate, and write the list to work through (queries.xlsx, queries.csv).\n\n"
    "Example: palmares gate queries --slice slice/ --gate gate/ --book queries/",
)
def queries(book: BookOption, slice_: SliceOption = None, gate_: GateOption = None, json: JsonOption = False) -> None:
    from omop_etl.gates.queries import follow

    if slice_ is None or gate_ is None:
        raise typer.BadParameter("give --slice and --gate")
    started = time.monotonic()
    _show(follow(book, slice_, gate_, language=_language_of(slice_)), json, started)


@gate_app.command(
    "answers",
    help="Take a worked-through list (.xlsx or .csv) back into the site's query book.\n\n"
    "Example: palmares gate answers queries.xlsx --book queries/",
)
def answers(
    file: Annotated[Path, typer.Argument(help="queries.xlsx or queries.csv, with the answers filled in.")],
    book: BookOption,
    json: JsonOption = False,
) -> None:
    from omop_etl.gates.queries import take_answers

    started = time.monotonic()
    _show(take_answers(book, file, language=_language_of_book(book)), json, started)


@gate_app.command(
    "warehouse",
    help="Run OHDSI's checks on a warehouse, all sites together, and write its results JSON (dqd_results.json).\n\n"
    "Example: palmares gate warehouse warehouse.duckdb --out dqd/",
)
def warehouse(
    file: Annotated[Path, typer.Argument(help="A warehouse that `palmares build` wrote.")],
    out: OutOption,
    json: JsonOption = False,
) -> None:
    from omop_etl.gates import gate_warehouse

    started = time.monotonic()
    _show(gate_warehouse(file, out), json, started)


def register(report_app: typer.Typer) -> None:
    """Add `quality` to the verbs of `palmares report`."""

    @report_app.command(
        "quality",
        help="The quality of all sites (--intake), or of one hospital (--site, --slice, --gate): data.json and metrics.prom.\n\n"
        "Example: palmares report quality --intake intake/ --warehouse warehouse.duckdb --out quality/",
    )
    def quality(
        out: OutOption,
        intake: Annotated[Path | None, typer.Option(help="The folder of all sites' submissions.")] = None,
        warehouse: Annotated[Path | None, typer.Option(help="With OHDSI's checks of this warehouse.")] = None,
        derived: Annotated[
            Path | None, typer.Option(help="With the lines of therapy that `palmares derive` wrote.")
        ] = None,
        site: SiteOption = None,
        slice_: SliceOption = None,
        gate_: GateOption = None,
        history: Annotated[
            Path | None,
            typer.Option(help="Where the hospital remembers its runs: this one is added, and held against the last."),
        ] = None,
        json: JsonOption = False,
    ) -> None:
        from omop_etl.reports.quality import report, report_site

        started = time.monotonic()
        if intake is not None:
            _show(report(intake, out, warehouse=warehouse, derived=derived), json, started)
        elif site is not None and slice_ is not None and gate_ is not None:
            _show(report_site(site, slice_, gate_, out, history=history), json, started)
        else:
            raise typer.BadParameter("give --intake, or --site with --slice and --gate")


def _show(result: Any, as_json: bool, started: float, leave_out: tuple[str, ...] = ()) -> None:
    from dataclasses import asdict, is_dataclass

    import orjson

    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result)
    if as_json:
        sys.stdout.write(orjson.dumps(values, default=str).decode() + "\n")
        return
    for name, value in values.items():
        if name not in leave_out:
            text = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
            typer.echo(f"{name.replace('_', ' ')}: {text}")
    typer.echo(f"seconds: {time.monotonic() - started:.1f}")
