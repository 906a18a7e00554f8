"""OBR → DiagnosticReport, OBX → Observation, SPM → Specimen."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fhir_adapters.hl7v2.message import Components, Segment, moment, part
from fhir_adapters.hl7v2.reading import Reading
from fhir_adapters.hl7v2.site_map import tables, target

# a number of ten digits and more is no result: it is a telephone's, or a record's
_NUMBER = re.compile(r"[+-]?\d{1,9}(?:[.,]\d{1,9})?")
_COMPARED = re.compile(r"(<=|>=|<|>)?\s*([+-]?\d{1,9}(?:[.,]\d{1,9})?)")
_RANGE = re.compile(r"([+-]?\d{1,9}(?:[.,]\d{1,9})?)\s*-\s*([+-]?\d{1,9}(?:[.,]\d{1,9})?)")
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_TEXT_TYPES = frozenset(["ST", "TX", "FT", "IS", "ID", "CF", ""])
_CODED_TYPES = frozenset(["CE", "CWE", "CNE", "CF"])
_STATUS_OF_ALL = frozenset(["F", "P", "C", "X"])  # codes that mean the same of a report (OBR-25) and of a result
_TIME_TYPES = frozenset(["DT", "TS", "DTM"])


@dataclass
class Group:
    """An order with its results: OBR (none: results without one), its OBX, its specimen."""

    order: Segment | None
    common: Segment | None
    results: list[Segment] = field(default_factory=list)
    specimen: Segment | None = None


def groups(segments: list[Segment]) -> Iterator[Group]:
    """The message's groups. A specimen belongs to the OBR before it, or, where it comes first (OUL), to those after it."""
    common: Segment | None = None
    before: Segment | None = None
    group = Group(None, None)
    for segment in segments:
        if segment.name == "ORC":
            yield group
            common, group = segment, Group(None, segment)
        elif segment.name == "OBR":
            yield group
            group = Group(segment, common, specimen=before)
            before = None
        elif segment.name == "OBX":
            group.results.append(segment)
        elif segment.name == "SPM":
            if group.order is None:
                before = segment
            elif group.specimen is None:
                group.specimen = segment
    yield group


def read_results(reading: Reading) -> None:
    """Every result of the message, and for result messages the report that holds them."""
    for number, group in enumerate(groups(reading.segments), start=1000 * reading.turn):
        if not group.results and (group.order is None or reading.kind not in ("ORU", "OUL")):
            continue
        _read_group(reading, group, number)


def order_key(reading: Reading, order: Segment | None, common: Segment | None) -> list[str]:
    """What names an order: the filler's number, else the placer's; [] when there is neither."""
    for segment, filler, placer in ((order, 3, 2), (common, 3, 2)):
        if segment is not None:
            for number, who in ((filler, "filler"), (placer, "placer")):
                if text := segment.value(number):
                    return [who, text, segment.value(number, 2)]
    return []


def _read_group(reading: Reading, group: Group, number: int) -> None:
    order = group.order
    code = order.value(4) if order else ""
    taken = reading.time(order, 7) if order else None
    key = order_key(reading, order, group.common) or [reading.number, taken or reading.touched or str(number)]
    specimen = _specimen(reading, group, key)
    if taken is None and group.specimen is not None:
        taken = reading.time(group.specimen, 17)
    section = order.value(24).upper() if order else ""
    made = []
    for segment in group.results:
        # a result without a status has its report's, where that says the same of results
        status = segment.value(11).upper() or (order.value(25).upper() if order else "")
        status = status if segment.value(11) or status in _STATUS_OF_ALL else ""
        for resource in _observations(reading, segment, [*key, code], taken, section, status):
            if specimen:
                resource["specimen"] = {"reference": f"Specimen/{specimen}"}
            reading.made.append(resource)
            made.append(resource)
    if order is not None and reading.kind in ("ORU", "OUL"):
        _report(reading, order, [*key, code], taken, section, specimen, made)


def _specimen(reading: Reading, group: Group, key: list[str]) -> str:
    segment = group.specimen
    if segment is None:
        return ""
    kind = segment.value(4).upper()
    coding = (
        [{"system": "http://terminology.hl7.org/CodeSystem/v2-0487", "code": known}]
        if (known := target("specimen", kind))
        else reading.codings(segment, 4)
    )
    identifier = reading.pseudonym("specimen", *key, segment.value(2, 1), segment.value(2, 2))
    resource = reading.start("Specimen", identifier)
    if coding:
        resource["type"] = {"coding": coding}
    resource["subject"] = reading.subject()
    if collected := reading.time(segment, 17):
        resource["collection"] = {"collectedDateTime": collected}
    reading.made.append(resource)
    return identifier


def _report(
    reading: Reading,
    order: Segment,
    key: list[str],
    taken: str | None,
    section: str,
    specimen: str,
    made: list[dict[str, Any]],
) -> None:
    """The report of an OBR. Without a code that passes it says nothing that its results do not."""
    codings = reading.codings(order, 4)
    if not codings:
        return
    status, rank = tables()["report"].get(order.value(25).upper(), ("unknown", "0"))
    resource = reading.start("DiagnosticReport", reading.pseudonym("report", *key), rank)
    resource["status"] = status
    if known := target("section", section):
        system = "http://terminology.hl7.org/CodeSystem/v2-0074"
        resource["category"] = [{"coding": [{"system": system, "code": known}]}]
    resource |= {"code": {"coding": codings}, "subject": reading.subject()}
    if reading.visit:
        resource["encounter"] = {"reference": f"Encounter/{reading.visit}"}
    if taken:
        resource["effectiveDateTime"] = taken
    issued = reading.time(order, 22)
    if issued and "T" in issued:
        resource["issued"] = issued
    if specimen:
        resource["specimen"] = [{"reference": f"Specimen/{specimen}"}]
    if made:
        resource["result"] = [{"reference": f"Observation/{one['id']}"} for one in made]
    reading.made.append(resource)


