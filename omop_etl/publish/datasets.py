"""The datasets of a study as data, and their way from the warehouse to files that open in one line.

`datasets/datasets.toml` names them; each has a dictionary (`NAME.csv`) and rows (`NAME.sql`), which stand on the tables of
`datasets/tables/*.sql`. A dataset is written twice with the same rows: Parquet, typed so that pandas, Arrow and R read
categories as categories, and CSV. Same input, same bytes.
"""

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fhir_adapters.errors import PalmaresError
from omop_etl.derive.rules import Progress, Rules
from omop_etl.publish.anonymity import Anonymity, enforce
from omop_etl.publish.dictionary import Variable, read_dictionary
from omop_etl.study.reading import literal, trouble

if TYPE_CHECKING:
    import pyarrow as pa

# what datasets read beside the tables of `omop_etl.study.reading`
TABLES = ("concept", "image_occurrence", "image_feature")
ROWS = 122_880  # of a row group; fixed, so that the same rows give the same bytes
_SQL = {
    "id": "VARCHAR", "text": "VARCHAR", "category": "VARCHAR", "ordered": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE",
    "boolean": "BOOLEAN",
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """One released dataset: what a row is, the columns that tell rows apart, its variables in order, its SELECT."""

    name: str
    title: str
    rows: str
    key: tuple[str, ...]
    variables: tuple[Variable, ...]
    sql: str


@dataclass(frozen=True)
class Made:
    """A dataset as written: its rows, per variable the rows without a value, and the values that a category has."""

    dataset: Dataset
    rows: int
    missing: Mapping[str, int]
    values: Mapping[str, tuple[str, ...]]


def settings(rules: Rules) -> dict[str, Any]:
    """The study's `datasets.toml`. Raises E-STUDY-03 when it is not there, no TOML, or lacks a section."""
    path = rules.study.folder / "datasets" / "datasets.toml"
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-STUDY-03", "datasets/datasets.toml", detail="it is no TOML in UTF-8") from None
    missing = [
        f"{section}.{name}" if section else name
        for section, name in _NEEDED
        if name not in (about if not section else about.get(section, {}))
    ]
    if missing:
        raise PalmaresError("E-STUDY-03", "datasets/datasets.toml", detail="it lacks " + ", ".join(missing))
    return about


_NEEDED = (
    ("", "dataset"), ("", "k_anonymity"), ("", "meds"), ("meds", "day_0"), ("table_one", "group"), ("table_one", "variables"),
    ("at_risk", "group"), ("at_risk", "months"),
)  # fmt: skip


def load_datasets(rules: Rules) -> tuple[Dataset, ...]:
    """The datasets in the order of `datasets.toml`. Raises E-STUDY-03 and E-PUBLISH-03."""
    folder = rules.study.folder / "datasets"
    found = []
    for name, about in settings(rules).get("dataset", {}).items():
        variables = read_dictionary(folder / f"{name}.csv", rules.parameters)
        key = tuple(about["key"])
        if not set(key) <= {one.variable for one in variables}:
            raise PalmaresError("E-PUBLISH-03", name, detail="its key is not among its variables")
        sql = (folder / f"{name}.sql").read_text(encoding="utf-8")
        found.append(Dataset(name, about["title"], about["rows"], key, variables, sql))
    return tuple(found)


def lay_out(
    connection: duckdb.DuckDBPyConnection,
    rules: Rules,
    derived: Mapping[str, str],
    *,
    salt: str,
    progress: Progress | None = None,
) -> Anonymity:
    """Make the tables that the datasets stand on, beside those of `evaluate`.

    `derived` is where line, endpoint, progression and state come from: SQL of a table or of `read_parquet`. `salt` makes the
    released ids: the same salt gives the same ids. Returns what was found of k-anonymity, which is enforced here, before
    anything is made from who is released. Raises E-WAREHOUSE-01, E-STUDY-03 when a table's SQL does not run, E-PUBLISH-04.
    """
    missing = [name for name in TABLES if not _there(connection, name)]
    if missing:
        raise PalmaresError("E-WAREHOUSE-01", "warehouse", detail="it lacks " + ", ".join(missing))
    for name, value in rules.parameters.items():
        text = literal(value) if isinstance(value, str) else value
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {name}() AS {text}")
    connection.execute(
        f"CREATE OR REPLACE TEMP MACRO released_id(person) AS substr(sha256({literal(salt)} || person), 1, 16)"
    )
    for name, source in derived.items():
        connection.execute(f"CREATE OR REPLACE TEMP VIEW derived_{name} AS FROM {source}")
    folder = rules.study.folder / "datasets"
    features = [{"feature_number": n} | row for n, row in enumerate(_rows(folder / "feature_sources.csv"))]
    _table(connection, "feature_source", _FEATURE_SOURCE, features)
    _table(connection, "landmark", "landmark VARCHAR, day INTEGER, meaning VARCHAR", _rows(folder / "landmarks.csv"))
    _table(
        connection,
        "endpoint_word",
        "position INTEGER, paramcd VARCHAR, param VARCHAR, main BOOLEAN",
        [
            {"position": n, "paramcd": one.paramcd, "param": one.param, "main": one.main}
            for n, one in enumerate(rules.endpoints)
        ],
    )
    _table(
        connection,
        "endpoint_rule",
        "paramcd VARCHAR, gap_days INTEGER",
        [{"paramcd": one.paramcd, "gap_days": one.gap_days} for one in rules.endpoints],
    )
    _table(
        connection,
        "stop_word",
        "text VARCHAR, reason VARCHAR",
        [{"text": text, "reason": reason} for text, reason in rules.stops.items()],
    )
    told: Anonymity | None = None
    for path in sorted((folder / "tables").glob("*.sql")):
        sql = path.read_text(encoding="utf-8")
        if progress:
            progress(sql.partition("\n")[0].removeprefix("-- "))
        try:
            connection.execute(sql.replace("CREATE TEMP TABLE", "CREATE OR REPLACE TEMP TABLE"))
        except duckdb.Error as error:
            raise sql_error(error, f"{rules.study.name}/tables/{path.name}") from None
        # the first table says who is released
        told = told or enforce(connection, settings(rules))
    if told is None:
        raise PalmaresError("E-STUDY-03", f"{rules.study.name}/datasets/tables", detail="there is no SQL in it")
    return told


def sql_error(error: duckdb.Error, name: str) -> Exception:
    """What to raise for an SQL text of the study: E-STUDY-03, but for the machine's own troubles, which are not the text's."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return MemoryError()
    if isinstance(error, duckdb.IOException):
        return error  # the disk: `whole_folder` numbers it
    return PalmaresError("E-STUDY-03", name, detail=trouble(error))


def _there(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    asked = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'main' AND table_name = ?"
    return connection.execute(asked, [table]).fetchone() is not None


_FEATURE_SOURCE = (
    "feature_number SMALLINT, feature VARCHAR, family VARCHAR, kind VARCHAR, token VARCHAR, label VARCHAR, how VARCHAR, concept_set VARCHAR, "
    "value_set VARCHAR, code VARCHAR, unit VARCHAR, unit_code VARCHAR, low DOUBLE, high DOUBLE, max_age_days INTEGER, omop VARCHAR, fhir VARCHAR"
)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return [{key: text or None for key, text in row.items()} for row in csv.DictReader(lines)]
    except OSError:
        raise PalmaresError("E-STUDY-03", f"datasets/{path.name}", detail="it cannot be read") from None


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: Sequence[Mapping[str, object]]
) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    places = ", ".join("?" * (columns.count(",") + 1))
    connection.executemany(f"INSERT INTO {name} VALUES ({places})", [list(row.values()) for row in rows])


def write_dataset(connection: duckdb.DuckDBPyConnection, dataset: Dataset, folder: Path, spill: Path) -> Made:
    """Write `<name>.parquet` and `<name>.csv` into `folder`, from the tables that `lay_out` made.

    Rows go through a plain file in `spill`, so that memory does not grow with them. Raises E-STUDY-03 when the SELECT does
    not run, E-PUBLISH-03 when columns and dictionary differ, a value is not among a variable's, or two rows have one key.
    """
    spill.mkdir(parents=True, exist_ok=True)
    plain = spill / f"{dataset.name}.parquet"
    made = stage(connection, dataset, plain)
    _write_parquet(made, plain, folder / f"{dataset.name}.parquet")
    connection.execute(f"COPY (FROM {_file(plain)}) TO {literal(str(folder / f'{dataset.name}.csv'))} (HEADER)")
    plain.unlink()
    return made


def stage(connection: duckdb.DuckDBPyConnection, dataset: Dataset, plain: Path) -> Made:
    """Run the dataset's SELECT into a plain Parquet file, in its order, and hold it against its dictionary."""
    names = [one.variable for one in dataset.variables]
    select = dataset.sql.strip().rstrip(";")
    try:
        found = [row[0] for row in connection.execute(f"DESCRIBE {select}").fetchall()]
        if found != names:
            odd = sorted(set(found) ^ set(names)) or ["their order"]
            raise PalmaresError("E-PUBLISH-03", dataset.name, detail=", ".join(odd))
        typed = ", ".join(
            f'CAST("{one.variable}" AS {_SQL[one.type]}) AS "{one.variable}"' for one in dataset.variables
        )
        connection.execute(
            f"COPY (SELECT {typed} FROM ({select})) TO {literal(str(plain))} (FORMAT parquet, ROW_GROUP_SIZE {ROWS})"
        )
    except duckdb.Error as error:
        raise sql_error(error, f"datasets/{dataset.name}.sql") from None
    counted = ", ".join(f'count("{name}")' for name in names)
    rows, *counts = connection.execute(f"SELECT count(*), {counted} FROM {_file(plain)}").fetchall()[0]
    values = {}
    for one in dataset.variables:
        if one.type not in ("category", "ordered"):
            continue
        there = connection.execute(
            f'SELECT "{one.variable}", count(*) FROM {_file(plain)} WHERE "{one.variable}" IS NOT NULL GROUP BY ALL ORDER BY ALL'
        ).fetchall()
        strange = sum(count for value, count in there if value not in one.values) if one.values else 0
        if strange:
            raise PalmaresError("E-PUBLISH-03", one.variable, count=strange, detail="values that it does not list")
        values[one.variable] = one.values or tuple(value for value, _ in there)
    key = ", ".join(f'"{name}"' for name in dataset.key)
    # by their hashes first: only where two are equal the keys themselves are compared
    alike = f"SELECT 1 FROM {_file(plain)} GROUP BY hash({key}) HAVING count(*) > 1 LIMIT 1"
    exact = f"SELECT count(*) FROM (SELECT 1 FROM {_file(plain)} GROUP BY {key} HAVING count(*) > 1)"
    twice = connection.execute(exact).fetchall()[0][0] if connection.execute(alike).fetchall() else 0
    if twice:
        raise PalmaresError("E-PUBLISH-03", dataset.name, count=twice, detail="keys are not unique")
    return Made(dataset, rows, {name: rows - count for name, count in zip(names, counts, strict=True)}, values)


def _file(path: Path) -> str:
    return f"read_parquet({literal(str(path))})"


def _schema(made: Made) -> "pa.Schema":
    """The Arrow schema with what pandas needs to read the same types back: Int64 and boolean where a value may be missing."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for one in made.dataset.variables:
        missing = made.missing[one.variable] > 0
        kind: Any = {
            "integer": "Int64" if missing else "int64",
            "boolean": "boolean" if missing else "bool",
            "number": "float64",
        }.get(one.type, "str")
        if one.type in ("category", "ordered"):
            kind = pd.CategoricalDtype(
                pd.Index(list(made.values[one.variable]), dtype="str"), ordered=one.type == "ordered"
            )
        columns[one.variable] = pd.Series([], dtype=kind)
    return pa.Schema.from_pandas(pd.DataFrame(columns), preserve_index=False)


def _write_parquet(made: Made, plain: Path, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = _schema(made)
    with pq.ParquetFile(plain) as source, pq.ParquetWriter(out, schema, compression="zstd") as target:
        for batch in source.iter_batches(batch_size=ROWS, use_threads=False):
            columns = []
            for field, column in zip(schema, batch.columns, strict=True):
                if pa.types.is_dictionary(field.type):
                    listed = pa.array(made.values[field.name], type=field.type.value_type)
                    # a category without any value has none to look up
                    index = pc.index_in(column.cast(field.type.value_type), value_set=listed) if len(listed) else None
                    index = pa.nulls(len(column), pa.int32()) if index is None else index
                    columns.append(
                        pa.DictionaryArray.from_arrays(
                            index.cast(field.type.index_type), listed, ordered=field.type.ordered
                        )
                    )
                else:
                    columns.append(column.cast(field.type))
            target.write_batch(pa.record_batch(columns, schema=schema), row_group_size=ROWS)
