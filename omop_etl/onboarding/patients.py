"""From the pseudonyms of a query book back to the hospital's record numbers: inside the hospital, with its key and its own list.

    pseudonym,record_number
    5f0c…,00012345

A pseudonym cannot be turned round; the numbers of the hospital's list of known identifiers (known.py) are turned into pseudonyms, and those
that the book asks about are written. The file never leaves the hospital and can be read by its owner alone; nothing of it is shown.
"""

import csv
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_adapters.errors import PalmaresError, machine_errors
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.record_numbers import record_number
from omop_etl.onboarding.known import read_known

if TYPE_CHECKING:
    from omop_etl.config import Site

_NUMBERS = ("record-number", "codice-fiscale", "other")  # what a hospital may use as the number of a patient
_KINDS = ("patient", "Patient")  # of the hospital's number; of a FHIR server's own id


@dataclass(frozen=True)
class Patients:
    """How many patients the open queries name, and how many of them the list knows."""

    site: str
    asked: int
    found: int
    file: str


def find_patients(site: "Site", book: Path, out: Path, identifiers: Path | None = None) -> Patients:
    """Write the record numbers of the patients whom the book's queries name, settled ones left out.

    Raises E-PHI-04 when there is no list, E-PHI-02 when it does not read, E-QUERY-01 when there is no book or it is another site's, and what
    loading the key raises.
    """
    from omop_etl.gates.queries import known, site_of

    place = identifiers or site.identifiers
    if place is None:
        raise PalmaresError("E-PHI-04", site.id)
    if site_of(book) != site.id:
        raise PalmaresError("E-QUERY-01", str(book), detail="it is another site's")
    asked = {
        one.patient
        for one in known(Path(book), site.id).values()
        if one.patient and one.state in ("open", "reappeared")
    }
    key = SiteKey.load(site.key_file)
    digits = {0, *_digits(site)}
    found: dict[str, str] = {}
    for one in read_known(place):
        if one.kind in _NUMBERS:
            for written in {record_number(one.value, many) for many in digits}:
                for kind in _KINDS:
                    pseudonym = key.pseudonym(kind, written)
                    if pseudonym in asked:
                        found[pseudonym] = one.value
    _write(found, Path(out))
    return Patients(site.id, len(asked), len(found), str(out))


def _digits(site: "Site") -> set[int]:
    """In how many digits the sources of the site write a record number."""
    found = set()
    for source in site.sources:
        if isinstance(source.get("record_number_digits"), int):
            found.add(int(source["record_number_digits"]))
        said = source.get("map")  # a column map says it itself
        if isinstance(said, str) and (site.folder / said).is_file():
            document = tomllib.loads((site.folder / said).read_text(encoding="utf-8"))
            if isinstance(document.get("record_number_digits"), int):
                found.add(int(document["record_number_digits"]))
    return found


def _write(found: dict[str, str], path: Path) -> None:
    with machine_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("pseudonym", "record_number"))
                writer.writerows(sorted(found.items()))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
