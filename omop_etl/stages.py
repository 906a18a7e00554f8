"""The data's way, stated once. Start reading here.

    hospital  source ─extract→ FHIR R4 ─land→ shards ─validate→ accepted ─map→ slice ─gate→ verdict ─submit→ submission
    centre    submission ─receive→ intake ─build→ warehouse ─derive→ lines, endpoints ─cohort→ attrition ─publish→ datasets

A stage goes from folder to folder; `SITE_STAGES` and `CENTRAL_STAGES` give their order, what each reads and writes, and
the function that does it. The DAGs, the command line, the progress display and the docs are built from these two tuples.
Below them stand the few lines that place each stage in a workspace:

    <home>/sites/<site>/{extracted/<n>-<kind>, landed, accepted, slice, gate, submission}
    <home>/sites/<site>/sources/<n>.json       what source n remembers of its last extraction that landed
    <home>/sites/<site>/notice                 after a BLOCK, instead of a submission: what blocks, in numbers
    <home>/centre/{intake/<site>, notices, history, built, warehouse.duckdb, derived, cohort, release}
    <home>/locks/<name>         a frozen, hashed state of the intake at a cut-off date (omop_etl/locks)
    <home>/events.ndjson        one line per stage that began, ended or failed
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from fhir_adapters.errors import PalmaresError, machine_errors, unexpected
from omop_etl.config import Site

if TYPE_CHECKING:
    from fhir_adapters.base import Source
    from fhir_adapters.memory import Memory


@dataclass(frozen=True)
class Stage:
    """One step of the way. `run` takes the place (a site's or the centre's) and returns counts for people to read."""

    name: str
    sentence: str
    reads: str
    writes: str
    function: str
    retries: int = 0  # only where the same call may go well a minute later


SITE_STAGES = (
    Stage(
        "extract",
        "Read a source of the hospital and write it as FHIR R4, whole or not at all.",
        "source",
        "extracted",
        "fhir_adapters.base.open_source",
        retries=2,
    ),
    Stage(
        "land",
        "Keep the newest version of each resource as NDJSON shards, one folder per resource type.",
        "extracted",
        "landed",
        "fhir_adapters.landing.land",
    ),
    Stage(
        "validate",
        "Validate each new resource once; quarantine what is not sound, with its position and reason.",
        "landed",
        "accepted",
        "fhir_adapters.validation.validate",
    ),
    Stage(
        "map",
        "Map FHIR to OMOP CDM 5.4: a slice with its ledger and the worklist of unmapped codes.",
        "accepted",
        "slice",
        "omop_etl.mapping.map_site",
    ),
    Stage(
        "gate",
        "Check the slice with Great Expectations and give a verdict: PASS, WARN or BLOCK.",
        "slice",
        "gate",
        "omop_etl.gates.gate",
    ),
    Stage(
        "submit",
        "Pack what may leave the hospital, each file with its hash; after a BLOCK only a notice leaves, in numbers.",
        "slice, gate",
        "submission",
        "omop_etl.submission.submit",
        retries=2,
    ),
)

CENTRAL_STAGES = (
    Stage(
        "receive",
        "Verify a site's submission, file by file, and take it in; a bad one keeps the previous; a notice says who is blocked.",
        "submission",
        "intake",
        "omop_etl.submission.receive",
        retries=2,
    ),
    Stage(
        "build",
        "Build a new warehouse from all gated slices beside the old one.",
        "intake",
        "built",
        "omop_etl.warehouse.build",
    ),
    Stage(
        "derive",
        "Derive eras, lines of therapy, progressions and endpoints, each with the rows it came from; swap the warehouse in.",
        "built",
        "warehouse.duckdb, derived",
        "omop_etl.derive.derive",
    ),
    Stage(
        "cohort",
        "Answer each eligibility criterion for each person; write the attrition table and picture.",
        "warehouse.duckdb, derived",
        "cohort",
        "omop_etl.cohorts.run",
    ),
    Stage(
        "publish",
        "Release analysis-ready datasets with their dictionary: days, no dates; no small cells.",
        "warehouse.duckdb, derived, cohort",
        "release",
        "omop_etl.publish.release",
    ),
    Stage(
        "report",
        "Put the quality of all sites together: what each sent, against the others and against what it sent before.",
        "intake, warehouse.duckdb, derived",
        "quality",
        "omop_etl.reports.quality.report",
    ),
)


def stage(name: str) -> Stage:
    """The stage of this name."""
    return next(one for one in (*SITE_STAGES, *CENTRAL_STAGES) if one.name == name)


@dataclass(frozen=True)
class SitePlace:
    """A hospital's part of a workspace."""

    home: Path
    site: Site

    @property
    def folder(self) -> Path:
        return self.home / "sites" / self.site.id

    def __getattr__(self, name: str) -> Path:
        if name in (
            "extracted",
            "landed",
            "accepted",
            "slice",
            "gate",
            "queries",
            "quality",
            "history",
            "submission",
            "notice",
        ):
            return self.folder / name
        raise AttributeError(name)


