"""What the hospital's own files say of its patients, for the list that is looked for."""

import zipfile
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

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


def test_of_dicom_wherever_it_lies(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """One file, a zip archive, a file without its preamble, further numbers in a sequence; broken files say nothing."""
    other = Dataset()
    other.PatientID = "MRN88776655"
    data = instance(PatientName="ZUCCARELLI^ANTONIETTA", OtherPatientIDs=["ALTRO12345", "ALTRO67890"])
    data.OtherPatientIDsSequence = [other]
    save(tmp_path / "plain" / "1.dcm", data)
    expected = {
        ("name", "ZUCCARELLI ANTONIETTA"),
        ("record-number", "ALTRO12345"),
        ("record-number", "ALTRO67890"),
        ("record-number", "MRN88776655"),
    }
    assert expected <= set(of_dicom(tmp_path / "plain")) == set(of_dicom(tmp_path / "plain" / "1.dcm"))
    whole = (tmp_path / "plain" / "1.dcm").read_bytes()
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / "export.zip", "w") as archive:
        archive.writestr("a/b", whole)
        archive.writestr("a/c.txt", "x")
    assert expected <= set(of_dicom(tmp_path / "packed"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "1").write_bytes(whole[132:])
    assert expected <= set(of_dicom(tmp_path / "old"))
    (tmp_path / "broken").mkdir()
    for cut in range(0, len(whole), 97):
        (tmp_path / "broken" / str(cut)).write_bytes(whole[:cut])
    (tmp_path / "broken" / "cut.zip").write_bytes((tmp_path / "packed" / "export.zip").read_bytes()[:-30])
    assert {kind for kind, _ in of_dicom(tmp_path / "broken")} <= {"name", "record-number", "uid", "accession-number"}
    assert list(of_dicom(tmp_path / "nowhere")) == []
    assert recwarn.list == []  # pydicom's warnings show values
