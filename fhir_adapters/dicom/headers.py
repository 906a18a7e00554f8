"""Reads the permitted elements of a DICOM header, and nothing else, without decoding what is not wanted.

`read_header` walks the elements of a file (little endian, explicit or implicit VR, whatever compression the pixels have) and
keeps the raw bytes of the wanted ones: about ten times as fast as building a pydicom dataset. A file that this walk does not
understand (big endian, deflated, mixed encodings) is read by pydicom instead, to the same result; a test compares the two on
every file that comes with pydicom. Nothing here puts a value of a file into an error, a warning or a log.
"""

import io
import logging
import mmap
import os
import stat
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydicom import Dataset

# A tag is a number here, as the four bytes of a little endian file read: element << 16 | group.
# tag → raw bytes, or the items of a sequence
Header = dict[int, "bytes | list[Header]"]
Outcome = Literal["X-NOT-DICOM", "X-DICOMDIR", "X-DICOM-ZIP", "Q-DICOM-DAMAGED", "Q-DICOM-UNREADABLE"]

FIRST_READ = 1 << 15  # bytes; most headers end before
_DEEPEST = 16  # nested sequences; the standard needs about six
_LARGEST = 1 << 28  # bytes of a header in a stream; those of long multi-frame slides are some megabytes


def key(tag: int) -> int:
    """A tag `0xGGGGEEEE` as a header's key."""
    return (tag & 0xFFFF) << 16 | tag >> 16


_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = key(0xFFFEE000), key(0xFFFEE00D), key(0xFFFEE0DD)
_TRANSFER_SYNTAX, _CLASS_IN_META, _DIRECTORY = key(0x00020010), key(0x00020002), key(0x00041220)
_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE = key(0x00080005), key(0x00080016), key(0x00080018)
# nothing that is wanted comes after: per-frame functional groups and the pixels themselves
_STOP = frozenset(map(key, (0x52009230, 0x7FE00010, 0x7FE00008, 0x7FE00009)))
_ENDS = frozenset((_ITEM_END, _SEQUENCE_END))
_DICOMDIR_CLASS = b"1.2.840.10008.1.3.10"
_BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"


def _representations(names: str) -> frozenset[int]:
    return frozenset(int.from_bytes(name.encode(), "little") for name in names.split())


_UN = int.from_bytes(b"UN", "little")
_LONG = _representations("OB OD OF OL OV OW SQ SV UC UN UR UT UV")
_SHORT = _representations("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US")
_EXPLICIT = struct.Struct("<IHH").unpack_from  # tag, VR, length (or nothing, and the length in four bytes more)
_IMPLICIT = struct.Struct("<II").unpack_from  # tag, length
_LENGTH = struct.Struct("<I").unpack_from

Bytes = bytes | mmap.mmap


class _MoreNeeded(Exception):
    """The header goes on after what was read."""


class _Damaged(Exception):
    """The header ends in the middle of an element."""


class _NotUnderstood(Exception):
    """An encoding that the walk does not know: pydicom shall try."""


class Wanted:
    """The wanted elements of a data set: tag → None, or what is wanted of the items of that sequence."""

    __slots__ = ("inside", "watch")

    def __init__(self, inside: Mapping[int, "Wanted | None"]) -> None:
        self.inside = dict(inside)
        self.watch = frozenset(self.inside) | _ENDS | _STOP | {_DIRECTORY}

    @classmethod
    def of(cls, paths: Iterable[tuple[int, ...]]) -> "Wanted":
        """What is wanted for paths of `0xGGGGEEEE` numbers; all but the last of a path are sequences."""
        below: dict[int, list[tuple[int, ...]]] = {}
        for path in paths:
            below.setdefault(key(path[0]), []).append(path[1:])
        return cls({tag: cls.of(filter(None, rest)) if any(rest) else None for tag, rest in below.items()})


_NOTHING = Wanted({})


