"""What goes wrong in real hospitals, planted on purpose and written down: kind, place, and what must become of it.

Each kind is a function that changes the record of one patient or adds to it. None alters the eligibility of a patient of the
truth. Which kinds there are, how often, and what is expected of each stands in synthetic.toml, `[defect.*]`.
"""

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from omop_etl.synthetic.dates import at_time, days_after
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import FHIR_WAYS, SitePlan
from omop_etl.synthetic.records import Clerk, Resource

if TYPE_CHECKING:
    from omop_etl.synthetic.hospital import Patient

NO_RESOURCE = "?"  # the type of a line that is no resource
LEAST_PATIENTS = 20  # a site of at least so many patients gets every kind at least once


@dataclass
class Planted:
    """One defect as the truth lists it. `position` (file and line or entry) is that of what was added for it."""

    kind: str
    resource_type: str
    resource_id: str | None
    patient: str | None
    position: str | None = None


@dataclass
class Raw:
    """A line that is written as it stands into the file of a resource type."""

    resource_type: str
    content: bytes
    planted: Planted


@dataclass
class Additions:
    """What defects add to one patient's record: lines that are no JSON, and at which places of the record they put others."""

    raws: list[Raw] = field(default_factory=list)
    marks: dict[int, Planted] = field(default_factory=dict)


@dataclass
class Spoiler:
    """Plants the defects of one site. `plants` is what was planted so far."""

    plan: SitePlan
    clerk: Clerk
    parameters: Parameters
    seed: int
    plants: list[Planted] = field(default_factory=list)
    assigned: dict[str, list[str]] = field(default_factory=dict)

    def assign(self, patients: Iterable["Patient"]) -> None:
        """Choose who gets what: ordinary patients of one site alone, each kind where its conditions hold."""
        ordinary = [
            patient
            for patient in patients
            if patient.registration.role == "single" and patient.seen.scenario.name == "usual"
        ]
        if self.plan.kind == "blocked":
            self._assign_blocked(ordinary)
            return
        size = len(self.plan.registrations)
        free = random.Random(f"{self.seed}/{self.plan.id}/defects").sample(ordinary, len(ordinary))
        for kind, entry in self.parameters["defect"].items():
            if not entry["per_100"] or (self.plan.profile["format"] == "bundles" and kind in NOT_IN_BUNDLES):
                continue
            if self.plan.way not in FHIR_WAYS and kind not in IN_FORMS:
                continue
            count = round(entry["per_100"] * size / 100) or (1 if size >= LEAST_PATIENTS else 0)
            fit = [patient for patient in free if KINDS[kind].fits(self, patient)]
            # those with the fewest defects so far come first, so that defects do not pile up on one patient
            fit.sort(key=lambda patient: len(self.assigned.get(patient.pseudonym, [])))
            for patient in fit[:count]:
                self.assigned.setdefault(patient.pseudonym, []).append(kind)

    def _assign_blocked(self, ordinary: list["Patient"]) -> None:
        table = self.parameters["blocked"]
        rng = random.Random(f"{self.seed}/{self.plan.id}/defects")
        alive = [patient for patient in ordinary if patient.seen.death is None]
        early = {patient.pseudonym for patient in alive[: round(table["death_before_index"] * len(alive))]}
        for patient in ordinary:
            kinds = self.assigned.setdefault(patient.pseudonym, [])
            if patient.seen.death is not None and rng.random() < table["event_after_death"]:
                kinds.append("event-after-death")
            if patient.pseudonym in early:
                kinds.append("death-before-index")
            if rng.random() < table["born_1890"]:
                kinds.append("born-1890")
            if rng.random() < table["heaping"]:
                kinds.append("heaping")

    def omit(self, patient: "Patient") -> None:
        """Take away what this patient's record does not hold, before it is written; the truth then lacks it too."""
        seen = patient.seen
        for kind in self.assigned.get(patient.pseudonym, []):
            if kind == "missing-ecog":
                seen.ecog = None
                self.note(kind, "Observation", None, patient)
            elif kind == "missing-ki67":
                seen.samples = [replace(sample, ki67=None) for sample in seen.samples]
                self.note(kind, "Observation", None, patient)
            elif kind == "missing-grade":
                seen.samples = [replace(sample, grade=None) for sample in seen.samples]
                self.note(kind, "Observation", None, patient)

    def spoil(self, patient: "Patient", resources: list[Resource]) -> Additions:
        """Plant what was assigned to this patient: changes `resources` and adds to them."""
        rng = random.Random(f"{self.seed}/{self.plan.id}/defects/{patient.pseudonym}")
        additions = Additions()
        sound = tuple(resources)
        for kind in self.assigned.get(patient.pseudonym, []):
            change = KINDS[kind].change
            if change is not None:
                change(Case(self, patient, sound, resources, additions, kind, rng))
        return additions

    def note(self, kind: str, resource_type: str, resource_id: str | None, patient: "Patient | None") -> Planted:
        """Write a defect down."""
        planted = Planted(kind, resource_type, resource_id, patient.pseudonym if patient else None)
        self.plants.append(planted)
        return planted

    def rows(self) -> list[dict[str, Any]]:
        """The defects as rows of the truth."""
        table = self.parameters["defect"]
        return [
            {
                "site": self.plan.id,
                "patient": planted.patient,
                "resource_type": planted.resource_type,
                "resource_id": _shown_id(planted, table[planted.kind]["expected"]),
                "position": planted.position,
                "kind": planted.kind,
                "expected_outcome": table[planted.kind]["expected"],
                "expected_reason": table[planted.kind].get("reason"),
            }
            for planted in self.plants
        ]


