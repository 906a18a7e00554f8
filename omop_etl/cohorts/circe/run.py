"""From a definition to a cohort folder, on either engine."""

import csv
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import described, whole_folder
from omop_etl import __version__
from omop_etl.cohorts.circe.definition import Definition, read
from omop_etl.cohorts.circe.engines import RESULTS, TARGET, Engine, harmless, on_duckdb, on_postgresql
from omop_etl.cohorts.small_cells import HIDDEN, suppress
from omop_etl.study.rules import load_study

BY_BEST_EVENT = 1  # Circe counts by event (0) and by each person's best event


@dataclass(frozen=True)
class CirceCohort:
    """What a definition selected: persons, periods of the cohort, who came to its rules; what its checks noticed."""

    name: str
    engine: str
    persons: int
    periods: int
    candidates: int
    notices: tuple[str, ...]
    out: str


def run(
    path: Path,
    out: Path,
    *,
    warehouse: Path | None = None,
    postgresql: str | None = None,
    schema: str = "omop",
    cohort_definition_id: int = 1000,
    study: str = "palmares2",
) -> CirceCohort:
    """Run a Circe definition on a warehouse file, or on the PostgreSQL at this address, and write the folder `out`.

    `schema` is the one that `palmares serve` filled. The small-cell threshold is that of the study. Raises E-CIRCE-01 to -03 (the
    definition), -04 (it does not run), -05 (it would do more than ask), -06 (the vocabulary has none of a set's concepts), what
    the engine raises, E-DISK-01 and -02.
    """
    definition = read(Path(path))
    threshold = load_study(study).thresholds["inside"]
    if (warehouse is None) == (postgresql is None):
        raise ValueError("a definition runs on one engine: a warehouse, or PostgreSQL")
    opened = on_duckdb(Path(warehouse)) if warehouse is not None else on_postgresql(str(postgresql), schema)
    with whole_folder(Path(out)) as folder, opened as engine:
        statements = render(definition, engine, cohort_definition_id, file=Path(path).name)
        notices = (*definition.notices, *_vocabulary(definition, engine, Path(path).name))
        for name, columns in RESULTS.items():
            engine.execute(f"CREATE TEMP TABLE {name} ({columns})")
        for number, name in enumerate(definition.rules()):
            said = name.replace("'", "''")[:255]
            engine.execute(f"INSERT INTO cohort_inclusion VALUES ({cohort_definition_id}, {number}, '{said}', '')")
        for statement in statements:
            engine.execute(statement)
        rows = engine.rows(
            "SELECT cohort_definition_id, subject_id, cohort_start_date, cohort_end_date FROM circe_cohort "
            "ORDER BY subject_id, cohort_start_date, cohort_end_date"
        )
        steps = _rules(definition, engine) if definition.rules() else [len({row[1] for row in rows})]
        _write(folder, definition, cohort_definition_id, rows, steps, statements, threshold)
        manifest = {
            "format": 1,
            "definition": definition.name,
            "engine": engine.dialect,
            "cohort_definition_id": cohort_definition_id,
            "notices": list(notices),
            "code_version": __version__,
            "files": described(folder),
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        dialect = engine.dialect
    persons = len({row[1] for row in rows})
    return CirceCohort(definition.name, dialect, persons, len(rows), steps[0], notices, str(out))


def render(definition: Definition, engine: Engine, cohort_definition_id: int, *, file: str) -> list[str]:
    """The statements of a definition for an engine, each looked at. Raises E-CIRCE-03 (a value that Circe refuses), E-CIRCE-05."""
    from circe.api import build_cohort_query
    from circe.cohortdefinition import BuildExpressionQueryOptions
    from circe.sqlrender import render as render_sql
    from circe.sqlrender import split_sql, translate

    options = BuildExpressionQueryOptions()
    options.cdm_schema = options.vocabulary_schema = engine.cdm
    options.result_schema = engine.temporary
    options.target_table = f"{engine.temporary}.{TARGET}"
    options.cohort_id = cohort_definition_id
    options.generate_stats = True
    try:
        # Circe hands its own SQL on as a template; a text of the definition that looks like one would be filled in too
        rendered = render_sql(build_cohort_query(definition.expression, options))
        statements = split_sql(translate(rendered, engine.dialect))
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        said = str(error) if isinstance(error, ValueError | RuntimeError) else type(error).__name__
        raise PalmaresError("E-CIRCE-03", file, detail=said.rstrip(".")) from None
    harmless(statements, engine, file)
    return statements


def _vocabulary(definition: Definition, engine: Engine, file: str) -> list[str]:
    """What the warehouse's vocabulary does not hold: Circe would leave it out without a word. Raises E-CIRCE-06 when it is all."""
    notices = []
    for number, listed in definition.concepts().items():
        ids = ", ".join(str(int(one)) for one in sorted(listed))
        found = (
            engine.rows(f"SELECT count(*) FROM {engine.cdm}.concept WHERE concept_id IN ({ids})")[0][0] if ids else 0
        )
        name = definition.concept_sets[number]
        if listed and not found and number in definition.used():
            raise PalmaresError("E-CIRCE-06", file, count=len(listed), detail=f"concept set {name}")
        if found < len(listed):
            notices.append(
                f"{len(listed) - found} concepts of concept set {name} are not in the warehouse's vocabulary"
            )
    return notices


def _rules(definition: Definition, engine: Engine) -> list[int]:
    """How many persons came to the rules, and how many are left after each, in order. Without rules Circe counts nobody."""
    masks = engine.rows(
        "SELECT inclusion_rule_mask, person_count FROM cohort_inclusion_result WHERE mode_id = " + str(BY_BEST_EVENT)
    )
    base = engine.rows("SELECT base_count FROM cohort_summary_stats WHERE mode_id = " + str(BY_BEST_EVENT))
    came = int(base[0][0] or 0) if base else 0
    left = []
    for number in range(len(definition.rules())):
        wanted = (1 << (number + 1)) - 1
        left.append(sum(int(count) for mask, count in masks if int(mask) & wanted == wanted))
    return [came, *left]


def _write(
    folder: Path,
    definition: Definition,
    number: int,
    rows: list[tuple[Any, ...]],
    steps: list[int],
    statements: list[str],
    threshold: int,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from circe.api import cohort_print_friendly

    day, big, text = pa.date32(), pa.int64(), pa.string()
    names = ("cohort_definition_id", "subject_id", "cohort_start_date", "cohort_end_date")
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    cohort = {
        name: pa.array(column, kind) for name, column, kind in zip(names, columns, (big, big, day, day), strict=True)
    }
    pq.write_table(pa.table(cohort), folder / "cohort.parquet")
    plain = json.dumps(definition.plain, indent=1, ensure_ascii=False)
    said = {
        "cohort_definition_id": pa.array([number], big),
        "cohort_definition_name": pa.array([definition.name], text),
        "cohort_definition_description": pa.array(["Circe definition"], text),
        "definition_type_concept_id": pa.array([0], pa.int32()),
        "cohort_definition_syntax": pa.array([plain], text),
        "subject_concept_id": pa.array([0], pa.int32()),
        "cohort_initiation_date": pa.array([None], day),
    }
    pq.write_table(pa.table(said), folder / "cohort_definition.parquet")
    (folder / "definition.json").write_text(plain + "\n", encoding="utf-8")
    words = cohort_print_friendly(definition.expression, title=definition.name, include_concept_sets=True)
    (folder / "definition.md").write_text(words.strip() + "\n", encoding="utf-8")
    (folder / "statements.sql").write_text(
        ";\n".join(one.rstrip("; \n") for one in statements) + ";\n", encoding="utf-8"
    )
    with (folder / "inclusion.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(["step", "rule", "persons_left"])
        hidden = suppress(steps[0], [[came - stay] for came, stay in pairwise(steps)], threshold=threshold)
        for place, (rule, left) in enumerate(
            zip(("initial event", *definition.rules()), (hidden.total, *hidden.left), strict=True)
        ):
            table.writerow([place, rule, HIDDEN if left is None else left])
