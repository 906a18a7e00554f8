"""The `fhir_files` source: FHIR that already lies in files, as a folder, one file, or an archive (.zip, .tar, .tar.gz).

The files are taken as they were delivered, byte for byte; landing unpacks, sorts and checks them. A file whose name ends in
nothing that landing reads is left out and counted.
"""

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar

from fhir_adapters.base import Extraction, Progress, Setting, adapter
from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import whole_folder
from fhir_adapters.landing.sources import FHIR_ENDINGS, is_fhir_name
from fhir_adapters.shown_names import shown_name

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import SiteKey

_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@adapter
class FhirFiles:
    """Files of FHIR, copied as delivered."""

    kind: ClassVar[str] = "fhir_files"
    yields: ClassVar[frozenset[str]] = frozenset()
    needs_key: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Setting]] = {
        "path": Setting(Path, "a folder, a file or an archive of FHIR", required=True),
        "hardlink": Setting(bool, "link instead of copy: only when nobody writes into the files afterwards", False),
    }

    def __init__(self, settings: Mapping[str, Any], *, folder: Path, key: "SiteKey | None" = None) -> None:
        self._path: Path = settings["path"]
        self._hardlink: bool = settings["hardlink"]

    def extract(self, out: Path, *, progress: Progress | None = None) -> Extraction:
        """Copy every FHIR file to `out/fhir`.

        Raises E-SRC-04 (nothing there), E-SRC-05 (damaged archive), E-LAND-04 (a file that may not be read), E-DISK-01, -02.
        """
        if not self._path.exists():
            raise PalmaresError("E-SRC-04", self.kind, detail="the path in its settings does not exist")
        files, size = 0, 0
        skipped: Counter[str] = Counter()
        with whole_folder(out) as partial, _damaged(self._path):
            target = partial / "fhir"
            target.mkdir()
            for name, member in self._members():
                if not is_fhir_name(name):
                    skipped["not-fhir"] += 1
                    continue
                place = target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                self._take(member, place)
                files += 1
                size += place.stat().st_size
                if progress:
                    progress(1)
            if not files:
                raise PalmaresError("E-SRC-04", self.kind, detail=f"no file ends in {', '.join(FHIR_ENDINGS)}")
            extraction = Extraction(self.kind, files, size, skipped=dict(skipped))
            extraction.write(partial)
        return extraction

    def _take(self, member: "Path | IO[bytes]", place: Path) -> None:
        if isinstance(member, Path):
            if self._hardlink:
                try:
                    os.link(member, place)
                    return
                except OSError:  # another file system: fall back to the copy
                    pass
            try:
                member.open("rb").close()
            except OSError:
                raise PalmaresError("E-LAND-04", shown_name(member.name)) from None
            shutil.copyfile(member, place)
            return
        with place.open("xb") as sink:
            shutil.copyfileobj(member, sink, 1 << 20)

    def _members(self) -> "Iterator[tuple[str, Path | IO[bytes]]]":
        name = self._path.name.lower()
        if self._path.is_dir():
            for path in sorted(self._path.rglob("*")):
                if path.is_file():
                    yield path.relative_to(self._path).as_posix(), path
        elif name.endswith(_ZIP):
            with zipfile.ZipFile(self._path) as archive:
                for info in sorted(archive.infolist(), key=lambda info: info.filename):
                    if not info.is_dir() and (inside := _inside(info.filename)):
                        with archive.open(info) as stream:
                            yield inside, stream
        elif name.endswith(_TAR):
            with tarfile.open(self._path) as archive:
                for entry in archive:
                    if entry.isfile() and (inside := _inside(entry.name)):
                        member = archive.extractfile(entry)
                        if member is not None:
                            with member:
                                yield inside, member
        else:
            yield self._path.name, self._path


def _inside(name: str) -> str:
    """A member's path when it stays inside the folder it is unpacked to, else empty: it is passed over."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    return "" if path.is_absolute() or ".." in parts or ":" in name.split("/")[0] else "/".join(parts)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """What the libraries say of a damaged archive, as a numbered error."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PalmaresError("E-SRC-05", shown_name(path.name), detail=type(error).__name__) from None
