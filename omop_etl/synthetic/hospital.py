"""One hospital from its plan to its files: run in a process of its own, it returns the rows of the truth."""

import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

from fhir_adapters.pseudonyms import LinkageKey, SiteKey
from omop_etl.synthetic.calibration import Calibration
from omop_etl.synthetic.course_truth import true_lines
from omop_etl.synthetic.dates import between, days_after
from omop_etl.synthetic.defects import Spoiler
from omop_etl.synthetic.dicom import Archive
from omop_etl.synthetic.history import known, simulate
from omop_etl.synthetic.model import History
from omop_etl.synthetic.parameters import Parameters
from omop_etl.synthetic.people import Identity, identity, record_number
from omop_etl.synthetic.plan import FHIR_WAYS, Registration, SitePlan
from omop_etl.synthetic.records import Clerk, last_activity
from omop_etl.synthetic.truth import Rows, truth_rows
from omop_etl.synthetic.ways import writer_of
from omop_etl.synthetic.write import write_code_maps, write_key, write_settings


@dataclass
class Patient:
    """A registration as this site sees it: its record number and pseudonym, and what the site knows of the history."""

    registration: Registration
    number: str
    pseudonym: str
    token: str | None
    identity: Identity
    whole: History
    seen: History
    wrong_death: date | None = None  # a date of death that the record holds by mistake


@dataclass
class Hospital:
    """What a worker hands back: the rows of the truth, and how many resources were written per type."""

    site: str
    rows: Rows
    resources: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)  # resources that the site's forms have no place for


def secret(seed: int, name: str) -> bytes:
    """The 32 bytes of a synthetic key: of this run alone, and of no use to anyone."""
    return hashlib.sha256(f"synthetic key/{seed}/{name}".encode()).digest()


def write_hospital(
    plan: SitePlan, out: Path, seed: int, dirty: bool, parameters: Parameters, calibration: Calibration
) -> Hospital:
    """Write one site's folder, settings, key and code maps below `out`, and return its truth."""
    clerk = Clerk(plan, parameters)
    folder = out / "hospitals" / plan.id
    key = secret(seed, plan.id)
    write_key(out / "sites" / "keys" / f"{plan.id}.key", key)
    write_code_maps(out / "sites" / "codes" / plan.id, clerk.coder)

    patients = [
        _patient(registration, plan, seed, parameters, calibration, SiteKey(key), LinkageKey(secret(seed, "linkage")))
        for registration in plan.registrations
    ]
    spoiler = Spoiler(plan, clerk, parameters, seed)
    if dirty and plan.kind != "clean":
        spoiler.assign(patients)
    hospital = Hospital(plan.id, {}, {})
    archive = Archive(folder / "dicom", plan, seed, parameters)
    writer = writer_of(folder, plan, parameters)
    writer.add([clerk.organization()])
    for patient in patients:
        spoiler.omit(patient)
        rng = random.Random(f"{seed}/{plan.id}/{patient.pseudonym}")
        record = clerk.record(patient.seen, patient.pseudonym, patient.token, rng)
        if patient.registration.kind is None and plan.kind == "ordinary":
            patient.seen.consent = consent_day(patient.seen, record.contacts, seed, parameters)
        resources = list(record.resources())
        additions = spoiler.spoil(patient, resources)
        writer.add(resources, additions, patient)
        last = last_activity(resources, parameters["study"]["cut_off"], clerk.zone, patient.seen.death)
        truth_rows(hospital.rows, plan, patient, record.contacts, last, parameters)
        study = archive.study(patient)
        if study:
            hospital.rows.setdefault("imaging", []).append({"site": plan.id, "patient": patient.pseudonym} | study)
    if dirty and plan.kind == "ordinary":
        for kind, place in archive.damage():
            spoiler.note(kind, "ImagingStudy", None, None).position = place
    writer.close(out / "sites")
    hospital.resources, hospital.left_out = dict(writer.counts), dict(writer.left_out)
    if plan.way not in FHIR_WAYS:
        for planted in spoiler.plants:
            if planted.resource_type != "ImagingStudy":
                planted.resource_id = None  # a row of a form has another id
    hospital.rows["defects"] = spoiler.rows()
    write_settings(out / "sites", plan, clerk.zone, dicom=(folder / "dicom").is_dir())
    return hospital


def _patient(
    registration: Registration,
    plan: SitePlan,
    seed: int,
    parameters: Parameters,
    calibration: Calibration,
    site_key: SiteKey,
    linkage_key: LinkageKey,
) -> Patient:
    whole = simulate(registration.human, seed, parameters, calibration)
    person = identity(registration.human.key, whole.sex, whole.birth, parameters["identity"])
    number = record_number(plan.id, registration.number)
    token: str | None = linkage_key.token(person.codice_fiscale)
    if registration.kind == "link-review" and registration.role == "second":
        token = None
    seen = view(whole, registration, plan.extracted, seed)
    if registration.kind is None and plan.kind == "ordinary" and plan.profile.get("declares_lines"):
        seen.declared = [(line.number, line.start) for line in true_lines(seen, parameters)]
    if registration.kind:
        place = 0 if registration.role == "first" else 1
        seen.answers = whole.answers | {"one-person": parameters["pair"]["expect"][registration.kind][place]}
    return Patient(registration, number, site_key.pseudonym("patient", number), token, person, whole, seen)


def consent_day(seen: History, contacts: list[date], seed: int, parameters: Parameters) -> date | None:
    """Some were enrolled at a visit after their treatment had begun: until then they could not have been lost by dying."""
    rng = random.Random(f"{seed}/consent/{seen.person}")
    table = parameters["consent"]
    if seen.index is None or rng.random() >= table["share"]:
        return None
    day = days_after(seen.index, between(rng, table["low"], table["high"]))
    return next((visit for visit in contacts if visit >= day), None)


def transfer_day(whole: History, seed: int) -> date:
    """The day on which a human of two sites is seen at the second one for the first time."""
    assert whole.index is not None
    return days_after(whole.index, between(random.Random(f"{seed}/transfer/{whole.person}"), 95, 200))


def view(whole: History, registration: Registration, extracted: date, seed: int) -> History:
    """What one site knows of a human when it extracts."""
    last = min(filter(None, (extracted, whole.lost)))
    if registration.kind is None or whole.index is None:
        return known(whole, date.min, last)
    transfer = transfer_day(whole, seed)
    if registration.role == "first":
        seen = known(whole, date.min, transfer - timedelta(days=1))
        # the patient left: what was given here ended here
        seen.segments = [
            segment if segment.end else replace(segment, end=transfer - timedelta(days=1), stop_reason="other")
            for segment in seen.segments
        ]
        if registration.kind == "deaths-conflict":
            seen.death = whole.death
        seen.lost = transfer - timedelta(days=1)
        return seen
    first = days_after(whole.index, 6) if registration.kind == "link-review" else transfer
    seen = known(whole, first, last)
    if registration.kind == "deaths-conflict" and whole.death is not None:
        seen.death = days_after(whole.death, 37)
    return seen
