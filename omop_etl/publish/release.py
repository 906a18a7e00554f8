"""From a cohort to a release: what may leave, as files that open in one line."""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts.attrition import attrition, shown, write_csv
from omop_etl.cohorts.eligibility import Progress, evaluate
from omop_etl.cohorts.picture import draw
from omop_etl.publish import dictionary, privacy
from omop_etl.study.reading import content_sha256, literal, open_warehouse
from omop_etl.study.rules import Study, load_study

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Release:
    """What was released: rows by dataset, files, and where."""

    datasets: dict[str, int]
    files: int
    out: str


def release(
    warehouse: Path, cohort: Path, out: Path, *, study: str = "palmares2", progress: Progress | None = None
) -> Release:
    """Release the study's datasets of a cohort that `omop_etl.cohorts.run` made from this warehouse.

    Cut-off and variant are the cohort's. Writes, per dataset, Parquet and CSV with the same rows; the dictionary as JSON
    and as a page; the attrition with the public small-cell threshold; a manifest with the SHA-256 of every file. Rows are
    ordered by the released id, so that their order says nothing.

    Raises E-PUBLISH-01 (a date would leave), -02 (cohort and warehouse, or its rules, do not belong together), -03
    (dataset and dictionary differ), and what `run` raises.
    """
    out = Path(out)
    manifest = _manifest(Path(cohort))
    rules = load_study(study, cut_off=date.fromisoformat(manifest["cut_off"]), variant=manifest["variant"])
    if (manifest["study"], manifest["study_sha256"]) != (rules.name, rules.sha256()):
        raise PalmaresError("E-PUBLISH-02", "cohort", detail="the study's rules have changed since")
    counts: dict[str, int] = {}
    with whole_folder(out) as folder, open_warehouse(warehouse, spill=folder / "spill") as connection:
        if content_sha256(connection) != manifest["warehouse_content_sha256"]:
            raise PalmaresError("E-PUBLISH-02", "cohort", detail="the warehouse holds other rows")
        evaluate(connection, rules)
        for path in sorted((rules.folder / "datasets").glob("*.sql")):
            if progress:
                progress(f"publish {path.stem}")
            frame, variables = dataset(connection, rules, path.stem, salt=manifest["release_salt"])
            _write(path.stem, frame, variables, rules, folder)
            counts[path.stem] = len(frame)
        table = shown(attrition(connection, rules), rules, public=True)
        (folder / "attrition.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_csv(table, folder / "attrition.csv")
        draw(table, folder)
        about = {
            "format": 1,
            "study": rules.name,
            "title": rules.title,
            "registry": rules.registry,
            "variant": rules.variant,
            "cut_off": f"{rules.cut_off.day} {rules.cut_off:%B %Y}",
            "parameters": dict(rules.parameters),
            "day_0": "index: first CDK4/6 inhibitor for advanced disease",
            "privacy": "no dates: day offsets and the index year; ages top-coded; small cells hidden",
            "code_version": __version__,
            "study_sha256": manifest["study_sha256"],
            "cohort_manifest_sha256": hashlib.sha256((Path(cohort) / "manifest.json").read_bytes()).hexdigest(),
            "files": described(folder),
        }
        (folder / "manifest.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        privacy.check(folder)
        files = sum(path.is_file() for path in folder.rglob("*"))
    return Release(counts, files, str(out))


def _manifest(cohort: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((cohort / "manifest.json").read_text(encoding="utf-8"))
        needed = ("study", "study_sha256", "variant", "cut_off", "warehouse_content_sha256", "release_salt")
        return {key: manifest[key] for key in needed}
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-PUBLISH-02", cohort.name, detail="it has no manifest of a cohort") from None


def dataset(
    connection: duckdb.DuckDBPyConnection, rules: Study, name: str, *, salt: str
) -> tuple["pandas.DataFrame", tuple[dictionary.Variable, ...]]:
    """One dataset's rows and variables, from the tables that `evaluate` made on this connection.

    `salt` makes the released ids: the same salt gives the same ids. Raises E-PUBLISH-03 when columns and dictionary
    differ, or two rows have one id.
    """
    folder = rules.folder / "datasets"
    connection.execute(
        f"CREATE OR REPLACE TEMP MACRO released_id(person) AS substr(sha256({literal(salt)} || person), 1, 16)"
    )
    variables = dictionary.read_dictionary(folder / f"{name}.csv", rules.parameters)
    frame = dictionary.typed(connection.execute((folder / f"{name}.sql").read_text(encoding="utf-8")).df(), variables)
    ids = [one.variable for one in variables if one.type == "id"]
    twice = int(frame.duplicated(ids).sum())
    if twice:
        raise PalmaresError("E-PUBLISH-03", name, count=twice, detail="ids are not unique")
    return frame, variables


def _write(
    name: str, frame: "pandas.DataFrame", variables: tuple[dictionary.Variable, ...], rules: Study, folder: Path
) -> None:
    """The same rows as Parquet and CSV, and their dictionary."""
    frame.to_parquet(folder / f"{name}.parquet", index=False)
    frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    hidden = 0 < len(frame) < rules.thresholds["public"]
    dictionary.write(name, rules.title, None if hidden else len(frame), dictionary.describe(frame, variables), folder)
