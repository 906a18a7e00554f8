"""A measurement on an image: the Observation is its row, and image_feature ties that row to the series that was measured."""

from typing import Any

import pytest

from tests.mapping_helpers import LOINC, SNOMED, Slice, concept, mapped, patient, resource

DCM = "http://dicom.nema.org/resources/ontology/DCM"
BREAST, CANCER = "76752008", "254837009"


def feature(observation: str, report: str = "2.25.9", **more: Any) -> dict[str, Any]:
    """What the series of a report says of one measurement."""
    parts = [
        {"url": "observation", "valueReference": {"reference": f"Observation/{observation}"}},
        {"url": "report", "valueOid": f"urn:oid:{report}"},
        *({"url": url, **value} for url, value in more.items()),
    ]
    return {"url": "urn:palmares:imaging:feature", "extension": parts}


def series(uid: str, modality: str, *features: dict[str, Any]) -> dict[str, Any]:
    made = {"uid": uid, "modality": {"system": DCM, "code": modality}}
    return made | ({"extension": list(features)} if features else {})


def coding(code: str) -> dict[str, Any]:
    return {"valueCoding": {"system": SNOMED, "code": code}}


def oid(uid: str) -> dict[str, str]:
    return {"valueOid": f"urn:oid:{uid}"}


SOFTWARE = {"valueString": "PyRadiomics 3.0.1"}
RESOURCES = [
    patient(),
    patient("other"),
    resource("Observation", "volume"),
    resource("Observation", "diameter"),
    resource("Observation", "again"),
    resource("Observation", "wrong", status="entered-in-error"),
    resource("Observation", "of-other", of="other"),
    resource("Observation", "local", code=concept(("urn:palmares:site:test:x", "x"))),
    resource(
        "ImagingStudy",
        "images",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:2.25.100"}],
        series=[series("2.25.1", "CT")],
    ),
    resource(
        "ImagingStudy",
        "reports",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:2.25.200"}],
        series=[
            series(
                "2.25.9",
                "SR",
                feature(
                    "volume",
                    series=oid("2.25.1"),
                    tracking=oid("2.25.7"),
                    site=coding(BREAST),
                    finding=coding(CANCER),
                    software=SOFTWARE,
                ),
                feature("diameter", series=oid("2.25.404"), tracking=oid("2.25.7")),
                feature("again"),
                feature("again", series=oid("2.25.1")),  # told twice: once
                feature("wrong"),
                feature("of-other"),
                feature("local"),
                feature("nowhere"),
                {"url": "urn:palmares:imaging:feature", "extension": [{"url": "report", **oid("2.25.9")}]},
            )
        ],
    ),
]


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    return mapped(tmp_path_factory.mktemp("features"), RESOURCES)


def rows(slice_: Slice) -> dict[str, dict[str, Any]]:
    """Observation → its image_feature row."""
    events = {}
    for name in ("measurement", "observation"):
        for origin in slice_.origins():
            if origin["cdm_table"] == name and origin["resource_type"] == "Observation":
                events[origin["cdm_id"]] = origin["resource_id"]
    return {events[row["image_feature_event_id"]]: row for row in slice_.rows("image_feature")}


def test_a_feature_ties_a_measurement_to_the_series_that_was_measured(slice_: Slice) -> None:
    row = rows(slice_)["volume"]
    image = slice_.one("ImagingStudy", "images", "image_occurrence")
    measurement = slice_.one("Observation", "volume", "measurement")
    assert row["image_occurrence_id"] == image["image_occurrence_id"]
    assert row["image_feature_event_id"] == measurement["measurement_id"]
    assert row["image_feature_event_field_concept_id"] == 1147138
    assert row["image_feature_concept_id"] == measurement["measurement_concept_id"]
    assert row["image_feature_type_concept_id"] == 32880  # software computed it
    assert row["alg_system"] == "PyRadiomics 3.0.1"
    assert row["image_finding_concept_id"] == 4112853
    assert row["person_id"] == measurement["person_id"]


def test_an_image_that_is_not_here_is_stood_for_by_the_report(slice_: Slice) -> None:
    row = rows(slice_)["diameter"]
    report = slice_.one("ImagingStudy", "reports", "image_occurrence")
    assert row["image_occurrence_id"] == report["image_occurrence_id"]
    assert row["image_feature_type_concept_id"] == 32817 and row["alg_system"] is None
    # two features of one tracked finding share its number
    assert row["image_finding_id"] == rows(slice_)["volume"]["image_finding_id"] is not None


def test_a_feature_without_a_row_of_its_own_is_none(slice_: Slice) -> None:
    found = rows(slice_)
    assert found.keys() == {"volume", "diameter", "again", "local"}
    assert len(slice_.rows("image_feature")) == 4
    assert found["local"]["image_feature_concept_id"] == 0
    assert slice_.manifest()["losses"]["feature-without-row"] == 4


def test_the_ledger_counts_them(slice_: Slice) -> None:
    assert slice_.of("ImagingStudy", "reports").keys() >= {"image_feature", "image_occurrence", "procedure_occurrence"}
    assert LOINC  # the measurements are those of the Observations: no row is written twice
    assert len(slice_.rows("measurement")) + len(slice_.rows("observation")) == 5