@dataclass(frozen=True)
class CentrePlace:
    """The centre's part of a workspace."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "centre"

    @property
    def intake(self) -> Path:
        return self.folder / "intake"

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def built(self) -> Path:
        """The warehouse that was built and has no eras and episodes yet: nobody reads it but deriving."""
        return self.folder / "built" / "warehouse.duckdb"

    @property
    def derived(self) -> Path:
        return self.folder / "derived"

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    @property
    def quality(self) -> Path:
        return self.folder / "quality"

    @property
    def locks(self) -> Path:
        return self.home / "locks"


def _counts(result: object) -> dict[str, Any]:
    """What a stage returned, as plain JSON values."""
    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else {"result": result}
    return orjson.loads(orjson.dumps(values, default=str, option=orjson.OPT_NON_STR_KEYS))


def _noted(home: Path, name: str, subject: str, work: Callable[[], object]) -> dict[str, Any]:
    """Run one stage's work and write its beginning and its end to the workspace's event log."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "events.ndjson"

    def note(state: str, **more: Any) -> None:
        event = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "stage": name,
            "subject": subject,
            "state": state,
        }
        with log.open("ab") as lines:
            lines.write(orjson.dumps(event | more, default=str) + b"\n")

    started = time.monotonic()
    note("begun")
    try:
        counts = _counts(work())
    except PalmaresError as error:
        note("failed", seconds=round(time.monotonic() - started, 2), error=str(error))
        raise
    except BaseException as error:
        # the text of a foreign error may hold a value, and whoever runs the stage logs it: only its kind and place are kept
        foreign = isinstance(error, Exception) and not isinstance(error, MemoryError)
        told = unexpected(error, subject) if foreign else None
        note("failed", seconds=round(time.monotonic() - started, 2), error=str(told or type(error).__name__))
        if told is None or os.environ.get("PALMARES_TRACEBACK"):
            raise
        raise told from None
    note("done", seconds=round(time.monotonic() - started, 2))
    return counts


def extract(place: SitePlace, number: int, *, full: bool = False) -> dict[str, Any]:
    """Run the site's source of this number (from 0) into `extracted/<n>-<kind>`: what changed since it last landed, or all."""
    from fhir_adapters.base import extract_from

    kind = str(place.site.sources[number].get("kind", "unknown"))
    out = place.extracted / f"{number + 1}-{kind}"

    def work() -> object:
        remembered = _memory(place, number).recall(kind)
        source = source_of(place.site, number)
        return extract_from(source, out, full=full, state=remembered.state, known=remembered.known)

    return _noted(place.home, "extract", f"{place.site.id}/{number + 1}", work) | {"out": str(out)}


def _memory(place: SitePlace, number: int) -> "Memory":
    from fhir_adapters.memory import Memory

    return Memory(place.folder / "sources", number + 1)


def source_of(site: Site, number: int) -> "Source":
    """The site's source of this number (from 0), with the site's key (when it has one) and zone. Raises E-SRC-*, E-KEY-*."""
    from fhir_adapters.base import adapter_class, open_source
    from fhir_adapters.pseudonyms import SiteKey
    from omop_etl.vocabulary.code_maps import SYSTEMS_FILE, systems_of

    key = SiteKey.load(site.key_file) if site.key_file or os.environ.get("PALMARES_SITE_KEY") else None
    settings = dict(site.sources[number])
    declared: Any = settings.get("code_systems", [])
    codes, kind = site.codes, settings.get("kind")
    if codes is not None and (codes / SYSTEMS_FILE).is_file() and isinstance(declared, list) and isinstance(kind, str):
        cls: Any = adapter_class(kind)
        if "code_systems" in cls.settings:  # what the site has reviewed and mapped, it has declared
            settings["code_systems"] = sorted(
                {*declared, *(system for system, _ in systems_of(codes).values() if system)}
            )
    return open_source(settings, folder=site.folder, key=key, time_zone=site.time_zone)


