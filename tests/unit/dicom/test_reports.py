"""TID 1500 reports: every measurement with its unit, region, method and software; no text of the report."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from fhir.resources.R4B.observation import Observation
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes

from fhir_adapters.base import open_source
from fhir_adapters.dicom.studies import EXTENSION
from fhir_adapters.pseudonyms import SiteKey
from tests.dicom_helpers import instance, save
from tests.shared import SHARED, needs_shared

KEY = SiteKey(bytes(range(32)))
REPORTS = ("sr_document.dcm", "sr_document_with_multiple_groups.dcm")
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def extract(folder: Path, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Resource type → resources, of a folder; Observations validated as FHIR R4B."""
    settings = {"kind": "dicom_folder", "path": str(folder), "time_zone": "Europe/Rome", "jobs": 1}
    open_source(settings, folder=folder, key=KEY).extract(out)
    found = {}
    for path in (out / "fhir").iterdir():
        found[path.stem] = [json.loads(line) for line in path.read_text().splitlines()]
    for one in found.get("Observation", []):
        Observation.model_validate(one)
    return found


def extensions(one: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for extension in one.get("extension", []):
        [value] = [value for name, value in extension.items() if name != "url"]
        found[extension["url"].removeprefix(EXTENSION)] = value["code"] if isinstance(value, dict) else value
    return found


def quantity(one: dict[str, Any]) -> tuple[str, float, str]:
    return one["code"]["coding"][0]["code"], one["valueQuantity"]["value"], one["valueQuantity"]["code"]


def by_highdicom(path: Path) -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of every measurement, as highdicom reads the report: the second implementation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = hd.sr.srread(path).content
        kinds = ("image", "planar_roi", "volumetric_roi")
        for group in (group for kind in kinds for group in getattr(content, f"get_{kind}_measurement_groups")()):
            for one in group.get_measurements():
                yield one.name.value, float(one.value), one.unit.value


@needs_shared("dicom")
@pytest.mark.parametrize("name", REPORTS)
def test_measurements_are_those_that_highdicom_reads(name, tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).symlink_to(SHARED / "data" / "dicom" / name)
    found = extract(folder, tmp_path / "out")["Observation"]
    known = {"G-A16A": "131184002"}  # SNOMED-RT, as that report still holds it
    expected = sorted((known.get(code, code), value, unit) for code, value, unit in by_highdicom(folder / name))
    assert sorted(quantity(one) for one in found if "valueQuantity" in one) == expected


@needs_shared("dicom")
def test_the_two_reports(tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in REPORTS:
        (folder / name).symlink_to(SHARED / "data" / "dicom" / name)
    found = extract(folder, tmp_path / "out")
    measured = {quantity(one): one for one in found["Observation"] if "valueQuantity" in one}
    assert measured.keys() == {
        ("131184002", 1.7, "cm2"),
        ("X6K6", -119.0738525390625, "[hnsf'U]"),
        ("81827009", 10, "mm"),
        ("81827009", 20, "mm"),
        ("118565006", 200, "mm3"),
    }
    assert measured["131184002", 1.7, "cm2"]["code"]["coding"][0]["system"] == "http://snomed.info/sct"
    nodule = measured["81827009", 10, "mm"]
    assert extensions(nodule)["finding"] == "27925004" and "image-uid" in extensions(nodule)
    answers = {one["code"]["coding"][0]["code"]: one for one in found["Observation"] if "valueCodeableConcept" in one}
    assert len(answers) == 2
    # every Observation is told of once, at its report
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    assert sum(row["resources"] for row in rows) == sum(map(len, found.values()))


def report(
    *groups: Any, patient: str = "MRN0001", device: str | None = None, evidence: tuple[pydicom.Dataset, ...] = ()
) -> Comprehensive3DSR:
    """A report on the first instance of `tests.dicom_helpers`."""
    image = instance(1, patient=patient, PatientBirthDate="", PatientSex="F", AccessionNumber="", StudyID="1")
    image.ReferringPhysicianName = "NERI^ANNA"
    person = ObserverContext(codes.DCM.Person, PersonObserverIdentifyingAttributes(name="NERI^ANNA"))
    observers: dict[str, Any] = {"observer_person_context": person}
    if device:
        attributes = DeviceObserverIdentifyingAttributes(uid="1.2.3.4.5", name="WS NERI 3", model_name=device)
        observers["observer_device_context"] = ObserverContext(codes.DCM.Device, attributes)
    content = MeasurementReport(
        observation_context=ObservationContext(**observers),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=list(groups),
    )
    return Comprehensive3DSR(
        evidence=[image, *evidence],
        content=content,
        series_instance_uid="1.2.826.1.9",
        series_number=9,
        sop_instance_uid="1.2.826.1.9.1",
        instance_number=1,
        institution_name="OSPEDALE SEGRETO",
        manufacturer="highdicom",
    )


def planar(*measures: Measurement, **more: Any) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, 1.0]]),
        source_image=SourceImageForRegion("1.2.840.10008.5.1.4.1.1.2", "1.2.826.1.1.1"),
    )
    tracking = TrackingIdentifier(uid="1.2.826.77", identifier="lesione di ROSSI MARIA")
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking, referenced_region=region, measurements=measures, **more
    )


