"""The dicom_folder source: one ImagingStudy per study, one outcome per file, the same whatever the order."""

import json
import os
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.specimen import Specimen

from fhir_adapters.base import open_source
from fhir_adapters.dicom.studies import EXTENSION
from fhir_adapters.errors import PalmaresError
from fhir_adapters.pseudonyms import SiteKey
from tests.dicom_helpers import PET_CLASS, SLIDE_CLASS, code, instance, items, save
from tests.shared import SHARED, needs_shared

KEY = SiteKey(bytes(range(32)))
ROME = {"time_zone": "Europe/Rome", "jobs": 1}


def extract(folder: Path, out: Path, **settings: Any) -> list[dict[str, Any]]:
    """Run the source and give its studies, each validated as FHIR R4B."""
    source = open_source({"kind": "dicom_folder", "path": str(folder), **ROME, **settings}, folder=folder, key=KEY)
    source.extract(out)
    studies = [json.loads(line) for line in (out / "fhir" / "ImagingStudy.ndjson").read_text().splitlines()]
    for study in studies:
        ImagingStudy.model_validate(study)
    return studies


def files(out: Path) -> list[tuple[str, str]]:
    table = pq.read_table(out / "outcomes.parquet").to_pylist()
    return [(row["outcome"], row["reason"]) for row in table]


def extensions(series: dict[str, Any]) -> dict[str, Any]:
    """Name → value (a quantity as number and unit)."""
    found = {}
    for extension in series.get("extension", []):
        [value] = [value for name, value in extension.items() if name != "url"]
        if "unit" in value if isinstance(value, dict) else False:
            value = (value["value"], value["code"])
        found[extension["url"].removeprefix(EXTENSION)] = value["code"] if isinstance(value, dict) else value
    return found


def test_a_study_with_two_series(tmp_path) -> None:
    for number in (1, 2, 3):
        save(tmp_path / "in" / f"a{number}", instance(number, series=2))
    save(tmp_path / "in" / "deep" / "er" / "b.dcm", instance(1, series=1, BodyPartExamined="ABDOMEN"))
    [study] = extract(tmp_path / "in", tmp_path / "out")
    assert study["id"] == KEY.uid("1.2.826.1")
    assert study["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{study['id']}"}]
    assert study["subject"] == {"reference": f"Patient/{KEY.pseudonym('patient', 'MRN0001')}"}
    assert (study["status"], study["started"]) == ("available", "2021-03-01T10:15:00+01:00")
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 4)
    first, second = study["series"]
    assert (first["number"], first["bodySite"]["code"], first["numberOfInstances"]) == (1, "818981001", 1)
    assert (second["number"], second["bodySite"]["code"], second["numberOfInstances"]) == (2, "816094009", 3)
    assert second["uid"] == KEY.uid("1.2.826.1.2")
    assert second["modality"]["code"] == "CT" and second["started"] == "2021-03-01T10:20:00.5+01:00"
    assert extensions(second) == {
        "columns": 1,
        "convolution-kernel": "B30f",
        "kvp": (120, "kV"),
        "manufacturer": "Siemens",
        "model": "SOMATOM DEFINITION AS+",
        "pixel-spacing-column": (0.8, "mm"),
        "pixel-spacing-row": (0.7, "mm"),
        "rows": 1,
        "series-date": "2021-03-01",
        "series-time": "10:20:00.5",
        "slice-thickness": (1.25, "mm"),
    }
    assert "meta" not in study and "instance" not in second
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["resources"] == {"ImagingStudy": 1} and manifest["outcomes"] == {"resource": 4}


def test_instances_are_listed_when_asked(tmp_path) -> None:
    for number in (3, 1, 2):
        save(tmp_path / "in" / str(number), instance(number))
    save(tmp_path / "in" / "4", instance(4, InstanceNumber=None, SOPClassUID="1.3.6.1.4.1.99.1"))
    [study] = extract(tmp_path / "in", tmp_path / "out", instances=True)
    listed = study["series"][0]["instance"]
    assert [one.get("number") for one in listed] == [1, 2, 3, None]
    assert listed[0]["uid"] == KEY.uid("1.2.826.1.1.1")
    assert listed[0]["sopClass"]["code"] == "urn:oid:1.2.840.10008.5.1.4.1.1.2"
    assert "code" not in listed[3]["sopClass"]  # a class of a maker's own


