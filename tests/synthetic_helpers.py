"""A run of the synthetic hospitals, made once per test process, and its FHIR as parsed resources."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    out: Path

    def truth(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table of the truth."""
        return pq.read_table(self.out / "truth" / f"{table}.parquet").to_pylist()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.out / "truth" / "manifest.json").read_text(encoding="utf-8"))

    def sites(self, kind: str | None = None) -> list[str]:
        """The site ids, of one kind or all."""
        return [site["site"] for site in self.manifest["sites"] if kind in (None, site["kind"])]

    def lines(self, site: str) -> Iterator[tuple[str, bytes]]:
        """Every line (or Bundle entry) of a site with its position."""
        for path in sorted((self.out / "hospitals" / site / "fhir").iterdir()):
            if path.name.startswith("Bundle"):
                for number, entry in enumerate(json.loads(path.read_bytes())["entry"], 1):
                    yield f"fhir/{path.name}:entry {number}", json.dumps(entry["resource"]).encode()
            else:
                content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                for number, line in enumerate(content.splitlines(), 1):
                    yield f"fhir/{path.name}:{number}", line

    @cached_property
    def resources(self) -> dict[str, list[dict[str, Any]]]:
        """The resources of each site that are JSON objects with an id."""
        found: dict[str, list[dict[str, Any]]] = {}
        for site in self.sites():
            for _, line in self.lines(site):
                try:
                    resource = json.loads(line)
                except ValueError:
                    continue
                if "id" in resource:
                    found.setdefault(site, []).append(resource)
        return found

    def of_patient(self, site: str, patient: str, resource_type: str) -> list[dict[str, Any]]:
        """The resources of a type whose subject is this patient."""
        return [
            resource
            for resource in self.resources[site]
            if resource["resourceType"] == resource_type
            and resource.get("subject", {}).get("reference", "").rsplit("/", 1)[-1] == patient
        ]
