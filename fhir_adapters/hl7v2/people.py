"""PID → Patient, PV1 → Encounter, MRG → links and moved visits, DG1 → Condition, PR1 → Procedure."""

from fhir_adapters.births import birth_date
from fhir_adapters.hl7v2.message import Segment, moment
from fhir_adapters.hl7v2.reading import Elements, Reading, Told, fiscal_codes, patient_number
from fhir_adapters.hl7v2.site_map import tables, target

_LINKAGE = "urn:palmares:linkage-token"  # the identifier system that mapping reads the token from
# one address names both parts of ICD-9-CM; of these codes it is known which
_PROCEDURES = {"http://hl7.org/fhir/sid/icd-9-cm": "http://hl7.org/fhir/sid/icd-9-cm/procedure"}
_CLASS_UNKNOWN = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}


def read_patient(reading: Reading, person: Segment) -> None:
    """Sex, month of birth, death, linkage token. Names, addresses, telephones, mothers and relatives are not looked at."""
    elements: Elements = {}
    if person.is_null(7):
        elements["birthDate"] = None
    elif day := reading.time(person, 7):
        elements["birthDate"] = {"birthDate": birth_date(day[:10])}
    if sex := reading.in_list(person, 8, "sex"):
        elements["gender"] = {"gender": sex}
    if person.is_null(29) or person.is_null(30):
        elements["deceased"] = None
    elif death := reading.time(person, 29):
        elements["deceased"] = {"deceasedDateTime": death}
    elif person.value(30).upper() in ("Y", "N"):
        elements["deceased"] = {"deceasedBoolean": person.value(30).upper() == "Y"}
    linkage = reading.settings.linkage
    if linkage is not None:
        typed = fiscal_codes((*person.repetitions(3), *person.repetitions(4)))
        for code in (*typed, *filter(None, [person.value(19)])):  # PID-19: where older systems keep it
            try:
                token = linkage.token(code)
            except ValueError:
                reading.wrong(person, 3, "T-FISCAL-CODE")
                continue
            elements["identifier"] = {"identifier": [{"system": _LINKAGE, "value": token}]}
    reading.told.append(Told("Patient", reading.patient, elements))


def read_visit(reading: Reading) -> None:
    """The Encounter of PV1. Only ADT tells of it; other messages refer to it."""
    visit = reading.named("PV1")
    if visit is None:
        return
    reading.visit = visit_id(reading, visit)
    if not reading.visit or reading.kind != "ADT":
        return
    status, how = tables()["event"].get(reading.event, ("", ""))
    event = reading.named("EVN")
    elements: Elements = {"subject": {"subject": reading.subject()}}
    code = visit.value(2).upper()
    if known := tables()["class"].get(code):
        elements["class"] = {"class": {"system": known[1], "code": known[0]}}
    elif code:
        reading.wrong(visit, 2, "H-CODE")
    begun = reading.time(visit, 44)
    if begun is None and status == "in-progress" and reading.event in ("A01", "A04") and event:
        begun = reading.time(event, 6) or reading.time(event, 2)
    if begun:
        elements["start"] = {"period": {"start": begun}}
    ended = reading.time(visit, 45)
    if ended is None and how == "ends" and event:
        ended = reading.time(event, 6) or reading.time(event, 2)
    if how == "reopens" or visit.is_null(45):
        elements["end"] = None
    elif ended:
        elements["end"] = {"period": {"end": ended}}
        status = status if status in ("cancelled", "entered-in-error") else "finished"
    if status:
        elements["status"] = {"status": status}
    elif code:
        elements["status-of-class"] = {"status": target("class-status", code) or "in-progress"}
    for name, number, element in (("admitted", 14, "admitSource"), ("discharged", 36, "dischargeDisposition")):
        answer = visit.value(number)
        if answer.isascii() and answer.isdigit() and len(answer) <= 2:
            system = f"http://terminology.hl7.org/CodeSystem/v2-{'0023' if number == 14 else '0112'}"
            elements[name] = {"hospitalization": {element: {"coding": [{"system": system, "code": answer}]}}}
    reading.told.append(Told("Encounter", reading.visit, elements))


