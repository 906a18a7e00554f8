"""Measurements of structured reports become FHIR R4 Observations; samples on slides become Specimens."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from fhir_adapters.dicom.studies import EXTENSION, Writer, coding, quantity
from fhir_adapters.dicom.values import Coding, Instance, Measure

# a measurement with a derivation (the mean, the maximum, …) is a quantity of its own: under the plain code of what was measured, mean and
# maximum would be one. So its code is of this system: scheme, code and derivation
DERIVED = "urn:palmares:imaging-feature"
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}
_STAINING = Coding("SCT", "127790008", "Staining")


def observations(instances: Sequence[Instance], writer: Writer) -> list[dict[str, Any]]:
    """One Observation per measurement, sorted by id. Its date is that of the study: the images', not the report's."""
    found = [
        _observation(measure, instance, writer.taken(instance))
        for instance in instances
        for measure in instance.measures
    ]
    return sorted(found, key=lambda one: str(one["id"]))


def _observation(measure: Measure, instance: Instance, taken: str | None) -> dict[str, Any]:
    codes, region = dict(measure.codes), dict(measure.region)
    observation: dict[str, Any] = {"resourceType": "Observation", "id": measure.id}
    if measure.software:
        name, version = measure.software
        device: dict[str, Any] = {
            "resourceType": "Device",
            "id": "software",
            "deviceName": [{"name": name, "type": "model-name"}],
        }
        if version:
            device["version"] = [{"value": version}]
        observation["contained"] = [device]
    extensions = [
        {"url": EXTENSION + role, "valueCoding": coding(codes[role])}
        for role in ("finding", "finding-category", "laterality", "site-modifier", "derivation")
        if role in codes
    ]
    if "derivation" in codes:
        extensions.append({"url": EXTENSION + "measured", "valueCoding": coding(measure.name)})
    extensions += [{"url": EXTENSION + name, **_of_region(name, value)} for name, value in measure.region]
    if extensions:
        observation["extension"] = extensions
    observation["status"] = "final"
    observation["category"] = [{"coding": [_CATEGORY]}]
    observation["code"] = {"coding": [_code(measure.name, codes.get("derivation"))]}
    observation["subject"] = {"reference": f"Patient/{instance.patient}"}
    if taken:
        observation["effectiveDateTime"] = taken
    if isinstance(measure.value, Coding):
        observation["valueCodeableConcept"] = {"coding": [coding(measure.value)]}
    elif measure.unit is not None:
        observation["valueQuantity"] = quantity(measure.value, measure.unit.code)
    if "site" in codes:
        observation["bodySite"] = {"coding": [coding(codes["site"])]}
    if "method" in codes:
        observation["method"] = {"coding": [coding(codes["method"])]}
    if measure.software:
        observation["device"] = {"reference": "#software"}
    observation["derivedFrom"] = [{"reference": f"ImagingStudy/{region.get('study-uid', instance.study)}"}]
    return observation


def _code(name: Coding, derivation: Coding | None) -> dict[str, str]:
    if derivation is None:
        return coding(name)
    return {
        "system": DERIVED,
        "code": f"{name.scheme}-{name.code}-{derivation.code}",
        "display": f"{name.display}, {derivation.display}",
    }


def _of_region(name: str, value: str | int) -> dict[str, Any]:
    if isinstance(value, int):
        return {"valueInteger": value}
    return {"valueOid": f"urn:oid:{value}"} if name.endswith("-uid") else {"valueString": value}


def specimens(instances: Sequence[Instance]) -> tuple[list[dict[str, Any]], int]:
    """The samples on whole-slide images, sorted by id, and how many were left out because their slides name two patients.

    What the slides of one sample say is taken together: the commonest type, site and collection, every stain.
    """
    patients: defaultdict[str, set[str]] = defaultdict(set)
    said: defaultdict[str, Counter[tuple[str, Any]]] = defaultdict(Counter)
    for instance in instances:
        values = dict(instance.values)
        uid = values.get("specimen-uid")
        if uid:
            patients[str(uid[0])].add(instance.patient)
            said[str(uid[0])].update((name, value) for name in values for value in values[name])
    found = [
        _specimen(uid, next(iter(owners)), said[uid]) for uid, owners in sorted(patients.items()) if len(owners) == 1
    ]
    return found, len(patients) - len(found)


def _specimen(uid: str, patient: str, said: Counter[tuple[str, Any]]) -> dict[str, Any]:
    def every(name: str) -> list[Any]:
        return [
            value
            for _, value in sorted((one for one in said if one[0] == name), key=lambda one: (-said[one], str(one)))
        ]

    specimen: dict[str, Any] = {"resourceType": "Specimen", "id": uid, "status": "available"}
    kinds, sites, days, received, stains = (
        every(name) for name in ("specimen-type", "specimen-site", "specimen-collected", "specimen-received", "stain")
    )
    if kinds:
        specimen["type"] = {"coding": [coding(kinds[0])]}
    specimen["subject"] = {"reference": f"Patient/{patient}"}
    if received:
        specimen["receivedTime"] = min(received)
    collection: dict[str, Any] = {}
    if days:
        collection["collectedDateTime"] = days[0]
    if sites:
        collection["bodySite"] = {"coding": [coding(sites[0])]}
    if collection:
        specimen["collection"] = collection
    if stains:
        extensions = [{"url": EXTENSION + "stain", "valueCoding": coding(stain)} for stain in sorted(stains)]
        specimen["processing"] = [{"extension": extensions, "procedure": {"coding": [coding(_STAINING)]}}]
    return specimen
