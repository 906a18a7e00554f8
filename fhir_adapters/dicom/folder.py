"""The `dicom_folder` source: a folder of DICOM files under any name, headers only → FHIR ImagingStudy.

    <out>/fhir/ImagingStudy.ndjson   one study a line, sorted by id
    <out>/outcomes.parquet           one outcome per file of the folder; a study counts at the first of its files
    <out>/manifest.json              counts: files by outcome and reason, values left out by element

The resources have no `meta.lastUpdated`: a header does not say when it was changed, and the day of the extraction would make two
runs differ. Landing takes the study of the newest delivery, which is right, because each extraction reads the whole folder.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from fhir_adapters import allow_list
from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.dicom.scan import BATCH, Batch, scan
from fhir_adapters.dicom.studies import Writer, outcomes
from fhir_adapters.dicom.values import Instance
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.outcomes import RESOURCE, OutcomeFile, item_name
from fhir_adapters.processes import in_order, processors

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey


@adapter
class DicomFolder:
    """A folder of DICOM files."""

    kind: ClassVar[str] = "dicom_folder"
    yields: ClassVar[frozenset[str]] = frozenset({"ImagingStudy"})
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "a folder of DICOM files, under any name, in any depth", required=True),
        "time_zone": Setting(str, "the zone of the scanners' clocks; without it studies carry dates and no times"),
        "issuer": Setting(str, "the hospital's IssuerOfPatientID: files of another issuer are left out"),
        "instances": Setting(bool, "list every instance of a series, not only their number", False),
        "jobs": Setting(int, "worker processes; as many as there are processors when absent"),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        """Raises E-SRC-02 when time_zone is no IANA zone, E-SRC-03 without the site's key."""
        if key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        self._key = key
        self._path: Path = settings["path"]
        self._issuer: str | None = settings["issuer"]
        self._instances: bool = settings["instances"]
        self._jobs: int = settings["jobs"] or processors()
        try:
            self._zone = ZoneInfo(settings["time_zone"]) if settings["time_zone"] else None
        except (ZoneInfoNotFoundError, ValueError):
            raise PalmaresError("E-SRC-02", self.kind, detail="time_zone is no IANA zone") from None

    def extract(self, out: Path, *, progress: Progress | None = None) -> Extraction:
        """Read every header and write the studies. Raises E-SRC-04 (no folder, or no DICOM in it), E-DISK-…."""
        if not self._path.is_dir():
            raise PalmaresError("E-SRC-04", self.kind, detail="the path in its settings is no folder")
        files = sorted(_files(self._path))
        found, left_out = self._read([path for _, path, _ in files], progress)
        if not any(isinstance(one, Instance) or one not in ("X-NOT-DICOM", "Q-DICOM-UNREADABLE") for one in found):
            raise PalmaresError("E-SRC-04", self.kind, count=len(files), detail="none of its files is DICOM")
        results = outcomes(found)
        writer = Writer(allow_list.dicom(), self._zone, instances=self._instances)
        good = (one for one, result in zip(found, results, strict=True) if result.outcome == RESOURCE)
        with whole_folder(out) as partial, OutcomeFile(partial, self.kind) as items:
            for (name, _, _), result in zip(files, results, strict=True):
                items.add(item_name(name), *result)
            (partial / "fhir").mkdir()
            studies = writer.studies(one for one in good if isinstance(one, Instance))
            with (partial / "fhir" / "ImagingStudy.ndjson").open("wb") as lines:
                for study in studies:
                    lines.write(orjson.dumps(study) + b"\n")
            items.balance(len(studies))
            extraction = Extraction(
                self.kind,
                files=len(files),
                bytes=sum(size for _, _, size in files),
                resources={"ImagingStudy": len(studies)},
                skipped=_sorted(items.reasons),
                more={"outcomes": _sorted(items.outcomes), "left_out": _sorted(left_out)},
            )
            extraction.write(partial)
        return extraction

    def _read(self, paths: Sequence[str], progress: Progress | None) -> tuple[list[Instance | str], Counter[str]]:
        batches = [Batch(paths[at : at + BATCH], self._key, self._issuer) for at in range(0, len(paths), BATCH)]
        found: list[Instance | str] = []
        left_out: Counter[str] = Counter()
        # a worker takes as long to start as some thousand headers to read
        for done in in_order(scan, batches, jobs=min(self._jobs, len(batches) // 8), subject=self.kind):
            found += done.found
            left_out += done.left_out
            if progress:
                progress(len(done.found))
        return found, left_out


def _files(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Path below the folder, path and size of every file; links to folders are not followed."""
    waiting = [str(folder)]
    above = len(str(folder / "_")) - 1
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    size = entry.stat(follow_symlinks=False).st_size
                    yield entry.path[above:].replace(os.sep, "/"), entry.path, size


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
