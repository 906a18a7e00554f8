"""Names, tax codes, addresses and numbers planted in every field of every segment: nothing of them is written."""

from pathlib import Path

import pytest

from fhir_adapters.base import open_source
from fhir_adapters.pseudonyms import SiteKey, check_character

KEY = SiteKey(b"k" * 32)
CODE = "RSSMRA60D57F205" + check_character("RSSMRA60D57F205")
PLANTS = [
    "ZANZIBARRI",
    "Via Zanzibarri 7",
    CODE,
    "3391234567",
    "SIO-4711-ZZ",
    "Zanzibarri\\.br\\Maria",
]
SEGMENTS = [
    "MSH",
    "SFT",
    "EVN",
    "PID",
    "PD1",
    "NK1",
    "PV1",
    "PV2",
    "MRG",
    "DG1",
    "PR1",
    "AL1",
    "ORC",
    "OBR",
    "OBX",
    "NTE",
    "SPM",
    "TQ1",
    "RXO",
    "RXE",
    "RXR",
    "RXA",
    "RXC",
    "FT1",
    "IN1",
    "GT1",
    "ZZZ",
    "ROL",
    "PRT",
]
KINDS = ["ADT^A01", "ADT^A08", "ADT^A40", "ORU^R01", "ORM^O01", "RDE^O11", "RAS^O17"]
SOUND = {  # what makes each segment pass, so that its other fields are looked at
    "PID": {3: "4711^^^OSP^MR", 7: "19600417", 8: "F"},
    "PV1": {2: "I", 19: "V1", 44: "20230105100000"},
    "MRG": {1: "88^^^OSP^MR"},
    "DG1": {3: "174.9^x^I9C"},
    "PR1": {3: "85.41^x^I9CP"},
    "ORC": {1: "NW", 2: "P1"},
    "OBR": {2: "P1", 4: "58410-2^x^LN"},
    "OBX": {2: "NM", 3: "718-7^x^LN", 5: "12", 11: "F"},
    "RXE": {2: "L01EF03^x^ATC"},
    "RXA": {3: "20230105", 5: "L01EF03^x^ATC"},
    "SPM": {2: "S1"},
}


def segment(name: str, plant: str, kind: str, values: int) -> str:
    """A segment whose every field, component and repetition holds the plant, but for what makes it pass."""
    if name == "MSH":
        fields = [plant] * 25
        fields[4], fields[6], fields[8], fields[9], fields[15] = "20230105103000", kind, "P", "2.5", ""
        return "MSH|^~\\&|" + "|".join(fields)
    whole = f"{plant}^{plant}^{plant}&{plant}^{plant}^{plant}^{plant}~{plant}"
    fields = dict.fromkeys(range(1, 51), whole) | SOUND.get(name, {})
    if name == "OBX" and values:
        fields |= {2: ["NM", "ST", "TX", "FT", "CE", "CWE", "SN", "DT", "XPN", "ED", "RP", "CX"][values - 1], 5: whole}
    return "|".join([name, *(fields[number] for number in range(1, 51))])


def files(plant: str) -> dict[str, bytes]:
    made = {}
    for kind in KINDS:
        obx = [segment("OBX", plant, kind, values) for values in range(13)]
        lines = [segment(name, plant, kind, 0) for name in SEGMENTS if name != "OBX"] + obx
        made[f"{kind.replace('^', '-')}.hl7"] = "\r".join(lines).encode("utf-8")
    made[f"{plant.replace('/', ' ')[:20]}.hl7"] = f"{plant}\r{plant}|{plant}".encode()
    made["sbagliato.hl7"] = f"MSH|{plant}|{plant}\rPID|1||{plant}".encode()
    return made


@pytest.mark.parametrize("plant", PLANTS)
def test_nothing_that_is_planted_passes(tmp_path: Path, plant: str) -> None:
    (tmp_path / "in").mkdir()
    for name, content in files(plant).items():
        (tmp_path / "in" / name).write_bytes(content)
    source = open_source({"kind": "hl7v2", "path": "in"}, folder=tmp_path, key=KEY)
    extraction = source.extract(tmp_path / "out")
    assert extraction.resources["Patient"] >= 1
    assert extraction.resources["Observation"] >= 7
    assert extraction.resources["MedicationRequest"] >= 1
    assert extraction.resources["Encounter"] == 1
    assert extraction.resources["Procedure"] >= 1
    for path in (tmp_path / "out").rglob("*"):
        assert "ZANZ" not in path.name.upper()
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace").upper()
            for word in (plant.upper(), "ZANZIBARRI", "4711", "SIO-"):
                assert word not in text, (path.name, word)
    assert "ZANZ" not in repr(extraction).upper()
