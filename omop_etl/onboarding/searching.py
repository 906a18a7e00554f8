"""Known identifiers and what looks like one, found in text: in any case, with or without accents, however it is punctuated.

A text becomes its words (runs of letters and digits, in lower case, without accents); an identifier too. It is found where its
words stand in the same order with nothing but signs between them, so that `ROSSI^MARIA`, `Rossi, Maria` and `rossi maria` are one.
A record number, tax code, accession number or UID is also found within a longer word (`MRN0012345`), but not within a run of
hexadecimal digits: every pseudonym would hold some number.

Names are found word by word too, but for words that the toolkit's own vocabulary holds (a patient called `Bianco`).
"""

import base64
import binascii
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from urllib.parse import unquote

from fhir_adapters.knowledge import mappings_folder
from fhir_adapters.pseudonyms import codice_fiscale_error
from omop_etl.onboarding.known import Known

_WORD = re.compile(r"[a-z0-9]+")
_HEXADECIMAL = re.compile(r"[0-9a-f]{12,}|[0-9]+")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(r"&(?:#[0-9xXa-fA-F]+|[A-Za-z]{2,10});")
_ONE_CASE = re.compile(r"[0-9a-z/]+|[0-9A-Z/]+")  # a path or a pseudonym, no base64
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_SHORTEST_NAME = 4  # letters of a part of a name that is looked for alone
_SHORTEST_INSIDE = 6  # characters of an identifier that is looked for within words
_SHORTEST = 3  # characters of any identifier

_FISCAL_CODE = re.compile(r"[a-z]{6}[0-9l-v]{2}[a-z][0-9l-v]{2}[a-z][0-9l-v]{3}[a-z]")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_TELEPHONE = re.compile(
    r"(?:\+39|0039)[ ./-]?(?:[0-9][ ./-]?){8,10}[0-9](?![0-9A-Za-z])"
    r"|(?<![0-9A-Za-z.-])3[2-9][0-9][ /-][0-9]{3}[ ]?[0-9]{3,4}(?![0-9A-Za-z])"
)
_MAY_CALL = re.compile(r"\+39|0039|3[2-9][0-9][ /-][0-9]{3}")
_DIALLED = re.compile(r"(?<![0-9A-Za-z])\+?(?:[0-9][ ./-]?){7,13}[0-9](?![0-9A-Za-z])")


def _local(number: str) -> str:
    """A telephone number's digits without Italy's prefix."""
    digits = re.sub(r"[^0-9]", "", number)
    return (
        digits.removeprefix("0039")
        if digits.startswith("0039")
        else digits[2:]
        if len(digits) > 10 and digits.startswith("39")
        else digits
    )


class _Fold(dict[int, str]):
    """A character → itself in lower case without accents; made when it is met."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKD", chr(code).casefold())
        folded = "".join(one for one in plain if not unicodedata.combining(one)).casefold()
        self[code] = folded
        return folded


_fold = _Fold()


def words(text: str) -> list[str]:
    """A text's words."""
    return _WORD.findall(text.lower() if text.isascii() else text.translate(_fold))


# words that pages and programs are written in, and that are surnames too
_MARKUP = "base bold body card dark font grid head item lang light link list main meta page path root script span style table text"


@cache
def common_words() -> frozenset[str]:
    """Words of the toolkit's own vocabulary and knowledge: a name that is one of them is looked for with its others only."""
    found = set(_MARKUP.split())
    for path in mappings_folder().rglob("*"):
        if path.suffix in (".csv", ".toml", ".sql", ".json") and path.is_file():
            found.update(word for word in words(path.read_text(encoding="utf-8", errors="replace")) if word.isalpha())
    return frozenset(found)


