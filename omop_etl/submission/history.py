"""What is remembered of each submission that the centre took in, when a newer one has replaced it.

    <intake>/../history/<site>/<when>-<number>.json       when: UTC, to the microsecond, so that two of one second keep their order

A run that was blocked, of which the centre got a notice (notice.py), is remembered too; `said_at` is when the hospital told it.

A hospital remembers its own runs in the same way: <site>/history/<when>-<number>.json, whatever its gate said.

Only numbers: the verdict, each check that was not PASS and each check of the study with its two counts, and the profile of the slice.
The intake itself holds the submission that counts now.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_adapters.folders import whole_file
from omop_etl.gates.profile import profile_of
from omop_etl.submission.contents import Content

FOLDER = "history"
FORMAT = 1
KEPT = ("code", "family", "title", "numerator", "denominator", "warn", "block", "severity", "verdict", "unit")
_NAME = re.compile(r"(\d{8}T\d{6}(?:\d{6})?Z)-([0-9a-f]+)\.json")


def remember(intake: Path, content: Content, *, received_at: datetime | None = None) -> None:
    """Write what is remembered of a submission that was taken in, once per number; `received_at` defaults to now."""
    folder = Path(intake).absolute().parent / FOLDER / content.site
    if any(path.name.endswith(f"-{content.number}.json") for path in folder.glob("*.json")):
        return
    moment = received_at or datetime.now(UTC)
    said = record(
        content.site, content.number, content.verdict, content.slice.manifest, content.slice.extracted_to, moment
    )
    _written(folder, said, moment)


def remember_notice(intake: Path, notice: Mapping[str, Any], *, received_at: datetime | None = None) -> None:
    """Write what is remembered of a run that was blocked, from its notice; once, as long as nothing else has come from the site since."""
    folder = Path(intake).absolute().parent / FOLDER / notice["site"]
    earlier = _files(folder)
    if earlier and earlier[-1].name.endswith(f"-{notice['number']}.json"):
        return
    moment = received_at or datetime.now(UTC)
    said = {**notice, "received_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "said_at": notice["received_at"]}
    _written(folder, said, moment)


def remember_run(
    folder: Path,
    site: str,
    verdict: Mapping[str, Any],
    manifest: Mapping[str, Any],
    *,
    extracted_to: str | None,
    at: datetime | None = None,
) -> str:
    """Write what is remembered of a hospital's own run into its history; the run's number. The same slice gated again replaces what the
    last run said."""
    number, moment = str(verdict["slice_sha256"])[:16], at or datetime.now(UTC)
    earlier = _files(folder)
    if earlier and earlier[-1].name.endswith(f"-{number}.json"):
        earlier[-1].unlink()
    _written(folder, record(site, number, verdict, manifest, extracted_to, moment), moment)
    return number


def _written(folder: Path, said: Mapping[str, Any], moment: datetime) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{moment:%Y%m%dT%H%M%S%fZ}-{said['number']}.json") as path:
        path.write_text(json.dumps(said) + "\n", encoding="utf-8")


def record(
    site: str,
    number: str,
    verdict: Mapping[str, Any],
    manifest: Mapping[str, Any],
    extracted_to: str | None,
    received_at: datetime,
) -> dict[str, Any]:
    """What is remembered of a submission, or of a run."""
    checks = [check for check in verdict["checks"] if check["verdict"] != "PASS" or check.get("level") == "STUDY"]
    outcomes: dict[str, int] = {}
    for counts in manifest.get("resources", {}).values():
        for outcome, count in counts.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    tables = manifest.get("tables", {})
    return {
        "format": FORMAT,
        "site": site,
        "number": number,
        "received_at": f"{received_at:%Y-%m-%dT%H:%M:%SZ}",
        "extracted_to": extracted_to,
        "verdict": verdict["verdict"],
        "counts": verdict.get("counts", {}),
        "persons": tables.get("person", 0),
        "rows": sum(tables.values()),
        "unmapped_records": sum(manifest.get("unmapped", {}).values()),
        "quarantined": outcomes.get("quarantined", 0),
        "checks": [{key: check.get(key) for key in KEPT} for check in checks],
        "profile": profile_of(verdict),
    }


def history(intake: Path) -> dict[str, list[dict[str, Any]]]:
    """Site → what is remembered of its submissions, oldest first. A file that does not read is left out: it is a memory, no proof."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in sorted((Path(intake).absolute().parent / FOLDER).glob("*/")):
        if runs := history_of(folder):
            found[folder.name] = runs
    return found


def history_of(folder: Path) -> list[dict[str, Any]]:
    """What is remembered in one site's folder, oldest first."""
    found = []
    for path in _files(folder):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(one, dict) and one.get("format") == FORMAT:
            found.append(one)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in Path(folder).glob("*.json") if _NAME.fullmatch(path.name))