def _memory_of(place: SitePlace, extracted: Path) -> "Memory":
    """The memory of the source that wrote `extracted/<n>-<kind>`."""
    number = extracted.name.partition("-")[0]
    return _memory(place, int(number) - 1 if number.isdecimal() else -1)


@dataclass(frozen=True)
class NothingNew:
    """No source had anything new to land: what had landed stands as it was."""

    added: bool = False


def land(place: SitePlace, extracted: Sequence[str | Path], *, full: bool = False) -> dict[str, Any]:
    """Land what was extracted; by default as a new delivery on top of what had landed before.

    With `full`, from nothing — but only when every source of the site is there with all that it has: a source that failed
    must not take what it gave before out of the site's data. After landing, each source's memory moves on.
    """
    from fhir_adapters.landing import land as run
    from fhir_adapters.memory import read_extraction

    folders = [Path(one) for one in extracted]

    def work() -> object:
        if not folders:
            raise PalmaresError("E-SOURCE-02", place.site.id)
        manifests = {folder: read_extraction(folder) for folder in folders}
        whole = all(manifest is None or manifest.full for manifest in manifests.values())
        anew = full and whole and len(folders) >= len(place.site.sources)
        others = [one for one in folders if (held := manifests[one]) and _memory_of(place, one).other_ids(held)]
        if others and not anew and place.landed.exists():
            raise PalmaresError("E-SOURCE-03", ", ".join(one.name for one in others))
        previous = place.landed if place.landed.exists() and not anew else None
        news = [folder for folder, manifest in manifests.items() if manifest is None or not manifest.empty]
        landing: object = NothingNew()
        if news or previous is None:
            landing = run(news or folders, place.landed, previous=previous)
        for folder in folders:
            if folder.parent == place.extracted:
                _memory_of(place, folder).advance(folder)
        return landing

    return _noted(place.home, "land", place.site.id, work)


def validate(place: SitePlace) -> dict[str, Any]:
    """Validate what landed; verdicts are remembered beside the workspace's site folder."""
    from fhir_adapters.validation import validate as run

    verdicts = place.folder / "verdicts"
    return _noted(place.home, "validate", place.site.id, lambda: run(place.landed, place.accepted, verdicts=verdicts))


def map_(place: SitePlace, vocabulary: Path | None = None) -> dict[str, Any]:
    """Map the accepted shards to a slice, with the site's vocabulary unless another is given.

    Where a slice stands, only the patients of whom newer deliveries tell are mapped again; the rest is kept.
    """
    from omop_etl.mapping import map_site

    chosen = vocabulary or place.site.vocabulary
    previous = place.slice if place.slice.is_dir() else None
    return _noted(
        place.home,
        "map",
        place.site.id,
        lambda: map_site(place.site, place.accepted, place.slice, vocabulary=chosen, previous=previous),
    )


def gate(place: SitePlace, vocabulary: Path | None = None) -> dict[str, Any]:
    """Gate the slice, follow the queries, write the site's quality folder. The verdict is data: a BLOCK is raised by `submit`,
    where it stops something."""
    from omop_etl.gates import gate as run
    from omop_etl.gates.queries import follow
    from omop_etl.reports.quality import report_site

    chosen = vocabulary or place.site.vocabulary

    def work() -> object:
        verdict = run(
            place.slice,
            place.gate,
            site=place.site.id,
            vocabulary=chosen,
            overrides=place.site.overrides,
            book=place.queries,
        )
        follow(place.queries, place.slice, place.gate, language=place.site.language)
        report_site(place.site.id, place.slice, place.gate, place.quality, history=place.history)
        return verdict

    return _noted(place.home, "gate", place.site.id, work)


def submit(place: SitePlace) -> dict[str, Any]:
    """Pack the submission; raises E-GATE-01 after a BLOCK, when only a notice is written, and E-PHI-01 for a known identifier, when
    nothing is; the previous submission stays."""
    from omop_etl.submission import submit as run

    def work() -> object:
        known, site = place.site.identifiers, place.site.id
        if known is None:
            return run(place.slice, place.gate, place.submission)
        from omop_etl.onboarding import hold_back, hold_back_files

        hold_back(place.slice, place.gate, known, site)
        return run(place.slice, place.gate, place.submission, search=lambda files: hold_back_files(files, known, site))

    return _noted(place.home, "submit", place.site.id, work)


