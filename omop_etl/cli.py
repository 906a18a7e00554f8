"""The `palmares` command. Every stage is a verb, from folder to folder; `demo` runs the whole way.

Nothing heavy is imported here: each command imports what it needs when it runs, so that `palmares --help` answers at
once.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_adapters.errors import Exit, PalmaresError, unexpected
from omop_etl import __version__
from omop_etl.commands import quality as quality_commands
from omop_etl.commands import site as site_commands
from omop_etl.commands.cohorts import circe_app
from omop_etl.commands.locks import lock_app
from omop_etl.commands.reports import study_report_app
from omop_etl.stages import stage

app = typer.Typer(
    name="palmares",
    help="Hospital records to FHIR R4, to OMOP CDM 5.4, through a gate, to a released research cohort.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
site_app = typer.Typer(rich_markup_mode=None, help="The hospitals and their settings.", no_args_is_help=True)
vocab_app = typer.Typer(rich_markup_mode=None, help="The OMOP vocabularies and the code maps.", no_args_is_help=True)
app.add_typer(site_app, name="site")
site_commands.register(site_app)
app.add_typer(vocab_app, name="vocab")
app.add_typer(circe_app, name="circe")
app.add_typer(lock_app, name="lock")
app.add_typer(study_report_app, name="report")
quality_commands.register(study_report_app)
app.add_typer(quality_commands.gate_app, name="gate")

SiteOption = Annotated[str, typer.Option("--site", help="The site's id: the name of its TOML.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write; replaced whole, or not at all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes or threads; default: all cores.")]
VocabularyOption = Annotated[
    Path | None,
    typer.Option(
        "--vocabulary", help="An Athena folder, or one that `palmares vocab load` wrote; default: the starter slice."
    ),
]
StudyOption = Annotated[str, typer.Option("--study", help="A folder of mappings/studies.")]
Progress = Callable[..., None]


def _text(name: str, example: str) -> str:
    return f"{stage(name).sentence}\n\nExample: {example}"


def _plain(result: object) -> Any:
    import orjson

    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    return orjson.loads(orjson.dumps(values, default=str, option=orjson.OPT_NON_STR_KEYS))


def _show(result: object, as_json: bool, seconds: float) -> None:
    """Print a result: one JSON object for machines, a small table of its plain values for people."""
    values = _plain(result)
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(values).decode() + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=False, box=None, pad_edge=False)
    for name, value in values.items() if isinstance(values, dict) else [("result", values)]:
        if isinstance(value, dict) and len(value) <= 30:
            value = ", ".join(f"{key} {count}" for key, count in value.items() if not isinstance(count, dict | list))
        if not isinstance(value, dict | list) and value not in ("", None):
            grid.add_row(f"{name.replace('_', ' ')}  ", str(value))
    grid.add_row("seconds  ", f"{seconds:.1f}")
    Console().print(grid)


@contextmanager
def _progress(title: str, quiet: bool) -> Iterator[Progress]:
    """A progress line on the error stream, for people at a terminal; silent for machines and in pipes.

    The callback takes the words of the step at work, or a number of units done.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda *_args, **_more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None)

        def report(*what: object, **_more: object) -> None:
            for one in what:
                if isinstance(one, int | float):
                    bar.advance(task, one)
                else:
                    bar.update(task, description=f"{title}: {one}")

        yield report


def _run(title: str, as_json: bool, work: Callable[[Progress], object]) -> None:
    started = time.monotonic()
    with _progress(title, as_json) as report:
        result = work(report)
    _show(result, as_json, time.monotonic() - started)


