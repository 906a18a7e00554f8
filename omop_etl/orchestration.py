"""What the DAGs share: the workspace of a run, which errors a retry may heal, and the line per site that people read."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fhir_adapters.errors import Exit, PalmaresError
from omop_etl.config import load_site
from omop_etl.stages import CentrePlace, SitePlace

SUBMISSIONS = "palmares_submissions"
WAREHOUSE = "palmares_warehouse"

Result = TypeVar("Result")


def workspace(params: Mapping[str, Any]) -> Path:
    """The workspace of this run: its `home` parameter, else `PALMARES_HOME`. Raises E-HOME-01 when neither is given."""
    home = params.get("home") or os.environ.get("PALMARES_HOME")
    if not home:
        raise PalmaresError("E-HOME-01", "home")
    return Path(home)


def site_place(params: Mapping[str, Any], site: str) -> SitePlace:
    """This site's part of the run's workspace."""
    return SitePlace(workspace(params), load_site(site))


def centre_place(params: Mapping[str, Any]) -> CentrePlace:
    """The centre's part of the run's workspace."""
    return CentrePlace(workspace(params))


def in_airflow(label: str, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a stage inside a task; `label` names a mapped task in Airflow's pages (`map_index_template="{{ label }}"`).

    Only what another try may heal (a server, a disk) is left for Airflow to retry.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    get_current_context()["label"] = label  # type: ignore[typeddict-unknown-key]
    try:
        return work(*arguments, **options)
    except PalmaresError as error:
        kind = AirflowException if error.exit_code == Exit.MACHINE else AirflowFailException
        raise kind(str(error)) from None


def sources_of(sites: Sequence[str]) -> list[dict[str, Any]]:
    """Every source of these sites; a site whose settings do not load has none here, and says why when it lands."""
    pairs = []
    for site in sites:
        try:
            count = len(load_site(site).sources)
        except PalmaresError:
            continue
        pairs += [{"site": site, "number": number} for number in range(count)]
    return pairs


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def site_lines(home: Path, sites: Sequence[str]) -> list[dict[str, Any]]:
    """Per site: resources read, rows written, unmapped records, quarantined resources, the verdict, and what failed.

    The counts are those of the slice's manifest and the gate's verdict; a stage that failed in this workspace's last run of
    the site is named with its numbered error.
    """
    failures: dict[
        tuple[str, str], str
    ] = {}  # (subject, stage) → words; the subject of an extraction is <site>/<source>
    log = home / "events.ndjson"
    for line in log.read_bytes().splitlines() if log.is_file() else []:
        event = json.loads(line)
        subject, stage = event["subject"], event["stage"]
        if event["state"] == "failed":
            failures[subject, stage] = f"{stage}: {event.get('error', '')}"
        elif event["state"] == "begun":
            failures.pop((subject, stage), None)
            if stage == "land":  # the site's way begins anew; that a source failed before it still holds
                failures = {key: words for key, words in failures.items() if key[0] != subject}
    lines = []
    for site in sites:
        folder = home / "sites" / site
        manifest, verdict = _read(folder / "slice" / "manifest.json"), _read(folder / "gate" / "verdict.json")
        resources = manifest.get("resources", {})
        outcomes: dict[str, int] = {}
        for counts in resources.values():
            for outcome, count in counts.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        lines.append(
            {
                "site": site,
                "resources": sum(outcomes.values()),
                "rows": sum(manifest.get("tables", {}).values()),
                "unmapped": sum(manifest.get("unmapped", {}).values()),
                "excluded": outcomes.get("excluded", 0),
                "quarantined": outcomes.get("quarantined", 0),
                "verdict": verdict.get("verdict", "–"),
                "failed": "; ".join(words for (subject, _), words in failures.items() if subject.split("/")[0] == site),
            }
        )
    return lines


def report_sites(home: Path, sites: Sequence[str]) -> None:
    """Print the line of each site; raises E-RUN-01 when a site did not come to its submission, or not with all sources."""
    lines = site_lines(home, sites)
    for line in lines:
        print(" ".join(f"{name}={value}" for name, value in line.items()))
    failed = [line["site"] for line in lines if line["failed"]]
    if failed:
        raise PalmaresError("E-RUN-01", ", ".join(failed), count=len(failed))
