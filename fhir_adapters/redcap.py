"""The `redcap` source: a REDCap project, by its API (PyCap) or as exported files, through a column map, as FHIR NDJSON.

The map is that of a `tables` source, each table of which names a `form` of the project. The data dictionary says what the fields
are: a map that reads a field that does not exist, or free text, is refused before a record is fetched.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.column_map import ColumnMap, read_map
from fhir_adapters.errors import PalmaresError
from fhir_adapters.fhir_web.connections import connection
from fhir_adapters.redcap_dictionary import (
    Dictionary,
    choices_left_out,
    fitted,
    patients_of,
    read_dictionary,
    rows_of_form,
)
from fhir_adapters.seen_files import looked_at, of_recipe, recipe
from fhir_adapters.shown_names import shown_name
from fhir_adapters.standing import Standing
from fhir_adapters.table_rows import zoned
from fhir_adapters.tables import Given, lines, write_tables

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

T = TypeVar("T")
Rows = list[tuple[int, list[Any]]]
_TRIES = 5
_OVERLAP = timedelta(days=1)  # between two runs: the clocks of the two machines need not agree
_DAY = re.compile(r"\d{1,4}([-/.]\d{1,2}){0,2}([-/.]\d{4})?([ T].*)?")
_CODE = re.compile(r"\s*([^,|]+?)\s*,")


@dataclass
class Project:
    """What was read of a project: its dictionary, the missing data codes, the titles and rows of its records."""

    dictionary: Dictionary
    missing: tuple[str, ...]
    titles: list[str]
    rows: Rows
    name: str
    size: int = 0


@adapter
class Redcap:
    """A REDCap project through a column map."""

    kind: ClassVar[str] = "redcap"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "map": Setting(Path, "the column map, a TOML file", required=True),
        "url": Setting(str, "the address of the API, as https://redcap.example/api/", ""),
        "connection": Setting(str, "the Airflow Connection whose password is the project's API token", ""),
        "path": Setting(Path, "instead of the API: a folder with the raw CSV export and the data dictionary"),
        "records": Setting(str, "the export among the files of that folder, as a glob", "*DATA*.csv"),
        "dictionary": Setting(str, "the data dictionary among them, as a glob", "*[Dd]ata[Dd]ictionary*.csv"),
        "batch": Setting(int, "records that are asked for at a time", 200),
        "timeout": Setting(int, "seconds that an answer may take", 120),
        "time_zone": Setting(str, "the zone of times; the site's unless given", "Europe/Rome"),
        "most_deleted": Setting(
            float, "share of a type that may be gone at once when all is read; more is an error", 0.2
        ),
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

        By the API, records that were changed since the last extraction that landed; `full` asks for all, and so finds what was
        deleted. Raises E-SRC-02, E-TAB-01 (the map), E-TAB-04 (too much is gone), E-RED-01 (the server), E-RED-02 (map and
        dictionary do not fit), E-RED-03 (the files), E-FHIR-10 (the connection), E-KEY-01, E-DISK-01, -02.
        """
        if self._key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        if bool(self._settings["url"]) == (self._settings["path"] is not None):
            raise PalmaresError("E-SRC-02", self.kind, detail="just one of url and path is needed")
        if self._settings["batch"] < 1 or self._settings["timeout"] < 1:
            raise PalmaresError("E-SRC-02", self.kind, detail="batch and timeout are at least 1")
        mapping = zoned(read_map(self._settings["map"]), self._settings["time_zone"])
        of = recipe(self._settings, self._key.fingerprint)
        recalled = {} if full else of_recipe(state, of)
        since = recalled.get("since")
        begun = datetime.now(ZoneInfo(self._settings["time_zone"])) - _OVERLAP
        if self._settings["url"]:
            project = self._asked(mapping, since)
            remembered: dict[str, Any] = {"of": of, "since": begun.strftime("%Y-%m-%d %H:%M:%S")}
        else:
            folder: Path = self._settings["path"]
            remembered = {"of": of, "files": looked_at(folder.glob("*.csv"), folder)}
            if recalled and recalled.get("files") == remembered["files"]:
                return write_tables(out, self.kind, [], mapping, self._key, full=False, state=remembered)
            project = self._of_files(mapping)
        mapping = fitted(mapping, project.dictionary, project.titles, project.missing)
        return write_tables(
            out,
            self.kind,
            self._given(mapping, project),
            mapping,
            self._key,
            progress=progress,
            full=since is None,
            state=remembered,
            standing=Standing(known, self._settings["most_deleted"], whole=since is None),
            notes=[("dictionary", one) for one in choices_left_out(mapping, project.dictionary)],
        )

    def identifiers(self) -> Iterator[tuple[str, str]]:
        """What the project says of its patients, as (kind, value): for the hospital's own list, which never leaves.

        Record numbers, codici fiscali, what the map lists under [identifying], and every field that the project itself marks as
        an identifier, but for days.
        """
        mapping = zoned(read_map(self._settings["map"]), self._settings["time_zone"])
        project = self._asked(mapping, None, identifying=True) if self._settings["url"] else self._of_files(mapping)
        kinds = {field.name: "other" for field in project.dictionary.fields if field.identifying}
        kinds |= mapping.identifying
        for one in (one for table in mapping.tables for one in table.recipes):
            kinds[one.patient] = "record-number"
            kinds |= {fill.column: "codice-fiscale" for fill in one.fills if fill.kind == "linkage"}
        places = [(place, kinds[title]) for place, title in enumerate(project.titles) if title in kinds]
        for _, cells in project.rows:
            for place, kind in places:
                text = str(cells[place]).strip()
                if (
                    not mapping.is_missing(text)
                    and text not in project.missing
                    and not (kind == "other" and _DAY.fullmatch(text))
                ):
                    yield kind, text

    def _given(self, mapping: ColumnMap, project: Project) -> Iterator[Given]:
        patients = patients_of(mapping, project.dictionary, project.titles, project.rows)
        for number, table in enumerate(mapping.tables):
            rows = rows_of_form(table, project.dictionary, project.titles, project.rows, patients)
            with_header = iter([(1, list(project.titles)), *rows])
            name = f"{project.name} {table.name}"
            yield Given(table, name, with_header, project.size if number == 0 else 0)

    # -- by the API ------------------------------------------------------------------------------------------------------

    def _asked(self, mapping: ColumnMap, since: str | None, *, identifying: bool = False) -> Project:
        from redcap import Project as Api

        token = connection(self._settings["connection"]).secret()
        try:
            api = Api(self._settings["url"], token, timeout=self._settings["timeout"])
        except (ValueError, AssertionError):
            raise PalmaresError("E-RED-01", self.kind, detail="its address or token has not the form of one") from None
        dictionary = read_dictionary(_ask(lambda: list(api.metadata)))
        told = _ask(api.export_project_info)
        codes = str(told.get("missing_data_codes") or "") if isinstance(told, dict) else ""
        missing = tuple(found.group(1) for one in codes.split("|") if (found := _CODE.match(one)))
        fitted(mapping, dictionary, [], missing)  # a map that does not fit is told before records are asked for
        fields = self._fields(mapping, dictionary)
        if identifying:
            fields += [one.name for one in dictionary.fields if one.identifying or one.name in mapping.identifying]
            fields = list(dict.fromkeys(fields))
        began = datetime.strptime(since, "%Y-%m-%d %H:%M:%S") if since else None
        names = _ask(lambda: api.export_records(fields=[dictionary.record], event_name="unique", date_begin=began))
        records = list(dict.fromkeys(str(row[dictionary.record]) for row in names))
        titles: list[str] = []
        rows: Rows = []
        for start in range(0, len(records), self._settings["batch"]):
            some = records[start : start + self._settings["batch"]]
            answer = _ask(partial(api.export_records, records=some, fields=fields, event_name="unique"))
            got = {str(row.get(dictionary.record)) for row in answer}
            if lost := set(some) - got:
                raise PalmaresError(
                    "E-RED-01", self.kind, count=len(lost), detail="records that it named it did not give"
                )
            for row in answer:
                if not titles:
                    titles = [str(title).lower() for title in row]
                rows.append((len(rows) + 2, [row.get(title, "") for title in row]))
        if not titles:
            titles = [dictionary.record, *sorted(dictionary.by_column().keys() - {dictionary.record})]
        return Project(dictionary, missing, titles, rows, "records")

    def _fields(self, mapping: ColumnMap, dictionary: Dictionary) -> list[str]:
        """Only the fields of the forms that the map reads, and of those only what it names or what tells that they were filled
        in: what is not asked for cannot leak."""
        named = {column.partition("___")[0] for table in mapping.tables for column in table.columns}
        known = {field.name for field in dictionary.fields}
        return [dictionary.record, *sorted(named & known - {dictionary.record})]

    # -- as files --------------------------------------------------------------------------------------------------------

    def _of_files(self, mapping: ColumnMap) -> Project:
        folder: Path = self._settings["path"]
        dictionary_file = self._only(folder, "dictionary", ())
        dictionary = read_dictionary(self._dictionary_rows(dictionary_file, mapping))
        export = self._only(folder, "records", (dictionary_file,))
        name = shown_name(export.name)
        read = lines(export, mapping, name)
        _, header = next(read, (1, None))
        titles = [str(title).strip().lower() for title in header or []]
        if dictionary.record not in titles:
            raise PalmaresError("E-RED-03", name, detail="it has not the field that names the record")
        rows: Rows = []
        for number, cells in read:
            if cells is None or len(cells) != len(titles):
                if cells is None or cells:
                    raise PalmaresError(
                        "E-RED-03", name, detail=f"row {number} cannot be read or has not as many cells as the header"
                    )
                continue
            rows.append((number, cells))
        return Project(dictionary, (), titles, rows, name, export.stat().st_size)

    def _only(self, folder: Path, setting: str, but: tuple[Path, ...]) -> Path:
        found = (
            [path for path in sorted(folder.glob(self._settings[setting])) if path not in but]
            if folder.is_dir()
            else []
        )
        if len(found) != 1:
            raise PalmaresError("E-RED-03", setting, count=len(found), detail="just one file is needed")
        return found[0]

    def _dictionary_rows(self, path: Path, mapping: ColumnMap) -> Iterator[dict[str, Any]]:
        read = lines(path, mapping, shown_name(path.name))
        _, header = next(read, (1, None))
        for _, cells in read:
            if cells and header:
                yield dict(zip(header, cells, strict=False))


def _ask(question: Callable[[], T]) -> T:
    """The API's answer; a connection that breaks, or an answer that is none, is asked for again. Raises E-RED-01."""
    import requests
    import tenacity
    from redcap import RedcapError

    waiting = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=20),
        retry=tenacity.retry_if_exception_type((requests.RequestException, ValueError)),
        reraise=True,
    )
    try:
        return waiting(question)
    except RedcapError:
        raise PalmaresError(
            "E-RED-01", "redcap", detail="it refused the question: see the rights of the token"
        ) from None
    except (requests.RequestException, ValueError) as error:
        # a web server in between answers with a page where JSON belongs
        raise PalmaresError("E-RED-01", "redcap", detail=type(error).__name__) from None
