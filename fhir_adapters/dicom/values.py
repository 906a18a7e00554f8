"""From a header's raw bytes to what may leave: pseudonyms, numbers in range, dates, defined terms, listed texts and codes.

Every value passes one of the kinds that `allow_list.toml` explains; whatever does not fit is dropped and counted by the
element's keyword. So a name in the wrong place of a file goes no further than here.
"""

import csv
import math
import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from fhir_adapters.allow_list import DicomAllowList, DicomElement
from fhir_adapters.dicom.headers import Header, Wanted, key, silent_pydicom
from fhir_adapters.partial_dates import parse
from fhir_adapters.pseudonyms import SiteKey
from fhir_adapters.record_numbers import record_number


class Coding(NamedTuple):
    """A code of DICOM's own lists: `scheme` DCM or SCT."""

    scheme: str
    code: str
    display: str


Value = float | int | str | bool | Coding


class Measure(NamedTuple):
    """One measurement of a report. `codes`: role → code; `region`: what was measured, name → value; `software`: name and version."""

    id: str
    name: Coding
    value: float | int | Coding
    unit: Coding | None
    codes: tuple[tuple[str, Coding], ...]
    region: tuple[tuple[str, str | int], ...]
    software: tuple[str, str] | None


class Hashes(NamedTuple):
    """How identities of a report become pseudonyms: UIDs, and the id of a measurement."""

    uid: Callable[[str], str]
    measure: Callable[[str], str]


class Instance(NamedTuple):
    """What may be known of one file. `values`: where a value goes → its values, in the allow-list's order."""

    patient: str
    study: str
    series: str
    uid: str
    values: tuple[tuple[str, tuple[Value, ...]], ...]
    measures: tuple[Measure, ...] = ()


