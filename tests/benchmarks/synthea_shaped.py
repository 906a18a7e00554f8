"""Seeded NDJSON of nine resource types in Synthea's shape and size (about 1.1 kB a resource), for benchmarks.

    python tests/benchmarks/synthea_shaped.py OUT --gigabytes 0.1 [--mixed] [--seed 7]

The names, addresses and identifiers in it are invented words with digits; no real or Synthea patient is copied.
"""

import argparse
import datetime
import random
import uuid
from pathlib import Path

import orjson

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
LABS = [
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 13.2),
    ("751-8", "Neutrophils [#/volume] in Blood by Automated count", "10*3/uL", 3.1),
    ("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", 240.0),
    ("1742-6", "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 24.0),
    ("1920-8", "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L", 26.0),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.8),
    ("1975-2", "Bilirubin.total [Mass/volume] in Serum or Plasma", "mg/dL", 0.6),
    ("29463-7", "Body Weight", "kg", 68.0),
    ("8302-2", "Body Height", "cm", 164.0),
    ("99999-1", "A laboratory test that no vocabulary holds", "mg/dL", 7.0),
]
CONDITIONS = [
    ("254837009", "Malignant neoplasm of breast (disorder)"),
    ("94222008", "Secondary malignant neoplasm of bone (disorder)"),
    ("94381002", "Secondary malignant neoplasm of liver (disorder)"),
    ("278054005", "Lobular carcinoma of breast (disorder)"),
    ("444814009", "Viral sinusitis (disorder)"),
]
PROCEDURES = [
    ("392021009", "Lumpectomy of breast (procedure)"),
    ("108290001", "Radiation oncology and/or radiotherapy (procedure)"),
    ("430193006", "Medication reconciliation (procedure)"),
]
DRUGS = [
    ("1601374", "palbociclib"),
    ("1873916", "ribociclib"),
    ("1946825", "abemaciclib"),
    ("72965", "letrozole"),
    ("313782", "acetaminophen 325 MG Oral Tablet"),
]
VACCINES = [("140", "Influenza, seasonal, injectable, preservative free"), ("113", "Td (adult)")]
PROFILE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
CATEGORY = "http://terminology.hl7.org/CodeSystem/"


