"""For tests of mapping: resources in short, a slice as rows, a vocabulary of a few invented concepts."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from omop_etl.cdm import tables
from omop_etl.config import Site
from omop_etl.mapping import MapResult, map_folder, origins

SNOMED, LOINC, RXNORM = "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD10CM, UCUM, CATEGORY = (
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://unitsofmeasure.org",
    "http://terminology.hl7.org/CodeSystem/",
)
BREAST_CANCER = ("254837009", 4112853)  # code and concept that the starter slice holds
HEMOGLOBIN = ("718-7", 3000963)
PALBOCICLIB = ("1601374", 45892075)


def site(zone: str = "Europe/Rome", name: str = "test") -> Site:
    return Site(id=name, name=f"site {name}", time_zone=zone, folder=Path())


def concept(*codings: tuple[str, str], text: str | None = None, **more: Any) -> dict[str, Any]:
    """A CodeableConcept of (system, code) pairs."""
    made: dict[str, Any] = {"coding": [{"system": system, "code": code, **more} for system, code in codings]}
    return made | ({"text": text} if text else {})


def patient(identity: str = "p", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": identity, "gender": "female", "birthDate": "1960-05-12"} | more


def resource(resource_type: str, identity: str, of: str | None = "p", **more: Any) -> dict[str, Any]:
    """A resource of patient `of`, with what its type needs to be mapped."""
    made: dict[str, Any] = {"resourceType": resource_type, "id": identity}
    subject = {
        "AllergyIntolerance": "patient",
        "Immunization": "patient",
        "Device": "patient",
        "Coverage": "beneficiary",
    }
    if of is not None:
        made[subject.get(resource_type, "subject")] = {"reference": f"Patient/{of}"}
    drug = concept((RXNORM, PALBOCICLIB[0]))
    cancer = concept((SNOMED, BREAST_CANCER[0]))
    needed: dict[str, dict[str, Any]] = {
        "Condition": {"code": cancer, "onsetDateTime": "2020-03-05"},
        "Observation": {
            "status": "final",
            "code": concept((LOINC, HEMOGLOBIN[0])),
            "effectiveDateTime": "2020-03-05",
            "valueQuantity": {"value": 12.5, "unit": "g/dL", "system": UCUM, "code": "g/dL"},
        },
        "Procedure": {"status": "completed", "code": concept((SNOMED, "392021009")), "performedDateTime": "2020-03-05"},
        "MedicationRequest": {
            "status": "active",
            "intent": "order",
            "medicationCodeableConcept": drug,
            "authoredOn": "2020-03-05",
        },
        "MedicationStatement": {
            "status": "active",
            "medicationCodeableConcept": drug,
            "effectiveDateTime": "2020-03-05",
        },
        "MedicationAdministration": {
            "status": "completed",
            "medicationCodeableConcept": drug,
            "effectiveDateTime": "2020-03-05",
        },
        "MedicationDispense": {
            "status": "completed",
            "medicationCodeableConcept": drug,
            "whenHandedOver": "2020-03-05",
        },
        "Immunization": {"status": "completed", "vaccineCode": drug, "occurrenceDateTime": "2020-03-05"},
        "AllergyIntolerance": {"code": drug, "recordedDate": "2020-03-05"},
        "Device": {"status": "active", "type": concept((SNOMED, "170615005")), "manufactureDate": "2020-03-05"},
        "DiagnosticReport": {
            "status": "final",
            "code": concept((LOINC, HEMOGLOBIN[0])),
            "effectiveDateTime": "2020-03-05",
        },
        "DocumentReference": {"status": "current", "type": concept((LOINC, "34108-1")), "date": "2020-03-05T10:00:00Z"},
        "Specimen": {"type": concept((SNOMED, "119297000")), "collection": {"collectedDateTime": "2020-03-05"}},
        "Encounter": {
            "status": "finished",
            "class": {"code": "AMB"},
            "period": {"start": "2020-03-05T09:00:00Z", "end": "2020-03-05T10:00:00Z"},
        },
        "Coverage": {
            "status": "active",
            "period": {"start": "2020-01-01", "end": "2020-12-31"},
            "payor": [{"display": "SSN"}],
        },
        "ImagingStudy": {
            "status": "available",
            "started": "2020-03-05T09:00:00Z",
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.1"}],
            "series": [
                {"uid": "2.25.2", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}}
            ],
        },
        "AdverseEvent": {"actuality": "actual", "event": cancer, "date": "2020-03-05"},
    }
    return made | needed.get(resource_type, {}) | more


@cache
def _read(file: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of a Parquet file: a slice is asked many times and never changes."""
    answer = duckdb.connect().execute(f"FROM read_parquet('{file}')")
    return [column[0] for column in answer.description or ()], answer.fetchall()