def receive(centre: CentrePlace, submission: Path) -> dict[str, Any]:
    """Verify one submission and take it into the intake; or the notice of a site that was blocked, and keep it beside."""
    from omop_etl.submission import receive as run

    site = submission.parent.name
    return _noted(centre.home, "receive", site, lambda: run(submission, centre.intake, site=site))


def arrived(home: Path) -> list[Path]:
    """What the hospitals of a workspace have sent: their submissions, then the notices of those that are blocked."""
    found = [path for name in ("submission", "notice") for path in sorted(home.glob(f"sites/*/{name}"))]
    return [path for path in found if path.is_dir()]


def build(centre: CentrePlace) -> dict[str, Any]:
    """Build a new warehouse from every site that is in the intake; readers keep the old one until `derive` is through."""
    from omop_etl.warehouse import build as run

    slices = sorted(path for path in centre.intake.glob("*") if path.is_dir() and not path.name.startswith("."))
    return _noted(centre.home, "build", "warehouse", lambda: run(slices, centre.built))


def derive(centre: CentrePlace, study: str) -> dict[str, Any]:
    """Derive lines and endpoints by the study's rules; eras and episodes go into the warehouse too.

    What `build` made takes the old warehouse's place here, whole: no reader sees one without eras and episodes.
    """
    from omop_etl.derive import derive as run

    def work() -> object:
        if not centre.built.is_file():  # it has taken its place already: derived anew where it is
            return run(centre.warehouse, centre.derived, study=study)
        done = run(centre.built, centre.derived, study=study)
        with machine_errors(str(centre.warehouse)):
            centre.built.replace(centre.warehouse)
            shutil.rmtree(centre.built.parent, ignore_errors=True)
        return done

    return _noted(centre.home, "derive", study, work)


def cohort(centre: CentrePlace, study: str) -> dict[str, Any]:
    """Answer the study's eligibility for everyone in the warehouse."""
    from omop_etl.cohorts import run

    derived = centre.derived if centre.derived.exists() else None
    return _noted(
        centre.home,
        "cohort",
        study,
        lambda: run(centre.warehouse, centre.cohort, study=study, derived=derived, into_warehouse=True),
    )


def publish(centre: CentrePlace, study: str) -> dict[str, Any]:
    """Release the study's datasets."""
    from omop_etl.publish import release as run

    derived = centre.derived if (centre.derived / "manifest.json").is_file() else None
    return _noted(
        centre.home,
        "publish",
        study,
        lambda: run(centre.warehouse, centre.cohort, centre.release, study=study, derived=derived),
    )


def lock(centre: CentrePlace, name: str, cut_off: date, study: str) -> dict[str, Any]:
    """Freeze the intake at a cut-off date as a named lock; nothing of the centre's other folders is read or changed."""
    from omop_etl.locks import create

    return _noted(centre.home, "lock", name, lambda: create(centre.home, name, cut_off=cut_off, study=study))


def verify_lock(centre: CentrePlace, name: str) -> dict[str, Any]:
    """Hold a lock against what was sealed. Raises E-LOCK-05 when a byte differs."""
    from omop_etl.locks import verify

    def work() -> object:
        found = verify(centre.home, name)
        if not found.sound:
            raise PalmaresError("E-LOCK-05", name, count=len(found.problems), detail="; ".join(found.problems[:3]))
        return found

    return _noted(centre.home, "verify", name, work)


def rebuild_lock(centre: CentrePlace, name: str) -> dict[str, Any]:
    """Make a lock again from its manifest. Raises E-LOCK-07 when a file differs."""
    from omop_etl.locks import rebuild

    def work() -> object:
        found = rebuild(centre.home, name)
        if not found.identical:
            said = "; ".join((*found.different[:3], *(f"since then {one}" for one in found.changed_since[:3])))
            raise PalmaresError("E-LOCK-07", name, count=len(found.different), detail=said)
        return found

    return _noted(centre.home, "rebuild", name, work)


def report(centre: CentrePlace, study: str) -> dict[str, Any]:
    """Report on the quality of all sites; it goes beside the release and stops nothing."""
    from omop_etl.reports.quality import report as run

    def work() -> object:
        warehouse = centre.warehouse if centre.warehouse.is_file() else None
        derived = centre.derived if centre.derived.is_dir() else None
        return run(centre.intake, centre.quality, warehouse=warehouse, derived=derived)

    return _noted(centre.home, "report", study, work)