def numbers(data: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Every NUM item of a report."""
    found = []
    for item in data.get("ContentSequence", []):
        found += [item] if item.ValueType == "NUM" else numbers(item)
    return found


def test_region_method_unit_and_software(tmp_path) -> None:
    diameter = Measurement(
        codes.SCT.Diameter,
        12.5,
        codes.UCUM.Millimeter,
        derivation=codes.SCT.Maximum,
        method=codes.DCM.ThreeDimensionalMethod,
    )
    plain = Measurement(codes.SCT.Area, 3.0, codes.UCUM.SquareMillimeter)
    group = planar(
        diameter,
        plain,
        finding_type=codes.SCT.Neoplasm,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_id=AlgorithmIdentification("PyRadiomics", "3.0.1"),
        finding_sites=[FindingSite(codes.SCT.Breast, laterality=codes.SCT.Left)],
    )
    save(tmp_path / "in" / "ct", instance(1))
    save(tmp_path / "in" / "sr", report(group))
    found = extract(tmp_path / "in", tmp_path / "out")
    [area] = [one for one in found["Observation"] if "measured" not in extensions(one)]
    assert quantity(area) == ("42798000", 3, "mm2")
    assert area["bodySite"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "76752008",
        "display": codes.SCT.Breast.meaning,
    }
    [device] = area["contained"]
    assert device["deviceName"][0]["name"] == "PyRadiomics" and device["version"] == [{"value": "3.0.1"}]
    assert area["device"] == {"reference": "#software"}
    said = extensions(area)
    assert (said["finding"], said["laterality"], said["region"]) == ("108369006", "7771000", "POLYLINE")
    assert said["image-uid"] == f"urn:oid:{KEY.uid('1.2.826.1.1.1')}"
    assert said["series-uid"] == f"urn:oid:{KEY.uid('1.2.826.1.1')}"
    assert said["tracking-uid"] == f"urn:oid:{KEY.uid('1.2.826.77')}"
    assert area["derivedFrom"] == [{"reference": f"ImagingStudy/{KEY.uid('1.2.826.1')}"}]
    [derived] = [one for one in found["Observation"] if "measured" in extensions(one)]
    # the largest diameter is not the diameter: its code says which it is
    assert derived["code"]["coding"][0]["code"].startswith("SCT-81827009-")
    assert derived["method"]["coding"][0]["display"] == "Three-dimensional method"
    # the study says of the report's series which Observations are its features, and on which series
    [study] = found["ImagingStudy"]
    [sr] = [series for series in study["series"] if series["modality"]["code"] == "SR"]
    features = [one["extension"] for one in sr["extension"] if one["url"] == EXTENSION + "feature"]
    assert {f[0]["valueReference"]["reference"] for f in features} == {
        f"Observation/{one['id']}" for one in found["Observation"]
    }
    assert all({"url": "software", "valueString": "PyRadiomics 3.0.1"} in f for f in features)


def test_a_segment_of_a_segmentation(tmp_path) -> None:
    segment = ReferencedSegment(
        SEGMENTATION, "1.2.826.55", 3, source_images=[SourceImageForSegmentation(hd.UID(CT), "1.2.826.1.1.1")]
    )
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid="1.2.826.78", identifier="x"),
        referenced_segment=segment,
        measurements=[Measurement(codes.SCT.Volume, 200.0, codes.UCUM.CubicMillimeter)],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.DCM.LevelOfSignificance, CodedConcept("371928007", "SCT", "x")),
        ],
    )
    told = instance(1, series=5, SOPClassUID=SEGMENTATION, SOPInstanceUID="1.2.826.55", Modality="SEG")
    save(tmp_path / "in" / "sr", report(group, device="3D Slicer", evidence=(told,)))
    found = extract(tmp_path / "in", tmp_path / "out")["Observation"]
    [volume] = [one for one in found if "valueQuantity" in one]
    said = extensions(volume)
    assert said["segment"] == 3 and said["segmentation-uid"] == f"urn:oid:{KEY.uid('1.2.826.55')}"
    assert volume["contained"][0]["deviceName"][0]["name"] == "3D Slicer"
    [answer] = [one for one in found if "valueCodeableConcept" in one]
    assert answer["valueCodeableConcept"]["coding"][0]["code"] == "371928007"


CT = "1.2.840.10008.5.1.4.1.1.2"
SECRETS = ("ROSSI", "NERI", "SEGRETO", "8877665544", "MARIA", "WS ")


def test_what_is_not_listed_is_counted_and_never_shown(tmp_path) -> None:
    mine = CodedConcept("ROSSI-MARIA", "99HOSPITAL", "Diametro di ROSSI MARIA")
    group = planar(
        Measurement(mine, 1.0, codes.UCUM.Millimeter),
        Measurement(codes.SCT.Diameter, 8877665544.0, codes.UCUM.Millimeter),
        Measurement(codes.SCT.Area, 1.0, CodedConcept("ROSSI", "UCUM", "ROSSI")),
        Measurement(codes.SCT.Volume, 1.0, codes.UCUM.CubicMillimeter),
        Measurement(codes.SCT.Length, 2.0, codes.UCUM.Millimeter),
        finding_type=mine,
        algorithm_id=AlgorithmIdentification("ROSSI ANALYZER", "20240101"),
    )
    data = report(group, patient="8877665544", device="WS NERI 3")
    *_, empty, last = numbers(data)
    del empty.MeasuredValueSequence
    last.ConceptNameCodeSequence[0].CodeMeaning = "ROSSI MARIA"
    save(tmp_path / "in" / "sr", data)
    found = extract(tmp_path / "in", tmp_path / "out")
    assert [quantity(one)[1:] for one in found["Observation"]] == [(2, "mm")]
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out["report.name-not-listed"] == left_out["report.unit-not-listed"] == 1
    assert left_out["report.no-value"] == left_out["report.record-number"] == 1
    assert left_out["report.finding-not-listed"] == 1 and left_out["report.software-not-listed"] >= 1
    for path in (tmp_path / "out").rglob("*.*"):
        content = path.read_bytes().decode("latin-1").upper()
        assert not [word for word in SECRETS if word in content]


@pytest.mark.parametrize("damage", ["value-type", "deep", "loop-less", "no-content", "text-number"])
def test_a_broken_report_gives_what_can_be_read(damage, tmp_path) -> None:
    data = report(planar(Measurement(codes.SCT.Diameter, 12.5, codes.UCUM.Millimeter)))
    [number] = numbers(data)
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if damage == "value-type":
            number.ValueType = "ROSSI"
        elif damage == "deep":
            inner = pydicom.Dataset()
            inner.ValueType = "CONTAINER"
            for _ in range(60):
                outer = pydicom.Dataset()
                outer.ValueType, outer.ContentSequence = "CONTAINER", [inner]
                inner = outer
            data.ContentSequence = pydicom.Sequence([*data.ContentSequence, inner])
        elif damage == "loop-less":
            number.ConceptNameCodeSequence = []
        elif damage == "no-content":
            del data.ContentSequence
        else:
            value = number.MeasuredValueSequence[0]
            value.NumericValue = ""
            value.pop("FloatingPointValue", None)
        save(tmp_path / "in" / "sr", data)
    found = extract(tmp_path / "in", tmp_path / "out")
    assert len(found["ImagingStudy"]) == 1
    assert len(found.get("Observation", [])) == (1 if damage == "deep" else 0)