class Patients:
    """Yields (resource type, JSON line) patient by patient, endlessly."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def identifier(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def __iter__(self):
        number = 0
        while True:
            yield from self.patient(number)
            number += 1

    def meta(self, profile: str) -> dict:
        return {"profile": [PROFILE + profile], "versionId": "1", "lastUpdated": "2025-01-31T03:10:09.118+00:00"}

    def coded(self, system: str, code: str, display: str) -> dict:
        return {"coding": [{"system": system, "code": code, "display": display}], "text": display}

    def patient(self, number: int):
        pick = self.random
        patient, organization, practitioner = self.identifier(), self.identifier(), self.identifier()
        day = datetime.datetime(2015, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
        day += datetime.timedelta(days=pick.randrange(700), seconds=pick.randrange(80000))
        surname, street = f"Famiglia{number:05d}", f"Via Inventata {number}"
        yield (
            "Patient",
            {
                "resourceType": "Patient",
                "id": patient,
                "meta": self.meta("patient"),
                "text": {"status": "generated", "div": f"<div>Made by a benchmark, patient {number}</div>" * 8},
                "extension": [
                    {
                        "url": PROFILE + "race",
                        "extension": [
                            {
                                "url": "ombCategory",
                                "valueCoding": {
                                    "system": "urn:oid:2.16.840.1.113883.6.238",
                                    "code": "2106-3",
                                    "display": "White",
                                },
                            },
                            {"url": "text", "valueString": "White"},
                        ],
                    },
                    {"url": PROFILE + "birthsex", "valueCode": "F"},
                ],
                "identifier": [{"system": "http://hospital.example/mrn", "value": f"MRN{number:08d}"}],
                "name": [{"use": "official", "family": surname, "given": [f"Nome{number:05d}"]}],
                "telecom": [{"system": "phone", "value": f"555-{number:07d}", "use": "home"}],
                "gender": "female",
                "birthDate": f"{pick.randrange(1935, 1985)}-{pick.randrange(1, 13):02d}-{pick.randrange(1, 29):02d}",
                "address": [
                    {"line": [street], "city": "Milano", "state": "MI", "postalCode": "20100", "country": "IT"}
                ],
            },
        )
        yield (
            "Organization",
            {
                "resourceType": "Organization",
                "id": organization,
                "meta": self.meta("organization"),
                "active": True,
                "type": [self.coded(CATEGORY + "organization-type", "prov", "Healthcare Provider")],
                "name": f"Ospedale {number}",
                "address": [{"line": [street], "city": "Milano", "country": "IT"}],
            },
        )
        subject = {"reference": f"Patient/{patient}"}
        for _ in range(25):
            day += datetime.timedelta(days=pick.randrange(10, 60), seconds=pick.randrange(20000))
            encounter = self.identifier()
            yield from self.visit(encounter, subject, organization, practitioner, day, surname)

    def visit(self, encounter: str, subject: dict, organization: str, practitioner: str, day, surname: str):
        pick = self.random
        at, end = day.isoformat(), (day + datetime.timedelta(minutes=45)).isoformat()
        context = {"reference": f"Encounter/{encounter}"}
        doctor = {"reference": f"Practitioner/{practitioner}", "display": f"Dr. {surname}"}
        yield (
            "Encounter",
            {
                "resourceType": "Encounter",
                "id": encounter,
                "meta": self.meta("encounter"),
                "identifier": [{"use": "official", "system": "http://hospital.example/visit", "value": encounter}],
                "status": "finished",
                "class": {"system": CATEGORY + "v3-ActCode", "code": pick.choice(["AMB", "AMB", "AMB", "IMP", "EMER"])},
                "type": [self.coded(SNOMED, "185345009", "Encounter for symptom (procedure)")],
                "subject": {**subject, "display": f"Ms. {surname}"},
                "participant": [
                    {
                        "type": [self.coded(CATEGORY + "v3-ParticipationType", "PPRF", "primary performer")],
                        "period": {"start": at, "end": end},
                        "individual": doctor,
                    }
                ],
                "period": {"start": at, "end": end},
                "serviceProvider": {"reference": f"Organization/{organization}", "display": "Ospedale"},
            },
        )
        for _ in range(18):
            code, display, unit, value = pick.choice(LABS)
            observation = {
                "resourceType": "Observation",
                "id": self.identifier(),
                "meta": self.meta("observation-lab"),
                "status": "final",
                "category": [self.coded(CATEGORY + "observation-category", "laboratory", "Laboratory")],
                "code": self.coded(LOINC, code, display),
                "subject": subject,
                "encounter": context,
                "effectiveDateTime": at,
                "issued": at,
                "performer": [doctor],
                "valueQuantity": {
                    "value": round(value * pick.uniform(0.7, 1.4), 2),
                    "unit": unit,
                    "system": "http://unitsofmeasure.org",
                    "code": unit,
                },
                "referenceRange": [
                    {
                        "low": {"value": round(value * 0.8, 2), "unit": unit, "code": unit},
                        "high": {"value": round(value * 1.2, 2), "unit": unit, "code": unit},
                        "text": "of the laboratory",
                    }
                ],
            }
            yield "Observation", observation
        yield (
            "Observation",
            {
                "resourceType": "Observation",
                "id": self.identifier(),
                "meta": self.meta("vital-signs"),
                "status": "final",
                "category": [self.coded(CATEGORY + "observation-category", "vital-signs", "Vital signs")],
                "code": self.coded(LOINC, "85354-9", "Blood pressure panel with all children optional"),
                "subject": subject,
                "encounter": context,
                "effectiveDateTime": at,
                "issued": at,
                "component": [
                    {
                        "code": self.coded(LOINC, code, display),
                        "valueQuantity": {
                            "value": pick.randrange(low, high),
                            "unit": "mm[Hg]",
                            "system": "http://unitsofmeasure.org",
                            "code": "mm[Hg]",
                        },
                    }
                    for code, display, low, high in (
                        ("8480-6", "Systolic Blood Pressure", 95, 160),
                        ("8462-4", "Diastolic Blood Pressure", 55, 100),
                    )
                ],
            },
        )
        if pick.random() < 0.4:
            code, display = pick.choice(CONDITIONS)
            yield (
                "Condition",
                {
                    "resourceType": "Condition",
                    "id": self.identifier(),
                    "meta": self.meta("condition-encounter-diagnosis"),
                    "clinicalStatus": {"coding": [{"system": CATEGORY + "condition-clinical", "code": "active"}]},
                    "verificationStatus": {
                        "coding": [{"system": CATEGORY + "condition-ver-status", "code": "confirmed"}]
                    },
                    "category": [self.coded(CATEGORY + "condition-category", "encounter-diagnosis", "Encounter")],
                    "code": self.coded(SNOMED, code, display),
                    "subject": subject,
                    "encounter": context,
                    "onsetDateTime": at,
                    "recordedDate": at,
                },
            )
        for _ in range(2):
            code, display = pick.choice(PROCEDURES)
            yield (
                "Procedure",
                {
                    "resourceType": "Procedure",
                    "id": self.identifier(),
                    "meta": self.meta("procedure"),
                    "status": "completed",
                    "code": self.coded(SNOMED, code, display),
                    "subject": subject,
                    "encounter": context,
                    "performedPeriod": {"start": at, "end": end},
                    "performer": [{"actor": doctor}],
                    "location": {"display": "Ospedale"},
                },
            )
            code, display = pick.choice(DRUGS)
            yield (
                "MedicationRequest",
                {
                    "resourceType": "MedicationRequest",
                    "id": self.identifier(),
                    "meta": self.meta("medicationrequest"),
                    "status": pick.choice(["active", "stopped", "completed"]),
                    "intent": "order",
                    "category": [self.coded(CATEGORY + "medicationrequest-category", "community", "Community")],
                    "medicationCodeableConcept": self.coded(
                        "http://www.nlm.nih.gov/research/umls/rxnorm", code, display
                    ),
                    "subject": subject,
                    "encounter": context,
                    "authoredOn": at,
                    "requester": doctor,
                    "dosageInstruction": [
                        {
                            "sequence": 1,
                            "text": "Take as directed.",
                            "timing": {"repeat": {"frequency": 1, "period": 1.0, "periodUnit": "d"}},
                            "asNeededBoolean": False,
                            "doseAndRate": [{"doseQuantity": {"value": 1.0}}],
                        }
                    ],
                },
            )
        if pick.random() < 0.5:
            code, display = pick.choice(VACCINES)
            yield (
                "Immunization",
                {
                    "resourceType": "Immunization",
                    "id": self.identifier(),
                    "meta": self.meta("immunization"),
                    "status": "completed",
                    "vaccineCode": self.coded("http://hl7.org/fhir/sid/cvx", code, display),
                    "patient": subject,
                    "encounter": context,
                    "occurrenceDateTime": at,
                    "primarySource": True,
                    "location": {"display": "Ospedale"},
                },
            )
        yield (
            "DiagnosticReport",
            {
                "resourceType": "DiagnosticReport",
                "id": self.identifier(),
                "meta": self.meta("diagnosticreport-lab"),
                "status": "final",
                "category": [self.coded("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory")],
                "code": self.coded(LOINC, "24323-8", "Comprehensive metabolic 2000 panel - Serum or Plasma"),
                "subject": subject,
                "encounter": context,
                "effectiveDateTime": at,
                "issued": at,
                "performer": [doctor],
                "result": [{"reference": f"Observation/{self.identifier()}", "display": "part"} for _ in range(6)],
            },
        )


def generate(out: Path, size: int, *, mixed: bool = False, seed: int = 7) -> int:
    """Write at least `size` bytes of NDJSON below `out` (one file per type, or one mixed file); return the resources."""
    out.mkdir(parents=True, exist_ok=True)
    files, written, count = {}, 0, 0
    try:
        for kind, resource in Patients(seed):
            if written >= size and kind == "Patient":
                return count
            name = "mixed" if mixed else kind
            if name not in files:
                files[name] = (out / f"{name}.ndjson").open("wb")
            written += files[name].write(orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    finally:
        for file in files.values():
            file.close()
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gigabytes", type=float, default=0.1)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(generate(options.out, int(options.gigabytes * 1e9), mixed=options.mixed, seed=options.seed), "resources")
