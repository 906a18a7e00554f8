"""The `tables` source: eCRF exports and registries as CSV, XLSX or a SQL query, through a column map, as FHIR NDJSON.

The map (see docs/sources-tables.md) says column by column which FHIR element it fills. There is no kind for free text: a value
passes as a date, a number, an entry of a declared list, a text that matches a declared pattern, or a pseudonym. What does
not pass is written to `report.csv` by file, row and column, never with its value, and the rest goes on.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.column_map import ColumnMap, Table, Wrong, read_map
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import must_be_readable, whole_folder
from fhir_adapters.outcomes import RESOURCE, OutcomeFile, item_name
from fhir_adapters.pseudonyms import LinkageKey
from fhir_adapters.seen_files import looked_at, of_recipe, recipe
from fhir_adapters.shown_names import shown_name
from fhir_adapters.standing import Standing
from fhir_adapters.table_rows import Converter, Row, check_recipes, zoned

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_DAY_IN_NAME = re.compile(r"(?<!\d)(20\d{2})[-_.]?(\d{2})[-_.]?(\d{2})(?:[-_T.]?(\d{2})[-_.]?(\d{2}))?(?!\d)")
_NEVER = datetime(1800, 1, 1)


@dataclass
class Given:
    """One table as it is read: the name to show, its rows with the header first, its bytes, and when it was exported."""

    table: Table
    name: str
    rows: Iterator[Row]
    size: int = 0
    exported: str = ""


@adapter
class Tables:
    """CSV, XLSX and SQL tables through a column map."""

    kind: ClassVar[str] = "tables"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "map": Setting(Path, "the column map, a TOML file", required=True),
        "path": Setting(Path, "a folder of tables, for tables that name a file"),
        "connection": Setting(str, "for tables that name a query: the Airflow Connection of the database", ""),
        "time_zone": Setting(str, "the zone of times without an offset; the site's unless given", "Europe/Rome"),
        "complete": Setting(bool, "the tables hold every row each time: what is not there any more was deleted", False),
        "most_deleted": Setting(float, "share of a type that may be gone at once; more is an error", 0.2),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        self._settings = settings
        self._key = key

    def extract(
        self,
        out: Path,
        *,
        full: bool = False,
        state: Mapping[str, Any] | None = None,
        known: Path | None = None,
        progress: Progress | None = None,
    ) -> Extraction:
        """Write `out/fhir/<ResourceType>.ndjson`, `out/report.csv` and `out/outcomes.parquet`.

        A query that holds `:since` gets the newest `updated` cell of the last extraction that landed; files are read when one
        of them is new or was changed; `full` reads everything. Raises E-TAB-01 (the map), E-TAB-02 (a table as a whole),
        E-TAB-03 (the database), E-TAB-04 (too much is gone), E-SRC-02, E-KEY-01 (a linkage column and no linkage key),
        E-DISK-01, -02.
        """
        if self._key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        mapping = zoned(read_map(self._settings["map"]), self._settings["time_zone"])
        of = recipe(self._settings, self._key.fingerprint)
        recalled = {} if full else of_recipe(state, of)
        since: Mapping[str, Any] = recalled.get("since", {})
        files = self._files(mapping)
        now = looked_at([path for found in files.values() for path in found], self._settings["path"] or Path())
        unchanged = bool(recalled) and recalled.get("files") == now
        standing = None
        if self._settings["complete"]:
            if any(":since" in table.query for table in mapping.tables):
                raise PalmaresError(
                    "E-SRC-02", self.kind, detail="complete does not go with a query that asks for changes only"
                )
            # beside a query, files that did not change stand too
            unchanged = unchanged and not any(table.query for table in mapping.tables)
            standing = None if unchanged else Standing(known, self._settings["most_deleted"])
        given = self._tables(mapping, since, {} if unchanged else files)
        return write_tables(
            out,
            self.kind,
            given,
            mapping,
            self._key,
            since=since,
            progress=progress,
            full=not recalled,
            state={"of": of, "files": now},
            standing=standing,
        )

    def _files(self, mapping: ColumnMap) -> dict[str, list[Path]]:
        """The files of each table that names some. Raises E-TAB-02 for a table without one."""
        folder: Path | None = self._settings["path"]
        if folder is not None and any(table.file for table in mapping.tables):
            must_be_readable(folder, self.kind)
        files = {}
        for table in mapping.tables:
            if table.form:
                raise PalmaresError("E-TAB-01", table.name, detail="form is for a source of kind redcap")
            if not table.query:
                files[table.name] = sorted(folder.glob(table.file)) if folder is not None and folder.is_dir() else []
                if not files[table.name]:
                    raise PalmaresError("E-TAB-02", table.name, detail="no file has the name that the map gives")
        return files

    def _tables(self, mapping: ColumnMap, since: Mapping[str, Any], files: Mapping[str, list[Path]]) -> Iterator[Given]:
        for table in mapping.tables:
            if table.query:
                yield Given(table, table.name, query(table, self._settings["connection"], since.get(table.name)))
            for path in files.get(table.name, ()):
                name = shown_name(path.name)
                rows = (
                    sheet(path, table, name)
                    if path.suffix.lower() in (".xlsx", ".xlsm")
                    else lines(path, mapping, name)
                )
                yield Given(table, name, rows, path.stat().st_size, exported(path, table, mapping, name))

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the tables say of their patients, as (kind, value): for the hospital's own list, which never leaves.

        Record numbers, codici fiscali, and the columns that the map lists under [identifying].
        """
        mapping = zoned(read_map(self._settings["map"]), self._settings["time_zone"])
        for given in self._tables(mapping, {}, self._files(mapping)):
            kinds = dict(mapping.identifying)
            for one in given.table.recipes:
                kinds[one.patient] = "record-number"
                kinds |= {fill.column: "codice-fiscale" for fill in one.fills if fill.kind == "linkage"}
            _, header = next(given.rows, (1, None))
            titles = [str(title or "").strip().lower() for title in header or []]
            places = [(place, kinds[title]) for place, title in enumerate(titles) if title in kinds]
            for _, cells in given.rows:
                for place, kind in places:
                    if cells and place < len(cells) and not mapping.is_missing(cells[place]):
                        yield kind, str(cells[place]).strip()


