"""A DICOM folder as a hospital's archive exports it: CT, PET and whole-slide headers with tiny pixels, and with everything
that identifies a patient, in standard and in private elements."""

import hashlib
import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omop_etl.synthetic.dates import between, days_after
from omop_etl.synthetic.disease import pick
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.people import accession_number
from omop_etl.synthetic.plan import SitePlan

if TYPE_CHECKING:
    from pydicom import Dataset

    from omop_etl.synthetic.hospital import Patient

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
PT_CLASS = "1.2.840.10008.5.1.4.1.1.128"
SM_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
SIZE = 8  # rows and columns of every frame


class Archive:
    """Writes the studies of one site below its folder."""

    def __init__(self, folder: Path, plan: SitePlan, seed: int, parameters: Parameters) -> None:
        self.folder, self.plan, self.seed = folder, plan, seed
        self.table: dict[str, Any] = parameters["imaging"]

    def study(self, patient: "Patient") -> dict[str, Any] | None:
        """Write the study of a patient who has one. Returns its row of the truth."""
        rng = random.Random(f"{self.seed}/{self.plan.id}/dicom/{patient.pseudonym}")
        seen = patient.seen
        if seen.index is None or patient.registration.role == "second" or rng.random() >= self.table["share"]:
            return None
        kind = str(pick(rng, self.table["kind"]))
        sample = seen.samples[seen.chosen] if seen.chosen is not None else None
        if kind == "SM" and (sample is None or self.plan.kind == "clean"):
            kind = "CT"
        window = self.table["days_before_index"]
        day = seen.index - timedelta(days=between(rng, window["low"], window["high"]))
        if kind == "SM" and sample is not None:
            day = days_after(sample.day, self.table["days_after_sample"])
        uid = self.uid(patient, "study")
        place = self.folder / f"PA{patient.registration.number + 1:06}" / "ST000001"
        count = 0
        for series, (_, datasets) in enumerate(self.series(kind, patient, day, uid, rng), 1):
            place_of_series = place / f"SE{series:06}"
            place_of_series.mkdir(parents=True)
            for number, dataset in enumerate(datasets, 1):
                # about half of the archives give their files no ending
                ending = ".dcm" if int(self.plan.id[4:]) % 2 else ""
                dataset.save_as(place_of_series / f"IM{number:06}{ending}", enforce_file_format=True)
                count += 1
        return {
            "study_uid": uid,
            "study_date": day,
            "kind": kind,
            "series": series,
            "instances": count,
        }

    def damage(self) -> list[tuple[str, str]]:
        """Add what archives also hold: a file cut short and a text file. Returns kind and place of each."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        if not files:
            return []
        cut = files[0].with_name("IM999999")
        content = files[0].read_bytes()
        cut.write_bytes(content[: len(content) // 3])
        text = self.folder / "LEGGIMI.txt"
        text.write_text("Esportazione di prova\n", encoding="utf-8")
        places = [("dicom-truncated", cut), ("dicom-text-file", text)]
        return [(kind, path.relative_to(self.folder).as_posix()) for kind, path in places]

    def series(
        self, kind: str, patient: "Patient", day: date, study: str, rng: random.Random
    ) -> Iterator[tuple[str, list["Dataset"]]]:
        """The series of a study: modality and instances."""
        if kind == "SM":
            yield "SM", [self.slide(patient, day, study, rng)]
            return
        scanner = rng.choice(self.table["ct"])
        slices = self.table["slices"]
        yield "CT", [self.ct_slice(patient, day, study, scanner, number) for number in range(1, slices["CT"] + 1)]
        if kind == "PET-CT":
            machine = rng.choice(self.table["pt"])
            dose = round(rng.uniform(180, 380)) * 1e6
            yield (
                "PT",
                [self.pt_slice(patient, day, study, machine, dose, number) for number in range(1, slices["PT"] + 1)],
            )

    def uid(self, patient: "Patient", *parts: object) -> str:
        """A DICOM UID that depends on the run's seed, the site, the patient and what it is of."""
        text = "/".join(map(str, (self.seed, self.plan.id, patient.number, *parts)))
        return f"2.25.{int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16)}"

    # -- instances -----------------------------------------------------------------------------------------------------

    def instance(
        self, patient: "Patient", day: date, study: str, modality: str, sop_class: str, number: int
    ) -> "Dataset":
        """What every instance carries: identity of patient, study, series and file, as the archive holds them."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian

        identity = patient.identity
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = self.uid(patient, modality, number)
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = f"{day:%Y%m%d}"
        dataset.StudyTime, dataset.SeriesTime, dataset.AcquisitionTime = "093000", "093400", "093512"
        dataset.ContentTime = "093520"
        dataset.AccessionNumber = accession_number(patient.number)
        dataset.Modality = modality
        dataset.InstitutionName = f"Ospedale di prova {self.plan.id[4:]}"
        dataset.ReferringPhysicianName = "Medico^Curante"
        dataset.StudyDescription = f"Controllo {identity.surname}"
        dataset.PatientName = f"{identity.surname}^{identity.given}"
        dataset.PatientID = patient.number
        dataset.PatientBirthDate = f"{identity.birth:%Y%m%d}"
        dataset.PatientSex = "M" if identity.sex == "male" else "F"
        dataset.OtherPatientIDs = identity.codice_fiscale
        dataset.PatientAddress = "Via di prova 1"
        dataset.PatientComments = f"Contattare {identity.given} {identity.surname}"
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = self.uid(patient, modality)
        dataset.StudyID = f"{patient.registration.number + 1}"
        dataset.SeriesNumber = {"CT": 2, "PT": 4, "SM": 1}[modality]
        dataset.InstanceNumber = number
        dataset.FrameOfReferenceUID = self.uid(patient, modality, "frame")
        block = dataset.private_block(0x0029, "PALMARES SYNTHETIC", create=True)
        block.add_new(0x01, "LO", f"{identity.surname}^{identity.given}")
        block.add_new(0x02, "LO", identity.codice_fiscale)
        dataset.Rows = dataset.Columns = SIZE
        dataset.PixelRepresentation = 0
        dataset.BurnedInAnnotation = "NO"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        return dataset

    def ct_slice(self, patient: "Patient", day: date, study: str, scanner: dict[str, Any], number: int) -> "Dataset":
        dataset = self.instance(patient, day, study, "CT", CT_CLASS, number)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Manufacturer, dataset.ManufacturerModelName = scanner["maker"], scanner["model"]
        dataset.BodyPartExamined = "CHEST"
        dataset.ContrastBolusAgent = "IOMEPROLO"
        dataset.KVP, dataset.SliceThickness = scanner["kvp"], scanner["slice"]
        dataset.ConvolutionKernel = scanner["kernel"]
        dataset.XRayTubeCurrent, dataset.ExposureTime = 210, 500
        dataset.ImagePositionPatient = [-250, -250, number * scanner["slice"]]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [0.78, 0.78]
        dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
        _grey(dataset, number)
        return dataset

    def pt_slice(
        self, patient: "Patient", day: date, study: str, machine: dict[str, Any], dose: float, number: int
    ) -> "Dataset":
        from pydicom.dataset import Dataset

        dataset = self.instance(patient, day, study, "PT", PT_CLASS, number)
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
        dataset.Manufacturer, dataset.ManufacturerModelName = machine["maker"], machine["model"]
        dataset.BodyPartExamined = "WHOLEBODY"
        dataset.PatientWeight, dataset.PatientSize = 66, 1.63
        dataset.SliceThickness = 3
        dataset.PixelSpacing = [4.07, 4.07]
        dataset.Units, dataset.DecayCorrection = "BQML", "START"
        tracer = Dataset()
        tracer.RadiopharmaceuticalStartTime = "083000"
        tracer.RadionuclideTotalDose = dose
        tracer.RadionuclideHalfLife = 6586.2
        tracer.RadionuclideCodeSequence = [_code(self.table["nuclide"])]
        tracer.RadiopharmaceuticalCodeSequence = [_code(self.table["tracer"])]
        dataset.RadiopharmaceuticalInformationSequence = [tracer]
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1.5
        _grey(dataset, number)
        return dataset

    def slide(self, patient: "Patient", day: date, study: str, rng: random.Random) -> "Dataset":
        """One level of a whole-slide image, one tile."""
        from pydicom.dataset import Dataset

        scanner = rng.choice(self.table["sm"])
        dataset = self.instance(patient, day, study, "SM", SM_CLASS, 1)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        dataset.Manufacturer, dataset.ManufacturerModelName = scanner["maker"], scanner["model"]
        dataset.ContainerIdentifier = f"{patient.number}-A1"
        specimen = Dataset()
        specimen.SpecimenIdentifier = f"{patient.number}-A"
        specimen.SpecimenUID = self.uid(patient, "specimen")
        step = Dataset()
        step.SpecimenPreparationStepContentItemSequence = [_stain(stain) for stain in self.table["stain"]]
        specimen.SpecimenPreparationSequence = [step]
        dataset.SpecimenDescriptionSequence = [specimen]
        dataset.ImagedVolumeWidth = dataset.ImagedVolumeHeight = float(SIZE * scanner["spacing"])
        dataset.TotalPixelMatrixColumns = dataset.TotalPixelMatrixRows = SIZE
        path = Dataset()
        path.ObjectiveLensPower = scanner["power"]
        dataset.OpticalPathSequence = [path]
        measures = Dataset()
        measures.PixelSpacing = [scanner["spacing"], scanner["spacing"]]
        measures.SliceThickness = 0.004
        shared = Dataset()
        shared.PixelMeasuresSequence = [measures]
        dataset.SharedFunctionalGroupsSequence = [shared]
        dataset.NumberOfFrames = 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
        dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = bytes((x * 3) % 256 for x in range(SIZE * SIZE * 3))
        return dataset


def _grey(dataset: "Dataset", number: int) -> None:
    """Sixteen-bit grey pixels."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelData = bytes((x * number) % 256 for x in range(SIZE * SIZE * 2))


def _code(entry: dict[str, str]) -> "Dataset":
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = entry["code"], entry["scheme"], entry["meaning"]
    return item


def _stain(entry: dict[str, str]) -> "Dataset":
    """A content item of specimen preparation: using substance, the stain."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = [_code({"code": "424361007", "scheme": "SCT", "meaning": "Using substance"})]
    item.ConceptCodeSequence = [_code(entry)]
    return item
