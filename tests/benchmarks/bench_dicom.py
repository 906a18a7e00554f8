"""What the DICOM header scan costs: a plain loop of `pydicom.dcmread(stop_before_pixels=True)` is the baseline, in the same run.

    python tests/benchmarks/bench_dicom.py [FILES]

Writes FILES (20,000) CT slices of 40 kB whose headers have some 150 elements, then prints files a second for the baseline, for the
scan in one process, and for the whole extraction (the workers' start, studies and outcomes included) with 2 and with 4 of them,
and the ratios. The issue asks for 5 times the loop with 4.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(bytes(range(32)))
PER_SERIES, PER_STUDY = 100, 200


def slices(folder: Path, count: int) -> list[str]:
    """Write the files: one written by pydicom, the others by replacing its UIDs and numbers."""
    from tests.dicom_helpers import code, instance, items, save

    extra = {
        "AnatomicRegionSequence": code("816094009"),
        "ReferencedStudySequence": items(
            {"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1", "ReferencedSOPInstanceUID": "1.2.3"}
        ),
        "InstitutionName": "OSPEDALE",
        "StudyDescription": "TORACE",
        "SeriesDescription": "1.25 B30f",
        "PixelData": bytes(40_000),
        **{f"{word}Date": "20210301" for word in ("Acquisition", "Content", "InstanceCreation", "PatientBirth")},
        **{f"{word}Time": "101500" for word in ("Acquisition", "Content", "InstanceCreation")},
    }
    data = instance(0, study=100000, series=1000, patient="MRN0000000", **extra)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.826.7.10000000"
    for group in (0x0009, 0x0019, 0x0021, 0x0043):
        block = data.private_block(group, "MAKER", create=True)
        for element in range(25):
            block.add_new(element, "LO", f"value {element}")
    first = save(folder / "00000000.dcm", data).read_bytes()
    paths = [str(folder / "00000000.dcm")]
    for number in range(1, count):
        study, series = number // PER_STUDY, number % PER_STUDY // PER_SERIES
        raw = first.replace(b"1.2.826.7.10000000", b"1.2.826.7.%08d" % (10000000 + number))
        raw = raw.replace(b"1.2.826.100000.1000", b"1.2.826.%06d.100%d" % (100000 + study, series))
        raw = raw.replace(b"UI\x0e\x001.2.826.100000", b"UI\x0e\x001.2.826.%06d" % (100000 + study))
        raw = raw.replace(b"MRN0000000", b"MRN%07d" % (study // 2))
        path = folder / f"{number:08d}.dcm"
        path.write_bytes(raw)
        paths.append(str(path))
    return paths


def _used() -> float:
    """Processor seconds of this process and of its workers that have ended: what a machine shared with others does not change."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(count: int) -> None:
    # imported here: each worker loads this module anew, as it does the command line's, which is as light
    import pydicom

    from fhir_adapters.base import open_source
    from fhir_adapters.dicom.scan import Batch, scan

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        paths = slices(folder, count)
        elements = len(list(pydicom.dcmread(paths[0], stop_before_pixels=True)))

        def loop() -> None:
            for path in paths:
                pydicom.dcmread(path, stop_before_pixels=True)

        def alone() -> None:
            scan(Batch(paths, KEY))

        def extract(jobs: int) -> None:
            source = open_source({"kind": "dicom_folder", "path": "in", "jobs": jobs}, folder=Path(name), key=KEY)
            assert source.extract(Path(name) / "out").resources == {"ImagingStudy": -(-count // PER_STUDY)}

        print(f"{count} files, {elements} elements each")
        baseline = 0.0
        for title, work in (
            ("pydicom, plain loop", loop),
            ("scan, one process", alone),
            ("dicom_folder, 2 workers", partial(extract, 2)),
            ("dicom_folder, 4 workers", partial(extract, 4)),
        ):
            started, used = time.perf_counter(), _used()
            work()
            seconds, used = time.perf_counter() - started, _used() - used
            baseline = baseline or seconds
            print(
                f"{title:24} {seconds:7.2f} s {count / seconds:9.0f} files/s   {baseline / seconds:5.1f} times the loop"
                f"   {used:6.1f} s of processor"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