def test_outcomes(tmp_path) -> None:
    folder = tmp_path / "in"
    save(folder / "1", instance(1))
    save(folder / "2", instance(1))
    save(folder / "3", instance(1, patient=""))
    save(folder / "4", instance(2, StudyInstanceUID=None))
    save(folder / "5", instance(3, study=5, patient="MRN1"))
    save(folder / "6", instance(4, study=5, patient="MRN2"))
    save(folder / "7", instance(5, study=7, SOPInstanceUID="1.2.826.7.7"))
    save(folder / "8", instance(6, study=8, SOPInstanceUID="1.2.826.7.7"))
    (folder / "9").write_text("a letter")
    whole = (folder / "1").read_bytes()
    (folder / "91").write_bytes(whole[: whole.index(b"MARIA")])
    shutil.copy(next(Path(pydicom.__file__).parent.rglob("DICOMDIR")), folder / "92")
    os.mkfifo(folder / "93")
    (folder / "94").symlink_to("nowhere")
    (folder / "95").symlink_to(folder)
    studies = extract(folder, tmp_path / "out")
    assert files(tmp_path / "out") == [
        ("resource", None),
        ("merged", "M-DICOM-DUPLICATE"),
        ("quarantined", "Q-DICOM-NO-PATIENT"),
        ("quarantined", "Q-DICOM-NO-UID"),
        ("quarantined", "Q-DICOM-PATIENTS"),
        ("quarantined", "Q-DICOM-PATIENTS"),
        ("quarantined", "Q-DICOM-INSTANCE"),
        ("quarantined", "Q-DICOM-INSTANCE"),
        ("excluded", "X-NOT-DICOM"),
        ("quarantined", "Q-DICOM-DAMAGED"),
        ("excluded", "X-DICOMDIR"),
        ("quarantined", "Q-DICOM-UNREADABLE"),
        ("quarantined", "Q-DICOM-UNREADABLE"),
        ("quarantined", "Q-DICOM-UNREADABLE"),
    ]
    assert [study["id"] for study in studies] == [KEY.uid("1.2.826.1")]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["files"] == 14 == sum(manifest["outcomes"].values())


def test_one_patient_several_studies(tmp_path) -> None:
    for study in (1, 2, 3):
        save(tmp_path / "in" / str(study), instance(1, study=study, patient=" MRN0001" if study == 2 else "MRN0001"))
    studies = extract(tmp_path / "in", tmp_path / "out")
    assert len({study["id"] for study in studies}) == 3
    assert len({study["subject"]["reference"] for study in studies}) == 1


