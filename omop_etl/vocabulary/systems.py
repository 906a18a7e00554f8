"""FHIR code systems and the OMOP vocabularies that hold their codes, from `mappings/codes/fhir_systems.csv`.

A code is looked up as it stands first. The table names a *form* for systems that are often written otherwise than OMOP
writes them; the code in that form is the second try:

    upper       upper case: LOINC, ATC, HCPCS … (SNOMED and RxNorm are digits; in UCUM the case matters: no form)
    icd         upper case, a dot after the third character (the fourth in ICD-9-CM's E codes): c509 -> C50.9
    icd9proc    a dot after the second character: 8541 -> 85.41
    ndc         eleven digits: 0071-0155-23 -> 00071015523
    two_digits  8 -> 08 (CVX)
    aic         nine digits without the leading letter: A012745 093 -> 012745093
"""

import re
from collections.abc import Callable
from functools import cache

from fhir_adapters.knowledge import table


def _upper(code: str) -> str:
    return code.strip().upper()


def _icd(code: str) -> str:
    bare = _upper(code).rstrip(".")
    place = 4 if re.fullmatch(r"E[0-9]{4}", bare) else 3
    return bare if "." in bare or len(bare) <= place else f"{bare[:place]}.{bare[place:]}"


def _icd9proc(code: str) -> str:
    bare = _upper(code).rstrip(".")
    return bare if "." in bare or len(bare) <= 2 else f"{bare[:2]}.{bare[2:]}"


def _ndc(code: str) -> str:
    parts = re.fullmatch(r"([0-9]{4,5})-([0-9]{3,4})-([0-9]{1,2})", code.strip())
    if parts:
        return parts[1].zfill(5) + parts[2].zfill(4) + parts[3].zfill(2)
    return re.sub(r"[^0-9]", "", code)


def _two_digits(code: str) -> str:
    return code.strip().zfill(2)


def _aic(code: str) -> str:
    digits = re.sub(r"[^0-9]", "", code)
    return digits.zfill(9) if digits else ""


FORMS: dict[str, Callable[[str], str]] = {
    "upper": _upper,
    "icd": _icd,
    "icd9proc": _icd9proc,
    "ndc": _ndc,
    "two_digits": _two_digits,
    "aic": _aic,
}


def system_key(system: str) -> str:
    """A system's address as it is compared: case, a final slash, https, a bare OID and `|version` make no difference."""
    key = system.strip().partition("|")[0].rstrip("/").lower()
    key = re.sub(r"^https://", "http://", key)
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3,}", key):
        key = f"urn:oid:{key}"
    # an edition and version may follow: http://snomed.info/sct/900000000000207008/version/20240101
    return re.sub(r"^(http://snomed\.info/sct)/.*$", r"\1", key)


@cache
def vocabularies() -> dict[str, tuple[tuple[str, str], ...]]:
    """System key → (vocabulary_id, form) in the order in which they are tried."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in table("codes", "fhir_systems.csv"):
        found.setdefault(system_key(row["system"]), []).append((row["vocabulary_id"], row["form"]))
    return {key: tuple(value) for key, value in found.items()}


def candidates(system: str, code: str) -> list[tuple[int, int, str, str]]:
    """Where a code may stand: (0 as written | 1 in the system's form, the vocabulary's place, vocabulary_id, code)."""
    tries = []
    for place, (vocabulary_id, form) in enumerate(vocabularies().get(system_key(system), ())):
        tries.append((0, place, vocabulary_id, code))
        other = FORMS[form](code) if form else code
        if other and other != code:
            tries.append((1, place, vocabulary_id, other))
    return sorted(tries)