class Identifiers:
    """What is looked for. `scan` counts it, per kind."""

    def __init__(self, known: Iterable[Known], *, patterns: bool = True) -> None:
        self._anchors: dict[str, list[tuple[int, tuple[str, ...], str]]] = {}
        self._inside: dict[int, dict[str, tuple[str, bool]]] = {}  # length → text → kind, of several words
        self._telephones: set[str] = set()
        self._clean: set[str] = set()  # words in which nothing was found
        self._patterns = patterns
        self.known = 0
        self.too_short = 0
        for one in set(known):
            self._add(one)

    def _add(self, one: Known) -> None:
        parts = tuple(words(one.value))
        whole = "".join(parts)
        if len(whole) < _SHORTEST:
            self.too_short += 1
            return
        self.known += 1
        self._look_for(parts, one.kind)
        if one.kind == "name":
            for part in parts:
                if len(part) >= _SHORTEST_NAME and len(parts) > 1 and part not in common_words():
                    self._look_for((part,), one.kind)
        elif one.kind == "telephone":
            self._telephones.add(_local(whole))
        if len(whole) >= _SHORTEST_INSIDE and (one.kind != "name" or len(parts) > 1):
            self._inside.setdefault(len(whole), {})[whole] = one.kind, len(parts) > 1

    def _look_for(self, parts: tuple[str, ...], kind: str) -> None:
        anchor = max(range(len(parts)), key=lambda place: (len(parts[place]), place))
        self._anchors.setdefault(parts[anchor], []).append((anchor, parts, kind))

    def scan(self, text: str) -> Counter[str]:
        """How often something of each kind stands in a text."""
        found: Counter[str] = Counter()
        for form in _forms(text):
            said = words(form)
            found |= self._known_in(said)
            if self._telephones and (many := sum(_local(one) in self._telephones for one in _DIALLED.findall(form))):
                found["telephone"] = max(many, found["telephone"])
            if self._patterns:
                found |= _patterns_in(form, said)
        return found

    def _known_in(self, text: Sequence[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        once = set(text)
        if not self._anchors.keys().isdisjoint(once):
            for place, word in enumerate(text):
                found.update(
                    {
                        kind
                        for anchor, parts, kind in self._anchors.get(word, ())
                        if place >= anchor and tuple(text[place - anchor : place - anchor + len(parts)]) == parts
                    }
                )
        for word in once - self._clean:
            within = self._within(word)
            if within is None:
                self._clean.add(word)
            else:
                found[within] += text.count(word)
        if len(self._clean) > 1 << 20:
            self._clean.clear()
        return found

    def _within(self, word: str) -> str | None:
        """The kind of an identifier that is part of a longer word."""
        if len(word) < _SHORTEST_INSIDE or _HEXADECIMAL.fullmatch(word):
            return None
        for length, identifiers in self._inside.items():
            for begin in range(len(word) - length + 1):
                known = identifiers.get(word[begin : begin + length])
                if known is not None and (length < len(word) or known[1]):
                    return known[0]
        return None


def _forms(text: str) -> list[str]:
    """A text as it stands, and with what is escaped in it unescaped."""
    found = [text]
    if "\\u" in text and (plain := _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)) != text:
        found.append(plain)
    if "%" in text and _PERCENT.search(text):
        found.append(unquote(text))
    if "&" in text and _ENTITY.search(text):
        found.append(html.unescape(text))
    decoded = [
        plain for match in _BASE64.findall(text) if not _ONE_CASE.fullmatch(match) and (plain := _decoded(match))
    ]
    if decoded:
        found.append("\n".join(decoded))
    return found


def _decoded(text: str) -> str:
    """What a run of base64 says, when it says text."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), validate=False).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
    return plain if plain.isprintable() else ""


def _patterns_in(text: str, said: Sequence[str]) -> Counter[str]:
    """What looks like an identifier in a text and its words, whether the hospital's list has it or not."""
    like = [word for word in set(said) if len(word) == 16 and _FISCAL_CODE.fullmatch(word)]
    codes = sum(said.count(word) for word in like if codice_fiscale_error(word) is None)
    found = Counter(
        {
            "looks like a codice fiscale": codes,
            "looks like an e-mail": len(_MAIL.findall(text)) if "@" in text else 0,
            "looks like a telephone number": len(_TELEPHONE.findall(text)) if _MAY_CALL.search(text) else 0,
        }
    )
    return +found
