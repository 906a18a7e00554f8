"""Verbs of a site data manager: `palmares site init`, `check`, `identifiers`, `patients`, `phi-check`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fhir_adapters.errors import Exit, PalmaresError

SiteArgument = Annotated[str, typer.Argument(help="The site's id: the name of its TOML.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `palmares site`."""
    app.command("init")(init)
    app.command("check")(check)
    app.command("identifiers")(identifiers)
    app.command("patients")(patients)
    app.command("phi-check")(phi_check)


def _print_json(value: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")


def init(
    site: SiteArgument,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="A kind of source, or kind:name=value,name=value; once for each. Lists: a+b."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The hospital's name.")] = None,
    time_zone: Annotated[str, typer.Option(help="The zone of the hospital's clocks.")] = "Europe/Rome",
    folder: Annotated[Path | None, typer.Option(help="Where sites' TOMLs stand; default: PALMARES_SITES.")] = None,
    key: Annotated[bool, typer.Option(help="Make the site's key too, where there is none.")] = True,
    json: JsonOption = False,
) -> None:
    """Write a commented TOML for a new site, and its key: by answers at a terminal, or by --source.

    Example: palmares site init prova --name "Ospedale di Prova" --source fhir_files:path=/data/export --source dicom_folder:path=/data/dicom
    """
    from omop_etl.config import sites_folder
    from omop_etl.onboarding.new_site import NewSite, ask, kinds, parse_source, write_site

    if source is None and name is None and sys.stdin.isatty():
        new = ask(site, typer.prompt, lambda text: typer.confirm(text, default=False))
    else:
        new = NewSite(site, name or site, time_zone, [parse_source(one) for one in source or []])
    place = folder or sites_folder()
    made = write_site(new, place, key=key)
    if json:
        _print_json({"site": made.id, "file": str(place / f"{made.id}.toml"), "key_file": str(made.key_file)})
        return
    typer.echo(f"written: {place / f'{made.id}.toml'}")
    if key:
        typer.echo(
            f"key: {made.key_file}, readable by you alone. Keep a safe copy: without it every patient becomes another."
        )
    typer.echo("Fill in what is marked, then: palmares site check " + made.id)
    if not new.sources:
        for kind, sentence in kinds().items():
            typer.echo(f"  {kind}: {sentence}")


def check(
    site: SiteArgument,
    source: Annotated[int | None, typer.Option("--source", min=1, help="Only this [[source]], counted from 1.")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="A vocabulary; default: the site's, else the starter slice.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try each source of a site and say what it found: resources, period, code systems, columns, clock, what to do next.

    Example: palmares site check prova
    """
    from omop_etl.config import load_site
    from omop_etl.onboarding.check import check_site, lines

    settings = load_site(site)
    if source is not None and source > len(settings.sources):
        raise PalmaresError("E-SITE-02", site, detail=f"it has {len(settings.sources)} sources")
    quiet = json or not sys.stderr.isatty()
    tell = (lambda *_: None) if quiet else lambda what: typer.echo(f"{what} …", err=True)
    found = check_site(settings, only=source, vocabulary=vocabulary, progress=tell)
    if json:
        from dataclasses import asdict

        _print_json(asdict(found) | {"ok": found.ok})
    else:
        for line in lines(found):
            typer.echo(line)
    if not found.ok:
        raise typer.Exit(int(Exit.INPUT))


def identifiers(
    site: SiteArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="The list; default: `identifiers` of the site's TOML.")
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="Lists of the hospital to add: CSV with kind and value.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Collect the names, numbers, addresses and UIDs that the site's sources hold, for phi-check. The list stays in the hospital.

    Example: palmares site identifiers prova --out keys/prova.known.csv
    """
    from omop_etl.config import load_site
    from omop_etl.onboarding.known import gather, kinds, read_known, silent, write_known

    settings = load_site(site)
    place = out or settings.identifiers
    if place is None:
        raise PalmaresError("E-PHI-04", site)
    before = [one for path in add or [] for one in read_known(path)]
    if place.exists():
        before += read_known(place)
    known = set(gather(settings)) | set(before)
    count = write_known(known, place)
    if json:
        _print_json({"file": str(place), "identifiers": count, "kinds": kinds(known), "silent": silent(settings)})
        return
    for kind, many in kinds(known).items():
        typer.echo(f"{many}\t{kind}")
    typer.echo(f"written, readable by you alone: {place}. It never leaves the hospital.")
    for one in silent(settings):
        typer.echo(f"source {one} cannot tell: give what it knows as a list, with --add")


def patients(
    site: SiteArgument,
    book: Annotated[Path, typer.Option("--book", help="The site's query book.")],
    out: Annotated[Path, typer.Option("--out", help="Where the list is written, for its owner's eyes alone.")],
    identifiers: Annotated[
        Path | None,
        typer.Option(help="The hospital's list of known identifiers; default: `identifiers` of the site's TOML."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find the hospital's record numbers of the patients whom its open queries name. The list stays in the hospital.

    Example: palmares site patients prova --book queries/ --out keys/prova.patients.csv
    """
    from dataclasses import asdict

    from omop_etl.config import load_site
    from omop_etl.onboarding.patients import find_patients

    found = find_patients(load_site(site), book, out, identifiers)
    if json:
        _print_json(asdict(found))
        return
    typer.echo(f"{found.found} of {found.asked} patients of open queries found: {found.file}")
    if found.found < found.asked:
        typer.echo(
            "The others' numbers are not in the list: palmares site identifiers, or add a list of record numbers with --add."
        )


def phi_check(
    folders: Annotated[
        list[Path], typer.Argument(help="What would leave: a submission, a release, logs, a workspace.")
    ],
    site: Annotated[
        str | None, typer.Option("--site", help="The site whose list of known identifiers is used.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option("--identifiers", help="A list: CSV with kind and value, mode 0600.")
    ] = None,
    patterns: Annotated[
        bool, typer.Option(help="Look for what looks like a tax code, an e-mail, a telephone number too.")
    ] = True,
    no_list: Annotated[
        bool, typer.Option("--no-list", help="Without a list, as the centre: only what looks like an identifier.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    json: JsonOption = False,
) -> None:
    """Search every file of the folders for the hospital's known identifiers. Exit code 5 when there are any; values are never shown.

    Example: palmares site phi-check workspace/sites/prova/submission --site prova
    """
    from omop_etl.config import load_site
    from omop_etl.onboarding import phi_check as search
    from omop_etl.onboarding import read_known

    if known is None:
        known = load_site(site).identifiers if site else None
    if known is None and not no_list:
        raise PalmaresError("E-PHI-04", site or "phi-check")
    found = search(folders, read_known(known) if known else [], patterns=patterns, jobs=jobs)
    if json:
        findings = [one._asdict() for one in found.findings]
        _print_json(
            {"clean": found.clean, "files": found.files, "bytes": found.bytes, "identifiers": found.identifiers,
             "too_short": found.too_short, "findings": findings, "unread": found.unread}
        )  # fmt: skip
    else:
        for one in found.findings:
            where = ", ".join(part for part in (one.table, one.column) if part)
            typer.echo(f"{one.file}\t{where}\t{one.kind}\t{one.times}")
        for name in found.unread:
            typer.echo(f"{name}\tcould not be read")
        typer.echo(
            f"{found.files} files, {found.bytes / 2**20:.1f} MB, {found.identifiers} known identifiers: "
            + ("nothing found" if found.clean else f"{len(found.findings)} findings, {len(found.unread)} files unread")
        )
        if found.too_short:
            typer.echo(f"{found.too_short} identifiers are too short to look for (fewer than 3 letters or digits)")
    if not found.clean:
        raise typer.Exit(int(Exit.BLOCKED))
