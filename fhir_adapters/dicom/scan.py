"""What a worker process does: the headers of a batch of files, one after the other, to instances without identifiers.

Few imports: each worker loads this module anew.
"""

import io
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fhir_adapters import allow_list
from fhir_adapters.dicom.headers import Header, key, read_dataset, read_header, read_stream
from fhir_adapters.dicom.values import Instance, Reader
from fhir_adapters.processes import uncollected
from fhir_adapters.pseudonyms import SiteKey

if TYPE_CHECKING:
    from pydicom import Dataset

BATCH = 500  # files: about a tenth of a second
_LARGEST_REPORT = 1 << 28  # bytes
_SOP_CLASS = key(0x00080016)


class Batch(NamedTuple):
    """Files to read, the site's key, and the issuer of its record numbers where only that one is taken."""

    paths: Sequence[str]
    key: SiteKey
    issuer: str | None = None
    record_number_digits: int = 0


class Zip(NamedTuple):
    """An archive to read, and what `Batch` says."""

    path: str
    key: SiteKey
    issuer: str | None = None
    record_number_digits: int = 0


class Scan(NamedTuple):
    """Per file its instance or the reason code why there is none; and how many values did not fit, by keyword."""

    found: list[Instance | str]
    left_out: Counter[str]


def scan(batch: Batch) -> Scan:
    """Read a batch. What it returns holds no identifier, so nothing else needs the key."""
    reader = Reader(allow_list.dicom(), *batch[1:])
    found: list[Instance | str] = []
    with uncollected():
        for path in batch.paths:
            header = read_header(path, reader.wanted)
            whole = partial(read_dataset, path)
            found.append(header if isinstance(header, str) else instance_of(header, reader, whole))
    return Scan(found, reader.left_out)


def scan_zip(archive: Zip) -> Scan:
    """Read the members of a zip archive, nothing unpacked to disk. One that cannot be read to its end says so at the end."""
    reader = Reader(allow_list.dicom(), *archive[1:])
    found: list[Instance | str] = []
    try:
        with zipfile.ZipFile(archive.path) as file:
            for member in file.infolist():
                if not member.is_dir():
                    found.append(_member(file, member, reader))
    except (zipfile.BadZipFile, OSError, ValueError):
        found.append("Q-DICOM-ZIP")
    return Scan(found, reader.left_out)


def _member(file: zipfile.ZipFile, member: zipfile.ZipInfo, reader: Reader) -> Instance | str:
    try:
        with file.open(member) as stream:
            header = read_stream(stream, member.file_size, reader.wanted)
        if isinstance(header, str):
            return "X-NOT-DICOM" if header == "X-DICOM-ZIP" else header  # one archive in another is not opened
        return instance_of(header, reader, partial(_whole, file, member))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, NotImplementedError):
        return "Q-DICOM-ZIP"  # damaged, encrypted, or compressed in a way that Python does not know


def _whole(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> "Dataset | None":
    with file.open(member) as stream:
        return read_dataset(io.BytesIO(stream.read(_LARGEST_REPORT)))


def instance_of(header: Header, reader: Reader, whole: "Callable[[], Dataset | None] | None") -> Instance | str:
    """The instance of a header, with its measurements when it is a structured report; `whole` then gives all of it.

    What did not pass is counted in `reader.left_out`, a report of which there is no more than the header too.
    """
    instance = reader.instance(header)
    sop_class = header.get(_SOP_CLASS, b"")
    if not isinstance(instance, Instance) or not isinstance(sop_class, bytes):
        return instance
    if not sop_class.startswith(reader.allowed.report_classes.encode()):
        return instance
    if whole is None:
        reader.left_out["report.not-in-a-query"] += 1
        return instance
    from fhir_adapters.dicom.reports import read_report

    data = whole()
    if data is None:
        reader.left_out["report.damaged"] += 1
        return instance
    measures, left_out = read_report(data, reader.allowed, reader.report_hashes(), reader.record_number(header))
    reader.left_out += left_out
    return instance._replace(measures=measures)
