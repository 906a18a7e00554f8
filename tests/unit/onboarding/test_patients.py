"""From the pseudonyms of the queries back to the hospital's record numbers, inside the hospital."""

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from omop_etl.config import Site, load_site
from omop_etl.gates import queries
from omop_etl.gates.queries import Query
from omop_etl.onboarding.known import Known, write_known
from omop_etl.onboarding.patients import find_patients

ONE = Query("Q1", "open", "G-ER", "ER", "", "", "person", 1, "look", "", "", 1, "s1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    SiteKey.create(tmp_path / "prova.key")
    write_known(
        [Known("record-number", "123"), Known("record-number", "777"), Known("name", "Rossi Maria")],
        tmp_path / "known.csv",
    )
    (tmp_path / "map.toml").write_text("record_number_digits = 8\n")
    (tmp_path / "prova.toml").write_text(
        'key_file = "prova.key"\nidentifiers = "known.csv"\n[[source]]\nkind = "tables"\nmap = "map.toml"\n'
    )
    return load_site("prova", tmp_path)


def book_of(site: Site, folder: Path, **states: str) -> Path:
    """A book with a query for each record number, in a state."""
    key = SiteKey.load(site.key_file)
    made: dict[str, Any] = {}
    for at, (number, state) in enumerate(states.items()):
        query = f"Q{at}"
        made[query] = replace(ONE, query=query, state=state, patient=key.pseudonym("patient", number.removeprefix("n")))
    queries._write(folder, "prova", made, "en")
    return folder


def test_the_numbers_of_open_queries_are_found(site: Site, tmp_path: Path) -> None:
    book = book_of(site, tmp_path / "book", n00000123="open", n777="resolved", n999="reappeared")
    found = find_patients(site, book, tmp_path / "out" / "patients.csv")
    assert (found.asked, found.found) == (2, 1), "777 is settled, 999 is not in the list"
    text = (tmp_path / "out" / "patients.csv").read_text(encoding="utf-8")
    assert text.splitlines()[1:] == [f"{SiteKey.load(site.key_file).pseudonym('patient', '00000123')},123"]
    assert stat.S_IMODE((tmp_path / "out" / "patients.csv").stat().st_mode) == 0o600
    assert "123" not in repr(found).replace(str(tmp_path), "")


def test_what_is_missing_is_told(site: Site, tmp_path: Path) -> None:
    book = book_of(site, tmp_path / "book", n1="open")
    with pytest.raises(PalmaresError, match="E-PHI-04"):
        find_patients(replace(site, identifiers=None), book, tmp_path / "x.csv")
    with pytest.raises(PalmaresError, match="E-QUERY-01"):
        find_patients(site, tmp_path / "none", tmp_path / "x.csv")
    with pytest.raises(PalmaresError, match="E-QUERY-01"):
        find_patients(replace(site, id="altra"), book, tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
