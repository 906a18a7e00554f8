"""From a cohort to a release: what may leave, as files that open in one line."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts import analyses
from omop_etl.cohorts.attrition import attrition, shown, write_csv
from omop_etl.cohorts.eligibility import Progress, evaluate
from omop_etl.cohorts.picture import draw
from omop_etl.derive import derive
from omop_etl.derive.rules import Rules, load_rules
from omop_etl.publish import anonymity, counted, dictionary, privacy, risk_table, table_one
from omop_etl.publish.datasets import Made, lay_out, load_datasets, settings, write_dataset
from omop_etl.publish.meds_files import FOLDER, left_out, write_meds
from omop_etl.study.reading import content_sha256, literal, open_warehouse
from omop_etl.study.rules import Study, load_study

DERIVED = ("line", "endpoint", "progression", "state")


@dataclass(frozen=True)
class Release:
    """What was released: rows by dataset, files, and where."""

    datasets: dict[str, int]
    files: int
    out: str


def release(
    warehouse: Path,
    cohort: Path,
    out: Path,
    *,
    study: str = "palmares2",
    derived: Path | None = None,
    memory_limit: str = "3GB",
    progress: Progress | None = None,
) -> Release:
    """Release the study's datasets of a cohort that `omop_etl.cohorts.run` made from this warehouse.

    `derived` is the folder that `omop_etl.derive.derive` wrote from the same warehouse at the same cut-off; without one it is
    derived here, for this release alone. Cut-off and variant are the cohort's. Writes, per dataset, Parquet and CSV with
    the same rows; the dictionary as JSON and as a page; the attrition with the public small-cell threshold; a manifest with
    the SHA-256 of every file. Rows are ordered by the released id, so that their order says nothing. Same input, same bytes.

    Raises E-PUBLISH-01 (a date would leave), -02 (cohort, derived folder and warehouse, or the rules, do not belong
    together), -03 (dataset and dictionary differ), and what `run` and `derive` raise.
    """
    out = Path(out)
    manifest = _manifest(Path(cohort))
    cut_off = date.fromisoformat(manifest["cut_off"])
    rules = load_study(study, cut_off=cut_off, variant=manifest["variant"])
    if (manifest["study"], manifest["study_sha256"]) != (rules.name, rules.sha256()):
        raise PalmaresError("E-PUBLISH-02", "cohort", detail="the study's rules have changed since")
    counts: dict[str, int] = {}
    with whole_folder(out) as folder:
        spill = folder / "spill"
        spill.mkdir()
        if derived is None:
            if progress:
                progress("derive")
            derived = spill / "derived"
            derive(warehouse, derived, study=study, cut_off=cut_off, into_warehouse=False, memory_limit=memory_limit)
        _belongs(Path(derived), manifest)
        with open_warehouse(warehouse, spill=spill / "duckdb") as connection:
            connection.execute(f"SET memory_limit = {literal(memory_limit)}")
            if content_sha256(connection) != manifest["warehouse_content_sha256"]:
                raise PalmaresError("E-PUBLISH-02", "cohort", detail="the warehouse holds other rows")
            evaluate(connection, rules)
            whole = with_rules(rules)
            about = settings(whole)
            sources = folder_of(Path(derived))
            _lay_analyses(connection, Path(cohort))
            told = lay_out(connection, whole, sources, salt=manifest["release_salt"], progress=progress)
            made = []
            for one in load_datasets(whole):
                if progress:
                    progress(f"publish {one.name}")
                made.append(write_dataset(connection, one, folder, spill))
                counts[one.name] = made[-1].rows
            if progress:
                progress("publish MEDS")
            counts[FOLDER] = write_meds(connection, whole, about, folder, spill)
            unmapped = left_out(connection, threshold=rules.thresholds["public"])
            if progress:
                progress("tables, small cells hidden")
            hidden = _tables(connection, whole, about, made, told, folder)
            _attrition(connection, rules, hidden, folder)
        shutil.rmtree(spill, ignore_errors=True)
        _write_json(_about(rules, manifest, Path(cohort), unmapped, folder), folder / "manifest.json")
        privacy.check(folder, day_0=about["meds"]["day_0"])
        files = sum(path.is_file() for path in folder.rglob("*"))
    return Release(counts, files, str(out))


def _lay_analyses(connection: duckdb.DuckDBPyConnection, cohort: Path) -> None:
    """Make `analysis_member` of the cohort folder: who belongs to which named analysis. Raises E-PUBLISH-02."""
    path = cohort / "analyses.parquet"
    if not path.is_file():
        raise PalmaresError("E-PUBLISH-02", "cohort", detail="it lacks analyses.parquet")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW analysis_member AS FROM read_parquet({literal(str(path))})")


def with_rules(study: Study) -> Rules:
    """The study, at its cut-off and in its variant, with its rules of lines and endpoints."""
    rules = load_rules(study.name, cut_off=study.cut_off)
    return Rules(**vars(rules) | {"study": study, "parameters": {**rules.parameters, **study.parameters}})


def folder_of(derived: Path) -> dict[str, str]:
    """The derived tables that datasets stand on, as SQL that reads them."""
    return {name: f"read_parquet({literal(str(derived / f'{name}.parquet'))})" for name in DERIVED}


def _tables(
    connection: duckdb.DuckDBPyConnection,
    rules: Rules,
    about: dict[str, Any],
    made: Sequence[Made],
    told: anonymity.Anonymity,
    folder: Path,
) -> counted.Hidden:
    """What is counted: the dictionary, table one, numbers at risk, k-anonymity; all with the public threshold, and what is
    hidden in one so that no other gives it away. Returns which numbers those are."""
    import pandas as pd

    study = rules.study
    public = study.thresholds["public"]
    baseline = next(one.dataset for one in made if one.dataset.name == "baseline")
    listed = {one.variable: one for one in baseline.variables}
    asked = {*about["table_one"]["variables"], about["table_one"]["group"], about["at_risk"]["group"]}
    if not asked <= listed.keys():
        detail = "no variables of baseline: " + ", ".join(sorted(asked - listed.keys()))
        raise PalmaresError("E-STUDY-03", "datasets/datasets.toml", detail=detail)
    chosen = [listed[name] for name in about["table_one"]["variables"]]
    frame = pd.read_parquet(folder / "baseline.parquet")
    group, by = about["table_one"]["group"], about["at_risk"]["group"]
    hidden = counted.hidden(folder, chosen, baseline.variables, group, by, threshold=public)
    table = table_one.table_one(frame, chosen, group, threshold=public, hidden=hidden.variables)
    table_one.write(table, study.title, folder)
    described = [
        dictionary.describe(
            one,
            threshold=public,
            patients=len(frame),
            hidden=hidden.silent if one.dataset == baseline else (),
            even=one.dataset == baseline or _even(connection, folder / f"{one.dataset.name}.parquet", len(frame)),
        )
        for one in made
    ]
    dictionary.write(study.name, study.title, described, folder)
    month = float(rules.parameters["days_per_month"])
    rows = risk_table.risk_table(
        connection, folder, about["at_risk"], days_per_month=month, threshold=public, hidden=hidden
    )
    risk_table.write(rows, about["at_risk"], folder, threshold=public)
    _write_json(told.shown(threshold=public), folder / "anonymity.json")
    return hidden


def _even(connection: duckdb.DuckDBPyConnection, path: Path, patients: int) -> bool:
    """Whether everyone has as many rows: else the number of rows tells of the few who have more, or none."""
    people, least, most = connection.execute(
        f"SELECT count(*), min(n), max(n) FROM (SELECT count(*) AS n FROM read_parquet({literal(str(path))}) GROUP BY patient)"
    ).fetchall()[0]
    return people in (0, patients) and least == most


def _attrition(connection: duckdb.DuckDBPyConnection, rules: Study, hidden: counted.Hidden, folder: Path) -> None:
    table = shown(attrition(connection, rules), rules, public=True)
    table["analyses"] = analyses.shown(analyses.counts(connection, rules), hidden.analyses)
    _write_json(table, folder / "attrition.json")
    write_csv(table, folder / "attrition.csv")
    draw(table, folder)


def _write_json(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _about(
    rules: Study, manifest: dict[str, Any], cohort: Path, unmapped: dict[str, int | str], folder: Path
) -> dict[str, Any]:
    return {
        "format": 2,
        "study": rules.name,
        "title": rules.title,
        "registry": rules.registry,
        "variant": rules.variant,
        "cut_off": f"{rules.cut_off.day} {rules.cut_off:%B %Y}",
        "parameters": dict(rules.parameters),
        "day_0": "index: first CDK4/6 inhibitor for advanced disease",
        "privacy": "no dates: day offsets and the index year; ages top-coded; small cells hidden",
        # records without a code, by table
        "meds_left_out": unmapped,
        "code_version": __version__,
        "study_sha256": manifest["study_sha256"],
        "cohort_manifest_sha256": hashlib.sha256((cohort / "manifest.json").read_bytes()).hexdigest(),
        "files": described(folder),
    }


def _manifest(cohort: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((cohort / "manifest.json").read_text(encoding="utf-8"))
        needed = ("study", "study_sha256", "variant", "cut_off", "warehouse_content_sha256", "release_salt")
        return {key: manifest[key] for key in needed}
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-PUBLISH-02", cohort.name, detail="it has no manifest of a cohort") from None


def _belongs(derived: Path, cohort: dict[str, Any]) -> None:
    """The derived folder is whole and of the cohort's warehouse, rules and cut-off. Raises E-PUBLISH-02."""
    try:
        manifest = json.loads((derived / "manifest.json").read_text(encoding="utf-8"))
        same = all(
            manifest[key] == cohort[key] for key in ("study", "study_sha256", "cut_off", "warehouse_content_sha256")
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise PalmaresError("E-PUBLISH-02", derived.name, detail="it has no manifest of what was derived") from None
    if not same or not all((derived / f"{name}.parquet").is_file() for name in DERIVED):
        raise PalmaresError(
            "E-PUBLISH-02", derived.name, detail="it was derived from other rows, rules or another cut-off"
        )