def read_header(path: str | Path, wanted: Wanted) -> "Header | Outcome":
    """The wanted elements of a file's header, or why there are none.

    `wanted` holds SOPClassUID and SOPInstanceUID. Never raises for what a file holds or for a file that cannot be read.
    """
    try:
        with _regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(FIRST_READ)
            try:
                try:
                    found = _header(data, len(data) == size, wanted)
                except _MoreNeeded:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                        found = _header(whole, True, wanted)
            except _NotUnderstood:
                file.seek(0)
                found = _by_pydicom(file, wanted)
            except _Damaged:
                found = "Q-DICOM-DAMAGED"
    except OSError:
        return "Q-DICOM-UNREADABLE"
    return _judged(found, data)


def read_stream(file: IO[bytes], size: int, wanted: Wanted) -> "Header | Outcome":
    """As `read_header`, of a stream of `size` bytes that can only be read on; no more of it is read than the header takes.

    Raises what reading the stream raises.
    """
    data = file.read(FIRST_READ)
    while True:
        try:
            return _judged(_header(data, len(data) >= size, wanted), data)
        except _MoreNeeded:
            more = file.read(min(15 * len(data), _LARGEST - len(data))) if data else b""
            if not more:  # the stream is shorter than it says, or its header is longer than any
                return _judged("Q-DICOM-DAMAGED", data)
            data += more
        except _NotUnderstood:
            data += file.read(_LARGEST - len(data))
            return _judged(_by_pydicom(io.BytesIO(data), wanted), data)
        except _Damaged:
            return _judged("Q-DICOM-DAMAGED", data)


def _judged(found: "Header | Outcome", data: Bytes) -> "Header | Outcome":
    """What was found, held against how the file begins."""
    if data[128:132] == b"DICM" or found == "X-DICOMDIR":
        return found
    if data[:4] == b"PK\3\4":
        return "X-DICOM-ZIP"
    # no preamble: files of before 1993, and some of today; what was found must be an image's identity
    return found if isinstance(found, dict) and found.get(_SOP_CLASS) and found.get(_SOP_INSTANCE) else "X-NOT-DICOM"


