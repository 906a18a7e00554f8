"""The `tables` source: eCRF exports and registries as CSV, XLSX or a SQL query, through a column map, as FHIR NDJSON.

The map (see docs/sources-tables.md) says column by column which FHIR element it fills. There is no kind for free text: a value
passes as a date, a number, an entry of a declared list, a text that matches a declared pattern, or a pseudonym. What does
not pass is written to `report.csv` by file, row and column, never with its value, and the rest goes on.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.column_map import ColumnMap, Fill, Recipe, Table, Wrong, read_map
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.pseudonyms import LinkageKey
from fhir_adapters.shown_names import shown_name

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

Row = tuple[int, list[Any] | None]  # row number as a spreadsheet counts it; None: the row cannot be read


@adapter
class Tables:
    """CSV, XLSX and SQL tables through a column map."""

    kind: ClassVar[str] = "tables"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "map": Setting(Path, "the column map, a TOML file", required=True),
        "path": Setting(Path, "a folder of tables, for tables that name a file"),
        "connection": Setting(
            str, "for tables that name a query: the environment's AIRFLOW_CONN_<NAME> is its URL", ""
        ),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        self._settings = settings
        self._key = key

    def extract(self, out: Path, *, progress: Progress | None = None) -> Extraction:
        """Write `out/fhir/<ResourceType>.ndjson` and `out/report.csv`.

        Raises E-TAB-01 (the map), E-TAB-02 (a table as a whole), E-TAB-03 (the database), E-KEY-01 (a linkage column and
        no linkage key), E-DISK-01, -02.
        """
        if self._key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        mapping = read_map(self._settings["map"])
        linkage = LinkageKey.load(None) if mapping.links else None
        made: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        files, size = 0, 0
        with whole_folder(out) as partial, ExitStack() as stack:
            (partial / "fhir").mkdir()
            sinks: dict[str, Any] = {}
            report = csv.writer(stack.enter_context((partial / "report.csv").open("w", encoding="utf-8", newline="")))
            report.writerow(["file", "row", "column", "reason"])
            for table in mapping.tables:
                for name, rows, read in self._tables(table, mapping):
                    files, size = files + 1, size + read
                    for resource, wrongs in _resources(table, mapping, rows, name, self._key, linkage):
                        for wrong in wrongs:
                            reasons[wrong.reason] += 1
                            report.writerow([name, wrong.row, wrong.column, wrong.reason])
                        if resource is not None:
                            kind = resource["resourceType"]
                            if kind not in sinks:
                                path = partial / "fhir" / f"{kind}.ndjson"
                                sinks[kind] = stack.enter_context(path.open("w", encoding="utf-8"))
                            sinks[kind].write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")
                            made[kind] += 1
                    if progress:
                        progress(1)
            extraction = Extraction(self.kind, files, size, dict(made), more={"reported": dict(reasons)})
            extraction.write(partial)
        return extraction

    def _tables(self, table: Table, mapping: ColumnMap) -> Iterator[tuple[str, Iterator[Row], int]]:
        """Each file (or query) of a table: the name to show, its rows with the header first, its bytes."""
        if table.query:
            yield table.name, _query(table, self._settings["connection"]), 0
            return
        folder = self._settings["path"]
        found = sorted(folder.glob(table.file)) if folder is not None and folder.is_dir() else []
        if not found:
            raise PalmaresError("E-TAB-02", table.name, detail="no file has the name that the map gives")
        for path in found:
            name = shown_name(path.name)
            rows = _sheet(path, table, name) if path.suffix.lower() == ".xlsx" else _lines(path, mapping, name)
            yield name, rows, path.stat().st_size


def _encoding(path: Path, name: str) -> str:
    """UTF-16 by its mark, UTF-8 when the whole file is, else Windows-1252. Raises E-TAB-02 for an unreadable file."""
    try:
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                return "utf-16"
        with path.open(encoding="utf-8-sig") as lines:
            while lines.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "cp1252"
    except OSError as error:
        raise PalmaresError("E-TAB-02", name, detail=type(error).__name__) from None
    return "utf-8-sig"


def _lines(path: Path, mapping: ColumnMap, name: str) -> Iterator[Row]:
    encoding = mapping.encoding or _encoding(path, name)
    with path.open(encoding=encoding, errors="replace", newline="") as lines:
        delimiter = mapping.delimiter or max(";,\t|", key=lines.readline().count)
        lines.seek(0)
        reader = csv.reader(lines, delimiter=delimiter)
        number = 0
        while True:
            number += 1
            try:
                yield number, next(reader)
            except StopIteration:
                return
            except csv.Error:  # a huge cell; its text may hold a value, so only the row is told
                yield number, None


def _sheet(path: Path, table: Table, name: str) -> Iterator[Row]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book[table.sheet] if table.sheet else book.worksheets[0]
    except Exception as error:  # openpyxl passes on whatever zip and XML say; kept: its kind
        raise PalmaresError("E-TAB-02", name, detail=type(error).__name__) from None
    try:
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            yield number, list(row)
    finally:
        book.close()


def database_url(url: str) -> str:
    """Airflow's `postgres://…` as SQLAlchemy calls it, with the driver that is installed; any other URL as it is."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else url


