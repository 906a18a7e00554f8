"""A history as one hospital writes it: FHIR R4 resources, as dictionaries in the order of the specification."""

import hashlib
import random
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any

from omop_etl.synthetic.coding import Coder
from omop_etl.synthetic.dates import at_time, between, days_after, in_utc, local_day
from omop_etl.synthetic.model import History, Operation, Sample, Segment
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.plan import SitePlan

Resource = dict[str, Any]


def last_activity(resources: Iterable[Resource], cut_off: date, zone: str, death: date | None) -> date | None:
    """The last local day, up to the cut-off and to death, on which the record says that something happened."""
    stated: list[str | None] = []
    ends: list[str | None] = []  # a stay that runs over the cut-off counts up to it
    for resource in resources:
        given, stay = resource.get("effectivePeriod", {}), resource.get("period", {})
        stated += [given.get("start"), given.get("end"), stay.get("start")]
        ends += [stay.get("end")] if stay.get("start", "9")[:10] <= cut_off.isoformat() else []
        stated += [resource.get("effectiveDateTime"), resource.get("onsetDateTime"), resource.get("performedDateTime")]
        stated.append(resource.get("performedPeriod", {}).get("start"))

    def days_of(texts: list[str | None]) -> list[date]:
        return [local_day(text, zone) for text in texts if isinstance(text, str) and len(text) >= 10 and text[4] == "-"]

    days = days_of(stated) + [min(day, cut_off) for day in days_of(ends)]
    last = max((day for day in days if day <= cut_off), default=None)
    return min(last, death) if last and death else last


class Clerk:
    """Writes the resources of one site. Nothing here draws from the history's own stream of random numbers."""

    def __init__(self, plan: SitePlan, parameters: Parameters) -> None:
        self.plan, self.parameters, self.coder = plan, parameters, Coder(plan, parameters)
        self.system: dict[str, str] = parameters["system"]
        self.zone: str = parameters["hospital"]["zone"]
        absolute = plan.profile["references"] == "absolute"
        self.base = f"https://fhir.{plan.id}.example/r4/" if absolute else ""

    # -- small parts ---------------------------------------------------------------------------------------------------

    def identify(self, patient: str, kind: str, number: object) -> str:
        """A resource id: 32 hex digits from site, type, pseudonym and a number within the patient."""
        text = f"{self.plan.id}/{kind}/{patient}/{number}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def reference(self, kind: str, identifier: str) -> dict[str, str]:
        """A reference in the way of this site: relative or absolute."""
        return {"reference": f"{self.base}{kind}/{identifier}"}

    def meta(self, day: date, rng: random.Random) -> dict[str, str]:
        """When the system last touched a record of that day: some days later, never after the extraction."""
        touched = min(days_after(day, between(rng, 0, 20)), self.plan.extracted)
        return {"lastUpdated": at_time(touched, between(rng, 7, 19), between(rng, 0, 59), self.zone)}

    def codeable(self, system: str, code: str) -> dict[str, Any]:
        """A CodeableConcept with one coding."""
        return {"coding": [{"system": system, "code": code}]}

    def moment(self, day: date, rng: random.Random) -> str:
        """A time on that local day; some systems write it in UTC, and then its date text may be another one."""
        if rng.random() < self.parameters["hospital"]["evening_utc"]:
            return in_utc(day, 0, between(rng, 5, 50), self.zone)
        return at_time(day, between(rng, 8, 17), between(rng, 0, 59), self.zone)

    # -- the record of a patient ---------------------------------------------------------------------------------------

    def organization(self) -> Resource:
        """The hospital itself."""
        identifier = self.identify("-", "Organization", 0)
        return {
            "resourceType": "Organization",
            "id": identifier,
            "meta": {"lastUpdated": at_time(self.parameters["study"]["first_index"], 8, 0, self.zone)},
            "active": True,
            "name": f"Synthetic hospital {self.plan.id[4:]}",
        }

    def record(self, history: History, patient: str, token: str | None, rng: random.Random) -> "Record":
        """The record of one patient. `history` is what this site knows; `token` links the human between sites."""
        return Record(self, history, patient, token, rng)


