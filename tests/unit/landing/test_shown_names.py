"""A file name is shown only when no one's name or number can be in it."""

import re

import pytest

from fhir_adapters.shown_names import shown_name

SHOWN = """Patient.ndjson
Observation/1-0001.ndjson
bundle-17.json.gz
data/MedicationStatement.000.ndjson.zst
2/export part 3.json
CARE_TEAM.ndjson"""

HASHED = """Mario_Rossi.json
PatientRossi.json
rossi/Patient.ndjson
Patient-19520314.json
Patient-1952-03-14.json
Patient-1234567.ndjson
patient_è.json
RSSMRA52C14H501X.json"""


@pytest.mark.parametrize("name", SHOWN.splitlines())
def test_neutral_names_are_shown(name: str) -> None:
    assert shown_name(name) == name


@pytest.mark.parametrize("name", [*HASHED.splitlines(), "Patient\n.json", "Patient.json\n", ""])
def test_other_names_are_hashed(name: str) -> None:
    assert re.fullmatch(r"file-[0-9a-f]{12}", shown_name(name))
    assert shown_name(name) == shown_name(name)
    assert shown_name(name) != shown_name(name + "x")
