"""The rules of derivation as data: a study's `lines.toml`, `endpoints.toml`, `endpoints.csv`, its word lists, `derive/*.sql`.

Each parameter becomes a SQL macro, each list a temporary table; then the SQL of `derive/` runs in the order of its names.
"""

import csv
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.mapping.identity import MASK, settle
from omop_etl.study.reading import literal, prepare, trouble
from omop_etl.study.rules import Study, load_study

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EndpointRule:
    """One endpoint or variant: a row of endpoints.csv. `new_line` is follow, censor or event."""

    paramcd: str
    param: str
    kind: str
    gap_days: int | None
    new_line: str
    adc_is_chemotherapy: bool
    main: bool
    status: str
    note: str


@dataclass(frozen=True)
class DrugClass:
    """What the line rules compare: a drug's class and kind; `drug` is None for the rest of its concept set."""

    concept_set: str
    drug: str | None
    line_class: str
    kind: str


@dataclass(frozen=True)
class Column:
    """One column of the derived folder: a row of derived.csv."""

    table: str
    column: str
    type: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Rules:
    """A study with its rules of derivation. `parameters` are those of the study and of its lines and endpoints."""

    study: Study
    parameters: Mapping[str, int | float | str]
    endpoints: tuple[EndpointRule, ...]
    classes: tuple[DrugClass, ...]
    stops: Mapping[str, str]
    episodes: Mapping[str, int]
    columns: tuple[Column, ...]
    steps: tuple[tuple[str, str], ...]

    def line_class(self, concept_set: str | None, drug: str) -> DrugClass | None:
        """The class of a drug; None for one that never makes a line."""
        of_set = [one for one in self.classes if one.concept_set == concept_set]
        return next((one for one in of_set if one.drug == drug), next((one for one in of_set if not one.drug), None))


def load_rules(name: str, *, cut_off: date | None = None) -> Rules:
    """Read a study and its rules of derivation. Raises E-STUDY-01 and E-STUDY-03."""
    study = load_study(name, cut_off=cut_off)
    parameters: dict[str, int | float | str] = dict(study.parameters)
    for file in ("lines.toml", "endpoints.toml"):
        parameters |= {key: one["value"] for key, one in settings(study.folder / file)["parameters"].items()}
    return Rules(
        study=study,
        parameters=parameters,
        endpoints=tuple(
            EndpointRule(
                paramcd=row["paramcd"],
                param=row["param"],
                kind=row["kind"],
                gap_days=int(row["gap_days"]) if row["gap_days"] else None,
                new_line=row["new_line"],
                adc_is_chemotherapy=row["adc_is_chemotherapy"] == "yes",
                main=row["main"] == "yes",
                status=row["status"],
                note=row["note"],
            )
            for row in _rows(study.folder / "endpoints.csv")
        ),
        classes=tuple(
            DrugClass(row["concept_set"], row["drug"] or None, row["line_class"], row["kind"])
            for row in _rows(study.folder / "line_classes.csv")
        ),
        stops={row["text"]: row["reason"] for row in _rows(study.folder / "stop_reasons.csv")},
        episodes={row["word"]: int(row["concept_id"]) for row in _rows(study.folder / "episodes.csv")},
        columns=tuple(Column(**row) for row in _rows(study.folder / "derived.csv")),
        steps=tuple(
            (path.name, path.read_text(encoding="utf-8")) for path in sorted((study.folder / "derive").glob("*.sql"))
        ),
    )


def settings(path: Path) -> dict[str, dict[str, dict[str, str | int | float]]]:
    """A TOML of the study. Raises E-STUDY-03 when it is not there or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-STUDY-03", f"{path.parent.name}/{path.name}", detail="it is no TOML in UTF-8") from None


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except OSError:
        raise PalmaresError("E-STUDY-03", f"{path.parent.name}/{path.name}", detail="it cannot be read") from None


# rows with an id of their own: the hash that identifies each, and the id made from it
_CDM_TABLES_FROM = "14"
_IDENTIFIED = {"14_eras.sql": ("drug_era_row", "condition_era_row"), "15_episodes.sql": ("episode_row",)}


def apply(
    connection: duckdb.DuckDBPyConnection, rules: Rules, progress: Progress | None = None, *, episodes: bool = True
) -> None:
    """Make every derived table as a temporary table of the connection, whose default database is a warehouse.

    Without `episodes` only lines, progressions, endpoints and states: no eras, no episodes.

    Raises E-STUDY-03 when a step's SQL does not run, E-BALANCE-01 when two derived rows have one identity.
    """
    prepare(connection, rules.study)
    for name, value in rules.parameters.items():
        text = literal(value) if isinstance(value, str) else value
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {name}() AS {text}")
    for macro in _MACROS:
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {macro}")
    _list(
        connection,
        "endpoint_rule",
        "paramcd VARCHAR, kind VARCHAR, gap_days INTEGER, new_line VARCHAR, adc_is_chemotherapy BOOLEAN",
        [(one.paramcd, one.kind, one.gap_days, one.new_line, one.adc_is_chemotherapy) for one in rules.endpoints],
    )
    _list(
        connection,
        "line_class",
        "concept_set VARCHAR, drug VARCHAR, line_class VARCHAR, kind VARCHAR",
        [(one.concept_set, one.drug, one.line_class, one.kind) for one in rules.classes],
    )
    _list(connection, "stop_word", "text VARCHAR, reason VARCHAR", list(rules.stops.items()))
    _list(connection, "episode_word", "word VARCHAR, concept_id INTEGER", list(rules.episodes.items()))
    for name, sql in rules.steps:
        if not episodes and name >= _CDM_TABLES_FROM:
            break
        if progress:
            progress(sql.partition("\n")[0].removeprefix("-- "))
        try:
            connection.execute(sql.replace("CREATE TEMP ", "CREATE OR REPLACE TEMP "))
            for table in _IDENTIFIED.get(name, ()):
                settle(connection, [table])
        except duckdb.Error as error:
            raise PalmaresError("E-STUDY-03", f"{rules.study.name}/derive/{name}", detail=trouble(error)) from None


_MACROS = (
    "never() AS DATE '9999-12-31'",
    "yes_no(answer) AS CASE WHEN answer THEN 'yes' WHEN NOT answer THEN 'no' END",
    # of a receptor: surely at least the limit, surely below, cannot be told
    "level_word(level) AS CASE level WHEN 2 THEN 'positive' WHEN 0 THEN 'negative' WHEN 1 THEN 'unclear' END",
    "era_hash(person_id, concept_id, day) AS md5_number(person_id || '|era|' || concept_id || '|' || day)",
    "episode_hash(person_id, kind, number) AS md5_number(person_id || '|episode|' || kind || '|' || number)",
    f"low_bits(hash) AS greatest(CAST(1 AS BIGINT), CAST(hash & CAST({MASK} AS UHUGEINT) AS BIGINT))",
)


def _list(connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * (columns.count(',') + 1))})", rows)
