"""The DICOM folders: readable, identifying as real ones are, small."""

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from tests.synthetic_helpers import Run


def _studies(run: Run) -> dict[str, list[pydicom.Dataset]]:
    damaged = {(row["site"], row["position"]) for row in run.truth("defects") if row["resource_type"] == "ImagingStudy"}
    studies: dict[str, list[pydicom.Dataset]] = {}
    for site in run.sites():
        folder = run.out / "hospitals" / site / "dicom"
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (site, path.relative_to(folder).as_posix()) not in damaged:
                dataset = pydicom.dcmread(path)
                studies.setdefault(dataset.StudyInstanceUID, []).append(dataset)
    return studies


def test_every_study_of_the_truth_is_there_and_reads(run: Run) -> None:
    studies = _studies(run)
    rows = run.truth("imaging")
    assert 70 <= len(rows) <= 130
    assert {row["study_uid"] for row in rows} == set(studies)
    for row in rows:
        datasets = studies[row["study_uid"]]
        assert len(datasets) == row["instances"]
        assert len({dataset.SeriesInstanceUID for dataset in datasets}) == row["series"]
        assert {dataset.StudyDate for dataset in datasets} == {f"{row['study_date']:%Y%m%d}"}
        assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(datasets)
        assert all(len(dataset.PixelData) <= 256 for dataset in datasets)


def test_there_are_ct_pet_and_whole_slides(run: Run) -> None:
    assert {row["kind"] for row in run.truth("imaging")} == {"CT", "PET-CT", "SM"}
    datasets = [dataset for found in _studies(run).values() for dataset in found]
    assert {dataset.Modality for dataset in datasets} == {"CT", "PT", "SM"}
    pet = next(dataset for dataset in datasets if dataset.Modality == "PT")
    assert pet.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose > 0
    slide = next(dataset for dataset in datasets if dataset.Modality == "SM")
    assert slide.OpticalPathSequence[0].ObjectiveLensPower in (20, 40)


def test_headers_identify_the_patient_in_standard_and_private_elements(run: Run) -> None:
    by_number = {row["record_number"]: row for row in run.truth("identifiers")}
    for found in _studies(run).values():
        dataset = found[0]
        row = by_number[dataset.PatientID]
        assert dataset.PatientName == f"{row['surname']}^{row['given_name']}"
        assert dataset.OtherPatientIDs == row["codice_fiscale"]
        assert dataset.AccessionNumber == row["accession_number"]
        private = [element for element in dataset if element.tag.is_private and not element.tag.is_private_creator]
        assert any(row["codice_fiscale"] == element.value for element in private)


def test_damaged_files_are_where_the_list_says(run: Run) -> None:
    rows = [row for row in run.truth("defects") if row["resource_type"] == "ImagingStudy"]
    assert {row["kind"] for row in rows} == {"dicom-truncated", "dicom-text-file"}
    for row in rows:
        path = run.out / "hospitals" / row["site"] / "dicom" / row["position"]
        assert path.is_file()
        if row["kind"] == "dicom-text-file":
            with pytest.raises(InvalidDicomError):
                pydicom.dcmread(path)
