"""What the hospital's own files say of its patients, for the list that is looked for."""

from pathlib import Path

from fhir_adapters.known_identifiers import of_dicom, of_resource
from tests.dicom_helpers import instance, save
from tests.planted import FISCAL_CODE, PLANTED, sound_resources


def test_of_fhir() -> None:
    found = {pair for resource in sound_resources() for pair in of_resource(resource)}
    expected = {(kind, value) for kind, value in PLANTED.items()}
    assert expected <= found
    assert (
        list(of_resource({"resourceType": "Patient", "id": 5, "name": "x", "identifier": {"value": 7}, "contact": [1]}))
        == []
    )


def test_of_dicom(tmp_path: Path) -> None:
    save(
        tmp_path / "a" / "1.dcm",
        instance(PatientName="ZUCCARELLI^ANTONIETTA", PatientID=FISCAL_CODE, AccessionNumber="ACC44332211"),
    )
    (tmp_path / "none.txt").write_text("x")
    found = set(of_dicom(tmp_path))
    assert {
        ("name", "ZUCCARELLI ANTONIETTA"),
        ("codice-fiscale", FISCAL_CODE),
        ("accession-number", "ACC44332211"),
    } <= found
    assert ("uid", "1.2.826.1") in found