def _regular(path: str | Path) -> IO[bytes]:
    """The file opened, when it is a plain file: opening a pipe would wait for ever."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError
    return os.fdopen(handle, "rb", buffering=0)


def _header(data: Bytes, complete: bool, wanted: Wanted) -> "Header | Outcome":
    walk = _Walk(data, complete)
    if data[128:132] == b"DICM":
        at = 132
    elif data[1:2] == data[3:4] == b"\0" and data[0:1] in (b"\x02", b"\x08"):
        at = 0
    else:
        return "X-NOT-DICOM"
    meta, at = walk.meta(at)
    if meta.get(_CLASS_IN_META, b"").rstrip(b"\0 ") == _DICOMDIR_CLASS:
        return "X-DICOMDIR"
    if meta.get(_TRANSFER_SYNTAX, b"").rstrip(b"\0 ") in (_BIG_ENDIAN, _DEFLATED):
        raise _NotUnderstood
    # what stands there decides, not what the file says of itself: some files say one and are the other
    explicit = int.from_bytes(data[at + 4 : at + 6], "little") in _SHORT | _LONG
    found, _ = walk.elements(at, len(data), wanted, explicit, depth=0)
    return "X-DICOMDIR" if _DIRECTORY in found else found


class _Walk:
    """One pass over the bytes of a file. `complete`: the bytes are the whole file."""

    def __init__(self, data: Bytes, complete: bool) -> None:
        self.data = data
        self.beyond: type[Exception] = _Damaged if complete else _MoreNeeded

    def meta(self, at: int) -> tuple[dict[int, bytes], int]:
        """The file meta group (always explicit, little endian) and where the data set starts."""
        data = self.data
        found: dict[int, bytes] = {}
        while data[at : at + 2] == b"\x02\x00":
            if at + 12 > len(data):
                raise self.beyond
            tag, vr, length = _EXPLICIT(data, at)
            start = at + 8
            if vr in _LONG:
                length, start = _LENGTH(data, start)[0], at + 12
            elif vr not in _SHORT:
                raise _NotUnderstood
            at = start + length
            if at > len(data):
                raise self.beyond
            found[tag] = data[start:at]
        return found, at

    def elements(self, at: int, end: int, wanted: Wanted, explicit: bool, depth: int) -> tuple[Header, int]:
        """The wanted elements from `at` on, and where they end: at `end`, an item's end mark or the pixels."""
        data, watch, inside, short = self.data, wanted.watch, wanted.inside, _SHORT
        found: Header = {}
        last = end - 8
        while at <= last:
            if explicit:
                tag, vr, length = _EXPLICIT(data, at)
                if vr in short:
                    start = at + 8
                    after = start + length
                    if tag not in watch:  # nearly every element: nothing more is looked at
                        at = after
                        continue
                elif vr in _LONG:
                    if at + 12 > end:
                        raise self.beyond
                    start = at + 12
                    length = _LENGTH(data, at + 8)[0]
                    after = start + length
                elif tag in _ENDS or (depth == 0 and tag in _STOP):
                    return found, at
                else:
                    raise _NotUnderstood
            else:
                tag, length = _IMPLICIT(data, at)
                vr, start = _UN, at + 8
                after = start + length
            if tag in watch:
                if tag in _ENDS or (depth == 0 and tag in _STOP):
                    return found, at
                if tag == _DIRECTORY and depth == 0:
                    return {tag: b""}, at
            if length == _UNDEFINED:
                # a sequence; one of unknown VR is implicit inside, whatever is around it (PS3.5, 6.2.2)
                below = inside.get(tag) or _NOTHING
                items, after = self.items(start, end, below, explicit and vr != _UN, depth + 1)
                if below is not _NOTHING:
                    found[tag] = items
            elif tag in inside:
                if after > end:
                    raise self.beyond
                wanted_below = inside[tag]
                if wanted_below is None:
                    found[tag] = data[start:after]
                else:
                    found[tag] = self.items(start, after, wanted_below, explicit and vr != _UN, depth + 1)[0]
            at = after
        self.reached(at, end)
        return found, at

    def items(self, at: int, end: int, wanted: Wanted, explicit: bool, depth: int) -> tuple[list[Header], int]:
        """The items of a sequence from `at` on, and where it ends."""
        if depth > _DEEPEST:
            raise _Damaged
        data = self.data
        found: list[Header] = []
        while at + 8 <= end:
            tag, length = _IMPLICIT(data, at)
            at += 8
            if tag == _SEQUENCE_END:
                return found, at
            if tag != _ITEM:
                raise _NotUnderstood
            if length == _UNDEFINED:
                item, at = self.elements(at, end, wanted, explicit, depth)
                if at + 8 > end:
                    raise self.beyond
                if _LENGTH(data, at)[0] != _ITEM_END:
                    raise _NotUnderstood
                at += 8
            else:
                if at + length > end:
                    raise self.beyond
                item = self.elements(at, at + length, wanted, explicit, depth)[0] if wanted.inside else {}
                at += length
            found.append(item)
        self.reached(at, end)
        return found, at

    def reached(self, at: int, end: int) -> None:
        """An element went beyond the end, or what was read stops just before the next one."""
        if at > end or (end == len(self.data) and self.beyond is _MoreNeeded):
            raise self.beyond


# --- the slow way ------------------------------------------------------------------------------------------------------


def _by_pydicom(file: IO[bytes], wanted: Wanted) -> "Header | Outcome":
    import pydicom
    from pydicom.errors import InvalidDicomError

    with silent_pydicom(), pydicom.config.disable_value_validation():
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            if "DirectoryRecordSequence" in dataset:
                return "X-DICOMDIR"
            header = _as_header(dataset, wanted)
            if _CHARACTER_SET in wanted.inside:
                header[_CHARACTER_SET] = b"ISO_IR 192"  # pydicom has decoded the texts
            return header
        except InvalidDicomError:
            return "X-NOT-DICOM"
        except Exception:  # whatever a broken file makes pydicom raise; the file gets an outcome and the others go on
            return "Q-DICOM-DAMAGED"


