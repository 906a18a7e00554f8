"""What reports read: the datasets of a lock or of a release, as the files are, and nothing else."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_adapters.errors import PalmaresError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Released:
    """A lock's or a release's datasets: its name, where they stand, and what its manifest says."""

    name: str
    folder: Path
    study: str
    cut_off: str
    manifest: dict[str, Any]

    def frame(self, dataset: str, columns: Sequence[str]) -> "pd.DataFrame":
        """These columns of a dataset. Raises E-REPORT-01 when the file or one of the columns is not there."""
        import pandas as pd
        import pyarrow as pa

        path = self.folder / f"{dataset}.parquet"
        self._as_released(path)
        try:
            found = pd.read_parquet(path)
        except (OSError, pa.ArrowException):
            raise PalmaresError("E-REPORT-01", f"{self.name}/{dataset}.parquet", detail="it cannot be read") from None
        lacking = [name for name in columns if name not in found.columns]
        if lacking:
            raise PalmaresError(
                "E-REPORT-01", f"{self.name}/{dataset}.parquet", count=len(lacking), detail="no " + ", ".join(lacking)
            )
        return found[list(columns)]

    def _as_released(self, path: Path) -> None:
        """Raise E-REPORT-01 when the manifest knows the file by another hash: a report is on what was released."""
        entry = self.manifest.get("files", {}).get(path.name)
        wanted = entry.get("sha256") if isinstance(entry, dict) else None
        if wanted is None or not path.is_file():
            return
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != wanted:
                raise PalmaresError(
                    "E-REPORT-01", f"{self.name}/{path.name}", detail="its bytes are not those that were released"
                )

    def members(self, analysis: str) -> set[str]:
        """The patients of a named analysis. Raises E-COHORT-02 when the release has none of this name."""
        frame = self.frame("analyses", ("patient", "analysis", "member"))
        names = sorted(frame["analysis"].astype(str).unique())
        if analysis not in names:
            raise PalmaresError("E-COHORT-02", analysis, detail="there are " + ", ".join(names))
        of_it = frame[(frame["analysis"].astype(str) == analysis) & frame["member"].astype("boolean").fillna(False)]
        return set(of_it["patient"])


def open_released(folder: Path) -> Released:
    """A lock folder (its `datasets/`) or a release folder. Raises E-REPORT-01 when it is neither."""
    folder = Path(folder)
    datasets = folder / "datasets" if (folder / "datasets").is_dir() else folder
    manifest: dict[str, Any] = {}
    for place in (datasets / "manifest.json", folder / "manifest.json"):
        try:
            manifest = json.loads(place.read_text(encoding="utf-8"))
            break
        except (OSError, ValueError):
            continue
    if not isinstance(manifest, dict) or not manifest or not (datasets / "time_to_event.parquet").is_file():
        raise PalmaresError("E-REPORT-01", folder.name, detail="it is no lock and no release")
    study, cut_off = manifest.get("study"), manifest.get("cut_off")
    return Released(folder.name, datasets, str(study or "palmares2"), str(cut_off or ""), manifest)
