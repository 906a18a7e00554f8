"""The quality data as metrics for a monitor, in Prometheus' text format: counts and shares per site, never a patient's.

Let the node exporter's text file collector, or any web server, hand out `metrics.prom`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from omop_etl.gates import VERDICTS
from omop_etl.reports.quality.shape import QualityData

_Sample = tuple[Mapping[str, object], float | int | None]


def metrics(data: QualityData) -> str:
    """The whole file. A sample whose value is not known is left out, as Prometheus wants it."""
    verdicts = {verdict: level for level, verdict in enumerate(VERDICTS)}
    sites = data["sites"]
    lines: list[str] = []

    def family(name: str, words: str, samples: Iterable[_Sample]) -> None:
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines.append(f"# HELP palmares_{name} {words}")
            lines.append(f"# TYPE palmares_{name} gauge")
            lines.extend(f"palmares_{name}{_labels(labels)} {value:.12g}" for labels, value in known)

    def of_sites(key: str) -> list[_Sample]:
        return [({"site": one["site"]}, one[key]) for one in sites]  # type: ignore[literal-required]

    family(
        "site_verdict",
        "The gate's verdict on what the site sent last: 0 PASS, 1 WARN, 2 BLOCK (it sent a notice alone).",
        [({"site": one["site"]}, verdicts.get(str(one["verdict"]))) for one in sites],
    )
    family(
        "site_blocked_since_seconds",
        "When a site that is blocked told so first, in seconds since 1970.",
        [
            ({"site": one["site"]}, datetime.fromisoformat(one["notice"]["since"]).timestamp())
            for one in sites
            if one["notice"]
        ],
    )
    family("site_persons", "Persons.", of_sites("persons"))
    family("site_analysable_persons", "Persons on a CDK4/6 inhibitor.", of_sites("analysable"))
    family("site_rows", "Rows of the CDM tables.", of_sites("rows"))
    family("site_unmapped_records", "Records whose code has no standard concept.", of_sites("unmapped_records"))
    family("site_quarantined_resources", "Resources that are no valid FHIR.", of_sites("quarantined"))
    family(
        "site_checks",
        "Checks by verdict.",
        [
            ({"site": one["site"], "verdict": verdict}, one[key])  # type: ignore[literal-required]
            for one in sites
            for verdict, key in (("PASS", "passed"), ("WARN", "warned"), ("BLOCK", "blocked"))
        ],
    )
    family(
        "check_violations",
        "Violations of a check that is not PASS.",
        [
            ({"site": one["site"], "code": one["code"], "verdict": one["verdict"]}, one["numerator"])
            for one in data["results"]
            if one["verdict"] != "PASS"
        ],
    )
    family(
        "completeness_ratio",
        "Share of patients of whom a variable is known.",
        [({"site": one["site"], "variable": one["variable"]}, one["share"]) for one in data["completeness"]],
    )
    family(
        "late_contact_ratio",
        "Share of living patients who were not seen for longer than the protocol bears.",
        [({"site": one["site"]}, one["late_share"]) for one in data["recency"]],
    )
    family(
        "event_rate",
        "Events per 100 person-years.",
        [
            ({"site": point["site"], "event": funnel["measure"]}, point["rate"])
            for funnel in data["funnels"]
            for point in funnel["points"]
        ],
    )
    family(
        "queries",
        "Queries to the site by state.",
        [
            ({"site": one["site"], "state": state}, one[state])
            for one in data["queries"]
            for state in ("open", "answered", "resolved", "reappeared")
        ],
    )
    family("lock_ready", "Whether data can be locked.", [({}, int(data["readiness"]["ready"]))])
    family(
        "lock_condition_met",
        "Whether a condition of the lock holds.",
        [({"code": one["code"]}, int(one["met"])) for one in data["readiness"]["conditions"]],
    )
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    said = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return "{" + said + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
