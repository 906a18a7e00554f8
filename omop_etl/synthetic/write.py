"""Files of a hospital: NDJSON (plain or gz) or a Bundle per patient, its settings, its key, its code maps."""

import csv
import gzip
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from omop_etl.synthetic.coding import Coder
from omop_etl.synthetic.defects import Additions
from omop_etl.synthetic.plan import FHIR_WAYS, SitePlan

FOLDER = "fhir"  # of a hospital and of an extraction: positions of defects begin with it
FILE_TYPES = frozenset(
    {
        "Condition",
        "Encounter",
        "MedicationAdministration",
        "MedicationStatement",
        "Observation",
        "Organization",
        "Patient",
        "Procedure",
        "Specimen",
    }
)


class Files:
    """The FHIR files of one site, in the format of its profile; knows on which line of which file a defect stands."""

    def __init__(self, folder: Path, plan: SitePlan) -> None:
        self.folder, self.style = folder, plan.profile["format"]
        self.base = f"https://fhir.{plan.id}.example/r4/"
        self.lines: dict[str, list[bytes]] = {}
        self.counts: Counter[str] = Counter()
        self.ending = ".ndjson.gz" if self.style == "gz" else ".ndjson"

    def add(self, resources: Sequence[dict[str, Any]], additions: Additions | None = None, name: str = "") -> None:
        """The record of one patient; a Bundle of that name where the site writes Bundles."""
        marks = additions.marks if additions else {}
        self.counts.update(resource["resourceType"] for resource in resources)
        if self.style == "bundles":
            file = f"Bundle-{name or 'hospital'}.json"
            for place, planted in marks.items():
                planted.position = f"{FOLDER}/{file}:entry {place + 1}"
            self._bundle(file, resources)
            return
        for place, resource in enumerate(resources):
            # a system exports one file per type it knows; what it does not know lands among the observations
            kind = resource["resourceType"] if resource["resourceType"] in FILE_TYPES else "Observation"
            lines = self.lines.setdefault(kind, [])
            lines.append(orjson.dumps(resource))
            if place in marks:
                marks[place].position = f"{FOLDER}/{kind}{self.ending}:{len(lines)}"
        for raw in additions.raws if additions else ():
            lines = self.lines.setdefault(raw.resource_type, [])
            lines.append(raw.content)
            raw.planted.position = f"{FOLDER}/{raw.resource_type}{self.ending}:{len(lines)}"

    def close(self) -> None:
        """Write what was gathered."""
        for kind, rows in self.lines.items():
            content = b"\n".join(rows) + b"\n"
            if self.style == "gz":
                buffer = io.BytesIO()
                # the header carries no time, so that the bytes depend on the content alone
                with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as stream:
                    stream.write(content)
                content = buffer.getvalue()
            (self.folder / f"{kind}{self.ending}").write_bytes(content)

    def _bundle(self, file: str, resources: Sequence[dict[str, Any]]) -> None:
        entries = []
        for resource in resources:
            entry: dict[str, Any] = {}
            if isinstance(resource.get("id"), str):
                entry["fullUrl"] = f"{self.base}{resource['resourceType']}/{resource['id']}"
            entries.append(entry | {"resource": resource})
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        (self.folder / file).write_bytes(orjson.dumps(bundle))


def write_key(path: Path, key: bytes) -> None:
    """A key file, readable by its owner alone, in the form that `Key.load` expects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")


def write_settings(folder: Path, plan: SitePlan, zone: str, *, dicom: bool) -> None:
    """The site's TOML, as `omop_etl.config` reads it."""
    lines = [
        "# a hospital that does not exist",
        f'name = "Synthetic hospital {plan.id[4:]}"',
        f'time_zone = "{zone}"',
    ]
    if plan.profile["local"]:
        lines.append(f'codes = "codes/{plan.id}"')
    lines.append(f'key_file = "keys/{plan.id}.key"')
    if plan.way in FHIR_WAYS:
        lines += [""]
        if plan.way != "files":
            kind = {"server": "fhir_server", "bulk": "fhir_bulk"}[plan.way]
            lines.append(
                f'# a hospital with a FHIR server (kind = "{kind}"): what it would answer lies in files, so that no server is needed'
            )
        lines += [
            "[[source]]",
            'kind = "fhir_files"',
            f'path = "../hospitals/{plan.id}/fhir"',
            'pseudonyms = "hospital"  # its FHIR gateway has replaced the ids',
        ]
    else:
        lines += [
            "",
            "# the codice fiscale passes as its token: set PALMARES_LINKAGE_KEY to the content of keys/linkage.key",
            "[[source]]",
            'kind = "tables"',
            f'path = "../hospitals/{plan.id}/tables"',
            f'map = "maps/{plan.id}.toml"',
        ]
    if plan.way == "hl7v2":
        lines += [
            "",
            "[[source]]",
            'kind = "hl7v2"',
            f'path = "../hospitals/{plan.id}/messages"',
            f'map = "maps/{plan.id}-hl7v2.toml"',
            "linkage = true",
        ]
    if dicom:
        lines += ["", "[[source]]", 'kind = "dicom_folder"', f'path = "../hospitals/{plan.id}/dicom"']
    (folder / f"{plan.id}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


USAGI = (
    "sourceCode",
    "sourceName",
    "sourceFrequency",
    "sourceAutoAssignedConceptIds",
    "matchScore",
    "mappingStatus",
    "equivalence",
    "statusSetBy",
    "statusSetOn",
    "conceptId",
    "conceptName",
    "domainId",
    "mappingType",
    "comment",
    "createdBy",
    "createdOn",
    "assignedReviewer",
)


def write_code_maps(folder: Path, coder: Coder) -> None:
    """The site's own code maps in Usagi's columns, one file per kind, and `_systems.csv` that says whose codes they map."""
    maps = coder.code_maps()
    if not maps:
        return
    folder.mkdir(parents=True)
    for kind, rows in maps.items():
        _write_csv(
            folder / f"{kind}.csv",
            USAGI,
            [
                {
                    "sourceCode": row["code"],
                    "sourceName": row["name"],
                    "sourceFrequency": -1,
                    "matchScore": 0.0,
                    "mappingStatus": "APPROVED",
                    "equivalence": "EQUAL",
                    "conceptId": row["concept"],
                    "conceptName": row["name"],
                    "domainId": row["domain"],
                    "mappingType": "MAPS_TO",
                    "comment": "synthetic",
                }
                for row in rows
            ],
        )
    systems = [
        {"file": f"{kind}.csv", "system": coder.local_system(kind), "vocabulary_id": f"{coder.plan.id} {kind}"}
        for kind in maps
    ]
    _write_csv(folder / "_systems.csv", ("file", "system", "vocabulary_id"), systems)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
