"""The `dicom_folder` source: a folder of DICOM files under any name, headers only → FHIR; see `extraction` for what it writes."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.dicom.extraction import DIGITS, YIELDS, Read, digits_of, write, zone_of
from fhir_adapters.dicom.scan import BATCH, Batch, Zip, scan, scan_zip
from fhir_adapters.dicom.values import Instance
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import must_be_readable
from fhir_adapters.outcomes import item_name
from fhir_adapters.processes import in_order, processors, uncollected

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey


@adapter
class DicomFolder:
    """A folder of DICOM files."""

    kind: ClassVar[str] = "dicom_folder"
    yields: ClassVar[frozenset[str]] = YIELDS
    needs_key: ClassVar[bool] = True
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(
            Path,
            "a folder of DICOM files and zip archives of such, under any name, in any depth; or one of them",
            required=True,
        ),
        "time_zone": Setting(str, "the zone of the scanners' clocks; without it studies carry dates and no times"),
        "issuer": Setting(str, "the hospital's IssuerOfPatientID: files of another issuer are left out"),
        "record_number_digits": DIGITS,
        "instances": Setting(bool, "list every instance of a series, not only their number", False),
        "jobs": Setting(int, "worker processes; as many as there are processors when absent"),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        """Raises E-SRC-02 when time_zone is no IANA zone, E-SRC-03 without the site's key."""
        if key is None:
            raise PalmaresError("E-SRC-03", self.kind)
        self._key = key
        self._path: Path = settings["path"]
        self._record_numbers: tuple[str | None, int] = (settings["issuer"], digits_of(settings, self.kind))
        self._instances: bool = settings["instances"]
        self._jobs: int = settings["jobs"] or processors()
        self._zone = zone_of(settings, self.kind)

    def extract(self, out: Path, *, progress: Progress | None = None) -> Extraction:
        """Read every header and write the studies. Raises E-SRC-04 (nothing there, or no DICOM in it), E-DISK-…."""
        if self._path.is_file():
            files = [(self._path.name, str(self._path), self._path.stat().st_size)]
        elif self._path.is_dir():
            must_be_readable(self._path, self.kind)
            files = sorted(_files(self._path))
        else:
            raise PalmaresError("E-SRC-04", self.kind, detail="the path in its settings does not exist")
        found, left_out = self._read([path for _, path, _ in files], progress)
        items = [item_name(name) for name, _, _ in files]
        zips = [place for place, one in enumerate(found) if one == "X-DICOM-ZIP"]
        tasks = [Zip(files[place][1], self._key, *self._record_numbers) for place in zips]
        for place, done in zip(
            zips, in_order(scan_zip, tasks, jobs=min(self._jobs, len(tasks)), subject=self.kind), strict=True
        ):
            items += [item_name(files[place][0], number) for number in range(1, len(done.found) + 1)]
            found += done.found
            left_out += done.left_out
        if all(one in _NO_DICOM for one in found):
            raise PalmaresError("E-SRC-04", self.kind, count=len(files), detail="none of its files is DICOM")
        read = Read(items, found, left_out, sum(size for _, _, size in files))
        with uncollected():
            return write(self.kind, read, out, zone=self._zone, instances=self._instances)

    def _read(self, paths: Sequence[str], progress: Progress | None) -> tuple[list[Instance | str], Counter[str]]:
        batches = [
            Batch(paths[at : at + BATCH], self._key, *self._record_numbers) for at in range(0, len(paths), BATCH)
        ]
        found: list[Instance | str] = []
        left_out: Counter[str] = Counter()
        # a worker takes as long to start as some thousand headers to read
        jobs = min(self._jobs, len(batches) // 8)
        with uncollected() if jobs > 1 else nullcontext():
            for done in in_order(scan, batches, jobs=jobs, subject=self.kind):
                found += done.found
                left_out += done.left_out
                if progress:
                    progress(len(done.found))
        return found, left_out


_NO_DICOM = frozenset(["X-NOT-DICOM", "X-DICOM-ZIP", "Q-DICOM-UNREADABLE", "Q-DICOM-ZIP"])


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