def write_tables(
    out: Path,
    kind: str,
    given: Iterable[Given],
    mapping: ColumnMap,
    key: "SiteKey",
    *,
    since: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    full: bool = True,
    state: Mapping[str, Any] | None = None,
    notes: Iterable[tuple[str, Wrong]] = (),
    standing: Standing | None = None,
) -> Extraction:
    """Tables → an extraction folder, whole or not at all. Raises what `Tables.extract` does.

    `since`: what the last extraction saw last, per table of a query; `state`: what else the source remembers; `notes`: lines of
    the report that are of no row; `standing`: gathers what is there, where all that is not there any more was deleted.
    """
    check_recipes(mapping)
    linkage = LinkageKey.load(None) if mapping.links else None
    made: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    newest: dict[str, Any] = dict(since or {})
    files, size, rows_left = 0, 0, 0
    with whole_folder(out) as partial, ExitStack() as stack:
        (partial / "fhir").mkdir()
        sinks: dict[str, Any] = {}
        outcomes = stack.enter_context(OutcomeFile(partial, kind))
        report = csv.writer(stack.enter_context((partial / "report.csv").open("w", encoding="utf-8", newline="")))
        report.writerow(["file", "row", "column", "reason"])
        for name, wrong in notes:
            reasons[wrong.reason] += 1
            report.writerow([name, wrong.row, wrong.column, wrong.reason])
        for one in given:
            files, size = files + 1, size + one.size
            converter = Converter(one.table, mapping, one.name, key, linkage, one.exported)
            of_this = 0
            for done in converter.convert(one.rows):
                for wrong in done.wrongs:
                    reasons[wrong.reason] += 1
                    report.writerow([one.name, wrong.row, wrong.column, wrong.reason])
                for number in done.empty:
                    outcomes.refuse(f"{item_name(one.name, number)}", "X-TABLE-ROW")
                rows_left += len(done.empty)
                for resource_type, identifier, text in done.made:
                    if standing is not None:
                        standing.add(one.table.name, one.exported, resource_type, identifier)
                    if resource_type not in sinks:
                        path = partial / "fhir" / f"{resource_type}.ndjson"
                        sinks[resource_type] = stack.enter_context(path.open("w", encoding="utf-8"))
                    sinks[resource_type].write(text + "\n")
                    made[resource_type] += 1
                of_this += len(done.made)
            outcomes.add(item_name(one.name), RESOURCE, resources=of_this)
            if converter.newest is not None and one.table.query:
                newest[one.table.name] = _remembered(converter.newest)
            if progress:
                progress(1)
        outcomes.balance(sum(made.values()))
        deleted = standing.settle(partial) if standing is not None else {}
        remembered = dict(state or {}) | ({"since": newest} if newest else {})
        extraction = Extraction(
            kind,
            files,
            size,
            dict(made),
            more={"reported": dict(reasons), "rows without a resource": rows_left, "deleted": deleted},
            full=full,
            state=remembered or None,
        )
        extraction.write(partial)
    return extraction


