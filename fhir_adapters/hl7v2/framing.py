"""Files → messages: batches (FHS, BHS), MLLP frames, any line ends, byte order marks. Works on bytes; nothing is decoded."""

import gzip
import hashlib
import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START = re.compile(
    rb"(?:\A|[\r\n\x0b\x1c]|\\r|\\n)[ \t]*(?:\xef\xbb\xbf)?\x0b?(?=(MSH|FHS|BHS|BTS|FTS)[^A-Za-z0-9\s\x00-\x1f])"
)
_BLANK = b" \t\r\n\x0b\x1c\x1a\x00\xef\xbb\xbf\\rn"  # what may stand between messages without being lost
_FRAME, _FRAME_END = b"\x0b", b"\x1c"


@dataclass(frozen=True)
class Span:
    """A message's place in its file: its number (from 1) and its bytes; `reason` when it is none (a code of reasons.csv)."""

    position: str
    start: int
    end: int
    reason: str = ""


class NotReadable(Exception):
    """The file cannot be read; its text would be the operating system's and is not passed on."""


def plain_copy(path: Path, spool: Path) -> Path:
    """`path`, or a copy in `spool` when it is compressed or UTF-16, so that spans are places in UTF-8 or one-byte text.

    Raises NotReadable.
    """
    try:
        with path.open("rb") as file:
            first = file.read(2)
        if first == b"\x1f\x8b":
            copy = spool / f"{_hash(path)}.hl7"
            with gzip.open(path) as packed, copy.open("wb") as whole:
                while block := packed.read(1 << 20):
                    whole.write(block)
            return plain_copy(copy, spool)
        if first in (b"\xff\xfe", b"\xfe\xff"):
            copy = spool / f"{_hash(path)}.utf8"
            copy.write_text(path.read_text(encoding="utf-16", errors="replace"), encoding="utf-8")
            return copy
    except (OSError, EOFError, zlib.error) as error:
        raise NotReadable from error
    return path


def _hash(path: Path) -> str:
    return hashlib.md5(str(path).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def spans(path: Path) -> Iterator[Span]:
    """Each message, in the file's order, and each piece that is none. Raises NotReadable."""
    try:
        if not path.stat().st_size:
            return
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from _spans(content)
    except (OSError, ValueError) as error:
        raise NotReadable from error


def _spans(content: mmap.mmap) -> Iterator[Span]:
    starts = [(found.end(), found.group(1)) for found in _START.finditer(content)]
    if not starts:
        return
    if content[: starts[0][0]].strip(_BLANK):
        yield Span("0", 0, starts[0][0], "Q-HL7-FRAGMENT")
    number = batch = in_batch = 0
    for (start, kind), (end, _) in zip(starts, [*starts[1:], (len(content), b"")], strict=True):
        if kind == b"MSH":
            number += 1
            in_batch += 1
            framed = content[start - 1 : start] == _FRAME
            cut = framed and content.find(_FRAME_END, start, end) < 0
            yield Span(str(number), start, end, "Q-HL7-CUT" if cut else "")
        elif kind == b"BHS":
            in_batch = 0
        elif kind == b"BTS":
            batch += 1
            said = re.match(rb"BTS.[ \t]*(\d{1,9})", content[start : start + 40])
            if said and int(said.group(1)) != in_batch:
                yield Span(f"batch {batch}", start, end, "Q-HL7-BATCH")
            in_batch = 0


def is_hl7(path: Path) -> bool:
    """Whether the first 64 KiB hold a message or a batch header."""
    try:
        with path.open("rb") as file:
            return _START.search(file.read(1 << 16)) is not None
    except OSError as error:
        raise NotReadable from error