def visit_id(reading: Reading, visit: Segment) -> str:
    """The visit number's pseudonym (PV1-19, else PV1-50); without one, that of the patient's admission at that time."""
    for number in (19, 50):
        if text := visit.value(number):
            of_patient = [reading.number] if reading.settings.visits_of_patient else []
            return reading.pseudonym("encounter", *of_patient, text)
    begun = moment(visit.value(44), reading.settings.zone) if visit.value(44) else None
    return reading.pseudonym("encounter", reading.number, begun) if begun else ""


def read_merge(reading: Reading) -> None:
    """Two files of one patient (A40 and its kin): the old one is replaced by the new; or a visit that was another's (A45)."""
    how = tables()["event"].get(reading.event, ("", ""))[1]
    if how not in ("merges", "moves-visit", "merges-visits"):
        return
    olds = [one for one in reading.segments if one.name == "MRG"]
    if not olds:
        reading.wrong(reading.segments[0], 9, "H-BY-HAND")
    for old in olds:
        if how == "merges":
            number = patient_number(old.repetitions(1) or old.repetitions(4), reading.settings)
            if not number:
                reading.wrong(old, 1, "H-NUMBER")
            elif number != reading.number:
                before = reading.settings.key.pseudonym("patient", number)
                link = {"other": reading.subject(), "type": "replaced-by"}
                # the file that stands now, whatever was said before
                reading.told.append(Told("Patient", reading.patient, {"active": None, "link": None}))
                reading.told.append(
                    Told("Patient", before, {"active": {"active": False}, "link": {"link": [link]}}),
                )
        elif text := old.value(5):
            of_patient = [reading.number] if reading.settings.visits_of_patient else []
            moved = reading.pseudonym("encounter", *of_patient, text)
            if how == "moves-visit":
                reading.told.append(Told("Encounter", moved, {"subject": {"subject": reading.subject()}}))
            elif reading.visit and moved != reading.visit:
                reading.told.append(Told("Encounter", moved, {"status": {"status": "entered-in-error"}}))
        else:
            reading.wrong(old, 5, "H-NUMBER")


def read_diagnoses(reading: Reading) -> None:
    """DG1 → Condition of the visit."""
    for segment in [one for one in reading.segments if one.name == "DG1"]:
        codings = reading.needed(segment, 3)
        if not codings:
            continue
        onset = reading.time(segment, 5)
        number = segment.value(20)
        named = [reading.number] + ([number] if number else [reading.visit, codings[0]["code"], onset or ""])
        resource = reading.start("Condition", reading.pseudonym("condition", *named))
        verification = "entered-in-error" if segment.value(21) == "D" else target("diagnosis", segment.value(6))
        if verification:
            system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
            resource["verificationStatus"] = {"coding": [{"system": system, "code": verification}]}
        category = {
            "system": "http://terminology.hl7.org/CodeSystem/condition-category",
            "code": "encounter-diagnosis",
        }
        resource |= {"category": [{"coding": [category]}], "code": {"coding": codings}, "subject": reading.subject()}
        if reading.visit:
            resource["encounter"] = {"reference": f"Encounter/{reading.visit}"}
        if onset:
            resource["onsetDateTime"] = onset
        if said := reading.time(segment, 19):
            resource["recordedDate"] = said
        reading.made.append(resource)


def read_procedures(reading: Reading) -> None:
    """PR1 → Procedure of the visit: what was done, as discharge records say it."""
    for segment in [one for one in reading.segments if one.name == "PR1"]:
        codings = [
            one | {"system": _PROCEDURES.get(one["system"], one["system"])} for one in reading.needed(segment, 3)
        ]
        if not codings:
            continue
        done = reading.time(segment, 5)
        number = segment.value(19)
        named = [reading.number] + ([number] if number else [reading.visit, codings[0]["code"], done or ""])
        resource = reading.start("Procedure", reading.pseudonym("procedure", *named))
        resource["status"] = "entered-in-error" if segment.value(20).upper() == "D" else "completed"
        resource |= {"code": {"coding": codings}, "subject": reading.subject()}
        if reading.visit:
            resource["encounter"] = {"reference": f"Encounter/{reading.visit}"}
        if done:
            resource["performedDateTime"] = done
        reading.made.append(resource)


def complete(kind: str, resource: dict[str, object]) -> None:
    """Give an Encounter what FHIR demands and no message told."""
    if kind == "Encounter":
        resource.setdefault("status", "unknown")
        resource.setdefault("class", _CLASS_UNKNOWN)
