"""What is remembered of each submission that the centre took in, when a newer one has replaced it.

    <intake>/../history/<site>/<when>-<number>.json

Only numbers: the verdict, each check that was not PASS and each check of the study with its two counts, and the profile of the slice.
The intake itself holds the submission that counts now.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_adapters.folders import whole_file
from omop_etl.gates.profile import profile_of
from omop_etl.submission.contents import Content

FOLDER = "history"
FORMAT = 1
_KEPT = ("code", "family", "title", "numerator", "denominator", "warn", "block", "severity", "verdict", "unit")
_NAME = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]+)\.json")


def remember(intake: Path, content: Content, *, received_at: datetime | None = None) -> None:
    """Write what is remembered of a submission that was taken in, once per number; `received_at` defaults to now."""
    folder = Path(intake).absolute().parent / FOLDER / content.site
    if any(path.name.endswith(f"-{content.number}.json") for path in folder.glob("*.json")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    moment = received_at or datetime.now(UTC)
    with whole_file(folder / f"{moment:%Y%m%dT%H%M%SZ}-{content.number}.json") as path:
        path.write_text(json.dumps(record(content, moment)) + "\n", encoding="utf-8")


def record(content: Content, received_at: datetime) -> dict[str, Any]:
    """What is remembered of this submission."""
    verdict, manifest = content.verdict, content.slice.manifest
    checks = [check for check in verdict["checks"] if check["verdict"] != "PASS" or check.get("level") == "STUDY"]
    outcomes: dict[str, int] = {}
    for counts in manifest.get("resources", {}).values():
        for outcome, count in counts.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    tables = manifest.get("tables", {})
    return {
        "format": FORMAT,
        "site": content.site,
        "number": content.number,
        "received_at": f"{received_at:%Y-%m-%dT%H:%M:%SZ}",
        "extracted_to": content.slice.extracted_to,
        "verdict": verdict["verdict"],
        "counts": verdict.get("counts", {}),
        "persons": tables.get("person", 0),
        "rows": sum(tables.values()),
        "unmapped_records": sum(manifest.get("unmapped", {}).values()),
        "quarantined": outcomes.get("quarantined", 0),
        "checks": [{key: check.get(key) for key in _KEPT} for check in checks],
        "profile": profile_of(verdict),
    }


def history(intake: Path) -> dict[str, list[dict[str, Any]]]:
    """Site → what is remembered of its submissions, oldest first. A file that does not read is left out: it is a memory, no proof."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((Path(intake).absolute().parent / FOLDER).glob("*/*.json")):
        if not _NAME.fullmatch(path.name):
            continue
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(one, dict) and one.get("format") == FORMAT:
            found.setdefault(path.parent.name, []).append(one)
    return found
