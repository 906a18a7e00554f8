"""Identities: names, birth dates and codici fiscali that only the hospital itself would see, and its record numbers."""

import hashlib
from dataclasses import dataclass
from datetime import date

from fhir_adapters.pseudonyms import check_character

_MONTHS = "ABCDEHLMPRST"


@dataclass(frozen=True)
class Identity:
    """Who a human is, for DICOM headers and tables of later sources; never for FHIR."""

    surname: str
    given: str
    sex: str
    birth: date
    codice_fiscale: str


def identity(key: str, sex: str, birth: date, table: dict[str, list[str]]) -> Identity:
    """The identity of a human by its key (H000001 …): no two of up to 24,000 women (6,000 men) share a codice fiscale."""
    names = table["women"] if sex == "female" else table["men"]
    surnames, places = table["surnames"], table["municipalities"]
    number = int(key[1:])
    surname = surnames[number % len(surnames)]
    given = names[number // len(surnames) % len(names)]
    place = places[number // (len(surnames) * len(names)) % len(places)]
    return Identity(surname, given, sex, birth, codice_fiscale(surname, given, sex, birth, place))


def codice_fiscale(surname: str, given: str, sex: str, birth: date, municipality: str) -> str:
    """The tax code of a person (DM 23 December 1976): letters of the names, birth, sex, municipality, check character."""
    day = birth.day + (40 if sex == "female" else 0)
    first = (
        f"{surname_letters(surname)}{given_letters(given)}{birth.year % 100:02}{_MONTHS[birth.month - 1]}{day:02}"
        f"{municipality}"
    )
    return first + check_character(first)


def surname_letters(name: str) -> str:
    """Consonants, then vowels, then X: three letters."""
    consonants, vowels = _letters(name)
    return (consonants + vowels + "XXX")[:3]


def given_letters(name: str) -> str:
    """As for the surname, but of four or more consonants the second is left out."""
    consonants, vowels = _letters(name)
    if len(consonants) > 3:
        consonants = consonants[0] + consonants[2:4]
    return (consonants + vowels + "XXX")[:3]


def _letters(name: str) -> tuple[str, str]:
    letters = [letter for letter in name.upper() if "A" <= letter <= "Z"]
    return "".join(x for x in letters if x not in "AEIOU"), "".join(x for x in letters if x in "AEIOU")


def record_number(site: str, number: int) -> str:
    """The hospital's own number of a patient (MRN), as it stands in DICOM's PatientID."""
    return f"SIO-{site[4:]}-{(number * 7919 + 104729) % 999983:06}"


def accession_number(record_number: str) -> str:
    """The number of an order, as it stands in DICOM's AccessionNumber; one per patient is enough here."""
    return f"A{int(hashlib.md5(record_number.encode(), usedforsecurity=False).hexdigest()[:6], 16) % 10**7:07}"