class Codes:
    """The lists of codes.csv and the terms of body_parts.csv."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        self._codes: dict[tuple[str, str], Coding] = {}
        with (folder / "codes.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                coding = Coding(row["scheme"], row["code"], row["display"])
                self._codes[row["list"], row["code"]] = coding
                if row["legacy_code"]:  # SNOMED-RT, as files of before 2018 hold it
                    self._codes[row["list"], row["legacy_code"]] = coding
        with (folder / "body_parts.csv").open(encoding="utf-8", newline="") as lines:
            self.body_parts = {row["term"]: self._codes["body_site", row["code"]] for row in csv.DictReader(lines)}

    def find(self, name: str, code: str) -> Coding | None:
        """The coding of a list for a code, new or legacy."""
        return self._codes.get((name, code))


@cache
def codes() -> Codes:
    """The lists, read once a process."""
    return Codes()


_KEPT = 1 << 16  # elements whose reading is kept
_TELLING = 5  # digits of a record number: shorter ones turn up in measurements by chance
_CODE_VALUE, _CODE_SCHEME = 0x00080100, 0x00080102
_STEP_ITEMS, _CONCEPT_CODE, _DATE_TIME = 0x00400612, 0x0040A168, 0x0040A120
_SCHEMES = frozenset(["SCT", "SRT", "SNM3", "99SDM", "DCM"])
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)", re.ASCII)  # with points: before 1993
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


class _Plain(NamedTuple):
    """What an element outside sequences says: where and what, its numbers as text; `left_out` when something did not fit."""

    found: tuple[tuple[str, tuple[Value, ...]], ...]
    numbers: bytes
    left_out: str | None


class Reader:
    """Turns headers into instances for one site. `left_out` counts, by keyword, the values that did not fit."""

    def __init__(
        self, allowed: DicomAllowList, site_key: SiteKey, issuer: str | None = None, record_number_digits: int = 0
    ) -> None:
        self._key = site_key
        self._issuer = issuer
        self.allowed = allowed
        self._uid: Callable[[str], str] = lru_cache(maxsize=4096)(site_key.uid)
        self._patient: Callable[[str], str] = lru_cache(maxsize=4096)(
            lambda text: site_key.pseudonym("patient", record_number(text, record_number_digits))
        )
        self._decode = lru_cache(maxsize=65536)(self._decoded)
        self._digits = lru_cache(maxsize=4096)(_telling_bytes)
        self._plain: dict[tuple[int, bytes], _Plain] = {}
        # by the outermost tag: an element, and its path inside that
        self._elements: dict[int, list[tuple[DicomElement, tuple[int, ...]]]] = {}
        for keyword, element in allowed.keep.items():
            if keyword not in _IDENTITY and element.kind != "used":
                outermost, *inside = map(key, element.path)
                self._elements.setdefault(outermost, []).append((element, tuple(inside)))
        self._identity = {
            keyword: key(allowed.keep[keyword].path[0]) for keyword in (*_IDENTITY, *_USED) if keyword in allowed.keep
        }
        self.wanted = Wanted.of(_leaves(allowed.keep.values()))
        self.left_out: Counter[str] = Counter()

    def instance(self, header: Header) -> Instance | str:
        """The instance of a header, or the reason code why there is none."""
        issuer = self._raw_text(header, "IssuerOfPatientID")
        if self._issuer is not None and issuer and issuer != self._issuer:
            return "X-OTHER-ISSUER"
        uids = [self._raw_text(header, keyword) for keyword in _UIDS]
        if not all(uids):
            return "Q-DICOM-NO-UID"
        patient = self._raw_text(header, "PatientID")
        if patient is None:
            return "Q-DICOM-PATIENT-TEXT"
        if not patient:
            return "Q-DICOM-NO-PATIENT"
        digits = self._digits(patient)
        values: dict[str, tuple[Value, ...]] = {}
        for tag, content in header.items():
            if content.__class__ is bytes:
                # the files of a series say nearly the same: most elements were met before
                plain = self._plain.get((tag, content)) or self._met(tag, content)
                if plain.left_out is None and not (digits and digits in plain.numbers):
                    for name, value in plain.found:
                        if name not in values:
                            values[name] = value
                    continue
            for element, inside in self._elements.get(tag, ()):
                raw = _leaf(content, inside) if inside else content
                if not raw:
                    continue
                found = self._of_items(element, raw) if isinstance(raw, list) else self._decode(element.keyword, raw)
                if digits and _repeats(digits, element, raw):
                    found = ()  # a dose or a size, as it seems, but it is the patient's number
                if not found and element.kind != "step-date":  # most steps of a sample are others
                    self.left_out[element.keyword] += 1
                for name, value in found:
                    values.setdefault(name, value)
        offset = self._raw_text(header, "TimezoneOffsetFromUTC")
        if offset and re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", offset, re.ASCII):
            values["offset"] = (f"{offset[:3]}:{offset[3:]}",)
        study, series, uid = (self._uid(text or "") for text in uids)
        return Instance(self._patient(patient), study, series, uid, tuple(values.items()))

    def _met(self, tag: int, content: "bytes | list[Header]") -> "_Plain":
        """What an element says, kept for the next file that says the same."""
        raw = content if isinstance(content, bytes) else b""
        found: list[tuple[str, tuple[Value, ...]]] = []
        numbers: list[bytes] = []
        left_out = None
        for element, inside in self._elements.get(tag, ()) if raw else ():
            these = () if inside else self._decode(element.keyword, raw)
            left_out = left_out if these else element.keyword
            found += these
            numbers.append(_digits_of(element, raw))
        if len(self._plain) >= _KEPT:
            self._plain.clear()
        made = self._plain[tag, raw] = _Plain(tuple(found), b" ".join(numbers), left_out)
        return made

    def _raw_text(self, header: Header, keyword: str) -> str | None:
        """An identity's text, decoded by the file's character set; None when it cannot be decoded."""
        raw = header.get(self._identity[keyword], b"")
        if not isinstance(raw, bytes):
            return ""
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").strip(" \0")
        sets = header.get(self._identity["SpecificCharacterSet"], b"")
        return _decoded_by(raw, sets if isinstance(sets, bytes) else b"")

    def _decoded(self, keyword: str, raw: bytes) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        """What one element's raw bytes let through: (where, values), one for each name; nothing when they do not fit."""
        element = self.allowed.keep[keyword]
        kind = element.kind
        if kind == "present":
            return ((element.to[0], (True,)),)
        if kind == "number":
            numbers = _numbers(element, raw)
            if len(numbers) < len(element.to):
                return ()
            return tuple((name, (value,)) for name, value in zip(element.to, numbers, strict=False))
        text = raw.decode("ascii", "replace").strip(" \0")
        if kind in ("uid", "public-uid"):
            if kind == "public-uid":
                found = text if re.fullmatch(r"1\.2\.840\.10008(\.(0|[1-9]\d*))+", text, re.ASCII) else None
            else:
                found = self._uid(text) if text else None
            return ((element.to[0], (found,)),) if found else ()
        if kind == "date-time":
            day, moment = iso_date(text[:8]), iso_time(re.split(r"[+-]", text[8:])[0])
            both = zip(element.to, (day, moment), strict=True)
            return tuple((name, (value,)) for name, value in both if value)
        single = self._single(element, text)
        return ((element.to[0], (single,)),) if single is not None else ()

    def _single(self, element: DicomElement, text: str) -> Value | None:
        kind = element.kind
        first = text.split("\\")[0].strip()
        if kind == "date":
            return iso_date(first)
        if kind == "time":
            return iso_time(first)
        if kind == "word":
            words = [word.strip() if word.strip() in element.words else "" for word in text.split("\\")]
            return "\\".join(words).rstrip("\\") or None
        if kind == "coded":
            return codes().find(element.list, first)
        if kind == "body-part":
            return codes().body_parts.get(" ".join(first.upper().split()))
        plain = " ".join(unicodedata.normalize("NFKC", first).upper().split())
        if element.list in self.allowed.patterns:
            return first if self.allowed.patterns[element.list].fullmatch(plain) else None
        return self.allowed.texts[element.list].get(plain)

    def report_hashes(self) -> Hashes:
        """How the identities of a report's measurements are hashed."""
        return Hashes(self._uid, lambda text: self._key.pseudonym("measurement", text))

    def record_number(self, header: Header) -> str:
        """The PatientID of a header that gave an instance."""
        return self._raw_text(header, "PatientID") or ""

    def _of_items(self, element: DicomElement, items: list[Header]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        return self._step_date(element, items) if element.kind == "step-date" else self._coded_items(element, items)

    def _step_date(self, element: DicomElement, steps: list[Header]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        """The day of the first processing step whose codes hold one of the element's words."""
        for step in steps:
            items = step.get(key(_STEP_ITEMS), b"")
            contents = items if isinstance(items, list) else []
            codes_ = {_text(code, _CODE_VALUE) for one in contents for code in _items(one, _CONCEPT_CODE)}
            days = [day for one in contents if (day := iso_date(_text(one, _DATE_TIME)[:8]))]
            if codes_ & set(element.words) and days:
                return ((element.to[0], (min(days),)),)
        return ()

    def _coded_items(self, element: DicomElement, items: list[Header]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        found: list[Value] = []
        for item in items:
            scheme, code = item.get(key(_CODE_SCHEME), b""), item.get(key(_CODE_VALUE), b"")
            if (
                isinstance(scheme, bytes)
                and isinstance(code, bytes)
                and scheme.strip(b" \0").decode("latin-1") in _SCHEMES
            ):
                coding = codes().find(element.list, code.strip(b" \0").decode("latin-1"))
                if coding and coding not in found:
                    found.append(coding)
        return ((element.to[0], tuple(found)),) if found else ()


_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_IDENTITY = (*_UIDS, "PatientID")
_USED = ("SpecificCharacterSet", "IssuerOfPatientID", "TimezoneOffsetFromUTC")


def telling(number: str) -> str | None:
    """The digits of a record number, when they are so many that a number which repeats them is no chance."""
    digits = re.sub(r"\D", "", number).lstrip("0")
    return digits if len(digits) >= _TELLING and digits.isascii() else None


def _leaves(elements: Iterable[DicomElement]) -> list[tuple[int, ...]]:
    paths = []
    for element in elements:
        if element.kind == "step-date":
            steps = (*element.path, _STEP_ITEMS)
            paths += [(*steps, _CONCEPT_CODE, _CODE_VALUE), (*steps, _DATE_TIME)]
        elif element.vr == "SQ":
            paths += [(*element.path, _CODE_VALUE), (*element.path, _CODE_SCHEME)]
        else:
            paths.append(element.path)
    return paths


def _leaf(content: bytes | list[Header], path: tuple[int, ...]) -> bytes | list[Header]:
    """The raw value at a path below a sequence: of the first item that has one; for a sequence, the items of all of them."""
    items: list[Header] = []
    for item in content if isinstance(content, list) else ():
        below = item.get(path[0], b"")
        if len(path) > 1:
            below = _leaf(below, path[1:])
        if isinstance(below, list):
            items += below
        elif below:
            return below
    return items


def _items(header: Header, tag: int) -> list[Header]:
    found = header.get(key(tag), b"")
    return found if isinstance(found, list) else []


def _text(header: Header, tag: int) -> str:
    found = header.get(key(tag), b"")
    return found.decode("latin-1").strip(" \0") if isinstance(found, bytes) else ""


def _telling_bytes(number: str) -> bytes:
    return (telling(number) or "").encode()


def _digits_of(element: DicomElement, raw: bytes) -> bytes:
    """The numbers of an element as text; nothing where it is not read as numbers."""
    if element.kind != "number":
        return b""
    return b" ".join(str(one).encode() for one in _numbers(element, raw)) if element.vr in _BINARY else raw


def _repeats(digits: bytes, element: DicomElement, raw: bytes | list[Header]) -> bool:
    """Whether a number holds the digits of the record number."""
    return not isinstance(raw, list) and digits in _digits_of(element, raw)


def _numbers(element: DicomElement, raw: bytes) -> list[float | int]:
    """The numbers of a value, as far as they lie within the element's bounds."""
    if element.vr in _BINARY:
        size = struct.calcsize("<" + _BINARY[element.vr])
        numbers: list[float] = [
            one for (one,) in struct.iter_unpack("<" + _BINARY[element.vr], raw[: len(raw) // size * size])
        ]
    else:
        texts = [text.strip() for text in raw.decode("ascii", "replace").strip(" \0").split("\\")]
        numbers = [float(text) if _NUMBER.fullmatch(text) else math.nan for text in texts]
    found: list[float | int] = []
    for number in numbers:
        if not element.least <= number <= element.most:
            break
        found.append(int(number) if number == int(number) else float(f"{number:.9g}"))
    return found


def iso_date(text: str) -> str | None:
    """An ISO date for a DICOM date; None when it is none, or outside the years of `mappings/dates.toml`."""
    found = _DATE.fullmatch(text.strip())
    day = "-".join(found.groups()) if found else ""
    return day if parse(day, "UTC") else None


def iso_time(text: str) -> str | None:
    """A FHIR time for a DICOM time: missing minutes and seconds are 00."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    hour, minute, second, fraction = found[1], found[2] or "00", found[3] or "00", found[4]
    if not (int(hour) < 24 and int(minute) < 60 and int(second) <= 60):
        return None
    return f"{hour}:{minute}:{second}" + (f".{fraction}" if fraction and fraction.strip("0") else "")


def _decoded_by(raw: bytes, character_sets: bytes) -> str | None:
    from pydicom import charset

    names = [name.strip() for name in character_sets.decode("ascii", "replace").strip(" \0").split("\\")]
    # no set means ASCII, and an unknown one anything; guessing would make a pseudonym that joins nobody
    if not any(names) or not all(name in charset.python_encoding for name in names):
        return None
    with silent_pydicom():
        try:
            text: str = charset.decode_bytes(raw, charset.convert_encodings(names), set())
        except (LookupError, UnicodeError, ValueError):
            return None
    return None if "\ufffd" in text else text.strip(" \0")
