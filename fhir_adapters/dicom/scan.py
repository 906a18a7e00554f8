"""What a worker process does: the headers of a batch of files, one after the other, to instances without identifiers.

Few imports: each worker loads this module anew.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fhir_adapters import allow_list
from fhir_adapters.dicom.headers import read_header
from fhir_adapters.dicom.values import Instance, Reader
from fhir_adapters.pseudonyms import SiteKey

BATCH = 500  # files: about a tenth of a second


class Batch(NamedTuple):
    """Files to read, the site's key, and the issuer of its record numbers where only that one is taken."""

    paths: Sequence[str]
    key: SiteKey
    issuer: str | None = None


class Scan(NamedTuple):
    """Per file its instance or the reason code why there is none; and how many values did not fit, by keyword."""

    found: list[Instance | str]
    left_out: Counter[str]


def scan(batch: Batch) -> Scan:
    """Read a batch. What it returns holds no identifier, so nothing else needs the key."""
    reader = Reader(allow_list.dicom(), batch.key, batch.issuer)
    found: list[Instance | str] = []
    for path in batch.paths:
        header = read_header(path, reader.wanted)
        found.append(header if isinstance(header, str) else reader.instance(header))
    return Scan(found, reader.left_out)
