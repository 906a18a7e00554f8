"""What the hospital's own files say of its patients, for the list that is looked for."""

from pathlib import Path

from fhir_adapters.known_identifiers import of_dicom, of_hl7v2, of_resource
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


def test_of_messages(tmp_path: Path) -> None:
    lines = [
        "MSH|^~\\&|A|B|C|D|2023||ADT^A01|1|P|2.5",
        f"PID|1||MRN88776655^^^O^MR~{FISCAL_CODE}^^^M^NN||ZUCCARELLI^ANTONIETTA||1947|F|||Via Segretissima 33^^MI||333 1234567~a@b.it",
        "PV1|1|I|||||D77665^ROSSI^MARIO||||||||||||V998877",
        "MSH#^~\\&#A#B#C#D#2023##ORU^R01#1#P#2.5",
        "PID#1##MRN1234567##VERDI^ANNA",
        "OBR#1#ACC44332211#",
        "PID|1||not this separator",
    ]
    (tmp_path / "m.hl7").write_bytes("\r".join(lines).encode("cp1252"))
    assert set(of_hl7v2(tmp_path)) == {
        ("record-number", "MRN88776655"),
        ("codice-fiscale", FISCAL_CODE),
        ("name", "ZUCCARELLI ANTONIETTA"),
        ("address", "Via Segretissima 33"),
        ("telephone", "333 1234567"),
        ("e-mail", "a@b.it"),
        ("name", "ROSSI MARIO"),
        ("accession-number", "V998877"),
        ("record-number", "MRN1234567"),
        ("name", "VERDI ANNA"),
        ("accession-number", "ACC44332211"),
    }