@app.command("extract", help=_text("extract", "palmares extract --site site01 --source 1 --out extracted/"))
def extract(
    site: SiteOption,
    out: OutOption,
    source: Annotated[int, typer.Option("--source", min=1, help="Which [[source]] of the site's TOML.")] = 1,
    previous: Annotated[
        Path | None,
        typer.Option(
            help="An earlier extraction of this source, landed meanwhile: only what changed since then is read."
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All that the source has, and what is gone since --previous.")
    ] = False,
    json: JsonOption = False,
) -> None:
    from fhir_adapters.base import extract_from
    from fhir_adapters.memory import Remembered, of_extraction
    from omop_etl.config import load_site
    from omop_etl.stages import source_of

    settings = load_site(site)
    if source > len(settings.sources):
        raise PalmaresError("E-SITE-02", site, detail=f"it has {len(settings.sources)} sources")

    def work(report: Progress) -> object:
        opened = source_of(settings, source - 1)
        known = of_extraction(previous, opened.kind) if previous else Remembered()
        return extract_from(opened, out, full=full, state=known.state, known=known.known, progress=report)

    _run("extract", json, work)


@app.command("land", help=_text("land", "palmares land extracted/ --out landed/"))
def land(
    sources: Annotated[list[Path], typer.Argument(help="Folders or files of Bundles and NDJSON (plain, .gz, .zst).")],
    out: OutOption,
    previous: Annotated[Path | None, typer.Option(help="What had landed before: this delivery is added to it.")] = None,
    skip_unreadable: Annotated[bool, typer.Option(help="Quarantine a file that cannot be read, and go on.")] = False,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    from fhir_adapters.landing import land as run

    _run("land", json, lambda _: run(sources, out, previous=previous, skip_unreadable=skip_unreadable, jobs=jobs))


@app.command("validate", help=_text("validate", "palmares validate --landed landed/ --out accepted/"))
def validate(
    landed: Annotated[Path, typer.Option(help="A folder of shards that `palmares land` wrote.")],
    out: OutOption,
    verdicts: Annotated[Path | None, typer.Option(help="Where verdicts are remembered from run to run.")] = None,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    from fhir_adapters.validation import validate as run

    _run("validate", json, lambda _: run(landed, out, verdicts=verdicts, jobs=jobs))


@app.command("map", help=_text("map", "palmares map --site synthea --fhir export/ --vocabulary athena/ --out slice/"))
def map_(
    site: SiteOption,
    fhir: Annotated[Path, typer.Option(help="A folder of FHIR: Bundles, NDJSON (.gz, .zst), or shards that landed.")],
    out: OutOption,
    vocabulary: VocabularyOption = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            help="The slice of the run before, which may be OUT: of accepted shards only patients of whom newer deliveries tell "
            "are mapped again. Where there is none yet, all are, and what the next run needs is written."
        ),
    ] = None,
    skip_unreadable: Annotated[bool, typer.Option(help="Quarantine a file that cannot be read, and go on.")] = False,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    from omop_etl.config import load_site
    from omop_etl.mapping import map_folder, map_site

    settings = load_site(site)

    def work(report: Progress) -> object:
        if previous is not None:
            before = previous if previous.exists() else None
            return map_site(settings, fhir, out, vocabulary=vocabulary, previous=before, jobs=jobs, progress=report)
        return map_folder(
            settings,
            fhir,
            out,
            vocabulary=vocabulary,
            skip_unreadable=skip_unreadable,
            jobs=jobs,
            progress=report,
        )

    _run("map", json, work)


@app.command("submit", help=_text("submit", "palmares submit --slice slice/ --gate gate/ --out submission/"))
def submit(
    slice_: Annotated[Path, typer.Option("--slice", help="The slice.")],
    gate_: Annotated[Path, typer.Option("--gate", help="The gate folder of this slice.")],
    out: OutOption,
    site: Annotated[
        str | None,
        typer.Option("--site", help="Search it first for this site's known identifiers; default: the slice's site."),
    ] = None,
    json: JsonOption = False,
) -> None:
    from omop_etl.onboarding import hold_back, hold_back_files
    from omop_etl.submission import submit as run

    def work(_: Progress) -> object:
        known = _identifiers_of(site, slice_)
        if known is None:
            return run(slice_, gate_, out)
        hold_back(slice_, gate_, known[1], known[0])
        return run(slice_, gate_, out, search=lambda files: hold_back_files(files, known[1], known[0]))

    _run("submit", json, work)


def _identifiers_of(site: str | None, slice_: Path) -> tuple[str, Path] | None:
    """The site and its list of known identifiers: of the site given, else of the slice's where it has settings here."""
    import orjson

    from omop_etl.config import load_site, site_ids

    if site is None:
        try:
            site = str(orjson.loads((slice_ / "manifest.json").read_bytes())["site"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # `submit` says what is wrong with the slice
        if site not in site_ids():
            return None
    known = load_site(site).identifiers
    return (site, known) if known is not None else None


@app.command("receive", help=_text("receive", "palmares receive --submission submission/ --intake intake/"))
def receive(
    submission: Annotated[
        Path, typer.Option(help="A submission folder, or the notice folder of a site that is blocked.")
    ],
    intake: Annotated[Path, typer.Option(help="The folder of all sites' submissions; the site's is replaced.")],
    json: JsonOption = False,
) -> None:
    from omop_etl.submission import receive as run

    _run("receive", json, lambda _: run(submission, intake))


@app.command("build", help=_text("build", "palmares build --slice a/slice --slice b/slice --out warehouse.duckdb"))
def build(
    slices: Annotated[list[Path], typer.Option("--slice", help="A slice or a received submission; give one per site.")],
    out: Annotated[Path, typer.Option("--out", help="The DuckDB file; swapped in whole.")],
    vocabulary: VocabularyOption = None,
    json: JsonOption = False,
) -> None:
    from omop_etl.warehouse import build as run

    _run("build", json, lambda report: run(slices, out, vocabulary=vocabulary, progress=report))


@app.command("derive", help=_text("derive", "palmares derive --warehouse warehouse.duckdb --out derived/"))
def derive(
    warehouse: Annotated[Path, typer.Option(help="A warehouse that `palmares build` wrote.")],
    out: OutOption,
    study: StudyOption = "palmares2",
    cut_off: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default: the study's.")] = None,
    keep_warehouse: Annotated[
        bool, typer.Option("--keep-warehouse", help="Write the folder only; leave the warehouse as it is.")
    ] = False,
    json: JsonOption = False,
) -> None:
    from datetime import date

    from omop_etl.derive import derive as run

    try:
        day = date.fromisoformat(cut_off) if cut_off else None
    except ValueError:
        raise typer.BadParameter("a date as YYYY-MM-DD", param_hint="--cut-off") from None

    def work(report: Progress) -> object:
        return run(warehouse, out, study=study, cut_off=day, into_warehouse=not keep_warehouse, progress=report)

    _run("derive", json, work)


@app.command(
    "cohort", help=_text("cohort", "palmares cohort --warehouse warehouse.duckdb --derived derived/ --out cohort/")
)
def cohort(
    warehouse: Annotated[Path, typer.Option(help="A warehouse that `palmares build` wrote.")],
    out: OutOption,
    derived: Annotated[
        Path | None, typer.Option(help="What `palmares derive` wrote of it; without it that is derived anew.")
    ] = None,
    study: StudyOption = "palmares2",
    cut_off: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default: the study's.")] = None,
    variant: Annotated[str | None, typer.Option(help="A named sensitivity variant of the study.")] = None,
    keep_warehouse: Annotated[
        bool, typer.Option("--keep-warehouse", help="Write the folder only; leave the warehouse as it is.")
    ] = False,
    json: JsonOption = False,
) -> None:
    from datetime import date

    from omop_etl.cohorts import run

    try:
        day = date.fromisoformat(cut_off) if cut_off else None
    except ValueError:
        raise typer.BadParameter("a date as YYYY-MM-DD", param_hint="--cut-off") from None

    def work(report: Progress) -> object:
        return run(
            warehouse,
            out,
            study=study,
            cut_off=day,
            variant=variant,
            derived=derived,
            into_warehouse=not keep_warehouse,
            progress=report,
        )

    _run("cohort", json, work)


@app.command(
    "publish",
    help=_text(
        "publish",
        "palmares publish --warehouse warehouse.duckdb --derived derived/ --cohort cohort/ --out release/",
    ),
)
def publish(
    warehouse: Annotated[Path, typer.Option(help="A warehouse that `palmares build` wrote.")],
    cohort_: Annotated[Path, typer.Option("--cohort", help="A cohort folder that `palmares cohort` wrote.")],
    out: OutOption,
    derived: Annotated[
        Path | None,
        typer.Option(help="The folder that `palmares derive` wrote at the same cut-off; default: derive here."),
    ] = None,
    study: StudyOption = "palmares2",
    json: JsonOption = False,
) -> None:
    from omop_etl.publish import release

    _run(
        "publish",
        json,
        lambda report: release(warehouse, cohort_, out, study=study, derived=derived, progress=report),
    )


@app.command("view")
def view(
    definition: Annotated[Path, typer.Argument(help="A ViewDefinition (SQL on FHIR v2), as JSON.")],
    fhir: Annotated[Path, typer.Option(help="A folder of FHIR: Bundles, NDJSON (.gz, .zst), or shards that landed.")],
    out: Annotated[Path, typer.Option(help="The file to write: .csv, .parquet or .ndjson.")],
    json: JsonOption = False,
) -> None:
    """Run one ViewDefinition over a folder of FHIR and write its rows.

    Example: palmares view mappings/views/patient.json --fhir export/ --out patients.csv
    """
    from fhir_adapters.views import run_view

    _run("view", json, lambda _: {"rows": run_view(definition, fhir, out), "file": str(out)})


@app.command("synthetic")
def synthetic(
    out: OutOption,
    sites: Annotated[int, typer.Option(min=1, help="How many hospitals.")] = 5,
    patients: Annotated[int, typer.Option(min=1, help="How many patients in all.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 2024,
    clean: Annotated[bool, typer.Option("--clean", help="Without the planted defects.")] = False,
    formats: Annotated[
        str, typer.Option("--formats", help="files, server, bulk, tables, hl7v2, or mixed: each site its own way.")
    ] = "files",
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Write hospitals that do not exist, in source formats, with the truth beside them.

    Example: palmares synthetic --sites 5 --patients 300 --formats mixed --out hospitals/
    """
    from omop_etl.synthetic import generate

    _run(
        "synthetic",
        json,
        lambda report: generate(
            out,
            sites=sites,
            patients=patients,
            seed=seed,
            dirty=not clean,
            jobs=jobs,
            formats=formats,
            progress=report,
        ),
    )


@app.command("demo")
def demo(
    out: OutOption = Path("demo"),
    sites: Annotated[int, typer.Option(min=1, help="How many hospitals.")] = 5,
    patients: Annotated[int, typer.Option(min=1, help="How many patients in all.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same hospitals.")] = 2024,
    json: JsonOption = False,
) -> None:
    """Run the whole way: synthetic hospitals, the real Airflow DAGs, a released cohort.

    Example: palmares demo --sites 5 --patients 300 --out demo
    """
    from omop_etl.demo import run

    raise typer.Exit(run(out, sites=sites, patients=patients, seed=seed, as_json=json))


@app.command("explain")
def explain(
    code: Annotated[str, typer.Argument(help="An error number, an exclusion reason or a check.")],
    language: Annotated[str, typer.Option(help="en, or it: checks and reasons are explained in Italian too.")] = "en",
    json: JsonOption = False,
) -> None:
    """Say what a number or a reason code means and what to do.

    Example: palmares explain G-DEATH-02
    """
    from omop_etl.config import LANGUAGES
    from omop_etl.explain import explanation

    if language not in LANGUAGES:
        raise typer.BadParameter(f"--language is one of {', '.join(LANGUAGES)}")
    _show(explanation(code, language), json, 0)


@site_app.command("list")
def site_list(json: JsonOption = False) -> None:
    """List the sites that have settings.

    Example: palmares site list
    """
    from omop_etl.config import load_site, site_ids, sites_folder

    if json:
        _show({"folder": str(sites_folder()), "sites": site_ids()}, True, 0)
        return
    for one in site_ids():
        settings = load_site(one)
        typer.echo(f"{settings.id}\t{settings.name}\t{settings.time_zone}\t{len(settings.sources)} sources")


@site_app.command("key")
def site_key(
    out: Annotated[Path, typer.Option("--out", help="Where the new key is kept; never in the repository.")],
) -> None:
    """Make the secret key with which a site makes its pseudonyms, in a file that only its own user can read.

    The linkage key, which the hospitals share and the centre does not have, is made the same way, once, by one of them.

    Example: palmares site key --out keys/prova.key
    """
    from fhir_adapters.pseudonyms import SiteKey

    SiteKey.create(out)
    typer.echo(f"written, readable by you alone: {out}. Keep a safe copy: without it a patient gets another pseudonym.")


@vocab_app.command("load")
def vocab_load(
    athena: Annotated[Path, typer.Argument(help="An unpacked Athena download.")],
    out: OutOption,
    json: JsonOption = False,
) -> None:
    """Turn an Athena download into Parquet, with its release and hashes in vocabulary.lock.

    Example: palmares vocab load athena/ --out vocabulary/
    """
    from omop_etl.vocabulary import load

    _run("vocab load", json, lambda _: load(athena, out).lock)


@vocab_app.command("explain")
def vocab_explain(
    code: Annotated[str, typer.Argument(help="A source code.")],
    system: Annotated[str, typer.Option(help="Its code system, as FHIR writes it.")] = "",
    site: Annotated[str | None, typer.Option(help="Ask with this site's own code map.")] = None,
    vocabulary: VocabularyOption = None,
    json: JsonOption = False,
) -> None:
    """Say which concepts a code maps to, through which map, or why to none.

    Example: palmares vocab explain L01EF01 --system http://www.whocc.no/atc
    """
    from omop_etl.config import load_site
    from omop_etl.vocabulary import explain_code, open_vocabulary

    answers = explain_code(open_vocabulary(vocabulary), system, code, site=load_site(site) if site else None)
    rows = [_plain(answer) for answer in answers]
    if json:
        _show({"code": code, "answers": rows}, True, 0)
        return
    for row in rows:
        typer.echo("  ".join(f"{name}={value}" for name, value in row.items() if value not in (None, "")))


@vocab_app.command("unmapped")
def vocab_unmapped(
    slices: Annotated[list[Path], typer.Option("--slice", help="A slice; give one per site.")],
    out: Annotated[Path, typer.Option("--out", help="The CSV file that OHDSI Usagi opens.")],
    settled: Annotated[bool, typer.Option(help="Also codes that a reviewer left without a concept.")] = False,
    json: JsonOption = False,
) -> None:
    """Rank the unmapped codes by site, system and records touched, as a file that Usagi opens.

    Example: palmares vocab unmapped --slice a/slice --slice b/slice --out worklist.csv
    """
    from omop_etl.vocabulary.worklist import unmapped

    def work(_: Progress) -> object:
        found = unmapped(slices, out, settled=settled)
        per_site = {
            f"{at} {system or '(no system)'}": f"{codes} codes, {records} records"
            for at, system, codes, records in found.by_site
        }
        return {"file": str(out), "codes": len(found.codes)} | per_site

    _run("vocab unmapped", json, work)


@vocab_app.command("review")
def vocab_review(
    export: Annotated[Path, typer.Argument(help="What Usagi exported after the review.")],
    reviewer: Annotated[str, typer.Option(help="Who reviewed it.")],
    reviewed_on: Annotated[str, typer.Option(help="When, as YYYY-MM-DD.")],
    site: Annotated[str | None, typer.Option(help="Take it into this site's map; default: the study's.")] = None,
    system: Annotated[str | None, typer.Option(help="The code system, where the export does not say it.")] = None,
    vocabulary: VocabularyOption = None,
    replace: Annotated[bool, typer.Option(help="Let it replace earlier decisions.")] = False,
    json: JsonOption = False,
) -> None:
    """Take a reviewed file back into the code maps, with reviewer and date; the next run uses it.

    Example: palmares vocab review reviewed.csv --reviewer "M. Rossi" --reviewed-on 2026-03-01 --site site02
    """
    from datetime import date

    from omop_etl.config import load_site
    from omop_etl.vocabulary import open_vocabulary
    from omop_etl.vocabulary.worklist import review

    try:
        day = date.fromisoformat(reviewed_on)
    except ValueError:
        raise typer.BadParameter("a date as YYYY-MM-DD", param_hint="--reviewed-on") from None
    _run(
        "vocab review",
        json,
        lambda _: review(
            export,
            scope=load_site(site) if site else "study",
            reviewer=reviewer,
            reviewed_on=day,
            vocabulary=open_vocabulary(vocabulary),
            system=system,
            replace=replace,
        ),
    )


@app.command("serve")
def serve(
    warehouse: Annotated[Path, typer.Option(help="A warehouse that `palmares build` wrote.")],
    schema: Annotated[str, typer.Option(help="The schema that OHDSI's tools read; swapped in whole.")] = "omop",
    json: JsonOption = False,
) -> None:
    """Copy the warehouse to the PostgreSQL that PALMARES_POSTGRES names, beside what is served, and swap it in.

    Example: palmares serve --warehouse warehouse.duckdb --schema omop
    """
    import os

    from omop_etl.warehouse import serve as run

    url = os.environ.get("PALMARES_POSTGRES")
    if not url:
        raise PalmaresError("E-SERVE-03", "PALMARES_POSTGRES")
    _run("serve", json, lambda report: run(warehouse, url, schema, progress=report))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"palmares {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; a numbered error goes to the error stream, and its exit code tells its kind."""
    try:
        app()
    except PalmaresError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was being written has been removed\n")
        sys.exit(130)
    except MemoryError:
        sys.stderr.write("E-MEMORY-01 this machine: out of memory. Run the same command with fewer --jobs.\n")
        sys.exit(int(Exit.MACHINE))
    except Exception as error:  # a library's words may hold a value
        if os.environ.get("PALMARES_TRACEBACK"):
            raise
        sys.stderr.write(f"{unexpected(error, 'this command')}\n")
        sys.exit(int(Exit.UNEXPECTED))
