"""How a file may be named in a manifest, a quarantine row or a message: file names can hold patients' names.

A name is shown only when its words are resource types, digits and a few neutral words; any other file is `file-` and the first
12 hex digits of the md5 of its relative path, which is stable and which the site can compute again.
"""

import hashlib
import re
from functools import cache

from fhir_adapters.knowledge import table

_HIDDEN = re.compile(r"file-[0-9a-f]{12}(\.(ndjson|jsonl|json)(\.(gz|zst))?)?")  # a name that was hidden already
_PLAIN = re.compile(r"[A-Za-z0-9._/ -]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_MOST_DIGITS = 6  # in one part of a path: more may be a date of birth or a record number


@cache
def _neutral() -> frozenset[str]:
    """Lower-case words of R4's resource types and of mappings/codes/fhir/file_words.csv."""
    types = {row["resource_type"] for row in table("codes", "fhir", "resource_types.csv")}
    words = {row["word"] for row in table("codes", "fhir", "file_words.csv")}
    return frozenset(word.lower() for name in types for word in [name, *_WORD.findall(name)]) | words


def _is_neutral(part: str) -> bool:
    if sum(character.isdigit() for character in part) > _MOST_DIGITS:
        return False
    runs = re.findall(r"[A-Za-z]+", part)
    return all(
        run.lower() in _neutral() or all(word.lower() in _neutral() for word in _WORD.findall(run)) for run in runs
    )


def shown_name(relative: str) -> str:
    """`relative` (with `/` between folders) when all of it is neutral, else its `file-…` name."""
    if _HIDDEN.fullmatch(relative) or (_PLAIN.fullmatch(relative) and all(map(_is_neutral, relative.split("/")))):
        return relative
    return hidden_name(relative)


def hidden_name(relative: str) -> str:
    """The name that stands for a file whose own may name somebody."""
    return "file-" + hashlib.md5(relative.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:12]
