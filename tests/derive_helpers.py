"""Histories for tests of lines and endpoints: the tables of `tests/warehouses.py`, and a few words more.

person | event         | on         | until      | value
     1 | palbociclib   | 2021-02-01 | 2021-06-30 | toxicity      (a drug's value: why it was stopped)
     1 | declared line | 2021-02-01 |            | 1             (the site says that line 1 begins here)
     1 | consent       | 2021-05-01 |            |
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import duckdb

from fhir_adapters.knowledge import mappings_folder
from omop_etl import cdm
from omop_etl.cohorts import reference as cohorts_reference
from omop_etl.derive.reference import Given, Patient
from omop_etl.derive.rules import Rules
from tests import warehouses
from tests.warehouses import Event, words

DECLARED, CONSENT = "declared line", "consent"


def connect(what: Iterable[Event] = (), path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A warehouse with these events, and the concepts that tell ingredients and domains."""
    connection = warehouses.connect([], path)
    for statement in cdm.ddl(
        "duckdb", ("concept", "drug_era", "condition_era", "episode", "episode_event"), keys=False
    ):
        connection.execute(statement)
    file = mappings_folder() / "vocabulary" / "CONCEPT.csv"
    connection.execute(
        "INSERT INTO concept BY NAME SELECT CAST(concept_id AS INTEGER) AS concept_id, * EXCLUDE "
        "(concept_id, valid_start_date, valid_end_date), DATE '1970-01-01' AS valid_start_date, DATE '2099-12-31' AS "
        f"valid_end_date FROM read_csv('{file}', delim = '\\t', header = true, all_varchar = true)"
    )
    fill(connection, what)
    return connection


def fill(connection: duckdb.DuckDBPyConnection, what: Iterable[Event]) -> None:
    """Replace whatever the warehouse holds by these events."""
    what = list(what)
    ordinary = [
        Event(one.person, one.event, one.on, one.until, "" if is_drug(one) else one.value, one.site)
        for one in what
        if one.event not in (DECLARED, CONSENT)
    ]
    warehouses.fill(connection, ordinary)
    stops = [one for one in what if one.event not in (DECLARED, CONSENT)]
    for number, one in enumerate(stops, 1):
        if is_drug(one) and one.value:
            connection.execute(
                "UPDATE drug_exposure SET stop_reason = ? WHERE drug_exposure_id = ?", [one.value, number]
            )
    for number, one in enumerate(what, 10_000):
        if one.event == DECLARED:
            connection.execute(
                "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, "
                "measurement_source_value, value_as_number) VALUES (?, ?, 0, ?, 'line-of-therapy', ?)",
                [number, one.person, one.on, int(one.value)],
            )
        elif one.event == CONSENT:
            connection.execute(
                "INSERT INTO observation (observation_id, person_id, observation_concept_id, observation_date, "
                "observation_source_value) VALUES (?, ?, 0, ?, 'consent')",
                [number, one.person, one.on],
            )


def is_drug(one: Event) -> bool:
    return one.event == "unmapped drug" or words().get(one.event, ("",))[0] in warehouses._DRUGS


def patients(what: Iterable[Event], rules: Rules) -> dict[int, Patient]:
    """The same events as the reference implementation reads them; each person is a patient of one site."""
    cut_off = rules.study.cut_off
    found: dict[int, list[Event]] = {}
    for one in what:
        found.setdefault(one.person, []).append(one)
    return {person: _patient(events, cut_off) for person, events in found.items()}


def _patient(events: list[Event], cut_off: date) -> Patient:
    known = [one for one in events if one.on and one.event != "born" and day_of(one.on) <= cut_off]
    sets = {one.event: words().get(one.event.partition(" of ")[0], ("", 0, one.event)) for one in known}
    deaths = [day_of(one.on) for one in known if one.event == "death"]
    advanced = [day_of(one.on) for one in known if sets[one.event][0] in ("metastasis", "advanced")]
    primary = [day_of(one.on) for one in known if sets[one.event][0] == "primary"]
    drugs = tuple(_given(one, sets[one.event], advanced, cut_off) for one in known if is_drug(one))
    index = cohorts_reference.index_date(
        cohorts_reference.Person(
            0,
            "s01",
            advanced=tuple(advanced),
            drugs=tuple(cohorts_reference.Drug(one.drug, one.drug_class, one.start) for one in drugs),
        )
    )
    contacts = [day_of(one.on) for one in known if one.event != "death"]
    contacts += [
        min(day_of(one.until), cut_off) if one.event == "visit" else day_of(one.until)
        for one in known
        if one.until and (one.event == "visit" or (is_drug(one) and day_of(one.until) <= cut_off))
    ]
    death = min(deaths, default=None)
    last = max(contacts, default=None)
    return Patient(
        advanced=min(advanced, default=None),
        primary=min(primary, default=None),
        index=index,
        drugs=drugs,
        assessments=tuple((day_of(one.on), sets[one.event][2]) for one in known if sets[one.event][0] == "response"),
        death=death,
        last_contact=min(last, death) if last and death and not (index and death < index) else last,
        declared=tuple((day_of(one.on), int(one.value)) for one in known if one.event == DECLARED),
        consent=min((day_of(one.on) for one in known if one.event == CONSENT), default=None),
    )


def _given(one: Event, word: tuple[str, int, str], advanced: list[date], cut_off: date) -> Given:
    """A drug as it is known at the cut-off. Known to the month only, in the month of the advanced diagnosis, it was begun for it."""
    end = day_of(one.until) if one.until else None
    start, month_only = day_of(one.on), len(one.on) == 7
    if month_only and advanced and (start.year, start.month) == (min(advanced).year, min(advanced).month):
        month_only = False
        start = start if end and end < min(advanced) else min(advanced)
    ended = end is not None and end <= cut_off
    return Given(
        drug=word[2],
        drug_class=word[0] or None,
        start=start,
        end=end if ended else None,
        stop=(one.value or None) if ended else None,
        month_only=month_only,
    )


def day_of(text: str) -> date:
    return date.fromisoformat(f"{text}-01" if len(text) == 7 else text)
