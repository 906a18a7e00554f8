"""Small DICOM files that no patient was in front of: written by pydicom, with tiny pixel data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
PET_CLASS = "1.2.840.10008.5.1.4.1.1.128"
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"


def instance(
    number: int = 1, *, series: int = 1, study: int = 1, patient: str = "MRN0001", **elements: Any
) -> FileDataset:
    """A CT instance. `elements` replace or add by keyword; None removes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT_CLASS
    meta.MediaStorageSOPInstanceUID = f"1.2.826.{study}.{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": CT_CLASS,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": f"1.2.826.{study}",
        "SeriesInstanceUID": f"1.2.826.{study}.{series}",
        "PatientID": patient,
        "PatientName": "ROSSI^MARIA",
        "StudyDate": "20210301",
        "StudyTime": "101500",
        "SeriesDate": "20210301",
        "SeriesTime": "102000.5",
        "Modality": "CT",
        "Manufacturer": "SIEMENS",
        "ManufacturerModelName": "SOMATOM Definition AS+",
        "SeriesNumber": str(series),
        "InstanceNumber": str(number),
        "BodyPartExamined": "CHEST",
        "KVP": "120",
        "SliceThickness": "1.25",
        "ConvolutionKernel": ["B30f", "1"],
        "PixelSpacing": ["0.7", "0.8"],
        "Rows": 1,
        "Columns": 1,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": b"\0\0",
    }
    for keyword, value in {**values, **elements}.items():
        if value is not None:
            setattr(data, keyword, value)
    return data


def items(*contents: Mapping[str, Any]) -> Sequence:
    """A sequence whose items hold these elements."""
    sequence = []
    for content in contents:
        item = Dataset()
        for keyword, value in content.items():
            setattr(item, keyword, value)
        sequence.append(item)
    return Sequence(sequence)


def code(value: str, scheme: str = "SCT") -> Sequence:
    """A code sequence with one item."""
    return items({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": "ROSSI MARIA"})


def save(path: Path, data: Dataset) -> Path:
    """Write an instance, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