def _observations(
    reading: Reading,
    segment: Segment,
    key: list[str],
    taken: str | None,
    section: str,
    said: str,
) -> Iterator[dict[str, Any]]:
    """An Observation per value of an OBX."""
    status, rank = tables()["result"].get(said, ("unknown", "0"))
    if not status:
        return
    codings = reading.needed(segment, 3)
    if not codings:
        return
    what = segment.value(3)
    flags = [target("interpretation", part(one)) for one in segment.repetitions(8)]
    interpretation = [{"coding": [{"system": _INTERPRETATION, "code": flag}]} for flag in flags if flag]
    method = reading.codings(segment, 17)
    when = reading.time(segment, 14) or taken
    values: list[Components | None] = list(segment.repetitions(5)) or [None]
    for components in values:
        named = "\0".join([*key, what, segment.value(3, 3), segment.value(4)])
        reading.places[named] += 1
        resource = reading.start(
            "Observation", reading.pseudonym("observation", named, str(reading.places[named])), rank
        )
        resource["status"] = status
        # results without an OBR come with a visit: nothing says what kind they are
        if section in tables()["laboratory"] or (not section and reading.kind in ("ORU", "OUL")):
            system = "http://terminology.hl7.org/CodeSystem/observation-category"
            resource["category"] = [{"coding": [{"system": system, "code": "laboratory"}]}]
        resource |= {"code": {"coding": codings}, "subject": reading.subject()}
        if reading.visit:
            resource["encounter"] = {"reference": f"Encounter/{reading.visit}"}
        if when:
            resource["effectiveDateTime"] = when
        _value(reading, segment, what, components, status, resource)
        if interpretation:
            resource["interpretation"] = interpretation
        if method:
            resource["method"] = {"coding": method}
        _reference_range(reading, segment, resource)
        yield resource


def _value(
    reading: Reading,
    segment: Segment,
    what: str,
    components: Components | None,
    status: str,
    resource: dict[str, Any],
) -> None:
    """value[x] by the value type of OBX-2; a text that no list knows is masked, and that is reported."""
    kind = segment.value(2).upper()
    if components is None:
        if status == "cancelled":
            resource["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "not-performed"}]}
        return
    text = part(components)
    found: dict[str, Any] | None = None
    reason = "H-TEXT"
    if kind == "NM":
        reason = "H-NUMBER"
        if _NUMBER.fullmatch(text):
            found = {"valueQuantity": reading.quantity(_number(text), reading.unit(segment, 6))}
    elif kind == "SN":
        reason, found = "H-NUMBER", _structured(reading, segment, components)
    elif kind in _CODED_TYPES:
        reason, codings = "H-CODE", reading.settings.site.codings(components)
        if not codings and (word := reading.settings.site.word(what, text)):
            codings = [word]
        if codings:
            found = {"valueCodeableConcept": {"coding": codings}}
    elif kind in _TIME_TYPES:
        reason = "H-DATE"
        if when := moment(text, reading.settings.zone):
            found = {"valueDateTime": when}
    elif kind in _TEXT_TYPES:
        if word := reading.settings.site.word(what, text):
            found = {"valueCodeableConcept": {"coding": [word]}}
        elif compared := _COMPARED.fullmatch(text):
            found = {"valueQuantity": _compared(reading, segment, *compared.groups())}
    else:
        reason = "H-TYPE"
    if found is not None:
        resource |= found
        return
    reading.wrong(segment, 5, reason)
    resource["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": "masked"}]}


def _number(text: str) -> float | int:
    text = text.replace(",", ".")
    return float(text) if "." in text else int(text)


def _compared(reading: Reading, segment: Segment, sign: str | None, text: str) -> dict[str, Any]:
    quantity = reading.quantity(_number(text), reading.unit(segment, 6))
    if not sign:
        return quantity
    return {"value": quantity.pop("value"), "comparator": sign} | quantity


def _structured(reading: Reading, segment: Segment, components: Components) -> dict[str, Any] | None:
    """SN: comparator, number, sign, number: `>^100`, `^100^-^200`, `^1^:^128`; a lone number too."""
    sign, first, between, second = (part(components, place) for place in (1, 2, 3, 4))
    if not _NUMBER.fullmatch(first) or (second and not _NUMBER.fullmatch(second)):
        return None
    unit = reading.unit(segment, 6)
    low = reading.quantity(_number(first), unit)
    if second and between == "-" and sign in ("", "="):
        return {"valueRange": {"low": low, "high": reading.quantity(_number(second), unit)}}
    if second and between in (":", "/") and sign in ("", "="):
        return {"valueRatio": {"numerator": low, "denominator": reading.quantity(_number(second), "")}}
    if second or between or sign not in ("", "=", "<", ">", "<=", ">="):
        return None
    return {"valueQuantity": _compared(reading, segment, sign if sign not in ("", "=") else None, first)}


def _reference_range(reading: Reading, segment: Segment, resource: dict[str, Any]) -> None:
    """OBX-7 where it is numbers: `3,5 - 5,0`, `< 5`, `> 40`. Any other text stays behind."""
    text = segment.value(7)
    unit = resource.get("valueQuantity", {}).get("code", "")
    if found := _RANGE.fullmatch(text):
        low, high = (reading.quantity(_number(one), unit) for one in found.groups())
        resource["referenceRange"] = [{"low": low, "high": high}]
    elif (found := _COMPARED.fullmatch(text)) and found.group(1):
        side = "high" if found.group(1)[0] == "<" else "low"
        resource["referenceRange"] = [{side: reading.quantity(_number(found.group(2)), unit)}]
