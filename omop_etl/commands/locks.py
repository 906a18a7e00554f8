"""Verbs of the lock room: `palmares lock create`, `verify`, `diff`, `list`, `rebuild`."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_adapters.errors import PalmaresError

lock_app = typer.Typer(
    rich_markup_mode=None,
    help="Locks: a state of the registry, frozen at a cut-off date, that can be cited and made again.",
    no_args_is_help=True,
)
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The workspace; default: PALMARES_HOME.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="The lock's name.")]
VocabularyOption = Annotated[
    Path | None, typer.Option("--vocabulary", help="An Athena folder, or one that `palmares vocab load` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]


def _home(given: Path | None) -> Path:
    home = given or (Path(os.environ["PALMARES_HOME"]) if os.environ.get("PALMARES_HOME") else None)
    if home is None:
        raise PalmaresError("E-HOME-01", "home")
    return home


def _say(step: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"… {step}", err=True)


def _show(values: dict[str, Any], as_json: bool, seconds: float | None = None) -> None:
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(values, default=str).decode() + "\n")
        return
    for name, value in values.items():
        word = name.replace("_", " ")
        if isinstance(value, dict):
            typer.echo(f"{word}:")
            for key, one in value.items():
                said = ", ".join(f"{inner} {count}" for inner, count in one.items()) if isinstance(one, dict) else one
                typer.echo(f"    {key}  {said}")
        elif isinstance(value, list):
            typer.echo(f"{word}: {len(value)}" if not value else f"{word}:")
            for one in value:
                typer.echo(f"    {one}")
        else:
            typer.echo(f"{word}  {value}")
    if seconds is not None:
        typer.echo(f"seconds  {seconds:.1f}")


def _run(work: Callable[[], dict[str, Any]], as_json: bool) -> dict[str, Any]:
    started = time.monotonic()
    values = work()
    _show(values, as_json, time.monotonic() - started)
    return values


@lock_app.command(
    "create",
    help="Freeze the intake at a cut-off date: build, derive, answer eligibility, publish, and seal.\n\n"
    "Example: palmares lock create lock-3 --cut-off 2025-01-01 --home workspace/",
)
def create(
    name: NameArgument,
    cut_off: Annotated[str, typer.Option(help="YYYY-MM-DD: nothing dated later enters.")],
    home: HomeOption = None,
    study: Annotated[str, typer.Option("--study", help="A folder of mappings/studies.")] = "palmares2",
    vocabulary: VocabularyOption = None,
    json: JsonOption = False,
) -> None:
    from datetime import date

    from omop_etl.locks import create as run

    try:
        day = date.fromisoformat(cut_off)
    except ValueError:
        raise typer.BadParameter("a date as YYYY-MM-DD", param_hint="--cut-off") from None
    _run(lambda: asdict(run(_home(home), name, cut_off=day, study=study, vocabulary=vocabulary, progress=_say)), json)


@lock_app.command(
    "verify",
    help="Hold every byte of a lock against what was sealed; exit code 3 when one differs.\n\n"
    "Example: palmares lock verify lock-3 --home workspace/",
)
def verify(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    from omop_etl.locks import verify as run

    values = _run(lambda: asdict(run(_home(home), name)), json)
    if values["problems"]:
        raise PalmaresError("E-LOCK-05", name, count=len(values["problems"]), detail=values["problems"][0])


@lock_app.command(
    "diff",
    help="Who came, who went, whose endpoint changed from one lock to another, and why: counts, small ones hidden.\n\n"
    "Example: palmares lock diff lock-2 lock-3 --home workspace/",
)
def diff(
    first: Annotated[str, typer.Argument(help="The earlier lock.")],
    second: Annotated[str, typer.Argument(help="The later lock.")],
    home: HomeOption = None,
    persons: Annotated[
        Path | None, typer.Option(help="Also write the persons behind the counts to this CSV file: it stays inside.")
    ] = None,
    json: JsonOption = False,
) -> None:
    from omop_etl.locks import diff as run

    _run(lambda: asdict(run(_home(home), first, second, persons=persons)), json)


@lock_app.command("list", help="The locks that there are.\n\nExample: palmares lock list --home workspace/")
def list_(home: HomeOption = None, json: JsonOption = False) -> None:
    from omop_etl.locks import listing

    found = listing(_home(home))
    if json:
        _show({"locks": found}, True)
        return
    for one in found:
        typer.echo(
            f"{one['name']}\tcut-off {one['cut_off']}\t{one['study']}\t{one['sites']} sites\t"
            f"sealed {one['sealed_at']}\t{one['manifest_sha256'][:16]}"
        )


@lock_app.command(
    "rebuild",
    help="Make a lock again from its manifest and compare every file; exit code 6 when one differs.\n\n"
    "Example: palmares lock rebuild lock-3 --home workspace/",
)
def rebuild(
    name: NameArgument, home: HomeOption = None, vocabulary: VocabularyOption = None, json: JsonOption = False
) -> None:
    from omop_etl.locks import rebuild as run

    values = _run(lambda: asdict(run(_home(home), name, vocabulary=vocabulary, progress=_say)), json)
    if not values["identical"]:
        changed = "; ".join(values["changed_since"][:3]) or "nothing else differs"
        raise PalmaresError("E-LOCK-07", name, count=len(values["different"]), detail=f"since then: {changed}")
