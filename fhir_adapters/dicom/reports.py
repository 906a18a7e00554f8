"""Structured reports after TID 1500 (PS3.16): the measurements in their groups, without any text of the report.

What passes of a measurement: its name, method, derivation, finding and site as codes that DICOM lists, the number with a listed unit, the
region's kind, segment number and re-hashed UIDs, the software's name from a list. Text, names, tracking identifiers and coordinates stay
behind. A measurement that does not pass is counted by reason.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fhir_adapters.allow_list import DicomAllowList
from fhir_adapters.dicom.headers import silent_pydicom
from fhir_adapters.dicom.terms import listed, roles, unit
from fhir_adapters.dicom.values import Coding, Hashes, Measure, telling

if TYPE_CHECKING:
    from pydicom import Dataset

_DEEPEST = 32
_VERSION = re.compile(r"[1-9]?\d(\.(0|[1-9]\d{0,2})){1,3}", re.ASCII)  # 3.0.1; no date, no record number
_CODED = ("finding", "finding-category", "site", "laterality", "site-modifier", "method", "derivation")


class _Context(NamedTuple):
    """What a container says of all that stands in it."""

    codes: dict[str, Coding]
    region: dict[str, str | int]
    software: str | None = None
    version: str | None = None


def read_report(
    data: "Dataset", allowed: DicomAllowList, hashes: Hashes, record_number: str
) -> tuple[tuple[Measure, ...], Counter[str]]:
    """The measurements of a report, and how many items did not pass, by reason. Never raises for what the report holds."""
    reader = _Reader(data, allowed, hashes, record_number)
    found: list[Measure] = []
    with silent_pydicom():
        try:
            found.extend(reader.measures())
        except Exception:  # whatever a broken report makes pydicom raise; what was read before it counts
            reader.left_out["report.damaged"] += 1
    return tuple(found), reader.left_out


class _Reader:
    def __init__(self, data: "Dataset", allowed: DicomAllowList, hashes: Hashes, record_number: str) -> None:
        self._data = data
        self._software = allowed.texts["software"]
        self._hashes = hashes
        self._digits = telling(record_number)
        self._instance = str(data.get("SOPInstanceUID", ""))
        self._series: dict[str, tuple[str, str]] = {}  # instance → its study and series, as the evidence says
        self.left_out: Counter[str] = Counter()

    def measures(self) -> Iterator[Measure]:
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
            for study in _items(self._data, keyword):
                for series in _items(study, "ReferencedSeriesSequence"):
                    for one in _items(series, "ReferencedSOPSequence"):
                        place = (str(study.StudyInstanceUID), str(series.SeriesInstanceUID))
                        self._series[str(one.ReferencedSOPInstanceUID)] = place
        header = self._listed_software(self._data.get("ManufacturerModelName"))
        yield from self._below(self._data, _Context({}, {}, header), "", inside=False, depth=0)

    def _below(self, item: "Dataset", context: _Context, place: str, *, inside: bool, depth: int) -> Iterator[Measure]:
        """The measurements of a container. `inside`: it is a group, or stands in the measurements' container."""
        if depth > _DEEPEST:
            self.left_out["report.damaged"] += 1
            return
        items: list[tuple[str, str, Dataset]] = [
            (f"{place}.{number}", self._role(one), one) for number, one in enumerate(_content(item), start=1)
        ]
        context = self._told(context, [(role, one) for _, role, one in items])
        for position, role, one in items:
            kind = one.get("ValueType")
            if kind == "CONTAINER":
                within = inside or role in ("measurements", "group")
                yield from self._below(one, context, position, inside=within, depth=depth + 1)
            elif kind == "NUM":
                yield from self._number(one, context, position) if inside else ()
            elif kind == "CODE" and not role and inside and one.get("RelationshipType") == "CONTAINS":
                yield from self._evaluation(one, context, position)

    def _number(self, item: "Dataset", context: _Context, place: str) -> Iterator[Measure]:
        context = self._told(context, [(self._role(one), one) for one in _content(item)])
        name = _code(item, "ConceptNameCodeSequence")
        values = _items(item, "MeasuredValueSequence")
        if name is None:
            self.left_out["report.name-not-listed"] += 1
        elif not values:
            self.left_out["report.no-value"] += 1
        else:
            units = [_pair(one) for one in _items(values[0], "MeasurementUnitsCodeSequence")]
            known = unit(*units[0]) if units else None
            number = _number(values[0])
            if known is None:
                self.left_out["report.unit-not-listed"] += 1
            elif number is None:
                self.left_out["report.no-number"] += 1
            elif self._digits and self._digits in f"{abs(number):.0f}":
                self.left_out["report.record-number"] += 1
            else:
                yield self._measure(name, number, known, context, place)

    def _evaluation(self, item: "Dataset", context: _Context, place: str) -> Iterator[Measure]:
        name, value = _code(item, "ConceptNameCodeSequence"), _code(item, "ConceptCodeSequence")
        if name is None or value is None:
            self.left_out["report.name-not-listed" if name is None else "report.answer-not-listed"] += 1
        else:
            yield self._measure(name, value, None, context, place)

    def _measure(
        self, name: Coding, value: float | Coding, unit_: Coding | None, context: _Context, place: str
    ) -> Measure:
        software = (context.software, context.version or "") if context.software else None
        codes = tuple((role, context.codes[role]) for role in _CODED if role in context.codes)
        region = tuple(sorted(context.region.items()))
        return Measure(self._hashes.measure(self._instance + place), name, value, unit_, codes, region, software)

    # -- what items say of the measurements beside and below them --------------------------------------------------------

    def _told(self, context: _Context, items: Sequence[tuple[str, "Dataset"]]) -> _Context:
        codes, region = dict(context.codes), dict(context.region)
        software, version = context.software, context.version
        images: list[str] = []
        for role, item in items:
            kind = item.get("ValueType")
            if kind == "CODE" and role in _CODED:
                coding = _code(item, "ConceptCodeSequence")
                if coding is None:
                    self.left_out[f"report.{role}-not-listed"] += 1
                else:
                    codes[role] = coding
                    for below in _content(item):  # side and part of a site stand below it
                        inner = self._role(below)
                        part = _code(below, "ConceptCodeSequence") if inner in _CODED else None
                        if part is not None:
                            codes[inner] = part
            elif kind == "UIDREF" and role in ("tracking-uid", "source-series") and item.get("UID"):
                region["series-uid" if role == "source-series" else role] = self._hashes.uid(str(item.UID))
            elif kind == "TEXT" and role == "software":
                software, version = self._listed_software(item.get("TextValue")), None
                if software is None:
                    self.left_out["report.software-not-listed"] += 1
            elif kind == "TEXT" and role == "software-version":
                text = str(item.get("TextValue", "")).strip()
                version = text if _VERSION.fullmatch(text) else None
            elif kind in ("SCOORD", "SCOORD3D"):
                graphic = str(item.get("GraphicType", ""))
                region["region"] = graphic if graphic in _GRAPHICS else "OTHER"
                images += [uid for below in _content(item) for uid, _ in _images(below)]
            elif kind in ("IMAGE", "COMPOSITE"):
                for uid, segment in _images(item):
                    if segment is not None or role == "segment":
                        region["segmentation-uid"] = self._hashes.uid(uid)
                        if segment is not None:
                            region["segment"] = segment
                    else:
                        images.append(uid)
        self._source(region, images)
        return _Context(codes, region, software, version)

    def _source(self, region: dict[str, str | int], images: list[str]) -> None:
        """Which image, series and study were measured, as far as it is one."""
        known = {self._series[uid] for uid in images if uid in self._series}
        if len(known) == 1:
            study, series = known.pop()
            region["study-uid"], region["series-uid"] = self._hashes.uid(study), self._hashes.uid(series)
        if len(set(images)) == 1:
            region["image-uid"] = self._hashes.uid(images[0])

    def _role(self, item: "Dataset") -> str:
        name = _code(item, "ConceptNameCodeSequence")
        return roles().get((name.scheme, name.code), "") if name else ""

    def _listed_software(self, text: Any) -> str | None:
        return self._software.get(" ".join(str(text).upper().split())) if text else None


