"""Reports, slides and images of other people's making, from the files to the rows of OMOP."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pydicom
import pytest

from fhir_adapters.base import open_source
from fhir_adapters.landing import land
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.validation import validate
from omop_etl.mapping import map_site
from tests.mapping_helpers import site
from tests.shared import SHARED, needs_shared

KEY = SiteKey(bytes(range(32)))
FILES = SHARED / "data" / "dicom"


def rows(slice_: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    for path in slice_.glob("*.parquet"):
        connection.execute(f"CREATE VIEW {path.stem} AS FROM read_parquet('{path}')")
    return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice of the shared DICOM files; their patients are known to the hospital."""
    place = tmp_path_factory.mktemp("dicom")
    source = open_source(
        {"kind": "dicom_folder", "path": str(FILES), "time_zone": "Europe/Rome", "jobs": 1}, folder=place, key=KEY
    )
    source.extract(place / "extracted")
    numbers = {str(pydicom.dcmread(path, stop_before_pixels=True).PatientID).strip() for path in FILES.glob("*.dcm")}
    people = [{"resourceType": "Patient", "id": KEY.pseudonym("patient", one), "birthDate": "1950"} for one in numbers]
    (place / "people").mkdir()
    (place / "people" / "Patient.ndjson").write_text("".join(json.dumps(one) + "\n" for one in people))
    land([place / "extracted", place / "people"], place / "landed", jobs=1)
    validate(place / "landed", place / "accepted", jobs=1)
    map_site(site(), place / "accepted", place / "slice", vocabulary=None, jobs=1)
    return place / "slice"


@needs_shared("dicom")
def test_a_study_is_a_procedure_and_a_series_an_image(slice_: Path) -> None:
    studies = [
        json.loads(one) for one in (slice_.parent / "extracted/fhir/ImagingStudy.ndjson").read_text().splitlines()
    ]
    assert rows(slice_, "SELECT count(*) FROM procedure_occurrence") == [(len(studies),)]
    series = {one["uid"] for study in studies for one in study["series"]}
    found = rows(slice_, "SELECT image_series_uid, procedure_occurrence_id FROM image_occurrence")
    assert {one for one, _ in found} == series and len(found) == len(series)
    assert all(procedure for _, procedure in found)


@needs_shared("dicom")
def test_the_measurements_of_the_two_reports_with_their_units(slice_: Path) -> None:
    found = rows(
        slice_,
        """SELECT m.measurement_source_value, m.value_as_number, m.unit_source_value
        FROM image_feature f JOIN measurement m ON m.measurement_id = f.image_feature_event_id
        WHERE f.image_feature_event_field_concept_id = 1147138 AND m.value_as_number IS NOT NULL""",
    )
    observed = rows(
        slice_,
        """SELECT o.observation_source_value, o.value_as_number, o.unit_source_value
        FROM image_feature f JOIN observation o ON o.observation_id = f.image_feature_event_id
        WHERE f.image_feature_event_field_concept_id <> 1147138 AND o.value_as_number IS NOT NULL""",
    )
    assert {(code, round(value, 3), unit) for code, value, unit in found + observed} == {
        ("131184002", 1.7, "cm2"),
        ("X6K6", -119.074, "[hnsf'U]"),
        ("81827009", 10, "mm"),
        ("81827009", 20, "mm"),
        ("118565006", 200, "mm3"),
    }
    # two more are answers in codes, and each of the seven is tied to a series
    assert rows(slice_, "SELECT count(*) FROM image_feature JOIN image_occurrence USING (image_occurrence_id)") == [
        (7,)
    ]


@needs_shared("dicom")
def test_the_slides_show_a_sample(slice_: Path) -> None:
    found = rows(
        slice_, "SELECT specimen_date::VARCHAR, specimen_source_value, anatomic_site_source_value FROM specimen"
    )
    assert found == [("2019-06-04", "430856003", "12738006")] * len(found) and found


@needs_shared("dicom")
def test_every_file_and_every_resource_has_its_outcome(slice_: Path) -> None:
    left = rows(slice_, "SELECT resource_type, outcome, reason FROM ledger WHERE outcome NOT IN ('written', 'merged')")
    assert left == []
    outcomes = duckdb.sql(
        f"SELECT outcome FROM read_parquet('{slice_.parent / 'extracted' / 'outcomes.parquet'}')"
    ).fetchall()
    assert Counter(one for (one,) in outcomes) == {"resource": 24, "merged": 1}