@pytest.mark.parametrize(
    ("sets", "raw", "text"),
    [
        ("ISO_IR 100", "MÜL-1".encode("latin-1"), "MÜL-1"),
        ("ISO_IR 192", "MÜL-1".encode(), "MÜL-1"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        ("", "MÜL-1".encode("latin-1"), None),  # no set: ASCII only
        ("ISO_IR 192", b"M\xfcL-1", None),
    ],
)
def test_character_sets(tmp_path, sets, raw, text) -> None:
    path = save(tmp_path / "in" / "1", instance(1, patient="XXXXXXXXXXXXXXXXXX"[: len(raw)], SpecificCharacterSet=sets))
    path.write_bytes(path.read_bytes().replace(b"XXXXXXXXXXXXXXXXXX"[: len(raw)], raw))
    save(tmp_path / "in" / "2", instance(1, study=2))
    studies = extract(tmp_path / "in", tmp_path / "out")
    if text is None:
        assert files(tmp_path / "out")[0] == ("quarantined", "Q-DICOM-PATIENT-TEXT")
    else:
        assert f"Patient/{KEY.pseudonym('patient', text)}" in {study["subject"]["reference"] for study in studies}


@pytest.mark.parametrize(
    ("elements", "settings", "started"),
    [
        ({}, {}, "2021-03-01T10:15:00+01:00"),
        ({}, {"time_zone": "America/St_Johns"}, "2021-03-01T10:15:00-03:30"),
        ({"StudyDate": "20210701"}, {}, "2021-07-01T10:15:00+02:00"),
        ({"TimezoneOffsetFromUTC": "-0500"}, {}, "2021-03-01T10:15:00-05:00"),
        ({"TimezoneOffsetFromUTC": "Rossi"}, {}, "2021-03-01T10:15:00+01:00"),
        ({"StudyTime": None}, {}, "2021-03-01"),
        ({"StudyTime": "10"}, {}, "2021-03-01T10:00:00+01:00"),
        ({"StudyTime": "101560"}, {}, "2021-03-01T10:15:59+01:00"),
        ({"StudyTime": "256199"}, {}, "2021-03-01"),
        ({"StudyDate": "2021.03.01"}, {}, "2021-03-01T10:15:00+01:00"),
        # without a study date: the series', then the acquisition's
        ({"StudyDate": "20210230"}, {}, "2021-03-01T10:20:00.5+01:00"),
        ({"StudyDate": None, "SeriesDate": "0", "AcquisitionDate": "20210305"}, {}, "2021-03-05"),
        ({"StudyDate": "99999999", "SeriesDate": None}, {}, None),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_when_it_started(tmp_path, elements, settings, started) -> None:
    with pydicom.config.disable_value_validation():
        save(tmp_path / "in" / "1", instance(1, **elements))
    [study] = extract(tmp_path / "in", tmp_path / "out", **settings)
    assert study.get("started") == started


def test_without_a_zone_there_are_only_dates(tmp_path) -> None:
    save(tmp_path / "in" / "1", instance(1))
    source = open_source({"kind": "dicom_folder", "path": "in"}, folder=tmp_path, key=KEY)
    source.extract(tmp_path / "out")
    study = json.loads((tmp_path / "out" / "fhir" / "ImagingStudy.ndjson").read_text())
    assert study["started"] == study["series"][0]["started"] == "2021-03-01"


def test_a_series_that_crosses_midnight_keeps_the_time_of_its_first_day(tmp_path) -> None:
    save(tmp_path / "in" / "1", instance(1, AcquisitionDate="20210302", AcquisitionTime="000500"))
    save(tmp_path / "in" / "2", instance(2, AcquisitionDate="20210301", AcquisitionTime="235500"))
    [study] = extract(tmp_path / "in", tmp_path / "out")
    found = extensions(study["series"][0])
    assert (found["acquisition-date"], found["acquisition-time"]) == ("2021-03-01", "23:55:00")


def test_pet_keeps_what_suv_takes(tmp_path) -> None:
    injection = {
        "RadiopharmaceuticalStartTime": "091500",
        "RadiopharmaceuticalStartDateTime": "20210301091500.00+0100",
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": "6586.2",
        "RadionuclideCodeSequence": code("C-111A1", "SRT"),
        "RadiopharmaceuticalCodeSequence": code("35321007"),
        "Radiopharmaceutical": "FDG for ROSSI",
    }
    data = instance(
        SOPClassUID=PET_CLASS,
        Modality="PT",
        PatientWeight="71.5",
        PatientSize="1.68",
        Units="BQML",
        DecayCorrection="START",
        RadiopharmaceuticalInformationSequence=items(injection),
    )
    save(tmp_path / "in" / "1", data)
    [study] = extract(tmp_path / "in", tmp_path / "out")
    found = extensions(study["series"][0])
    expected = {
        "patient-weight": (71.5, "kg"),
        "patient-size": (1.68, "m"),
        "injected-dose": (350000000, "Bq"),
        "half-life": (6586.2, "s"),
        "injection-date": "2021-03-01",
        "injection-time": "09:15:00",
        "series-time": "10:20:00.5",
        "pixel-units": "BQML",
        "decay-correction": "START",
        "radionuclide": "77004003",
        "radiopharmaceutical": "35321007",
    }
    assert expected.items() <= found.items()
    assert found["injection-to-series"] == (3900.5, "s")


@pytest.mark.parametrize(
    ("injected", "series", "seconds"),
    [
        ({"RadiopharmaceuticalStartTime": "233000"}, {"SeriesTime": "003000"}, 3600),  # over midnight
        ({"RadiopharmaceuticalStartDateTime": "20210228233000"}, {"SeriesTime": "003000"}, 3600),
        ({"RadiopharmaceuticalStartDateTime": "20210302091500"}, {}, None),  # after the series: nothing is said
        ({"RadiopharmaceuticalStartDateTime": "20210201091500"}, {}, None),  # a month before
        ({"RadiopharmaceuticalStartTime": "091500"}, {"SeriesDate": None}, 3900.5),
        ({"RadiopharmaceuticalStartTime": "091500"}, {"SeriesTime": None}, None),
        ({"RadiopharmaceuticalStartTime": "Rossi"}, {}, None),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_how_long_after_the_injection(tmp_path, injected, series, seconds) -> None:
    with pydicom.config.disable_value_validation():
        told = {"SOPClassUID": PET_CLASS, "Modality": "PT", **series}
        save(tmp_path / "in" / "1", instance(1, RadiopharmaceuticalInformationSequence=items(injected), **told))
    [study] = extract(tmp_path / "in", tmp_path / "out")
    found = extensions(study["series"][0])
    assert found.get("injection-to-series") == (None if seconds is None else (seconds, "s"))


def test_a_whole_slide(tmp_path) -> None:
    steps = [
        {"ConceptNameCodeSequence": code("424361007"), "ConceptCodeSequence": code("12710003")},
        {"ConceptNameCodeSequence": code("424361007"), "ConceptCodeSequence": code("36879007")},
        {"ConceptNameCodeSequence": code("121041", "DCM"), "TextValue": "block ROSSI"},
    ]
    specimen = {
        "SpecimenUID": "1.2.826.55",
        "SpecimenIdentifier": "B21-01234",
        "SpecimenPreparationSequence": items({"SpecimenPreparationStepContentItemSequence": items(*steps)}),
    }
    data = instance(
        SOPClassUID=SLIDE_CLASS,
        Modality="SM",
        ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"],
        BurnedInAnnotation="YES",
        SpecimenDescriptionSequence=items(specimen),
        OpticalPathSequence=items({"ObjectiveLensPower": "40"}),
        SharedFunctionalGroupsSequence=items(
            {"PixelMeasuresSequence": items({"PixelSpacing": ["0.00025", "0.00025"]})}
        ),
        TotalPixelMatrixColumns=90000,
        TotalPixelMatrixRows=70000,
        PixelSpacing=None,
    )
    save(tmp_path / "in" / "1", data)
    save(tmp_path / "in" / "2", instance(2, Modality="SM", BurnedInAnnotation="NO", PixelSpacing=None))
    [study] = extract(tmp_path / "in", tmp_path / "out")
    [series] = study["series"]
    stains = [one["valueCoding"]["code"] for one in series["extension"] if one["url"] == EXTENSION + "stain"]
    assert stains == ["12710003", "36879007"]
    found = extensions(series)
    assert found["burned-in-annotation"] == "YES"  # one instance is enough
    assert found["objective-lens-power"] == 40 and found["pixel-spacing-row"] == (0.00025, "mm")
    assert found["total-pixel-matrix-columns"] == 90000
    assert found["specimen-uid"] == f"urn:oid:{KEY.uid('1.2.826.55')}"
    assert found["image-type"] == "ORIGINAL\\PRIMARY\\LABEL\\NONE"


def test_body_site_and_side(tmp_path) -> None:
    breast = {"Modality": "MG", "BodyPartExamined": "BREAST", "ViewPosition": "MLO"}
    save(tmp_path / "in" / "1", instance(1, series=1, **breast, ImageLaterality="L"))
    save(tmp_path / "in" / "2", instance(2, series=2, AnatomicRegionSequence=code("T-28000", "SRT")))
    save(tmp_path / "in" / "3", instance(3, series=3, AnatomicRegionSequence=code("10200004"), BodyPartExamined=None))
    save(tmp_path / "in" / "4", instance(4, series=4, BodyPartExamined="TORACE ROSSI", Modality="XX"))
    [study] = extract(tmp_path / "in", tmp_path / "out")
    first, second, third, fourth = study["series"]
    assert (first["bodySite"]["code"], first["laterality"]["code"]) == ("76752008", "7771000")
    assert extensions(first)["view-position"] == "MLO"
    assert second["bodySite"]["code"] == "816094009"  # the region's code is not of the list: the plain term
    assert third["bodySite"] == {"system": "http://snomed.info/sct", "code": "10200004", "display": "Liver"}
    assert "bodySite" not in fourth and "code" not in fourth["modality"]
    assert [coding["code"] for coding in study["modality"]] == ["CT", "MG"]
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out == {"AnatomicRegionSequence": 1, "BodyPartExamined": 1, "Modality": 1}


def test_another_hospitals_number(tmp_path) -> None:
    save(tmp_path / "in" / "1", instance(1, IssuerOfPatientID="ELSEWHERE"))
    save(tmp_path / "in" / "2", instance(2, study=2, IssuerOfPatientID="HERE"))
    save(tmp_path / "in" / "3", instance(3, study=3))
    assert len(extract(tmp_path / "in", tmp_path / "all")) == 3
    assert len(extract(tmp_path / "in", tmp_path / "ours", issuer="HERE")) == 2
    assert files(tmp_path / "ours")[0] == ("excluded", "X-OTHER-ISSUER")


def test_names_order_and_workers_make_no_difference(tmp_path) -> None:
    rng = random.Random(7)
    made = [
        instance(number, series=series, study=study, patient=f"MRN{study}", KVP=str(rng.choice([100, 120])))
        for study in (1, 2)
        for series in (1, 2)
        for number in range(20)
    ]
    for folder in ("one", "two"):
        rng.shuffle(made)
        for place, data in enumerate(made):
            save(tmp_path / folder / str(rng.random()) / f"{place}.bin", data)
        extract(tmp_path / folder, tmp_path / f"{folder}-out")
    one, two = ((tmp_path / f"{folder}-out" / "fhir" / "ImagingStudy.ndjson").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_in_worker_processes(tmp_path, monkeypatch) -> None:
    from fhir_adapters.dicom import folder

    for number in range(24):
        save(tmp_path / "in" / str(number), instance(number, study=number % 3))
    alone = extract(tmp_path / "in", tmp_path / "alone")
    monkeypatch.setattr(folder, "BATCH", 1)
    together = extract(tmp_path / "in", tmp_path / "together", jobs=2)
    assert alone == together
    assert (tmp_path / "alone" / "outcomes.parquet").read_bytes() == (
        tmp_path / "together" / "outcomes.parquet"
    ).read_bytes()


def test_twice_the_same_bytes(tmp_path) -> None:
    save(tmp_path / "in" / "1", instance(1))
    for out in ("one", "two"):
        extract(tmp_path / "in", tmp_path / out)
    for name in ("manifest.json", "outcomes.parquet", "fhir/ImagingStudy.ndjson"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_pydicoms_own_files(tmp_path) -> None:
    folder = Path(pydicom.__file__).parent / "data"
    studies = extract(folder, tmp_path / "out", instances=True)
    everything = [path for path in folder.rglob("*") if path.is_file()]
    found = files(tmp_path / "out")
    assert len(found) == len(everything)
    written = sum(one == ("resource", None) for one in found)
    assert written == sum(study["numberOfInstances"] for study in studies) > 90
    assert {outcome for outcome, _ in found} == {"resource", "merged", "excluded", "quarantined"}


def zipped(path: Path, folder: Path, names: list[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(folder.rglob("*")):
            if one.is_file() and (names is None or one.name in names):
                archive.write(one, one.relative_to(folder))
    return path


def test_a_zip_of_everything_gives_what_the_folder_gives(tmp_path) -> None:
    folder = Path(pydicom.__file__).parent / "data"
    zipped(tmp_path / "in" / "ROSSI MARIA.zip", folder)
    assert extract(tmp_path / "in", tmp_path / "out") == extract(folder, tmp_path / "folder")
    found = files(tmp_path / "out")
    assert found[0] == ("excluded", "X-DICOM-ZIP")
    assert Counter(found[1:]) == Counter(files(tmp_path / "folder"))
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert rows[1]["item"] == f"{rows[0]['item']}:1" and "ROSSI" not in str(rows)
    # the archive alone, without a folder around it
    assert extract(tmp_path / "in" / "ROSSI MARIA.zip", tmp_path / "alone") == extract(folder, tmp_path / "folder")


@needs_shared("dicom")
def test_a_report_in_a_zip(tmp_path) -> None:
    zipped(tmp_path / "in" / "1.zip", SHARED / "data" / "dicom", ["sr_document.dcm"])
    extract(tmp_path / "in", tmp_path / "out")
    assert len((tmp_path / "out" / "fhir" / "Observation.ndjson").read_text().splitlines()) == 1


def test_zips_that_cannot_be_unpacked(tmp_path) -> None:
    folder = tmp_path / "in"
    save(folder / "0", instance(1))
    save(tmp_path / "one" / "1", instance(2, ImageComments="x" * 5000))
    whole = zipped(tmp_path / "whole.zip", tmp_path / "one").read_bytes()
    (folder / "1-cut.zip").write_bytes(whole[: len(whole) // 2])
    flags = whole.index(b"PK\1\2") + 8
    (folder / "2-encrypted.zip").write_bytes(whole[:flags] + b"\1" + whole[flags + 1 :])
    middle = whole.index(b"PK\1\2") // 2
    (folder / "3-damaged.zip").write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    with zipfile.ZipFile(folder / "4-nested.zip", "w") as archive:
        archive.writestr("inner.zip", whole)
        archive.writestr("../../outside", (tmp_path / "one" / "1").read_bytes())
    [study] = extract(folder, tmp_path / "out")
    assert study["numberOfInstances"] == 2
    assert files(tmp_path / "out") == [
        ("resource", None),
        *[("excluded", "X-DICOM-ZIP")] * 4,
        *[("quarantined", "Q-DICOM-ZIP")] * 3,
        ("excluded", "X-NOT-DICOM"),
        ("resource", None),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "one", "out", "whole.zip"]


def steps(*told: tuple[str, str]) -> Any:
    """Preparation steps of a specimen: the code of each and its moment."""
    return items(
        *(
            {
                "SpecimenPreparationStepContentItemSequence": items(
                    {"ConceptNameCodeSequence": code("111701", "DCM"), "ConceptCodeSequence": code(kind)},
                    {"ConceptNameCodeSequence": code("111702", "DCM"), "DateTime": moment},
                )
            }
            for kind, moment in told
        )
    )


@pytest.mark.parametrize(
    ("told", "collected", "received"),
    [
        (
            [("433465004", "20190604072000+0000"), ("433465004", "20190605"), ("127790008", "20190606")],
            None,
            "2019-06-04",
        ),
        ([("17636008", "20190601"), ("433465004", "20190604")], "2019-06-01", "2019-06-04"),
        ([("127790008", "20190606")], None, None),
        ([("433465004", "ROSSI")], None, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_when_a_sample_was_taken(tmp_path, told, collected, received) -> None:
    with pydicom.config.disable_value_validation():
        description = {"SpecimenUID": "1.2.826.55", "SpecimenPreparationSequence": steps(*told)}
        slide = instance(SOPClassUID=SLIDE_CLASS, Modality="SM", SpecimenDescriptionSequence=items(description))
        save(tmp_path / "in" / "1", slide)
    extract(tmp_path / "in", tmp_path / "out")
    sample = json.loads((tmp_path / "out" / "fhir" / "Specimen.ndjson").read_text())
    Specimen.model_validate(sample)
    assert sample.get("collection", {}).get("collectedDateTime") == collected
    assert sample.get("receivedTime") == received


@needs_shared("dicom")
def test_slides_reports_and_segmentations(tmp_path) -> None:
    studies = extract(SHARED / "data" / "dicom", tmp_path / "out")
    modalities = {series["modality"]["code"] for study in studies for series in study["series"]}
    assert modalities == {"CT", "DX", "SEG", "SM", "SR", "ANN"}
    assert all(outcome in ("resource", "merged") for outcome, _ in files(tmp_path / "out"))
    [slide] = [series for study in studies for series in study["series"] if series["modality"]["code"] == "SM"][:1]
    assert {"objective-lens-power", "stain"} & extensions(slide).keys() or slide["numberOfInstances"]


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"path": "nowhere"}, "E-SRC-04"),
        ({"path": "empty"}, "E-SRC-04"),
        ({"path": "letters"}, "E-SRC-04"),
        ({"path": "letters", "time_zone": "Rome"}, "E-SRC-02"),
        ({"path": "letters", "jobs": "many"}, "E-SRC-02"),
    ],
)
def test_nothing_to_read(tmp_path, settings, number) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "rossi.txt").write_text("ROSSI")
    with pytest.raises(PalmaresError) as raised:
        open_source({"kind": "dicom_folder", **settings}, folder=tmp_path, key=KEY).extract(tmp_path / "out")
    assert raised.value.code == number and "rossi" not in str(raised.value).lower()
    assert not (tmp_path / "out").exists()


def test_it_needs_the_sites_key(tmp_path) -> None:
    with pytest.raises(PalmaresError) as raised:
        open_source({"kind": "dicom_folder", "path": "in"}, folder=tmp_path, key=None)
    assert raised.value.code == "E-SRC-03"


def test_a_record_number_with_and_without_its_zeros_is_one_patient_when_the_site_says_so(tmp_path) -> None:
    save(tmp_path / "in" / "1", instance(1, study=1, patient="0012345"))
    save(tmp_path / "in" / "2", instance(1, study=2, patient="12345", PatientWeight="12345"))
    as_written = extract(tmp_path / "in", tmp_path / "1")
    assert len({study["subject"]["reference"] for study in as_written}) == 2
    declared = extract(tmp_path / "in", tmp_path / "2", record_number_digits=8)
    expected = f"Patient/{KEY.pseudonym('patient', '00012345')}"
    assert {study["subject"]["reference"] for study in declared} == {expected}