def exported(path: Path, table: Table, mapping: ColumnMap, name: str) -> str:
    """When a file was exported, as an instant: by the day in its name, or by its own time. Raises E-TAB-02 when no day is in it."""
    if not table.exported:
        return ""
    if table.exported == "file":
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    found = _DAY_IN_NAME.search(path.name)
    try:
        if found:
            year, month, day, hour, minute = (int(one or 0) for one in found.groups())
            moment = datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(mapping.zone))
            return moment.isoformat(timespec="seconds")
    except ValueError:
        pass
    raise PalmaresError("E-TAB-02", name, detail="its name holds no day, and the map says that it does")


def _encoding(path: Path, name: str) -> str:
    """UTF-16 by its mark, UTF-8 when the whole file is, else Windows-1252. Raises E-TAB-02 for an unreadable file."""
    try:
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                return "utf-16"
        with path.open(encoding="utf-8-sig") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "cp1252"
    except OSError as error:
        raise PalmaresError("E-TAB-02", name, detail=type(error).__name__) from None
    return "utf-8-sig"


def lines(path: Path, mapping: ColumnMap, name: str) -> Iterator[Row]:
    """The rows of a text table."""
    encoding = mapping.encoding or _encoding(path, name)
    with path.open(encoding=encoding, errors="replace", newline="") as text:
        number, header, said = 0, "", ""
        while (line := text.readline()) and not header:
            if found := _SEPARATOR.fullmatch(line.strip()):  # how Excel is told the separator
                number, said = number + 1, found[1]
            elif line.strip():
                header = line
            else:
                number += 1
        delimiter = mapping.delimiter or said or max(";,\t|", key=header.count)
        text.seek(0)
        for _ in range(number):
            text.readline()
        feed = _Feed(text)
        reader = csv.reader(feed, delimiter=delimiter)
        while True:
            number += 1
            feed.held.clear()
            try:
                cells: list[str] | None = next(reader)
            except StopIteration:
                return
            except csv.Error:  # a huge cell; its text may hold a value, so only the row is told
                cells = None
            if len(feed.held) > 1 and not _closed(feed.held, delimiter):
                # a quotation mark that nothing closes took the rows after it into one cell: they are rows again
                feed.again.extendleft(reversed(feed.held[1:]))
                cells = None
            yield number, cells


_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?', re.IGNORECASE)


class _Feed:
    """The lines of a text, for a reader of CSV; `held`: those that it took for a row; `again`: lines to read once more."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self.held: list[str] = []
        self.again: deque[str] = deque()

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self._text)
        self.held.append(line)
        return line


def _closed(held: list[str], delimiter: str) -> bool:
    """Whether the lines of a row have their quotation marks in pairs, each about a whole cell."""
    try:
        list(csv.reader(held, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def sheet(path: Path, table: Table, name: str) -> Iterator[Row]:
    """The rows of a workbook's sheet."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        page = book[table.sheet] if table.sheet else book.worksheets[0]
    except Exception as error:  # openpyxl passes on whatever zip and XML say; kept: its kind
        raise PalmaresError("E-TAB-02", name, detail=type(error).__name__) from None
    try:
        page.reset_dimensions()  # what a workbook says of its size is often wrong: rows would be missing
        begun = False
        for number, row in enumerate(page.iter_rows(values_only=True), start=1):
            begun = begun or any(cell not in (None, "") for cell in row)
            if begun:
                yield number, list(row)
    except Exception as error:  # as above: its text holds the cell
        raise PalmaresError("E-TAB-02", name, detail=type(error).__name__) from None
    finally:
        book.close()


def query(table: Table, connection: str, since: Any = None) -> Iterator[Row]:
    """The rows of a query, the column names first; `:since` in it is what the last run saw last."""
    import sqlalchemy

    from fhir_adapters.databases import database

    url = database(connection, table.name)
    try:
        statement = sqlalchemy.text(table.query)
        if "since" in statement._bindparams:
            statement = statement.bindparams(since=_recalled(since))
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect().execution_options(stream_results=True) as session:
                result = session.execute(statement)
                yield 1, list(result.keys())
                for number, row in enumerate(result, start=2):
                    yield number, list(row)
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise PalmaresError("E-TAB-03", table.name, detail=type(error).__name__) from None


def _remembered(newest: tuple[str, Any]) -> dict[str, str]:
    """The cell as the state keeps it: a text as it stands, a time of the database as ISO."""
    cell = newest[1]
    if isinstance(cell, datetime):
        return {"time": cell.isoformat()}
    return {"text": str(cell)}


def _recalled(since: Any) -> Any:
    if not isinstance(since, Mapping):
        return _NEVER
    return datetime.fromisoformat(since["time"]) if "time" in since else since["text"]
