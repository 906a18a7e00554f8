"""Which codes of a structured report may pass: those that DICOM itself lists (PS3.16, as pydicom carries it), and no others.

A code value is text, and a maker's own scheme can hold anything: a code that the standard does not list is dropped. The display is
the standard's, never the file's. Codes of SNOMED-RT, as reports of before 2018 hold them, are read as their SNOMED CT successors.
"""

import csv
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.dicom.values import Coding

SCHEMES = ("DCM", "SCT", "LN", "IBSI", "NCIt", "RADLEX", "UMLS", "FMA")
_OLD_SNOMED = frozenset(["SRT", "SNM3", "99SDM"])


@cache
def _dictionary() -> dict[tuple[str, str], str]:
    """(scheme, code) → meaning, of the standard's codes and units."""
    from pydicom.sr._concepts_dict import concepts

    found: dict[tuple[str, str], str] = {}
    for scheme in (*SCHEMES, "UCUM"):
        by_keyword: Any = concepts[scheme]
        for by_code in by_keyword.values():
            for code, (meaning, _) in by_code.items():
                found.setdefault((scheme, code), meaning)
    return found


@cache
def _successors() -> dict[str, str]:
    """SNOMED-RT → SNOMED CT."""
    from pydicom.sr._snomed_dict import mapping

    successors: dict[str, str] = mapping["SRT"]
    return successors


def listed(scheme: str, code: str) -> Coding | None:
    """The standard's code of a scheme, or None."""
    if scheme in _OLD_SNOMED:
        scheme, code = "SCT", _successors().get(code, "")
    meaning = _dictionary().get((scheme, code)) if scheme != "UCUM" else None
    return None if meaning is None else Coding(scheme, code, meaning)


def unit(scheme: str, code: str) -> Coding | None:
    """A unit of measurement that the standard lists, or None."""
    meaning = _dictionary().get(("UCUM", code)) if scheme == "UCUM" else None
    return None if meaning is None else Coding("UCUM", code, meaning)


@cache
def roles() -> dict[tuple[str, str], str]:
    """(scheme, code) of a content item's name → what it says of a measurement: report_items.csv."""
    with (Path(__file__).parent / "report_items.csv").open(encoding="utf-8", newline="") as lines:
        return {(row["scheme"], row["code"]): row["role"] for row in csv.DictReader(lines)}
