"""Files of a hospital: NDJSON (plain or gz) or a Bundle per patient, its settings, its key, its code maps."""

import csv
import gzip
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from omop_etl.synthetic.coding import Coder
from omop_etl.synthetic.plan import SitePlan

Line = bytes


def write_ndjson(folder: Path, lines: Mapping[str, Sequence[Line]], *, compressed: bool) -> None:
    """One file per resource type. The gzip header carries no time, so that the bytes depend on the content alone."""
    for kind, rows in lines.items():
        content = b"\n".join(rows) + b"\n"
        if compressed:
            buffer = io.BytesIO()
            with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as stream:
                stream.write(content)
            (folder / f"{kind}.ndjson.gz").write_bytes(buffer.getvalue())
        else:
            (folder / f"{kind}.ndjson").write_bytes(content)


def write_bundle(folder: Path, name: str, base: str, resources: Sequence[Mapping[str, Any]]) -> None:
    """A Bundle of type collection. `base` is the address that the full URLs begin with."""
    entries = []
    for resource in resources:
        entry: dict[str, Any] = {}
        if isinstance(resource.get("id"), str) and isinstance(resource.get("resourceType"), str):
            entry["fullUrl"] = f"{base}{resource['resourceType']}/{resource['id']}"
        entries.append(entry | {"resource": resource})
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (folder / f"Bundle-{name}.json").write_bytes(orjson.dumps(bundle))


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
    lines += [
        f'key_file = "keys/{plan.id}.key"',
        "",
        "[[source]]",
        'kind = "fhir_files"',
        f'path = "../hospitals/{plan.id}/fhir"',
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
