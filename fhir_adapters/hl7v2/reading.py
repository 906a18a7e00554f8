"""What one message says: facts for resources, and what of it could not pass. The parts are in people, results and orders."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fhir_adapters.hl7v2.message import NULL, Components, Segment, instant, moment, part, segments
from fhir_adapters.hl7v2.site_map import SiteMap, tables, target
from fhir_adapters.pseudonyms import codice_fiscale_error
from fhir_adapters.record_numbers import record_number

if TYPE_CHECKING:
    from fhir_adapters.pseudonyms import LinkageKey, SiteKey

Resource = dict[str, Any]
# an element of a resource that many messages tell of: what it adds to the resource; None: the sender deleted it
Elements = dict[str, dict[str, Any] | None]


class Told(NamedTuple):
    """What a message tells of a resource that other messages tell of too: the newest message wins, element by element."""

    type: str
    id: str
    elements: Elements


class Wrong(NamedTuple):
    """A line of the report: the segment's place in the message and its name, the field, why (code of reasons.csv)."""

    place: int
    segment: str
    field: int
    reason: str


class Refused(Exception):
    """The message as a whole brings nothing; its argument is a code of reasons.csv."""


@dataclass(frozen=True)
class Settings:
    """How the site's messages are read. See the settings of the source."""

    key: "SiteKey"
    linkage: "LinkageKey | None"
    zone: str
    site: SiteMap
    identifier_types: tuple[str, ...]
    authority: str
    digits: int
    processing: str
    visits_of_patient: bool


@dataclass
class Reading:
    """One message, or what it says of one of its patients, while it is read.

    `told`: of resources to fold; `made`: resources that are this message's alone.
    """

    settings: Settings
    segments: list[Segment]  # of the message, or of one of its patients
    whole: list[Segment] = field(default_factory=list)  # of the message: the report names places in it
    turn: int = 0  # which of the message's patients, from 0
    told: list[Told] = field(default_factory=list)
    made: list[Resource] = field(default_factory=list)
    wrongs: list[Wrong] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)  # how often the message told of a result so far
    patient: str = ""
    number: str = ""  # the record number, which never leaves this object
    visit: str = ""
    touched: str = ""  # when the message was made: meta.lastUpdated
    event: str = ""
    kind: str = ""

    def named(self, name: str) -> Segment | None:
        """The first segment of a name."""
        return next((one for one in self.segments if one.name == name), None)

    def wrong(self, segment: Segment, number: int, reason: str) -> None:
        """Note that a field could not pass."""
        place = next((place for place, one in enumerate(self.whole, start=1) if one is segment), 0)
        self.wrongs.append(Wrong(place, shown_segment(segment.name), number, reason))

    def pseudonym(self, kind: str, *parts: str) -> str:
        """The id of a resource."""
        return self.settings.key.pseudonym(f"hl7v2-{kind}", "\0".join(parts))

    def subject(self) -> dict[str, str]:
        """The reference to the message's patient."""
        return {"reference": f"Patient/{self.patient}"}

    def start(self, kind: str, identifier: str, rank: str = "") -> Resource:
        """The beginning of a resource of this message. `rank` tells two states of one second apart."""
        resource: Resource = {"resourceType": kind, "id": identifier}
        meta = {"versionId": rank} if rank else {}
        if self.touched:
            meta["lastUpdated"] = self.touched
        return resource | ({"meta": meta} if meta else {})

    def time(self, segment: Segment, number: int) -> str | None:
        """A FHIR dateTime of a field; noted when it is none."""
        text = segment.value(number)
        found = moment(text, self.settings.zone) if text else None
        if text and found is None:
            self.wrong(segment, number, "H-DATE")
        return found

    def codings(self, segment: Segment, number: int) -> list[dict[str, str]]:
        """The codings of a coded field that may pass; noted when there is a code and none passes."""
        repetitions = segment.repetitions(number)
        found = [one for components in repetitions for one in self.settings.site.codings(components)]
        if repetitions and not found:
            self.wrong(segment, number, "H-CODE")
        return found

    def needed(self, segment: Segment, number: int) -> list[dict[str, str]]:
        """As `codings`; an empty field is noted too, for without it the segment brings nothing."""
        if not segment.repetitions(number):
            self.wrong(segment, number, "H-CODE")
        return self.codings(segment, number)

    def unit(self, segment: Segment, number: int) -> str:
        """The UCUM unit of a coded or plain field, '' when there is none that is known."""
        components = segment.repetitions(number)[0] if segment.repetitions(number) else ()
        for place in (1, 2, 4):
            known = self.settings.site.units.get(part(components, place))
            if known:
                return known
        if components:
            self.wrong(segment, number, "H-UNIT")
        return ""

    def quantity(self, value: float | int, unit: str) -> dict[str, Any]:
        """A Quantity, with its unit when that is known."""
        return {"value": value} | ({"unit": unit, "system": "http://unitsofmeasure.org", "code": unit} if unit else {})

    def in_list(self, segment: Segment, number: int, name: str) -> str:
        """What the field's code stands for in a list; noted when it has one that the list does not know."""
        code = segment.value(number).upper()
        if code and code not in tables()[name]:
            self.wrong(segment, number, "H-CODE")
        return target(name, code)