def _query(table: Table, connection: str) -> Iterator[Row]:
    import sqlalchemy

    url = os.environ.get(f"AIRFLOW_CONN_{connection.upper()}") if connection else None
    if not url:
        raise PalmaresError("E-TAB-03", table.name, detail="the environment has no URL for its connection")
    try:
        engine = sqlalchemy.create_engine(database_url(url))
        with engine.connect().execution_options(stream_results=True) as session:
            result = session.execute(sqlalchemy.text(table.query))
            yield 1, list(result.keys())
            for number, row in enumerate(result, start=2):
                yield number, list(row)
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise PalmaresError("E-TAB-03", table.name, detail=type(error).__name__) from None


def _resources(
    table: Table, mapping: ColumnMap, rows: Iterator[Row], name: str, key: "SiteKey", linkage: LinkageKey | None
) -> Iterator[tuple[dict[str, Any] | None, Iterable[Wrong]]]:
    """Each resource, and what is wrong, as it is met. Raises E-TAB-02 when the header does not fit."""
    _, header = next(rows, (1, None))
    if not header or not any(header):
        raise PalmaresError("E-TAB-02", name, detail="it is empty or has no header")
    titles = [str(title or "").strip().lower() for title in header]
    places = {title: place for place, title in enumerate(titles)}
    if twice := sorted(title for title in table.columns if titles.count(title) > 1):
        raise PalmaresError("E-TAB-02", name, detail=f"two columns are called {twice[0]}")
    # an unknown title is told by its place: without a header the first row would hold a patient
    known = table.columns | mapping.ignore
    yield None, [Wrong(1, f"#{n}", "T-COLUMN") for n, title in enumerate(titles, 1) if title and title not in known]
    yield None, [Wrong(1, column, "T-NO-COLUMN") for column in sorted(table.columns - places.keys())]
    if not any(column in places for column in table.columns):
        raise PalmaresError("E-TAB-02", name, detail="it has none of the columns that the map names")
    for number, cells in rows:
        if cells is None or len(cells) > len(titles):
            yield None, [Wrong(number, "", "T-ROW")]
            continue
        if not any(cell not in (None, "") for cell in cells):
            continue
        row = {title: cells[place] for title, place in places.items() if place < len(cells)}
        for recipe in table.recipes:
            yield _resource(recipe, mapping, row, number, key, linkage)


def _resource(
    recipe: Recipe,
    mapping: ColumnMap,
    row: Mapping[str, Any],
    number: int,
    key: "SiteKey",
    linkage: LinkageKey | None,
) -> tuple[dict[str, Any] | None, list[Wrong]]:
    wrongs: list[Wrong] = []
    if recipe.when and all(mapping.is_missing(row.get(column)) for column in recipe.when):
        return None, wrongs
    who = "" if mapping.is_missing(row.get(recipe.patient)) else str(row[recipe.patient]).strip().strip(" \t\r\n\0")
    if not who:
        return None, [Wrong(number, recipe.patient, "T-REQUIRED")]
    person = key.pseudonym("patient", who)
    resource: dict[str, Any] = json.loads(recipe.fixed)
    if recipe.type == "Patient":
        resource["id"] = person
    else:
        parts = [recipe.name, who, *(str(row.get(column) or "").strip() for column in recipe.id)]
        resource["id"] = key.pseudonym("table-row", "\0".join(parts))
        resource[recipe.subject] = {"reference": f"Patient/{person}"}
    whole = True
    for fill in recipe.fills:
        value, reason = fill.read(row.get(fill.column), mapping, linkage)
        if reason:
            wrongs.append(Wrong(number, fill.column, reason))
        if value is None:
            if fill.required:
                whole = False
                if not reason:
                    wrongs.append(Wrong(number, fill.column, "T-REQUIRED"))
            continue
        _put(resource, fill, value)
    return (resource if whole else None), wrongs


def _put(resource: dict[str, Any], fill: Fill, value: Any) -> None:
    place: Any = resource
    for step, following in zip(fill.path, [*fill.path[1:], None], strict=True):
        if following is None:
            content = value
        else:
            content = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            while len(place) <= step:
                place.append({})
            if following is None or not place[step]:
                place[step] = content
        elif following is None or step not in place:
            place[step] = content
        place = place[step]
