"""Which searches a run consists of: one per type, or, patient by patient, one per type and handful of patients.

Patient by patient is for servers that answer nothing else, and for studies that may read their own patients only: the Patient search of
the site (`search.Patient`, e.g. `_has:Group:member:_id=palmares-2`) says who they are. A patient's handful depends on her pseudonym
alone, so that a run that was killed goes on with the same ones; a patient who was not read before is read from the beginning.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from fhir_adapters.fhir_server.paging import Query, parameters_of
from fhir_adapters.views.elements import element


class Search(NamedTuple):
    """One search, and the strand that it fills."""

    strand: str
    query: Query


def query_of(settings: Mapping[str, Any], kind: str) -> Query:
    """The search of a type, without bounds."""
    parameters = parameters_of(settings["search"].get(kind, ""), settings["include"].get(kind, []))
    return Query(kind, parameters, page=settings["page"], sort=settings["sort"])


def of_patient(kind: str) -> bool:
    """Whether a type's records belong to a patient each, so that they can be asked for by `patient`."""
    return kind != "Patient" and any(
        found is not None and found.type == "Reference"
        for found in (element(kind, "patient"), element(kind, "subject"))
    )


def searches(
    settings: Mapping[str, Any],
    types: tuple[str, ...],
    since: Callable[[str], datetime | None],
    patients: "Handfuls | None",
) -> Iterator[Search]:
    """Every search of a run; `since` says from when a type is read."""
    for kind in types:
        query = replace(query_of(settings, kind), since=since(kind))
        if patients is None or not of_patient(kind):
            yield Search(kind, query)
            continue
        for name, ids, is_new in patients.groups():
            asked = ("patient", ",".join(f"Patient/{one}" for one in ids))
            own = replace(query, parameters=(*query.parameters, asked), since=None if is_new else query.since)
            yield Search(f"{kind}-{name}", own)


class Handfuls:
    """The patients of a run, some at a time."""

    def __init__(self, pseudonyms: Mapping[str, str], known: frozenset[str] | None, count: int) -> None:
        """`pseudonyms`: by the server's id. `known`: pseudonyms of patients who were read before; None: nobody was asked for before."""
        self._pseudonyms = pseudonyms
        self._known = known
        self._count = count

    def groups(self) -> Iterator[tuple[str, list[str], bool]]:
        """(name, the server's ids, whether they are read for the first time)."""
        held: dict[tuple[bool, int], list[str]] = {}
        for one, pseudonym in sorted(self._pseudonyms.items(), key=lambda pair: pair[1]):
            is_new = self._known is not None and pseudonym not in self._known
            held.setdefault((is_new, _place(pseudonym, self._count)), []).append(one)
        for (is_new, place), ids in sorted(held.items()):
            yield f"{'new-' if is_new else ''}{place + 1:04d}", ids, is_new


def _place(pseudonym: str, count: int) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(pseudonym.encode()).digest()[:8], "big") % max(1, count)


def known_patients(known: Path | None) -> frozenset[str]:
    """The pseudonyms of the patients who were read before."""
    if known is None:
        return frozenset()
    import duckdb

    with duckdb.connect() as connection:
        place = "'" + str(known).replace("'", "''") + "'"
        rows = connection.execute(
            f"SELECT resource_id FROM read_parquet({place}) WHERE resource_type = 'Patient'"
        ).fetchall()
    return frozenset(row[0] for row in rows)