class Record:
    """The resources of one patient at one site."""

    def __init__(self, clerk: Clerk, history: History, patient: str, token: str | None, rng: random.Random) -> None:
        self.clerk, self.history, self.patient, self.token, self.rng = clerk, history, patient, token, rng
        self.parameters, self.system = clerk.parameters, clerk.system
        self.subject = clerk.reference("Patient", patient)
        self.numbers: dict[str, int] = {}
        self.encounter_of: dict[date, str] = {}
        self.contacts = self.contact_days()

    def resources(self) -> Iterator[Resource]:
        yield self.patient_resource()
        yield from self.encounters()
        yield from self.conditions()
        for sample in self.history.samples:
            yield from self.sample(sample)
        for segment in self.history.segments:
            yield self.medication(segment)
        for operation in self.history.operations:
            yield self.procedure(operation)
        for assessment in self.history.assessments:
            yield self.assessment(assessment.day, assessment.response, assessment.modality)
        yield from self.status_at_index()
        yield from self.laboratory()
        yield from self.registry()

    def start(self, kind: str, day: date) -> Resource:
        """The beginning of every resource: type, id, when it was touched."""
        number = self.numbers.get(kind, 0)
        self.numbers[kind] = number + 1
        identifier = self.clerk.identify(self.patient, kind, number)
        return {"resourceType": kind, "id": identifier, "meta": self.clerk.meta(day, self.rng)}

    def patient_resource(self) -> Resource:
        history = self.history
        last = history.death or self.clerk.plan.extracted - timedelta(days=30)
        resource: Resource = {
            "resourceType": "Patient",
            "id": self.patient,
            "meta": self.clerk.meta(last, self.rng),
        }
        if self.token:
            resource["identifier"] = [{"system": self.system["linkage_token"], "value": self.token}]
        resource["active"] = True
        resource["gender"] = history.sex
        resource["birthDate"] = f"{history.birth:%Y-%m}"
        if history.death:
            resource["deceasedDateTime"] = history.death.isoformat()
        return resource

    # -- visits --------------------------------------------------------------------------------------------------------

    def contact_days(self) -> list[date]:
        """Every day on which the patient was seen as an outpatient at this site."""
        history = self.history
        days = {assessment.day for assessment in history.assessments if assessment.modality == "clinical"}
        days |= {
            days_after(assessment.day, 2) for assessment in history.assessments if assessment.modality != "clinical"
        }
        days |= set(history.visits)
        first = self.first_contact()
        if history.index is not None:
            days |= {days_after(first, offset) for offset in (0, 14, 28, 56)}
            days |= {days_after(history.advanced or first, 1)}
        else:
            days.add(first)
        last = min(filter(None, (history.death, history.lost, self.clerk.plan.extracted)))
        return sorted(day for day in days if day <= last)

    def first_contact(self) -> date:
        """The index day, or for a site that took the patient over, the first day of its own segments."""
        history = self.history
        if history.index is None:
            return history.anchor
        starts = [segment.start for segment in history.segments if segment.line > 0 and segment.start >= history.index]
        return min(starts, default=history.index)

    def encounters(self) -> Iterator[Resource]:
        for day in self.contacts:
            hour = between(self.rng, 8, 15)
            resource = self.start("Encounter", day)
            self.encounter_of[day] = resource["id"]
            zone = self.clerk.zone
            yield self._encounter(resource, "AMB", at_time(day, hour, 0, zone), at_time(day, hour, 40, zone))
        for first, last in self.history.stays:
            resource = self.start("Encounter", first)
            yield self._encounter(
                resource, "IMP", at_time(first, 9, 30, self.clerk.zone), at_time(last, 15, 0, self.clerk.zone)
            )

    def _encounter(self, resource: Resource, kind: str, start: str, end: str) -> Resource:
        provider = self.clerk.reference("Organization", self.clerk.identify("-", "Organization", 0))
        return resource | {
            "status": "finished",
            "class": {"system": self.system["encounter_class"], "code": kind},
            "subject": self.subject,
            "period": {"start": start, "end": end},
            "serviceProvider": provider,
        }

    # -- disease -------------------------------------------------------------------------------------------------------

    def conditions(self) -> Iterator[Resource]:
        clinical, verification = self.system["condition_clinical"], self.system["condition_verification"]
        for diagnosis in self.history.diagnoses:
            resource = self.start("Condition", diagnosis.day)
            yield resource | {
                "clinicalStatus": self.clerk.codeable(clinical, "active"),
                "verificationStatus": self.clerk.codeable(verification, "confirmed"),
                "category": [self.clerk.codeable(self.system["condition_category"], "problem-list-item")],
                "code": {
                    "coding": [self.clerk.coder.condition(diagnosis.site, self.history.histology, self.history.sex)]
                },
                "subject": self.subject,
                "onsetDateTime": diagnosis.day.isoformat(),
                "recordedDate": diagnosis.day.isoformat(),
            }

    def sample(self, sample: Sample) -> Iterator[Resource]:
        """The specimen and its findings; each finding points to the condition that was sampled."""
        more: dict[str, Any] = {}
        if self.clerk.plan.profile["specimens"]:
            specimen = self.start("Specimen", sample.day) | {
                "status": "available",
                "type": self.clerk.codeable(self.system["snomed"], self.parameters["specimen"]["type"]),
                "subject": self.subject,
                "collection": {"collectedDateTime": sample.day.isoformat()},
            }
            yield specimen
            more["specimen"] = self.clerk.reference("Specimen", specimen["id"])
        focus = self.clerk.identify(self.patient, "Condition", sample.diagnosis)
        codes = self.parameters["finding"]

        def finding(code: str, value: dict[str, Any]) -> Resource:
            return self.observation(
                "laboratory",
                {"system": self.system["loinc"], "code": code},
                sample.day,
                sample.day.isoformat(),
                value,
                focus=[self.clerk.reference("Condition", focus)],
                **more,
            )

        if sample.er is not None:
            yield finding(codes["er"], self.percent(sample.er, "<" if sample.er_below else None))
        if sample.pgr is not None:
            yield finding(codes["pgr"], self.percent(sample.pgr))
        if sample.ki67 is not None:
            yield finding(codes["ki67"], self.percent(sample.ki67))
        if sample.grade is not None:
            yield finding(codes["grade"], self.study_value("grade", str(sample.grade)))
        if sample.ihc is not None:
            yield finding(codes["her2_ihc"], self.study_value("her2-ihc", sample.ihc))
        if sample.ish == "not-performed":
            reason = self.clerk.codeable(self.system["absent_reason"], "not-performed")
            yield finding(codes["her2_ish"], {"dataAbsentReason": reason})
        elif sample.ish is not None:
            yield finding(codes["her2_ish"], self.study_value("her2-ish", sample.ish))

    def observation(
        self, category: str, code: dict[str, str], day: date, when: str, value: dict[str, Any], **more: Any
    ) -> Resource:
        """An Observation with its elements in the order of the specification."""
        resource = self.start("Observation", day)
        system = self.system["observation_category"]
        if category == "disease-status":
            system = "urn:palmares:observation-category"
        resource |= {
            "status": "final",
            "category": [self.clerk.codeable(system, category)],
            "code": {"coding": [code]},
            "subject": self.subject,
        }
        for name in ("focus", "encounter"):
            if name in more:
                resource[name] = more[name]
        resource["effectiveDateTime"] = when
        resource |= value
        for name in ("method", "specimen"):
            if name in more:
                resource[name] = more[name]
        return resource

    def percent(self, value: float, comparator: str | None = None) -> dict[str, Any]:
        """A valueQuantity in percent."""
        quantity: dict[str, Any] = {"value": value}
        if comparator:
            quantity["comparator"] = comparator
        return {"valueQuantity": quantity | {"unit": "%", "system": self.system["ucum"], "code": "%"}}

    def study_value(self, name: str, code: str) -> dict[str, Any]:
        """A coded value of one of the study's own vocabularies."""
        return {"valueCodeableConcept": self.clerk.codeable(f"urn:palmares:{name}", code)}

    # -- treatment -----------------------------------------------------------------------------------------------------

    def medication(self, segment: Segment) -> Resource:
        """One segment of one drug at one dose, as the resource type that this site uses."""
        kind = str(self.clerk.plan.profile["drugs"])
        active = segment.end is None
        last_said = max([*self.contacts, segment.start, *(one.day for one in self.history.assessments)])
        resource = self.start(kind, segment.end or last_said)
        resource["status"] = (
            ("in-progress" if active else "completed")
            if kind == "MedicationAdministration"
            else ("active" if active else "completed")
        )
        if segment.stop_reason:
            resource["statusReason"] = [self.clerk.codeable("urn:palmares:stop-reason", segment.stop_reason)]
        resource["medicationCodeableConcept"] = {"coding": [self.clerk.coder.drug(segment.drug)]}
        resource["subject"] = self.subject
        period = {"start": segment.start.isoformat()}
        if segment.end:
            period["end"] = segment.end.isoformat()
        elif kind == "MedicationAdministration":
            # what was given so far: an administration does not say that a drug will go on being given
            period["end"] = last_said.isoformat()
        resource["effectivePeriod"] = period
        if active and kind == "MedicationStatement":
            resource["dateAsserted"] = last_said.isoformat()  # that it goes on was last said at the last visit
        dose = {"value": segment.dose, "unit": "mg", "system": self.system["ucum"], "code": "mg"}
        if kind == "MedicationAdministration":
            resource["dosage"] = {"dose": dose}
        else:
            resource["dosage"] = [{"doseAndRate": [{"doseQuantity": dose}]}]
        return resource

    def procedure(self, operation: Operation) -> Resource:
        resource = self.start("Procedure", operation.day)
        resource |= {
            "status": "completed",
            "code": self.clerk.codeable(self.system["snomed"], self.parameters["procedure"][operation.kind]),
            "subject": self.subject,
        }
        if operation.last:
            resource["performedPeriod"] = {"start": operation.day.isoformat(), "end": operation.last.isoformat()}
        else:
            resource["performedDateTime"] = operation.day.isoformat()
        return resource

    def assessment(self, day: date, response: str, modality: str) -> Resource:
        return self.observation(
            "disease-status",
            {"system": "urn:palmares:tumour-response", "code": response},
            day,
            day.isoformat(),
            {},
            method=self.clerk.codeable("urn:palmares:assessment-modality", modality),
        )

    # -- state of the patient ------------------------------------------------------------------------------------------

    def status_at_index(self) -> Iterator[Resource]:
        """Menopause, ECOG, height and weight around the index (or the day that stands for it), then with assessments."""
        history, rng = self.history, self.rng
        first = self.first_contact()
        if history.menopause:
            code = {"system": "urn:palmares:observation", "code": "menopausal-status"}
            value = self.study_value("menopausal-status", history.menopause)
            yield self.observation("social-history", code, first, first.isoformat(), value)
        later = [assessment.day for assessment in history.assessments if assessment.day > first]
        days = [days_after(first, -between(rng, 0, 5)), *later[1:12:2]]
        body = self.parameters["laboratory"]["body"]
        weight = self.normal(body["weight"])
        yield self.measured(body["height"], self.normal(body["height"]), days[0])
        codes = self.parameters["finding"]
        for place, day in enumerate(days):
            if history.ecog is not None:
                ecog = min(4, history.ecog + (1 if place and rng.random() < 0.15 else 0))
                answer = codes["ecog_answer"][str(ecog)]
                value = {"valueCodeableConcept": self.clerk.codeable(self.system["loinc"], answer)}
                code = {"system": self.system["loinc"], "code": codes["ecog"]}
                yield self.observation("survey", code, day, day.isoformat(), value)
            if place % 2 == 0:
                yield self.measured(body["weight"], round(weight + rng.gauss(0, 1.5), 1), day)

    def measured(self, entry: dict[str, Any], value: float, day: date) -> Resource:
        code = {"system": self.system["loinc"], "code": entry["loinc"]}
        return self.observation("vital-signs", code, day, self.clerk.moment(day, self.rng), self.quantity(entry, value))

    def quantity(self, entry: dict[str, Any], value: float) -> dict[str, Any]:
        """A valueQuantity in the entry's UCUM unit."""
        return {
            "valueQuantity": {
                "value": value,
                "unit": entry["unit"],
                "system": self.system["ucum"],
                "code": entry["unit"],
            }
        }

    def normal(self, entry: dict[str, Any]) -> float:
        """A value of a laboratory test or body measure, in the entry's unit and digits."""
        value = max(entry["low"], self.rng.gauss(entry["mean"], entry["sd"]))
        return round(value, entry["digits"]) if entry["digits"] else int(value)

    def registry(self) -> Iterator[Resource]:
        """What the registry asks of a site beside the record: the day of a later consent, and at some sites the lines."""
        if self.history.consent:
            day = self.history.consent
            code = {"system": "urn:palmares:observation", "code": "consent"}
            yield self.observation("survey", code, day, day.isoformat(), {"valueBoolean": True})
        for number, day in self.history.declared:
            code = {"system": "urn:palmares:observation", "code": "line-of-therapy"}
            yield self.observation("therapy", code, day, day.isoformat(), {"valueInteger": number})

    def laboratory(self) -> Iterator[Resource]:
        table = self.parameters["laboratory"]
        first = self.first_contact()
        days = [days_after(first, -1), days_after(first, 14), days_after(first, 28)]
        days += [assessment.day for assessment in self.history.assessments if assessment.day > days[-1]][::2]
        last = min(filter(None, (self.history.death, self.history.lost, self.clerk.plan.extracted)))
        share = self.parameters["hospital"]["encounter_of_laboratory"]
        for day in [day for day in days if day <= last][: table["panels"]]:
            when = self.clerk.moment(day, self.rng)
            encounter = self.encounter_of.get(day)
            more: dict[str, Any] = {}
            if encounter and self.rng.random() < share:
                more["encounter"] = self.clerk.reference("Encounter", encounter)
            for name, entry in table["test"].items():
                code = self.clerk.coder.test(name)
                value = self.quantity(entry, self.normal(entry))
                yield self.observation("laboratory", code, day, when, value, **more)
