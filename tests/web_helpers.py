"""Records for the tests of FHIR servers and exports, and the comparison of what landed with what the server holds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from fhir_adapters.base import Extraction, extract_from, open_source
from fhir_adapters.deidentify import Deidentifier
from fhir_adapters.landing import land, read_manifest
from fhir_adapters.memory import of_extraction
from fhir_adapters.pseudonyms import SiteKey

KEY = SiteKey(b"a key for tests, thirty-two bytes or more")
ZONE = "Europe/Rome"
NAME = "Bianchistorta"  # planted wherever a name may stand; must be found nowhere
TYPES = ("Patient", "Condition", "Observation", "Medication", "MedicationRequest")


def records(patients: int, each: int = 5, day: str = "2024-03-01") -> list[dict[str, Any]]:
    """Patients with conditions, observations and prescriptions; updated one second after the other on that day."""
    made: list[dict[str, Any]] = [
        {
            "resourceType": "Medication",
            "id": "m0",
            "code": {"coding": [{"system": "http://www.whocc.no/atc", "code": "L01EF01"}]},
        }
    ]
    for number in range(patients):
        who = {"reference": f"Patient/p{number}", "display": NAME}
        made.append(
            {
                "resourceType": "Patient",
                "id": f"p{number}",
                "name": [{"family": NAME}],
                "gender": "female",
                "birthDate": "1961-02-03",
                "identifier": [{"system": "urn:test:mrn", "value": f"MRN-{number}"}],
            }
        )
        made.append(
            {
                "resourceType": "Condition",
                "id": f"c{number}",
                "subject": who,
                "code": {"coding": [{"system": "http://snomed.info/sct", "code": "448952004"}], "text": NAME},
                "onsetDateTime": "2020-05-06",
            }
        )
        made.append(
            {
                "resourceType": "MedicationRequest",
                "id": f"r{number}",
                "status": "active",
                "intent": "order",
                "subject": who,
                "medicationReference": {"reference": "Medication/m0"},
                "note": [{"text": NAME}],
            }
        )
        for one in range(each):
            made.append(
                {
                    "resourceType": "Observation",
                    "id": f"o{number}-{one}",
                    "status": "final",
                    "subject": who,
                    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
                    "effectiveDateTime": "2023-11-05",
                    "valueQuantity": {
                        "value": one,
                        "unit": "g/dL",
                        "system": "http://unitsofmeasure.org",
                        "code": "g/dL",
                    },
                }
            )
    for number, resource in enumerate(made):
        clock = f"{8 + number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
        resource["meta"] = {"versionId": "1", "lastUpdated": f"{day}T{clock}.000Z"}
    return made


def settings(url: str, kind: str = "fhir_server", **more: Any) -> dict[str, Any]:
    return (
        {"kind": kind, "url": url, "page": 20, "tries": 4, **more}
        if kind == "fhir_server"
        else {"kind": kind, "url": url, "tries": 4, **more}
    )


def extract(
    out: Path, given: dict[str, Any], *, full: bool = False, previous: Path | None = None, key: SiteKey | None = KEY
) -> Extraction:
    """One extraction, on top of an earlier one that counts as landed."""
    source = open_source(given, folder=out.parent, key=key, time_zone=ZONE)
    if previous is None:
        return extract_from(source, out, full=full)
    held = of_extraction(previous, given["kind"])
    return extract_from(source, out, full=full, state=held.state, known=held.known)


def expected(resources: Iterable[dict[str, Any]], **how: Any) -> list[bytes]:
    """What should have landed of these: each resource de-identified, in a fixed order."""
    sieve = Deidentifier.for_site(KEY, zone=ZONE, settings=how)
    resources = list(resources)
    for one in resources:
        if one["resourceType"] == "Patient":
            sieve.learn(one)
    return sorted(orjson.dumps(sieve.resource(one), option=orjson.OPT_SORT_KEYS) for one in resources)


def landed(out: Path, place: Path, *, previous: Path | None = None) -> list[bytes]:
    """Land an extraction and read back what stands: the newest version of each resource that is not deleted."""
    land([out], place, previous=previous)
    return standing(place)


def standing(place: Path) -> list[bytes]:
    import pyarrow.parquet as pq

    lines: dict[tuple[str, str], tuple[str, bytes]] = {}
    for shard in read_manifest(place).shards:
        for line in (place / shard.path).read_bytes().splitlines():
            one = orjson.loads(line)
            key, updated = (one["resourceType"], one["id"]), one.get("meta", {}).get("lastUpdated", "")
            if key not in lines or lines[key][0] <= updated:
                lines[key] = (updated, orjson.dumps(one, option=orjson.OPT_SORT_KEYS))
    for gone in pq.read_table(place / "deleted.parquet").to_pylist():
        key = (gone["resource_type"], gone["resource_id"])
        if key in lines and (gone["deleted_at"] or "9") >= lines[key][0]:
            del lines[key]
    assert not pq.read_table(place / "quarantine.parquet").num_rows
    return sorted(line for _, line in lines.values())


def holds_nothing_of(folder: Path, *words: str) -> None:
    """No file below a folder holds one of the words, nor does a file's name."""
    for path in folder.rglob("*"):
        assert not any(word in path.name for word in words)
        if path.is_file():
            data = path.read_bytes()
            assert not any(word.encode() in data for word in words), path.name
