"""Lines of a large file, in runs that fit in memory whatever the length of a line."""

import hashlib
from collections.abc import Iterator
from typing import IO

from fhir_adapters.landing.rules import LARGEST_LINE

BLOCK = 8 * 2**20  # bytes read at once; a file's digest is that of its blocks' digests
_HEAD = 4096  # of a line that is too long, enough to see type and id


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """A stream from where it stands to its end."""
    while block := stream.read(BLOCK):
        yield block


def ranged(stream: IO[bytes], start: int, end: int | None, digests: list[bytes] | None = None) -> Iterator[bytes]:
    """The bytes of the lines that begin in the range; the SHA-256 of each block of the range is appended to `digests`."""
    dropping = False
    if start:
        stream.seek(start - 1)
        dropping = stream.read(1) != b"\n"
    position = start
    while end is None or position < end:
        block = stream.read(BLOCK if end is None else min(BLOCK, end - position))
        if not block:
            return
        if digests is not None:
            digests.append(hashlib.sha256(block).digest())
        position += len(block)
        last = block
        if dropping:
            cut = block.find(b"\n") + 1
            if not cut:
                continue
            dropping = False
            block = block[cut:]
        if block:
            yield block
    if dropping or end is None or last.endswith(b"\n"):
        return
    while block := stream.read(1 << 16):  # the end of the last line, beyond the range
        cut = block.find(b"\n") + 1
        yield block[:cut] if cut else block
        if cut:
            return


def whole_lines(source: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Runs of complete lines without the last newline; or, with True, the head of one line that is too long."""
    carry = b""
    too_long = False
    for block in source:
        cut = block.rfind(b"\n")
        if too_long:
            first = block.find(b"\n")
            if first < 0:
                continue
            yield carry, True
            too_long, carry = False, block[first + 1 :]
            cut = carry.rfind(b"\n")
            if cut >= 0:
                yield carry[:cut], False
                carry = carry[cut + 1 :]
        elif cut < 0:
            carry += block
        else:
            yield carry + block[:cut], False
            carry = block[cut + 1 :]
        if len(carry) > LARGEST_LINE:
            too_long, carry = True, carry[:_HEAD]
    if too_long or carry:
        yield carry, too_long
