"""What lies in a folder, a file or an archive; and, in a watched folder, which files are whole and have not been read before.

A file of a watched folder is whole when somebody says so (`marker`), or, without a marker, when nothing about it has changed for
`stable_seconds` (its size, its time, and the time of its last rename or change of rights, which a copy sets at its end).

    marker = "_SUCCESS"      every file of a folder that holds a file of this name, or of a folder below it
    marker = ".done"         a file beside which `<its name>.done` stands

A file is known again by its place, size and time; one that was written anew is a new delivery.
"""

import hashlib
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from fhir_adapters.errors import PalmaresError
from fhir_adapters.folders import must_be_readable
from fhir_adapters.shown_names import shown_name

_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Found(NamedTuple):
    """One file as it lies below the folder."""

    path: Path
    name: str  # with `/`, below the folder

    @property
    def key(self) -> str:
        """What stands for its name in the memory: a file's name may hold a patient's."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def look(self) -> list[int]:
        """Size and time: the same as long as nobody writes it anew."""
        seen = self.path.stat()
        return [seen.st_size, seen.st_mtime_ns]


def files(place: Path) -> list[Found]:
    """The files of a folder in the order of their names, or the one file. Raises E-LAND-04."""
    if not place.is_dir():
        return [Found(place, place.name)]
    must_be_readable(place, "fhir_files")
    return [Found(path, path.relative_to(place).as_posix()) for path in sorted(place.rglob("*")) if path.is_file()]


def whole(place: Path, found: Collection[Found], marker: str, stable_seconds: int) -> list[Found]:
    """Those that are whole; a marker itself is none of them, nor is a hidden file."""
    if marker:
        names = {one.name for one in found}
        plain = [one for one in found if not _is_marker(one.name, marker, names)]
        return [one for one in plain if _is_marked(one.name, marker, names)]
    now = time.time()
    settled = []
    for one in found:
        seen = one.path.stat()
        if now - max(seen.st_mtime, seen.st_ctime) >= stable_seconds:
            settled.append(one)
    return settled


def _is_marker(name: str, marker: str, names: Collection[str]) -> bool:
    last = name.rpartition("/")[2]
    return last == marker or (name.endswith(marker) and name[: -len(marker)] in names)


def _is_marked(name: str, marker: str, names: Collection[str]) -> bool:
    if name + marker in names:
        return True
    folders = PurePosixPath(name).parents
    return any((marker if str(folder) == "." else f"{folder}/{marker}") in names for folder in folders)


def unseen(found: Collection[Found], seen: Mapping[str, Any]) -> list[Found]:
    """Those that were not read before, or were written anew since."""
    return [one for one in found if seen.get(one.key) != one.look()]


def members(found: Collection[Found], *, alone: bool) -> "Iterator[tuple[str, Path | IO[bytes] | None]]":
    """Every file, archives unpacked: its name, and where its bytes are. Raises E-SRC-05 for a damaged archive.

    A member is named below its archive; `alone`: the archive is all there is, so its name is left out. A member whose name leads
    out of the archive has no bytes.
    """
    for one in found:
        above = "" if alone else f"{one.name}/"
        lower = one.name.lower()
        if lower.endswith(_ZIP):
            with damaged(one.name), zipfile.ZipFile(one.path) as archive:
                for info in sorted(archive.infolist(), key=lambda info: info.filename):
                    if info.is_dir():
                        continue
                    if inside := _inside(info.filename):
                        with archive.open(info) as stream:
                            yield above + inside, stream
                    else:
                        yield above + info.filename, None
        elif lower.endswith(_TAR):
            with damaged(one.name), tarfile.open(one.path) as archive:
                for entry in archive:
                    member = archive.extractfile(entry) if entry.isfile() else None
                    if member is not None:
                        inside = _inside(entry.name)
                        with member:
                            yield (above + inside, member) if inside else (above + entry.name, None)
        else:
            yield one.name, one.path


def _inside(name: str) -> str:
    """A member's path when it stays inside the folder it is unpacked to, else empty."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    return "" if path.is_absolute() or ".." in parts or ":" in name.split("/")[0] else "/".join(parts)


@contextmanager
def damaged(name: str) -> Iterator[None]:
    """What the libraries say of a damaged archive, as a numbered error."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise PalmaresError("E-SRC-05", shown_name(name), detail=type(error).__name__) from None
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        # the library's way to say that a member is encrypted
        raise PalmaresError("E-SRC-05", shown_name(name), detail="it is encrypted") from None