@cache
def _origins(folder: Path) -> list[tuple[Any, ...]]:
    return (
        duckdb.connect()
        .execute(f"SELECT cdm_table, cdm_id, resource_type, resource_id FROM {origins(folder)}")
        .fetchall()
    )


@dataclass(frozen=True)
class Slice:
    """A slice as rows."""

    folder: Path
    result: MapResult

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a Parquet file below the slice, by its name without ending."""
        names, rows = _read(self.folder / f"{table}.parquet")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def origins(self) -> list[dict[str, Any]]:
        """Which resource each row comes from."""
        names = ("cdm_table", "cdm_id", "resource_type", "resource_id")
        return [dict(zip(names, row, strict=True)) for row in _origins(self.folder)]

    def of(self, resource_type: str, identity: str) -> dict[str, list[dict[str, Any]]]:
        """CDM table → the rows that a resource wrote."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.origins():
            if (line["resource_type"], line["resource_id"]) == (resource_type, identity):
                table = line["cdm_table"]
                key = "person_id" if table == "death" else f"{table}_id"
                found[table] += [row for row in self.rows(table) if row[key] == line["cdm_id"]]
        return dict(found)

    def one(self, resource_type: str, identity: str, table: str) -> dict[str, Any]:
        """The only row that a resource wrote into a table."""
        rows = self.of(resource_type, identity).get(table, [])
        assert len(rows) == 1, f"{resource_type} {identity} wrote {len(rows)} rows of {table}"
        return rows[0]

    def why(self, resource_type: str, identity: str | None) -> tuple[str, str | None]:
        """Outcome and reason of a resource that stands on one line of the ledger."""
        lines = [
            (line["outcome"], line["reason"])
            for line in self.rows("ledger")
            if (line["resource_type"], line["resource_id"]) == (resource_type, identity)
        ]
        assert len(lines) == 1, f"{resource_type} {identity} has {len(lines)} lines"
        return lines[0]

    def unmapped(self) -> list[dict[str, str]]:
        with (self.folder / "unmapped.csv").open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))


def write_fhir(folder: Path, resources: Iterable[dict[str, Any]]) -> Path:
    """One NDJSON file per type."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for one in resources:
        by_type[one["resourceType"]].append(json.dumps(one))
    folder.mkdir(parents=True, exist_ok=True)
    for kind, lines in by_type.items():
        (folder / f"{kind}.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mapped(
    folder: Path,
    resources: Iterable[dict[str, Any]],
    *,
    zone: str = "Europe/Rome",
    name: str = "test",
    vocabulary: Path | None = None,
) -> Slice:
    """The slice of some resources, mapped in `folder`."""
    out = folder / "slice"
    result = map_folder(site(zone, name), write_fhir(folder / "fhir", resources), out, vocabulary=vocabulary, jobs=2)
    return Slice(out, result)


def tiny_vocabulary(
    folder: Path, concepts: Sequence[tuple[int, str, str, str, str]], relations: Sequence[tuple[int, int, str]]
) -> Path:
    """An Athena folder. A concept is (id, domain, vocabulary, 'S' or '', code); a relation (id, id, relationship)."""
    folder.mkdir(parents=True)
    lines = ["\t".join(tables()["concept"].names)]
    for identity, domain, vocabulary, standard, code in concepts:
        lines.append(
            f"{identity}\tconcept {identity}\t{domain}\t{vocabulary}\tClass\t{standard}\t{code}\t19700101\t20991231\t"
        )
    (folder / "CONCEPT.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["\t".join(tables()["concept_relationship"].names)]
    lines += [f"{one}\t{other}\t{relation}\t19700101\t20991231\t" for one, other, relation in relations]
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
