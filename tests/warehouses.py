"""Small warehouses from tables that a clinician can read.

    person | event           | on         | until      | value
         1 | born            | 1960-04    |            |
         1 | bone metastasis | 2021-01-04 |            |
         1 | ER of primary   | 2020-12-20 |            | 90
         1 | palbociclib     | 2021-02-01 | 2022-01-31 |
         1 | death           | 2023-05-06 |            |

An event is a word of the study's concept sets; a drug may begin in a month ("2021-02"). `site` is a column of its own when
more than one matters; a person without one is at site s01. What is not said is not known: no row.
"""

import csv
import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from fhir_adapters.knowledge import mappings_folder
from omop_etl import cdm
from omop_etl.cohorts import reference

Row = Mapping[str, str]


@dataclass(frozen=True)
class Event:
    """One thing that happened to one person. `on` and `until` are dates, or months for `born`."""

    person: int
    event: str
    on: str = ""
    until: str = ""
    value: str = ""
    site: str = "s01"


def read_table(text: str) -> list[dict[str, str]]:
    """The rows of an ASCII table, by the words of its header; what follows `->` in a row stands under `->`."""
    lines = [line for line in text.splitlines() if "|" in line and not set(line.strip()) <= set("|-+ ")]
    header = [word.strip() for word in lines[0].partition("->")[0].split("|")]
    rows = []
    for line in lines[1:]:
        body, _, answer = line.partition("->")
        cells = [cell.strip() for cell in body.split("|")]
        rows.append(dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False)) | {"->": answer.strip()})
    return rows


def events(text: str) -> list[Event]:
    """The events of an ASCII table."""
    return [event(row) for row in read_table(text)]


def event(row: Row) -> Event:
    """The event of one row."""
    fields = {key: row[key] for key in ("event", "on", "until", "value") if row.get(key)}
    return Event(person=int(row["person"]), site=row.get("site") or "s01", **fields)