@contextmanager
def silent_pydicom() -> Iterator[None]:
    """pydicom's warnings and log lines show values."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def read_dataset(file: "str | Path | IO[bytes]") -> "Dataset | None":
    """All of a file but its pixels, by pydicom; None when it cannot be read."""
    import pydicom

    with silent_pydicom(), pydicom.config.disable_value_validation():
        try:
            return pydicom.dcmread(file, stop_before_pixels=True, force=True)
        except Exception:  # whatever a broken file makes pydicom raise
            return None


def header_of(dataset: "Dataset", wanted: Wanted) -> "Header | Outcome":
    """The wanted elements of a dataset that came over the network."""
    import pydicom

    with silent_pydicom(), pydicom.config.disable_value_validation():
        try:
            header = _as_header(dataset, wanted)
            named = dataset.get("SpecificCharacterSet")
        except Exception:  # whatever a broken dataset makes pydicom raise; it gets an outcome and the others go on
            return "Q-DICOM-DAMAGED"
    # pydicom has decoded the texts; by a guess where no character set is named, and that is believed of ASCII only
    header[_CHARACTER_SET] = b"ISO_IR 192" if named else b""
    return header


def header_of_json(document: Any, wanted: Wanted) -> Header:
    """The wanted elements of a dataset in DICOM JSON (PS3.18, F). What has another shape than that is passed by."""
    header = _json_header(document, wanted)
    header[_CHARACTER_SET] = b"ISO_IR 192"  # JSON is UTF-8
    return header


def _json_header(document: Any, wanted: Wanted) -> Header:
    header: Header = {}
    for tag, inside in wanted.inside.items():
        element = document.get(f"{tag & 0xFFFF:04X}{tag >> 16:04X}") if isinstance(document, dict) else None
        values = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(element, dict) or not isinstance(values, list):
            continue
        if element.get("vr") == "SQ":
            header[tag] = [_json_header(item, inside) for item in values] if inside is not None else b""
        elif inside is None:
            header[tag] = _json_bytes(element.get("vr"), values)
    return header


def _json_bytes(vr: Any, values: list[Any]) -> bytes:
    if vr in _BINARY:
        try:
            return b"".join(struct.pack(_BINARY[vr], one) for one in values)
        except struct.error:
            return b""
    values = [one.get("Alphabetic") if vr == "PN" and isinstance(one, dict) else one for one in values]
    texts = [one if isinstance(one, str) else repr(one) if isinstance(one, int | float) else "" for one in values]
    return "\\".join(texts).encode("utf-8", "surrogateescape")


def _as_header(dataset: Any, wanted: Wanted) -> Header:
    """The wanted elements of a pydicom dataset, in the shape that the walk gives."""
    header: Header = {}
    for tag, inside in wanted.inside.items():
        group, element = tag & 0xFFFF, tag >> 16
        if (group, element) not in dataset:
            continue
        found = dataset[group, element]
        if found.VR == "SQ":
            header[tag] = [_as_header(item, inside) for item in found.value] if inside is not None else b""
        elif inside is None:
            header[tag] = _as_bytes(found.VR, found.value)
    return header


_BINARY = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "FL": "<f", "FD": "<d"}


def _as_bytes(vr: str, value: Any) -> bytes:
    if value is None:
        return b""
    many = list(value) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    if vr in _BINARY:
        return b"".join(struct.pack(_BINARY[vr], one) for one in many)
    if vr in ("OB", "OW", "UN"):
        return bytes(value)
    # a number as it was written; a name's own original is bytes of its character set
    texts = [str(one if vr == "PN" else getattr(one, "original_string", one)) for one in many]
    return "\\".join(texts).encode("utf-8", "surrogateescape")
