"""Each reason that leaves a resource without a row: a resource that has it. The list of reasons and this list cannot disagree."""

import re
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.knowledge import table
from tests.mapping_helpers import LOINC, SNOMED, Slice, concept, mapped, patient, resource

MODIFIER = {"modifierExtension": [{"url": "http://example.org/not", "valueBoolean": True}]}


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"code": code}]}


# id of the resource → (resource, reason)
CASES: dict[str, tuple[dict[str, Any], str]] = {}


def case(reason: str, resource_type: str, **more: Any) -> None:
    identity = f"r{len(CASES)}"
    CASES[identity] = (resource(resource_type, identity, **more), reason)


case("X-ERROR", "Condition", verificationStatus=coded("entered-in-error"))
case("X-ERROR", "AllergyIntolerance", verificationStatus=coded("entered-in-error"))
for kind in (
    "Observation",
    "Procedure",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationAdministration",
    "MedicationDispense",
):
    case("X-ERROR", kind, status="entered-in-error")
for kind in (
    "Immunization",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Specimen",
    "Encounter",
    "Coverage",
    "ImagingStudy",
):
    case("X-ERROR", kind, status="entered-in-error")
case("X-ERROR", "DocumentReference", docStatus="entered-in-error")
case("X-REFUTED", "Condition", verificationStatus=coded("refuted"))
case("X-REFUTED", "AllergyIntolerance", verificationStatus=coded("refuted"))
for kind in (
    "Observation",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationDispense",
    "DiagnosticReport",
    "Encounter",
):
    case("X-CANCELLED", kind, status="cancelled")
case("X-CANCELLED", "Coverage", status="cancelled")
case("X-CANCELLED", "ImagingStudy", status="cancelled")
case("X-PLANNED", "Observation", status="registered")
case("X-PLANNED", "Procedure", status="preparation")
case("X-PLANNED", "MedicationRequest", status="draft")
for intent in ("proposal", "plan", "option"):
    case("X-PLANNED", "MedicationRequest", intent=intent)
case("X-PLANNED", "MedicationStatement", status="intended")
case("X-PLANNED", "MedicationDispense", status="preparation")
case("X-PLANNED", "DiagnosticReport", status="registered")
case("X-PLANNED", "Encounter", status="planned")
case("X-PLANNED", "Coverage", status="draft")
case("X-PLANNED", "ImagingStudy", status="registered")
case("X-NOT-DONE", "Procedure", status="not-done")
case("X-NOT-DONE", "MedicationStatement", status="not-taken")
case("X-NOT-DONE", "MedicationAdministration", status="not-done")
case("X-NOT-DONE", "MedicationDispense", status="declined")
case("X-NOT-DONE", "Immunization", status="not-done")
case("X-STOPPED", "Procedure", status="stopped")
for kind in (
    "Observation",
    "Procedure",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationAdministration",
    "MedicationDispense",
):
    case("X-UNKNOWN-STATUS", kind, status="unknown")
for kind in ("Device", "DiagnosticReport", "Encounter", "ImagingStudy"):
    case("X-UNKNOWN-STATUS", kind, status="unknown")
case("X-POTENTIAL", "AdverseEvent", actuality="potential")
case("X-SUPERSEDED", "DocumentReference", status="superseded")
case("X-DO-NOT-PERFORM", "MedicationRequest", doNotPerform=True)
case("X-NO-SUBJECT", "Condition", of=None)
case("X-NO-SUBJECT", "Condition", subject={"reference": "Group/g"})
case("X-NO-SUBJECT", "Condition", subject={"identifier": {"system": "urn:x", "value": "1"}})
case("X-NO-SUBJECT", "Condition", subject={"reference": "Patient?identifier=1"})
case("X-NO-SUBJECT", "Encounter", of=None)
case("X-NO-PERSON", "Condition", of="nobody")
case("X-NO-PERSON", "Condition", of="unborn")
case("X-NO-PERSON", "Encounter", of="nobody")
case("X-NO-DATE", "Condition", onsetDateTime=None)
case("X-NO-DATE", "Observation", effectiveDateTime=None)
case("X-NO-DATE", "Procedure", performedDateTime=None)
case("X-NO-DATE", "MedicationRequest", authoredOn=None)
case("X-NO-DATE", "Immunization", occurrenceDateTime=None)
case("X-NO-DATE", "Device", manufactureDate=None)
case("X-NO-DATE", "Coverage", period=None)
case("X-NO-DATE", "Encounter", period=None)
case("X-NO-BIRTH-YEAR", "Patient", of=None)
case("X-NO-CODE", "Condition", code=None)
case("X-NO-CODE", "Procedure", code={})
case("X-NO-CODE", "MedicationStatement", medicationCodeableConcept=None)
case("X-NO-CODE", "DiagnosticReport", code=None)
case("X-NO-VALUE", "Observation", valueQuantity=None)
case("X-NO-VALUE", "Observation", valueQuantity=None, code=None, component=[{"code": concept((LOINC, "8480-6"))}])
case("X-DATA-ABSENT", "Observation", valueQuantity=None, dataAbsentReason=coded("not-performed"))
case("X-PANEL", "Observation", valueQuantity=None, hasMember=[{"reference": "Observation/other"}])
for kind in ("Claim", "CarePlan", "Provenance", "Consent"):
    case("X-NO-TARGET", kind)