@cache
def words() -> dict[str, tuple[str, int, str]]:
    """Word → (concept set, concept id, value), from the study's concept sets; the first concept of a word counts."""
    found: dict[str, tuple[str, int, str]] = {}
    with (mappings_folder() / "studies/palmares2/concept_sets.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            key = {"metastasis": "{value} metastasis", "primary": "primary {value}"}.get(row["concept_set"], "{value}")
            entry = (row["concept_set"], int(row["concept_id"]), row["value"])
            found.setdefault(key.format(**row), entry)
            found.setdefault(f"{row['concept_set']}:{row['value']}", entry)
            if row["concept_set"] == "metastasis" and row["vocabulary_id"] == "Cancer Modifier":
                found.setdefault(f"{row['value']} metastasis (modifier)", entry)
    return found


def connect(what: Iterable[Event], path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A warehouse with these events, in memory or in a file; its connection, ready for a study."""
    # one thread: these tables are small, and handing them over costs more than reading them
    connection = duckdb.connect(str(path) if path else ":memory:", config={"threads": 1})
    for statement in cdm.ddl("duckdb", (*_TABLES, "concept_ancestor"), keys=False):
        connection.execute(statement)
    connection.execute("CREATE SCHEMA palmares")
    connection.execute("CREATE TABLE palmares.person_site (person_id BIGINT, site VARCHAR)")
    connection.execute("CREATE TABLE palmares.person_link (person_id BIGINT, linkage_token VARCHAR)")
    fill(connection, what)
    return connection


def write(what: Iterable[Event], path: Path) -> Path:
    """A warehouse file with these events."""
    connect(what, path).close()
    return path


def fill(connection: duckdb.DuckDBPyConnection, what: Iterable[Event]) -> None:
    """Replace whatever the warehouse holds by these events."""
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in _TABLES}
    people: dict[int, dict[str, Any]] = {}
    lesions: dict[tuple[int, str], tuple[str, int]] = {}
    what = list(what)
    for number, one in enumerate(what, 1):
        person = people.setdefault(one.person, {"site": one.site, "year": 1960, "month": 6, "sex": "F", "token": None})
        if one.event == "born":
            year, _, month = one.on.partition("-")
            person |= {"year": int(year), "month": int(month) if month else None}
        elif one.event == "sex":
            person["sex"] = one.value
        elif one.event == "linkage token":
            person["token"] = one.value
        elif one.event == "known":
            pass  # only that there is such a person
        else:
            table, row = _row(one, number)
            rows[table].append(row)
            if words().get(one.event, ("",))[0] == "metastasis":
                lesions.setdefault((one.person, "metastasis"), (table, number))
            if words().get(one.event, ("",))[0] == "primary":
                lesions.setdefault((one.person, "primary"), (table, number))
    for number, one in enumerate(what, 1):
        marker, _, origin = one.event.partition(" of ")
        if origin and (one.person, origin) in lesions:
            table, row_id = lesions[one.person, origin]
            row = next(row for row in rows["measurement"] if row["measurement_id"] == number)
            row |= {"measurement_event_id": row_id, "meas_event_field_concept_id": words()[f"linked-row:{table}"][1]}
        elif origin == "metastasis":
            raise ValueError(f"person {one.person}: {marker} of a metastasis that is not in the table")
    for person_id, person in people.items():
        rows["person"].append(
            {
                "person_id": person_id,
                "gender_concept_id": words()[f"sex:{person['sex']}"][1] if person["sex"] else 0,
                "year_of_birth": person["year"],
                "month_of_birth": person["month"],
                "race_concept_id": 0,
                "ethnicity_concept_id": 0,
            }
        )
    for table, filled in rows.items():
        connection.execute(f"DELETE FROM {table}")
        _insert(connection, table, list(cdm.tables()[table].names), filled)
    for table, column in (("person_site", "site"), ("person_link", "linkage_token")):
        connection.execute(f"DELETE FROM palmares.{table}")
        _insert(
            connection,
            f"palmares.{table}",
            ["person_id", column],
            [
                {"person_id": key, "site": person["site"], "linkage_token": person["token"]}
                for key, person in people.items()
                if table == "person_site" or person["token"]
            ],
        )


_TABLES = (
    "person", "visit_occurrence", "condition_occurrence", "drug_exposure", "procedure_occurrence", "measurement",
    "observation", "death",
)  # fmt: skip


def _insert(connection: duckdb.DuckDBPyConnection, table: str, names: list[str], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    import pyarrow

    used = [name for name in names if any(name in row for row in rows)]
    batch = pyarrow.table({name: [row.get(name) for row in rows] for name in used})
    connection.register("batch", batch)
    connection.execute(f"INSERT INTO {table} ({', '.join(used)}) SELECT * FROM batch")
    connection.unregister("batch")


def _day(text: str) -> datetime.date | None:
    """A day; a month alone stands on its first day."""
    return datetime.date.fromisoformat(f"{text}-01" if len(text) == 7 else text) if text else None


def _row(one: Event, number: int) -> tuple[str, dict[str, Any]]:
    """The CDM row of an event; its id is its place in the table of events."""
    on, until = _day(one.on), _day(one.until)
    person = {"person_id": one.person}
    if one.event == "death":
        return "death", person | {"death_date": on}
    if one.event == "visit":
        return "visit_occurrence", person | {
            "visit_occurrence_id": number, "visit_concept_id": 0,
            "visit_start_date": on, "visit_end_date": until or on,
        }  # fmt: skip
    if one.event == "unmapped drug":
        return "drug_exposure", person | _drug(number, 0, one)
    name = one.event.partition(" of ")[0]
    concept_set, concept_id, _ = words()[name]
    measured = person | {"measurement_id": number, "measurement_concept_id": concept_id, "measurement_date": on}
    if concept_set in ("primary", "metastasis", "advanced") and "(modifier)" not in name:
        return "condition_occurrence", person | {
            "condition_occurrence_id": number, "condition_concept_id": concept_id, "condition_start_date": on,
        }  # fmt: skip
    if concept_set in ("metastasis", "response"):
        return "measurement", measured
    if concept_set in ("estrogen-receptor", "progesterone-receptor", "height", "weight", "bmi"):
        return "measurement", measured | _quantity(one.value)
    if concept_set in ("her2-ihc", "her2-ish", "grade", "ecog"):
        value = words()[f"{concept_set}-value:{one.value}"][1] if one.value else None
        return "measurement", measured | {"value_as_concept_id": value, "value_source_value": one.value or None}
    if concept_set == "menopause":
        return "observation", person | {
            "observation_id": number, "observation_concept_id": concept_id, "observation_date": on,
            "value_as_concept_id": words()[f"menopause-value:{one.value}"][1],
        }  # fmt: skip
    return "drug_exposure", person | _drug(number, concept_id, one)


def _drug(number: int, concept_id: int, one: Event) -> dict[str, Any]:
    on, until = _day(one.on), _day(one.until)
    return {
        "drug_exposure_id": number, "drug_concept_id": concept_id, "drug_exposure_start_date": on,
        "drug_exposure_end_date": until or on, "verbatim_end_date": until,
        "drug_type_concept_id": words()["imputed-start:imputed"][1] if len(one.on) == 7 else 0,
    }  # fmt: skip


def _quantity(text: str) -> dict[str, Any]:
    """'90' or '< 1' as number and operator; '' or a word is no number."""
    comparator = next((sign for sign in ("<=", ">=", "<", ">") if text.startswith(sign)), "=")
    number = text.removeprefix(comparator).strip()
    if not number or not number.replace(".", "", 1).lstrip("-").isdigit():
        return {"value_source_value": text or None}
    operator = words()[f"comparator:{comparator}"][1] if comparator != "=" else None
    return {"value_as_number": float(number), "operator_concept_id": operator}


def people(what: Iterable[Event]) -> list[reference.Person]:
    """The same events as the reference implementation reads them."""
    found: dict[int, dict[str, Any]] = {}
    what = list(what)
    for one in what:
        person = found.setdefault(one.person, {"person_id": one.person, "site": one.site})
        concept_set, _, value = words().get(one.event.partition(" of ")[0], (one.event, 0, one.event))
        marker, _, origin = one.event.partition(" of ")

        def add(key: str, *more: Any, person: dict[str, Any] = person) -> None:
            person[key] = person.get(key, ()) + more

        day = _day(one.on) if one.event != "born" else None
        if one.event == "born":
            year, _, month = one.on.partition("-")
            person["birth"] = (int(year), int(month) if month else None)
        elif one.event == "sex":
            person["sex"] = one.value or None
        elif one.event == "linkage token":
            person["token"] = one.value
        elif one.event == "death":
            person["death"] = day
        elif one.event == "visit":
            add("contacts", *filter(None, (day, _day(one.until))))
        elif one.event == "unmapped drug":
            add("drugs", reference.Drug(one.event, None, day, _day(one.until), len(one.on) == 7))
        elif concept_set in ("metastasis", "advanced"):
            add("advanced", day)
        elif concept_set in ("estrogen-receptor", "progesterone-receptor"):
            number = _quantity(one.value).get("value_as_number")
            sign = next((sign for sign in ("<=", ">=", "<", ">") if one.value.startswith(sign)), "=")
            add("receptors", reference.Receptor(marker, day, _origin(origin), number, sign))
        elif concept_set in ("her2-ihc", "her2-ish"):
            add("receptors", reference.Receptor(marker, day, _origin(origin), word=one.value or None))
        elif concept_set == "response":
            add("progressions" if value == "PD" else "contacts", day)
        elif concept_set in _DRUGS:
            add("drugs", reference.Drug(value, concept_set, day, _day(one.until), len(one.on) == 7))
        elif day:
            add("contacts", day)
    return [reference.Person(**person) for person in found.values()]


_DRUGS = (
    "cdk46", "aromatase-inhibitor", "tamoxifen", "fulvestrant", "oral-serd", "other-endocrine", "lhrh-analogue",
    "chemotherapy", "targeted", "antibody-drug-conjugate", "bone-agent",
)  # fmt: skip


def _origin(word: str) -> str:
    return "metastatic" if word == "metastasis" else "primary"
