"""The bytes of a message → its text: the character set that MSH-18 names, else what fits."""

import re

from fhir_adapters.hl7v2.site_map import target

_HEADER = re.compile(rb"MSH([^\r\n]{0,2000})")


def decoded(content: bytes, otherwise: str) -> str:
    """The text. A named set that does not fit, or none, leaves UTF-8 when all of it is, then `otherwise`, then Windows-1252.

    Windows-1252 takes nearly any byte, so nothing is lost; what it cannot say becomes U+FFFD, and a record number with that
    has no pseudonym.
    """
    for name in (_named(content), "utf-8", otherwise):
        if name:
            try:
                return content.decode(name)
            except UnicodeDecodeError:
                continue
    return content.decode("cp1252", "replace")


def _named(content: bytes) -> str:
    header = _HEADER.search(content)
    if not header:
        return ""
    fields = header.group(1).split(header.group(1)[:1])
    if len(fields) < 18 or not header.group(1)[:1]:
        return ""
    first = re.split(rb"[^A-Za-z0-9/ -]", fields[17], maxsplit=1)[0]
    return target("charset", first.decode("ascii").strip().upper())