def shown_segment(name: str) -> str:
    """A segment's name as a report shows it: a Z segment, or whatever stood there, is only told to be one."""
    return name if name in _SHOWN else "segment"


_SHOWN = frozenset("MSH EVN PID PV1 MRG ORC OBR OBX SPM RXO RXE RXA RXD RXR TQ1 DG1 PR1 AL1 IAM".split())  # noqa: SIM905


def read(text: str, settings: Settings) -> Reading:
    """All that a message tells. Raises Refused, and NoMessage for one whose header cannot be read."""
    from fhir_adapters.hl7v2 import orders, people, results

    whole = segments(text)
    header, event = whole[0], next((one for one in whole if one.name == "EVN"), None)
    first = Reading(settings, whole, whole)
    first.kind = header.value(9)
    first.event = header.value(9, 2) or (event.value(1) if event else "")  # in EVN alone: before version 2.3
    if header.value(11)[:1] not in ("", *settings.processing):
        raise Refused("X-HL7-TEST")
    what = target("message", first.kind)
    about = tables()["event"].get(first.event, ("", ""))[1]
    if not what or about == "nobody":
        raise Refused("X-HL7-TYPE")
    for made in (header.value(7), event.value(2) if event else ""):
        when = instant(made, settings.zone) if made else None
        if when:
            first.touched = when.isoformat(timespec="seconds").replace("+00:00", "Z")
            break
    of_patients = _of_patients(whole)
    if not of_patients:
        raise Refused("Q-HL7-NO-PATIENT")
    refused: list[tuple[Segment, str]] = []
    for turn, (person, of_patient) in enumerate(of_patients):
        reading = replace(first, segments=of_patient, turn=turn)
        if reason := _of_whom(reading, person):
            refused.append((person, reason))
            continue
        people.read_patient(reading, person)
        people.read_visit(reading)
        if what == "people":
            people.read_merge(reading)
            people.read_diagnoses(reading)
            people.read_procedures(reading)
        orders.read_orders(reading)
        results.read_results(reading)
    if len(refused) == len(of_patients):
        raise Refused(refused[0][1])
    for person, _ in refused:  # the others' part of the message stands
        first.wrong(person, 3, "H-PATIENT")
    if about == "by-hand":
        first.wrong(event or header, 1 if event else 9, "H-BY-HAND")
    for segment in whole:
        if segment.name in tables()["not-read"]:
            first.wrong(segment, 0, "H-SEGMENT")
    if not first.told and not first.made:
        raise Refused("X-HL7-EMPTY")
    return first


def _of_patients(whole: list[Segment]) -> list[tuple[Segment, list[Segment]]]:
    """Each PID of the message with what is said of that patient: a message may tell of several (ORU, A17, A24, A39, A40)."""
    starts = [place for place, one in enumerate(whole) if one.name == "PID"]
    if not starts:
        return []
    common = [one for one in whole[: starts[0]] if one.name in ("MSH", "EVN")]
    found = []
    for turn, (start, end) in enumerate(zip(starts, [*starts[1:], len(whole)], strict=True)):
        before = whole[:start] if turn == 0 else common
        found.append((whole[start], [*before, *whole[start:end]]))
    return found


def _of_whom(reading: Reading, person: Segment) -> str:
    """Find whom a PID is of; why that is not known (a code of reasons.csv)."""
    reading.number = patient_number(person.repetitions(3) or person.repetitions(2), reading.settings)
    if not reading.number:
        return "Q-HL7-NO-PATIENT"
    if "\ufffd" in reading.number:
        return "Q-HL7-TEXT"
    reading.patient = reading.settings.key.pseudonym("patient", reading.number)
    return ""


def patient_number(identifiers: tuple[Components, ...], settings: Settings) -> str:
    """The record number among a field's identifiers: of the declared type and authority; one alone needs no type.

    '' when none fits or two fit: a number that may be another hospital's is none.
    """
    found = [
        one
        for one in identifiers
        if part(one)
        and (not settings.authority or settings.authority in (part(one, 4), part(one, 4, 2)))
        and codice_fiscale_error(part(one)) is not None
    ]
    for wanted in settings.identifier_types:
        of_type = {part(one) for one in found if part(one, 5).upper() == wanted}
        if of_type:
            return record_number(of_type.pop(), settings.digits) if len(of_type) == 1 else ""
    untyped = {part(one) for one in found if not part(one, 5)} if len(found) > 1 else {part(one) for one in found}
    return record_number(untyped.pop(), settings.digits) if len(untyped) == 1 else ""


def fiscal_codes(identifiers: tuple[Components, ...]) -> Iterator[str]:
    """What may be a codice fiscale among a field's identifiers."""
    known: Mapping[str, Any] = tables()["fiscal"]
    for one in identifiers:
        if part(one) and part(one, 5).upper() in known and part(one) != NULL:
            yield part(one)