def _shown_id(planted: Planted, expected: str) -> str | None:
    """What a ledger knows it by: its id; for a line that is no resource its place, where that is the source's."""
    if planted.resource_type == NO_RESOURCE:
        return planted.position if expected == "quarantined" else None
    return planted.resource_id


@dataclass
class Case:
    """One defect of one patient: what the functions below work on. `sound` is the record before any defect."""

    spoiler: Spoiler
    patient: "Patient"
    sound: tuple[Resource, ...]
    resources: list[Resource]
    additions: Additions
    kind: str
    rng: random.Random

    @property
    def clerk(self) -> Clerk:
        return self.spoiler.clerk

    def of(self, resource_type: str, **where: Any) -> list[Resource]:
        """The patient's own resources of a type."""
        return [
            resource
            for resource in self.sound
            if resource["resourceType"] == resource_type
            and all(resource.get(key) == value for key, value in where.items())
        ]

    def findings(self, name: str) -> list[Resource]:
        """The patient's Observations of a receptor or performance finding."""
        code = self.spoiler.parameters["finding"][name]
        return [x for x in self.of("Observation") if x["code"]["coding"][0]["code"] == code]

    def drugs(self) -> list[Resource]:
        return self.of(str(self.spoiler.plan.profile["drugs"]))

    def identifier(self, resource_type: str = "Observation") -> str:
        """An id of its own for what this defect adds."""
        return self.clerk.identify(self.patient.pseudonym, resource_type, f"defect/{self.kind}/{len(self.resources)}")

    def laboratory(self, day: date | None = None) -> Resource:
        """One more laboratory finding, sound in itself: a haemoglobin on a day of no meaning."""
        first = self.patient.seen.index or self.patient.seen.anchor
        moment = day or min(days_after(first, 10), self.spoiler.plan.extracted)
        entry = self.spoiler.parameters["laboratory"]["test"]["haemoglobin"]
        return {
            "resourceType": "Observation",
            "id": self.identifier(),
            "meta": {"lastUpdated": at_time(self.spoiler.plan.extracted, 6, 0, self.clerk.zone)},
            "status": "final",
            "category": [self.clerk.codeable(self.clerk.system["observation_category"], "laboratory")],
            "code": {"coding": [self.clerk.coder.test("haemoglobin")]},
            "subject": self.clerk.reference("Patient", self.patient.pseudonym),
            "effectiveDateTime": at_time(moment, 7, 15, self.clerk.zone),
            "valueQuantity": {
                "value": 12.1,
                "unit": entry["unit"],
                "system": self.clerk.system["ucum"],
                "code": entry["unit"],
            },
        }

    def add(self, resource: Resource) -> None:
        """Add a resource and write it down as the defect."""
        self.additions.marks[len(self.resources)] = self.note(resource)
        self.resources.append(resource)

    def note(self, resource: Resource) -> Planted:
        """Write a resource down as the defect."""
        return self.spoiler.note(self.kind, resource["resourceType"], resource.get("id"), self.patient)

    def line(self, content: bytes) -> None:
        """Add a line that is no JSON and write it down: it is of no type, and its place is all the identity it has."""
        planted = self.spoiler.note(self.kind, NO_RESOURCE, None, self.patient)
        self.additions.raws.append(Raw("Observation", content, planted))