_GRAPHICS = frozenset("POINT MULTIPOINT POLYLINE CIRCLE ELLIPSE POLYGON ELLIPSOID".split())  # noqa: SIM905


def _items(item: "Dataset", keyword: str) -> list["Dataset"]:
    return list(item.get(keyword) or [])


def _content(item: "Dataset") -> list["Dataset"]:
    return _items(item, "ContentSequence")


def _pair(item: "Dataset") -> tuple[str, str]:
    """Scheme and value of an item of a code sequence."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or ""
    return str(item.get("CodingSchemeDesignator", "")).strip(), str(value).strip()


def _code(item: "Dataset", keyword: str) -> Coding | None:
    items = _items(item, keyword)
    return listed(*_pair(items[0])) if items else None


def _number(item: "Dataset") -> float | int | None:
    """The number that was measured; as an integer when it is one."""
    raw = item.get("FloatingPointValue")
    raw = item.get("NumericValue") if raw is None else raw
    try:
        number = float(raw)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number == int(number) and abs(number) < 2**53 else number


def _images(item: "Dataset") -> Iterator[tuple[str, int | None]]:
    """Instance UID and segment number of what an image item refers to."""
    for one in _items(item, "ReferencedSOPSequence"):
        segments = one.get("ReferencedSegmentNumber")
        if segments is not None and not isinstance(segments, int):
            segments = segments[0] if len(segments) else None
        yield str(one.get("ReferencedSOPInstanceUID", "")), None if segments is None else int(segments)
