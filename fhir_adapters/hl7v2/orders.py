"""ORC with OBR → ServiceRequest; with RXO or RXE → MedicationRequest; RXA → MedicationAdministration; RXD → MedicationDispense."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fhir_adapters.hl7v2.message import Segment, part
from fhir_adapters.hl7v2.reading import Elements, Reading, Told
from fhir_adapters.hl7v2.results import order_key
from fhir_adapters.hl7v2.site_map import tables, target

_NUMBER = re.compile(r"\d{1,9}(?:[.,]\d{1,6})?")
_DURATIONS = {"s": "s", "m": "min", "min": "min", "h": "h", "d": "d", "day": "d", "w": "wk", "wk": "wk", "mo": "mo"}
_ORDERED = frozenset(["OBR", "RXO", "RXE", "RXA", "RXD"])
_STOPPED_BEFORE = ("entered-in-error", "not-done")


@dataclass
class Order:
    """ORC and what follows it up to the next one."""

    common: Segment
    turn: int = 0  # which prescription of its ORC
    parts: list[Segment] = field(default_factory=list)

    def first(self, *names: str) -> Segment | None:
        """The first segment with the first of these names that is there."""
        return next((one for name in names for one in self.parts if one.name == name), None)


def orders(segments: list[Segment]) -> Iterator[Order]:
    """The orders of a message. What is ordered under no ORC, as before version 2.2, is an order of which only that is known."""
    order: Order | None = None
    for segment in segments:
        if segment.name == "ORC":
            if order:
                yield order
            order = Order(segment)
        else:
            if order is None and segment.name in _ORDERED:
                order = Order(Segment("ORC", "|^~\\&"))
            elif order and segment.name in ("RXO", "RXE") and order.first(segment.name):
                yield order  # a sender that saves the ORC of the others
                order = Order(order.common, order.turn + 1)
            if order:
                order.parts.append(segment)
    if order:
        yield order


def read_orders(reading: Reading) -> None:
    """Every order of the message. What a result message repeats of its order is not an order again."""
    for order in orders(reading.segments):
        asked = [one for one in order.parts if one.name == "OBR"]
        key = order_key(reading, asked[0] if asked else None, order.common)
        drug = order.first("RXE", "RXO")
        if drug is not None:
            _medication_request(reading, order, drug, [*key, str(order.turn)] if key and order.turn else key)
        for one in asked if drug is None and reading.kind not in ("ORU", "OUL") else ():
            _service_request(reading, order, one, order_key(reading, one, order.common))
        for place, given in enumerate(one for one in order.parts if one.name == "RXA"):
            _administration(reading, order, given, key, place)
        for place, handed in enumerate(one for one in order.parts if one.name == "RXD"):
            _dispense(reading, order, handed, key, place)


def _statuses(reading: Reading, common: Segment) -> tuple[str, str]:
    """The status of a request, and that of a prescription: by ORC-5 (status), else by ORC-1 (control)."""
    for number, name in ((5, "order-status"), (1, "order-control")):
        code = common.value(number).upper()
        if found := tables()[name].get(code):
            return found
        if code and number == 5:
            reading.wrong(common, number, "H-CODE")
    return "unknown", "unknown"


def _service_request(reading: Reading, order: Order, asked: Segment, key: list[str]) -> None:
    codings = reading.needed(asked, 4)
    if not key:
        reading.wrong(asked, 2, "H-NUMBER")
    if not key or not codings:
        return
    elements: Elements = {
        "status": {"status": _statuses(reading, order.common)[0]},
        "intent": {"intent": "order"},
        "code": {"code": {"coding": codings}},
        "subject": {"subject": reading.subject()},
    }
    if reading.visit:
        elements["encounter"] = {"encounter": {"reference": f"Encounter/{reading.visit}"}}
    if when := reading.time(asked, 6) or reading.time(asked, 7):
        elements["when"] = {"occurrenceDateTime": when}
    if authored := reading.time(order.common, 9):
        elements["authored"] = {"authoredOn": authored}
    identifier = reading.pseudonym("service-request", *key, codings[0]["code"])
    reading.told.append(Told("ServiceRequest", identifier, elements))


def _medication_request(reading: Reading, order: Order, drug: Segment, key: list[str]) -> None:
    encoded = drug.name == "RXE"
    codings = reading.codings(drug, 2 if encoded else 1)
    if not key:
        reading.wrong(drug, 0, "H-NUMBER")
        return
    elements: Elements = {
        "status": {"status": _statuses(reading, order.common)[1]},
        "intent": {"intent": "order"},
        "subject": {"subject": reading.subject()},
    }
    if codings:
        elements["code"] = {"medicationCodeableConcept": {"coding": codings}}
    if reading.visit:
        elements["encounter"] = {"encounter": {"reference": f"Encounter/{reading.visit}"}}
    authored = reading.time(order.common, 9) or reading.time(reading.segments[0], 7)
    if authored:
        elements["authored"] = {"authoredOn": authored}
    dosage = _dosage(reading, order, drug, 3 if encoded else 2, 5 if encoded else 4)
    if dosage:
        elements["dosage"] = {"dosageInstruction": [dosage]}
    supply = _supply(reading, order, drug)
    if supply:
        elements["supply"] = {"dispenseRequest": supply}
    reading.told.append(Told("MedicationRequest", _request_id(reading, key), elements))


def _request_id(reading: Reading, key: list[str]) -> str:
    return reading.pseudonym("medication-request", *key)


def _dosage(reading: Reading, order: Order, drug: Segment, amount: int, unit: int) -> dict[str, Any]:
    dosage: dict[str, Any] = {}
    timing = next((one for one in reversed(order.parts) if one.name == "TQ1" and one.value(3)), None)
    pattern = part(timing.repetitions(3)[0]).upper() if timing else order.common.value(7, 2).upper()
    if pattern:
        frequency, period = tables()["repeat"].get(pattern, ("", ""))
        if frequency:
            number, word = period.split()
            repeat = {"frequency": int(frequency), "period": int(number), "periodUnit": word}
            dosage["timing"] = {"repeat": repeat}
        else:
            reading.wrong(timing or order.common, 3 if timing else 7, "H-CODE")
    if route := _route(reading, order):
        dosage["route"] = {"coding": route}
    text = drug.value(amount)
    if _NUMBER.fullmatch(text):
        quantity = reading.quantity(_value(text), reading.unit(drug, unit))
        dosage["doseAndRate"] = [{"doseQuantity": quantity}]
    elif text:
        reading.wrong(drug, amount, "H-NUMBER")
    return dosage


def _route(reading: Reading, order: Order) -> list[dict[str, str]]:
    segment = order.first("RXR")
    if segment is None or not segment.value(1):
        return []
    known = reading.settings.site.routes.get(segment.value(1).upper())
    return [dict(known)] if known else reading.codings(segment, 1)


def _supply(reading: Reading, order: Order, drug: Segment) -> dict[str, Any]:
    if drug.name != "RXE":
        return {}
    supply: dict[str, Any] = {}
    refills = drug.value(12)
    if refills.isascii() and refills.isdigit() and len(refills) <= 3:
        supply["numberOfRepeatsAllowed"] = int(refills)
    amount = drug.value(10)
    if _NUMBER.fullmatch(amount):
        supply["quantity"] = {"value": _value(amount)}
    timing = next((one for one in order.parts if one.name == "TQ1" and one.value(6)), None)
    if timing is not None:
        number, unit = timing.value(6), timing.value(6, 2).lower()
        if _NUMBER.fullmatch(number) and unit in _DURATIONS:
            supply["expectedSupplyDuration"] = reading.quantity(_value(number), _DURATIONS[unit])
    return supply


def _administration(reading: Reading, order: Order, given: Segment, key: list[str], place: int) -> None:
    codings = reading.needed(given, 5)
    start = reading.time(given, 3)
    if not given.value(3):
        reading.wrong(given, 3, "H-DATE")
    if not codings or not start:
        return
    status = target("administration", given.value(20).upper() or "CP") or "unknown"
    if given.value(21).upper() == "D":
        status = "entered-in-error"
    end = reading.time(given, 4)
    named = key or [reading.number, codings[0]["code"]]
    identifier = reading.pseudonym("administration", *named, given.value(2) or str(place), start)
    resource = reading.start("MedicationAdministration", identifier, "1" if status in _STOPPED_BEFORE else "0")
    resource |= {
        "status": status,
        "medicationCodeableConcept": {"coding": codings},
        "subject": reading.subject(),
    }
    if reading.visit:
        resource["context"] = {"reference": f"Encounter/{reading.visit}"}
    if end and end != start:
        resource["effectivePeriod"] = {"start": start, "end": end}
    else:
        resource["effectiveDateTime"] = start
    dosage: dict[str, Any] = {}
    if route := _route(reading, order):
        dosage["route"] = {"coding": route[0:1]}
    amount = given.value(6)
    if _NUMBER.fullmatch(amount) and amount != "999":  # 999: the standard's word for an amount that is not known
        dosage["dose"] = reading.quantity(_value(amount), reading.unit(given, 7))
    if dosage.get("dose"):
        resource["dosage"] = dosage
    reading.made.append(resource)


def _dispense(reading: Reading, order: Order, handed: Segment, key: list[str], place: int) -> None:
    """What the hospital's pharmacy handed over: how tablets are given to patients who take them at home."""
    codings = reading.needed(handed, 2)
    when = reading.time(handed, 3)
    if not handed.value(3):
        reading.wrong(handed, 3, "H-DATE")
    if not codings or not when:
        return
    named = key or [reading.number, codings[0]["code"]]
    resource = reading.start(
        "MedicationDispense", reading.pseudonym("dispense", *named, handed.value(1) or str(place), when)
    )
    resource |= {
        "status": "completed",
        "medicationCodeableConcept": {"coding": codings},
        "subject": reading.subject(),
    }
    if reading.visit:
        resource["context"] = {"reference": f"Encounter/{reading.visit}"}
    amount = handed.value(4)
    if _NUMBER.fullmatch(amount):
        resource["quantity"] = reading.quantity(_value(amount), reading.unit(handed, 5))
    elif amount:
        reading.wrong(handed, 4, "H-NUMBER")
    resource["whenHandedOver"] = when
    if route := _route(reading, order):
        resource["dosageInstruction"] = [{"route": {"coding": route}}]
    reading.made.append(resource)


def _value(text: str) -> float | int:
    text = text.replace(",", ".")
    return float(text) if "." in text else int(text)