# -- malformed ----------------------------------------------------------------------------------------------------------


def _broken_json(case: Case) -> None:
    """A quotation mark of the id is missing."""
    resource = case.laboratory()
    case.line(orjson.dumps(resource).replace(b'","meta"', b',"meta"', 1))


def _broken_inside(case: Case) -> None:
    """A quotation mark is missing where type and id have been read already."""
    case.line(orjson.dumps(case.laboratory()).replace(b'"status":"final"', b'"status":final"', 1))


def _truncated_line(case: Case) -> None:
    resource = case.laboratory()
    content = orjson.dumps(resource)
    case.line(content[: len(content) * 2 // 3])


def _no_json_at_all(case: Case) -> None:
    case.line(b"<html><body>504 Gateway Time-out</body></html>")


def _code_not_an_object(case: Case) -> None:
    case.add(case.laboratory() | {"code": "718-7"})


def _condition_without_subject(case: Case) -> None:
    condition = copy.deepcopy(case.of("Condition")[0])
    condition["id"] = case.identifier("Condition")
    del condition["subject"]
    case.add(condition)


def _missing_id(case: Case) -> None:
    resource = case.laboratory()
    del resource["id"]
    case.add(resource)


def _unknown_type(case: Case) -> None:
    case.add(case.laboratory() | {"resourceType": "LaboratoryResult"})


def _invalid_status(case: Case) -> None:
    case.add(case.laboratory() | {"status": "validated"})


def _date_not_fhir(case: Case) -> None:
    case.add(case.laboratory() | {"effectiveDateTime": "13/05/2021"})


def _ghost(case: Case, **changes: Any) -> None:
    """A patient who is not in the truth, whose Patient resource is not fit, and one record of theirs."""
    identifier = case.clerk.identify(case.patient.pseudonym, "Patient", f"ghost/{case.kind}")
    ghost = {
        "resourceType": "Patient",
        "id": identifier,
        "meta": {"lastUpdated": at_time(case.spoiler.plan.extracted, 6, 0, case.clerk.zone)},
        "gender": "female",
        "birthDate": "1958-03",
    } | changes
    ghost = {key: value for key, value in ghost.items() if value is not None}
    record = case.laboratory() | {"subject": case.clerk.reference("Patient", identifier)}
    for kind, resource in ((case.kind, ghost), ("ghost-record", record)):
        case.additions.marks[len(case.resources)] = case.spoiler.note(
            kind, resource["resourceType"], resource["id"], None
        )
        case.resources.append(resource)


def _ghost_birth_date_number(case: Case) -> None:
    _ghost(case, birthDate=1958)


def _ghost_invalid_gender(case: Case) -> None:
    _ghost(case, gender="F")


def _ghost_without_birth_date(case: Case) -> None:
    _ghost(case, birthDate=None)


# -- sound, but no row --------------------------------------------------------------------------------------------------


def _observation_without_subject(case: Case) -> None:
    resource = case.laboratory()
    del resource["subject"]
    case.add(resource)


def _absent_patient(case: Case) -> None:
    nobody = case.clerk.identify(case.patient.pseudonym, "Patient", "absent")
    case.add(case.laboratory() | {"subject": case.clerk.reference("Patient", nobody)})


def _entered_in_error_finding(case: Case) -> None:
    """HER2 3+ on the index day, taken back: loaded by mistake it would be the sample that decides."""
    template = case.findings("her2_ihc")[0]
    resource = copy.deepcopy(template)
    resource |= {"id": case.identifier(), "status": "entered-in-error"}
    resource["effectiveDateTime"] = (case.patient.seen.index or case.patient.seen.anchor).isoformat()
    resource["valueCodeableConcept"] = case.clerk.codeable("urn:palmares:her2-ihc", "3+")
    resource.pop("specimen", None)
    case.add(resource)


def _condition_of(case: Case, verification: str, years_before: int) -> None:
    """A bone metastasis years before the disease was advanced: loaded by mistake it would date the disease wrongly."""
    resource = copy.deepcopy(case.of("Condition")[0])
    day = (case.patient.seen.advanced or case.patient.seen.anchor) - timedelta(days=365 * years_before)
    resource["id"] = case.identifier("Condition")
    resource["verificationStatus"] = case.clerk.codeable(case.clerk.system["condition_verification"], verification)
    if verification == "entered-in-error":
        del resource["clinicalStatus"]  # con-5: it must not be there
    resource["code"] = {"coding": [case.clerk.coder.condition("bone", "nst", "female")]}
    resource["onsetDateTime"] = resource["recordedDate"] = day.isoformat()
    case.add(resource)


def _entered_in_error_condition(case: Case) -> None:
    _condition_of(case, "entered-in-error", 2)


def _refuted_condition(case: Case) -> None:
    _condition_of(case, "refuted", 3)


def _not_taken(case: Case) -> None:
    """Chemotherapy between the advanced diagnosis and the index that was never given."""
    seen = case.patient.seen
    resource = copy.deepcopy(case.drugs()[0])
    resource["id"] = case.identifier(resource["resourceType"])
    administration = resource["resourceType"] == "MedicationAdministration"
    resource["status"] = "not-done" if administration else "not-taken"
    resource.pop("statusReason", None)
    resource["medicationCodeableConcept"] = {"coding": [case.clerk.coder.drug("paclitaxel")]}
    start = days_after(seen.advanced or seen.anchor, 1)
    resource["effectivePeriod"] = {"start": start.isoformat(), "end": days_after(start, 1).isoformat()}
    case.add(resource)


def _cancelled_encounter(case: Case) -> None:
    resource = copy.deepcopy(case.of("Encounter")[0])
    resource |= {"id": case.identifier("Encounter"), "status": "cancelled"}
    case.add(resource)


def _not_done_procedure(case: Case) -> None:
    resource = copy.deepcopy(case.of("Procedure")[0])
    resource |= {"id": case.identifier("Procedure"), "status": "not-done"}
    case.add(resource)


def _identical_twice(case: Case) -> None:
    resource = case.rng.choice(case.of("Encounter"))
    case.add(copy.deepcopy(resource))


def _older_version(case: Case) -> None:
    """A weight ten times too high, and its correction: the newer version is the one that was there all along."""
    code = case.spoiler.parameters["laboratory"]["body"]["weight"]["loinc"]
    newer = next(x for x in case.of("Observation") if x["code"]["coding"][0]["code"] == code)
    older = copy.deepcopy(newer)
    newer["meta"] = {"versionId": "2", "lastUpdated": at_time(case.spoiler.plan.extracted, 6, 30, case.clerk.zone)}
    older["meta"] = {"versionId": "1", "lastUpdated": at_time(case.spoiler.plan.extracted, 5, 30, case.clerk.zone)}
    older["valueQuantity"]["value"] = round(older["valueQuantity"]["value"] * 10, 1)
    case.add(older)


# -- rows that a gate must find -----------------------------------------------------------------------------------------


def _same_content_other_id(case: Case) -> None:
    resource = copy.deepcopy(case.rng.choice(case.of("Encounter")))
    resource["id"] = case.identifier("Encounter")
    case.add(resource)


def _spare_sample(case: Case, name: str) -> Resource:
    """A finding of a sample that criterion 3 does not choose."""
    seen = case.patient.seen
    chosen = seen.samples[seen.chosen or 0].day.isoformat()
    return next(x for x in case.findings(name) if x["effectiveDateTime"] != chosen)


def _er_out_of_range(case: Case) -> None:
    resource = _spare_sample(case, "er")
    resource["valueQuantity"]["value"] = 140
    case.note(resource)


def _ki67_as_fraction(case: Case) -> None:
    resource = _spare_sample(case, "ki67")
    resource["valueQuantity"]["value"] = 0.2
    case.note(resource)


def _dose_not_made(case: Case) -> None:
    """Palbociclib of 600 mg: the dose of another drug."""
    coding = case.clerk.coder.drug("palbociclib")
    resource = next(x for x in case.drugs() if x["medicationCodeableConcept"]["coding"][0] == coding)
    dosage = resource["dosage"]
    quantity = dosage["dose"] if isinstance(dosage, dict) else dosage[0]["doseAndRate"][0]["doseQuantity"]
    quantity["value"] = 600
    case.note(resource)


def _two_cdk46_at_once(case: Case) -> None:
    seen = case.patient.seen
    other = next(drug for drug in ("palbociclib", "ribociclib", "abemaciclib") if drug != seen.index_drug)
    coding = case.clerk.coder.drug(str(seen.index_drug))
    resource = copy.deepcopy(next(x for x in case.drugs() if x["medicationCodeableConcept"]["coding"][0] == coding))
    resource["id"] = case.identifier(resource["resourceType"])
    resource["medicationCodeableConcept"] = {"coding": [case.clerk.coder.drug(other)]}
    resource["status"] = "completed"
    start = days_after(seen.index or seen.anchor, 5)
    resource["effectivePeriod"] = {"start": start.isoformat(), "end": days_after(start, 6).isoformat()}
    dose = case.spoiler.parameters["drug"][other]["doses"][0]
    dosage = resource["dosage"]
    quantity = dosage["dose"] if isinstance(dosage, dict) else dosage[0]["doseAndRate"][0]["doseQuantity"]
    quantity["value"] = dose
    case.add(resource)


def _event_after_death(case: Case) -> None:
    death = case.patient.seen.death
    assert death is not None
    case.add(case.laboratory(days_after(death, 41)))


def _death_before_index(case: Case) -> None:
    patient = case.of("Patient")[0]
    day = (case.patient.seen.index or case.patient.seen.anchor) - timedelta(days=30)
    patient["deceasedDateTime"] = day.isoformat()
    case.patient.wrong_death = day
    case.note(patient)


def _born_1890(case: Case) -> None:
    patient = case.of("Patient")[0]
    patient["birthDate"] = "1890-01"
    case.note(patient)


def _future_date(case: Case) -> None:
    case.add(case.laboratory(date(2031, 5, 13)))


def _end_before_start(case: Case) -> None:
    resource = case.rng.choice([x for x in case.of("Encounter") if x["class"]["code"] == "AMB"])
    start = resource["period"]["start"]
    day = date.fromisoformat(start[:10]) - timedelta(days=3)
    resource["period"]["end"] = at_time(day, 12, 0, case.clerk.zone)
    case.note(resource)


def _premenopausal_over_60(case: Case) -> None:
    resource = next(x for x in case.of("Observation") if x["code"]["coding"][0]["code"] == "menopausal-status")
    resource["valueCodeableConcept"] = case.clerk.codeable("urn:palmares:menopausal-status", "pre")
    case.patient.seen.menopause = "pre"
    case.note(resource)


# -- imprecise, unknown -------------------------------------------------------------------------------------------------


def _year_only(case: Case) -> None:
    resource = case.of("Condition")[0]
    resource["onsetDateTime"] = resource["onsetDateTime"][:4]
    del resource["recordedDate"]
    case.note(resource)


def _month_only(case: Case) -> None:
    adjuvant = _long_ago(case.patient)
    for resource in case.drugs():
        start = resource["effectivePeriod"]["start"]
        if start < adjuvant:
            resource["effectivePeriod"]["start"] = start[:7]
            case.note(resource)


def _heaping(case: Case) -> None:
    """Every drug but those of the index regimen (with a lead-in) is known by its month only."""
    seen = case.patient.seen
    index = seen.index or seen.anchor
    regimen = ((seen.advanced or index).isoformat(), days_after(index, 30).isoformat())
    for resource in case.drugs():
        start = resource["effectivePeriod"]["start"]
        if not regimen[0] <= start <= regimen[1]:
            resource["effectivePeriod"]["start"] = start[:7]
            case.note(resource)


def _unmapped_drug(case: Case) -> None:
    seen = case.patient.seen
    resource = copy.deepcopy(case.drugs()[0])
    name = case.rng.choice(case.spoiler.parameters["unmapped"]["drugs"])
    resource["id"] = case.identifier(resource["resourceType"])
    resource["status"] = "completed"
    resource.pop("statusReason", None)
    resource["medicationCodeableConcept"] = {
        "coding": [
            {
                "system": case.clerk.coder.local_system("pharmacy"),
                "code": case.clerk.coder.drug_code(name),
                "display": name,
            }
        ]
    }
    start = days_after(seen.index or seen.anchor, 15)
    resource["effectivePeriod"] = {"start": start.isoformat(), "end": days_after(start, 6).isoformat()}
    del resource["dosage"]
    case.add(resource)


def _unmapped_laboratory(case: Case) -> None:
    code = case.rng.choice(case.spoiler.parameters["unmapped"]["laboratory"])
    system = case.clerk.coder.local_system("special-laboratory")
    case.add(case.laboratory() | {"code": case.clerk.codeable(system, code)})


def _code_without_system(case: Case) -> None:
    case.add(case.laboratory() | {"code": {"coding": [{"code": "HB"}]}})


def _comorbidity(case: Case) -> None:
    resource = copy.deepcopy(case.of("Condition")[0])
    code = case.rng.choice(case.spoiler.parameters["unmapped"]["conditions"])
    resource["id"] = case.identifier("Condition")
    resource["code"] = case.clerk.codeable(case.clerk.system["icd10"], code)
    resource["onsetDateTime"] = resource["recordedDate"] = (case.patient.seen.index or date.min).isoformat()
    case.add(resource)


# -- who can have what --------------------------------------------------------------------------------------------------


def _long_ago(patient: "Patient") -> str:
    """The day before which a drug start may lose its day: a year before the disease was advanced."""
    seen = patient.seen
    return ((seen.advanced or seen.anchor) - timedelta(days=365)).isoformat()


def _anyone(spoiler: Spoiler, patient: "Patient") -> bool:
    return True


def _dead(spoiler: Spoiler, patient: "Patient") -> bool:
    death = patient.seen.death
    return death is not None and days_after(death, 41) <= spoiler.plan.extracted


def _alive(spoiler: Spoiler, patient: "Patient") -> bool:
    return patient.seen.death is None


def _stays_alive(spoiler: Spoiler, patient: "Patient") -> bool:
    """No death is on record, neither a true one nor a planted one: what lies in the future is then not after death too."""
    return patient.seen.death is None and "death-before-index" not in spoiler.assigned.get(patient.pseudonym, [])


def _past_menopause(spoiler: Spoiler, patient: "Patient") -> bool:
    """Made 130 years old, she is not premenopausal as well."""
    return patient.seen.menopause == "post"


def _operated(spoiler: Spoiler, patient: "Patient") -> bool:
    return bool(patient.seen.operations)


def _early_relapse_years(spoiler: Spoiler, patient: "Patient") -> bool:
    seen = patient.seen
    return seen.advanced is not None and (seen.advanced - seen.primary).days > 800


def _adjuvant(spoiler: Spoiler, patient: "Patient") -> bool:
    return any(segment.start.isoformat() < _long_ago(patient) for segment in patient.seen.segments)


def _two_samples(spoiler: Spoiler, patient: "Patient") -> bool:
    """A second sample, of another day than the one that decides."""
    seen = patient.seen
    chosen = seen.samples[seen.chosen].day if seen.chosen is not None else None
    return any(sample.day != chosen for sample in seen.samples)


def _ki67_free(spoiler: Spoiler, patient: "Patient") -> bool:
    """No other defect speaks of this patient's Ki-67."""
    return "ki67-as-fraction" not in spoiler.assigned.get(patient.pseudonym, [])


def _on_palbociclib(spoiler: Spoiler, patient: "Patient") -> bool:
    return patient.seen.index_drug == "palbociclib"


def _long_on_cdk46(spoiler: Spoiler, patient: "Patient") -> bool:
    seen = patient.seen
    return any(
        segment.drug == seen.index_drug
        and segment.start == seen.index
        and (segment.end is None or (segment.end - segment.start).days > 20)
        for segment in seen.segments
    )


def _over_60(spoiler: Spoiler, patient: "Patient") -> bool:
    seen = patient.seen
    return seen.menopause == "post" and (seen.anchor - seen.birth).days > 62 * 366


def _settled(spoiler: Spoiler, patient: "Patient") -> bool:
    """Two weeks of the index regimen are on record."""
    return patient.seen.index is not None and days_after(patient.seen.index, 30) <= spoiler.plan.extracted


@dataclass(frozen=True)
class Kind:
    """How a defect changes a record (None: by leaving something out), and which patients it fits."""

    change: Callable[[Case], None] | None
    fits: Callable[[Spoiler, "Patient"], bool] = _anyone


# what a form or a message can hold as well as FHIR can
IN_FORMS = frozenset(
    {
        "er-out-of-range",
        "ki67-as-fraction",
        "dose-not-made",
        "two-cdk46-at-once",
        "event-after-death",
        "death-before-index",
        "future-date",
        "end-before-start",
        "premenopausal-over-60",
        "year-only",
        "month-only",
        "missing-ki67",
        "missing-grade",
        "missing-ecog",
    }
)
NOT_IN_BUNDLES = frozenset({"broken-inside", "broken-json", "truncated-line", "no-json-at-all"})

KINDS: dict[str, Kind] = {
    "broken-json": Kind(_broken_json),
    "broken-inside": Kind(_broken_inside),
    "truncated-line": Kind(_truncated_line),
    "no-json-at-all": Kind(_no_json_at_all),
    "code-not-an-object": Kind(_code_not_an_object),
    "condition-without-subject": Kind(_condition_without_subject),
    "missing-id": Kind(_missing_id),
    "unknown-type": Kind(_unknown_type),
    "invalid-status": Kind(_invalid_status),
    "date-not-fhir": Kind(_date_not_fhir),
    "ghost-birth-date-number": Kind(_ghost_birth_date_number),
    "ghost-invalid-gender": Kind(_ghost_invalid_gender),
    "ghost-without-birth-date": Kind(_ghost_without_birth_date),
    "observation-without-subject": Kind(_observation_without_subject),
    "absent-patient": Kind(_absent_patient),
    "entered-in-error-finding": Kind(_entered_in_error_finding),
    "entered-in-error-condition": Kind(_entered_in_error_condition),
    "refuted-condition": Kind(_refuted_condition),
    "not-taken": Kind(_not_taken),
    "cancelled-encounter": Kind(_cancelled_encounter),
    "not-done-procedure": Kind(_not_done_procedure, _operated),
    "identical-twice": Kind(_identical_twice),
    "older-version": Kind(_older_version),
    "same-content-other-id": Kind(_same_content_other_id),
    "er-out-of-range": Kind(_er_out_of_range, _two_samples),
    "ki67-as-fraction": Kind(_ki67_as_fraction, _two_samples),
    "dose-not-made": Kind(_dose_not_made, _on_palbociclib),
    "two-cdk46-at-once": Kind(_two_cdk46_at_once, _long_on_cdk46),
    "event-after-death": Kind(_event_after_death, _dead),
    "death-before-index": Kind(_death_before_index, _alive),
    "born-1890": Kind(_born_1890, _past_menopause),
    "future-date": Kind(_future_date, _stays_alive),
    "end-before-start": Kind(_end_before_start),
    "premenopausal-over-60": Kind(_premenopausal_over_60, _over_60),
    "year-only": Kind(_year_only, _early_relapse_years),
    "month-only": Kind(_month_only, _adjuvant),
    "heaping": Kind(_heaping),
    "unmapped-drug": Kind(_unmapped_drug, _settled),
    "unmapped-laboratory": Kind(_unmapped_laboratory, _settled),
    "code-without-system": Kind(_code_without_system, _settled),
    "comorbidity": Kind(_comorbidity, _settled),
    "missing-ki67": Kind(None, _ki67_free),
    "missing-grade": Kind(None),
    "missing-ecog": Kind(None),
}