case("X-UNREFERENCED", "Medication", of=None, code=concept((SNOMED, "1")))
case("X-UNREFERENCED", "PractitionerRole", of=None)
case("M-MEDICATION", "Medication", of=None, code=concept((SNOMED, "2")))
MEDICATION = list(CASES)[-1]
case("M-ROLE", "PractitionerRole", of=None, practitioner={"reference": "Practitioner/staff"})
case(
    "M-REPLACED",
    "Patient",
    of=None,
    birthDate="1960",
    link=[{"type": "replaced-by", "other": {"reference": "Patient/p"}}],
)
case("Q-DATE", "Condition", onsetDateTime="2020-02-30")
case("Q-DATE", "Observation", effectiveDateTime="05/03/2020")
case("Q-DATE", "Encounter", period={"start": "soon"})
case("Q-DATE", "Patient", of=None, birthDate="1492-10-12")
for kind in (
    "Condition",
    "Observation",
    "Procedure",
    "MedicationRequest",
    "MedicationStatement",
    "MedicationAdministration",
):
    case("Q-MODIFIER", kind, **MODIFIER)
for kind in (
    "MedicationDispense",
    "Immunization",
    "AllergyIntolerance",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Specimen",
):
    case("Q-MODIFIER", kind, **MODIFIER)
for kind in ("Encounter", "Coverage", "ImagingStudy", "AdverseEvent"):
    case("Q-MODIFIER", kind, **MODIFIER)
for kind in ("Patient", "Practitioner", "PractitionerRole", "Organization", "Location", "Medication"):
    case("Q-MODIFIER", kind, of=None, **MODIFIER)
case("Q-MODIFIER", "Condition", implicitRules="http://example.org/rules")
# the reasons that the mapping itself gives; those of the sources have their tests there
ROOT = Path(__file__).resolve().parents[3]
GIVEN = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("mappings/events", "omop_etl/mapping")
    for path in sorted((ROOT / folder).iterdir())
    if path.suffix in (".sql", ".py")
)
OURS = sorted(set(re.findall(r"\b(?:[XM]-[A-Z-]+[A-Z]|Q-DATE|Q-MODIFIER)\b", GIVEN)))


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if one is not None}


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    needed = [patient(), {"resourceType": "Patient", "id": "unborn"}, {"resourceType": "Practitioner", "id": "staff"}]
    needed.append(
        resource(
            "MedicationRequest",
            "uses",
            medicationCodeableConcept=None,
            medicationReference={"reference": f"Medication/{MEDICATION}"},
        )
    )
    resources = [*needed, *(one for one, _ in CASES.values())]
    return mapped(tmp_path_factory.mktemp("reasons"), map(without_nulls, resources))


@pytest.mark.requirement("f2o-060", "f2o-062", "f2o-063", "f2o-070")
@pytest.mark.parametrize("identity", CASES)
def test_reason(slice_: Slice, identity: str) -> None:
    one, reason = CASES[identity]
    outcome = next(row["outcome"] for row in table("explanations", "reasons.csv") if row["code"] == reason)
    assert slice_.why(one["resourceType"], identity) == (outcome, reason)
    assert slice_.of(one["resourceType"], identity) == {}


def test_every_reason_of_mapping_has_a_case() -> None:
    tested = {reason for _, reason in CASES.values()} | {"X-DELETED"}  # that one: test_versions.py
    assert sorted(tested) == OURS
    assert set(OURS) <= {row["code"] for row in table("explanations", "reasons.csv")}


def test_the_manifest_counts_what_was_left_out(slice_: Slice) -> None:
    counted = {(row["resource_type"], row["reason"]): row["resources"] for row in slice_.manifest()["exclusions"]}
    assert counted["Condition", "X-NO-SUBJECT"] == 4
    assert counted["PractitionerRole", "M-ROLE"] == 1
