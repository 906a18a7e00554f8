"""The quality data, put together: what each site sent, the rules of the centre, the submissions before, in the shape of shape.py."""

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from fhir_adapters.errors import PalmaresError
from fhir_adapters.knowledge import mappings_folder
from omop_etl.gates import VERDICTS, read_verdict
from omop_etl.gates.definitions import Check, Definitions, covers, definitions
from omop_etl.gates.profile import cut_off as cut_off_of
from omop_etl.gates.profile import profile_of, reference
from omop_etl.gates.slices import LEDGER, MANIFEST, PERSON_LINK, UNMAPPED, quoted_path, read_json
from omop_etl.reports.quality import central as rules
from omop_etl.reports.quality import shape
from omop_etl.submission.contents import SLICE, SUBMISSION
from omop_etl.submission.history import history
from omop_etl.submission.notice import is_older, notices

_COMPLETE = "G-COMPLETE"
_UNMAPPED_TYPES = (
    "{'site': 'VARCHAR', 'vocabulary_id': 'VARCHAR', 'source_system': 'VARCHAR', 'source_code': 'VARCHAR', "
    "'source_name': 'VARCHAR', 'cdm_field': 'VARCHAR', 'records': 'BIGINT', 'reason': 'VARCHAR'}"
)
_MOST_CODES = 500
_UNSETTLED = ("open", "reappeared")
_FIGURES = {
    "persons": "patients",
    "analysable": "patients on a CDK4/6 inhibitor",
    "rows": "rows",
    "unmapped_records": "records with an unmapped code",
    "quarantined": "resources in quarantine",
}


@dataclass
class SiteInput:
    """What is at hand of one site: its verdict, manifest, profile, slice folder, and what is remembered of it."""

    site: str
    name: str
    slice: Path
    verdict: dict[str, Any]
    manifest: dict[str, Any]
    profile: dict[str, Any] | None
    number: str | None = None
    received_at: str | None = None
    past: list[dict[str, Any]] = field(default_factory=list)  # oldest first, the one that counts now among them
    data_docs: str | None = None
    dqd_results: str | None = None
    notice: dict[str, Any] | None = (
        None  # what it told when it was blocked, after the submission that stands, if one does
    )
    stands: bool = True  # whether there is a slice: False for a site that was blocked before its first submission
    runs: bool = False  # whether `past` holds the hospital's own runs, sent or not

    @property
    def said(self) -> Mapping[str, Any]:
        """Verdict, counts and checks as the site said them last: those of its notice, else of the slice at hand."""
        return self.verdict if self.notice is None else self.notice

    @property
    def counts(self) -> dict[str, int]:
        """Checks by verdict. A notice names only those that are not PASS, and counts all."""
        if self.notice is not None:
            return {name: self.notice["counts"].get(name, 0) for name in VERDICTS}
        return {name: sum(check["verdict"] == name for check in self.verdict["checks"]) for name in VERDICTS}

    @property
    def blocked_since(self) -> str | None:
        """When the site told for the first time what it has told ever since: that it is blocked."""
        if self.notice is None:
            return None
        since = str(self.notice["received_at"])
        for one in reversed(self.past):
            if one["verdict"] != "BLOCK":
                break
            since = min(since, str(one.get("said_at") or one["received_at"]))
        return since

    @property
    def extracted_to(self) -> str | None:
        return str(self.manifest.get("extracted_to") or "")[:10] or None

    @property
    def before(self) -> dict[str, Any] | None:
        """What is remembered of the submission before this one; of a hospital's own runs, of the run before."""
        older = [one for one in self.past if one["number"] != self.number and (self.runs or one["verdict"] != "BLOCK")]
        return older[-1] if older else None

    @property
    def compared(self) -> dict[str, Any] | None:
        """What the site's last word is held against: of a notice, the submission that stands."""
        if self.notice is None:
            return self.before
        own = [one for one in self.past if one["number"] == self.number] if self.stands else []
        return own[-1] if own else None

    @property
    def outcomes(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for counts in self.manifest.get("resources", {}).values():
            for outcome, count in counts.items():
                totals[outcome] = totals.get(outcome, 0) + count
        return totals

    @property
    def told(self) -> dict[str, int]:
        """The figures of what the site said last."""
        if self.notice is None:
            return self.figures
        return {name: self.notice[name] for name in _FIGURES if name != "analysable"} | {
            "analysable": (self.notice["profile"] or {}).get("analysable", 0)
        }

    @property
    def figures(self) -> dict[str, int]:
        tables = self.manifest.get("tables", {})
        return {
            "persons": tables.get("person", 0),
            "analysable": (self.profile or {}).get("analysable", 0),
            "rows": sum(tables.values()),
            "unmapped_records": sum(self.manifest.get("unmapped", {}).values()),
            "quarantined": self.outcomes.get("quarantined", 0),
        }


def received(intake: Path) -> list[SiteInput]:
    """The sites of an intake and those that told that they are blocked, in the order of their ids. Raises E-QUALITY-01 when there is
    none, E-GATE-02 and E-SLICE-01 for a submission that does not read, E-RECEIVE-06 for a notice."""
    past, blocked = history(intake), notices(intake)
    found = []
    for folder in sorted(Path(intake).glob("[!.]*")):
        if not (folder / SUBMISSION).is_file():
            continue
        document = read_json(folder / SUBMISSION, "E-RECEIVE-01")
        remembered = past.get(folder.name, [])
        own = [one for one in remembered if one["number"] == document.get("number")]
        verdict, told = read_verdict(folder), blocked.pop(folder.name, None)
        found.append(
            SiteInput(
                site=folder.name,
                name=_name(folder.name),
                slice=folder / SLICE,
                verdict=verdict,
                manifest=read_json(folder / SLICE / MANIFEST, "E-SLICE-01"),
                profile=profile_of(verdict),
                number=document.get("number"),
                received_at=own[-1]["received_at"] if own else None,
                past=remembered,
                notice=None if told is None or is_older(told, document.get("made_at")) else told,
            )
        )
    found += [_without_slice(site, told, intake, past.get(site, [])) for site, told in blocked.items()]
    if not found:
        raise PalmaresError("E-QUALITY-01", str(intake))
    return sorted(found, key=lambda one: one.site)


def _without_slice(site: str, told: dict[str, Any], intake: Path, past: list[dict[str, Any]]) -> SiteInput:
    """A site that was blocked before its first submission: there is what it told, and nothing to look into."""
    return SiteInput(
        site=site,
        name=_name(site),
        slice=Path(intake) / site / SLICE,
        verdict={"verdict": "BLOCK", "checks": []},
        manifest={},
        profile=None,
        past=past,
        notice=told,
        stands=False,
    )


def of_gate(site: str, slice_: Path, gate: Path, past: Sequence[dict[str, Any]] = ()) -> SiteInput:
    """One hospital before it submits: its slice and its gate. Raises E-GATE-02, E-SLICE-01."""
    verdict = read_verdict(gate)
    return SiteInput(
        site=site,
        name=_name(site),
        slice=Path(slice_),
        verdict=verdict,
        manifest=read_json(Path(slice_) / MANIFEST, "E-SLICE-01"),
        profile=profile_of(verdict),
        past=list(past),
        runs=True,
    )


def _name(site: str) -> str:
    from omop_etl.config import load_site

    try:
        return load_site(site).name
    except PalmaresError:
        return site  # the centre need not have the settings of a hospital


def put_together(
    sites: Sequence[SiteInput], *, scope: str, made_at: datetime | None = None, derived: Path | None = None
) -> shape.QualityData:
    """The whole document. Everything in it but `made_at` follows from the sites, and from the lines in `derived` if that is given."""
    defined = definitions()
    day = cut_off_of(defined.study)
    standing = [one for one in sites if one.stands]
    states = [
        rules.SiteState(
            one.site,
            one.extracted_to,
            one.profile,
            (one.before or {}).get("profile"),
            one.figures["persons"],
        )
        for one in standing
    ]
    with duckdb.connect() as connection:
        twins = _twins(connection, standing)
        losses, rows_by_type = _ledger(connection, standing)
        codes, totals = _unmapped(connection, standing)
        lines = _lines(connection, standing, derived) if derived is not None else []
    answers = rules.central(states, defined, cut_off=day, twins=twins, lines=lines)
    if scope == "site":
        answers = rules.Central(recency=answers.recency)
    by_code = {check.code: check for check in defined.checks}
    results = [*_site_results(sites, by_code), *_central_results(answers, defined)]
    latest = max((one.extracted_to for one in sites if one.extracted_to), default=None)
    counted_from = reference(defined.study, latest)
    return {
        "format": shape.FORMAT,
        "scope": scope,  # type: ignore[typeddict-item]
        "made_at": f"{made_at or datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "study": defined.study,
        "cut_off": day.isoformat() if day else None,
        "reference": counted_from.isoformat() if counted_from else None,
        "late_months": int(defined.words["recency_months"]),
        "verdicts": {name: sum(one.said["verdict"] == name for one in sites) for name in VERDICTS},  # type: ignore[misc]
        "families": _families(defined, results, sites),
        "sites": [_site(one, results) for one in sites],
        "matrix": _matrix(sites, results),
        "results": sorted(results, key=lambda one: (one["site"], VERDICTS[::-1].index(one["verdict"]), one["code"])),
        "overrides": _overrides(standing),
        "trend": _trend(sites),
        "recency": answers.recency,
        "variables": _variables(defined),
        "completeness": _completeness(standing),
        "funnels": answers.funnels,
        "unmapped_sites": _unmapped_sites(standing, totals),
        "unmapped_codes": codes,
        "balance": _balance(standing, rows_by_type),
        "losses": losses,
        "drift": sorted(answers.drift, key=lambda one: (-one["index"], one["site"], one["variable"], one["against"])),
        "duplicates": answers.duplicates,
        "queries": _queries(standing),
        "readiness": _readiness(sites, results, day),
        "mend": _mend(sites, results, by_code, defined.said_by),
        "changes": [change for one in sites for change in _changes(one)],
        "comparison": _comparison(sites, results),
        "dqd_results": None,
    }


# ------------------------------------------------------------------ checks


def _share(numerator: int, denominator: int) -> float | None:
    return round(numerator / denominator, 6) if denominator else None


def _override_of(one: SiteInput, code: str | None) -> shape.Override | None:
    found = [entry for entry in one.verdict.get("overrides", []) if entry["check"] == code]
    return _as_override(one.site, found[0]) if found else None


def _as_override(site: str, entry: Mapping[str, Any]) -> shape.Override:
    return {
        "site": site,
        "check": entry["check"],
        "by": entry["by"],
        "reason": entry["reason"],
        "until": entry["until"],
        "state": entry["state"],
        "note": entry["note"],
    }


def _site_results(sites: Iterable[SiteInput], by_code: Mapping[str, Check]) -> list[shape.Result]:
    found: list[shape.Result] = []
    for one in sites:
        for check in one.said["checks"]:
            if one.notice is not None:
                check = _as_told(one.site, check, by_code.get(check["code"]))
            if check["verdict"] == "PASS" and check.get("level") != "STUDY":
                continue
            found.append(
                {
                    "site": one.site,
                    "code": check["code"],
                    "family": check.get("family", check["code"]),
                    "title": check["title"],
                    "table": check["table"],
                    "column": check["column"],
                    "unit": check["unit"],
                    "numerator": check["numerator"],
                    "denominator": check["denominator"],
                    "share": _share(check["numerator"], check["denominator"]),
                    "warn": check["warn"],
                    "block": check["block"],
                    "severity": check["severity"],
                    "verdict": check["verdict"],
                    "message": check["message"],
                    "override": _override_of(one, check.get("override")),
                }
            )
    return found


def _as_told(site: str, check: Mapping[str, Any], known: Check | None) -> dict[str, Any]:
    """A check of a notice with what a notice leaves out; its words are ours where the check is known here."""
    finding = f"{check['numerator']} {check['unit']} {known.finding if known else check['title']}"
    return {
        **check,
        "title": known.title if known else check["title"],
        "table": known.table if known else "",
        "column": known.column if known else "",
        "message": f"{check['code']} {site}: {finding}. Run: palmares explain {check['code']}",
    }


def _central_results(answers: rules.Central, defined: Definitions) -> list[shape.Result]:
    """A line per site and rule; drift, one per variable: those that moved."""
    checks = rules.checks_by_code(defined)
    found: list[shape.Result] = []
    for one in answers.found:
        if one.variable and not one.numerator:
            continue
        check = checks[one.code]
        code = f"{one.code}-{one.variable}" if one.variable else one.code
        title = f"{check.title}: {one.variable}" if one.variable else check.title
        said = f"{code} {one.site}: {check.finding}: {one.words}. Run: palmares explain {one.code}"
        found.append(
            {
                "site": one.site,
                "code": code,
                "family": one.code,
                "title": title,
                "table": check.table,
                "column": "",
                "unit": check.unit,
                "numerator": one.numerator,
                "denominator": one.denominator,
                "share": _share(one.numerator, one.denominator),
                "warn": check.warn,
                "block": check.block,
                "severity": check.severity,  # type: ignore[typeddict-item]
                "verdict": one.verdict,  # type: ignore[typeddict-item]
                "message": said if one.verdict != "PASS" or one.numerator else f"{code} {one.site}: {one.words}.",
                "override": None,
            }
        )
    return found


def _families(defined: Definitions, results: Sequence[shape.Result], sites: Sequence[SiteInput]) -> list[shape.Family]:
    """The families that occur, in the order of the files: the rows of the matrix."""
    here = {one["family"] for one in results}
    here |= {check.get("family", check["code"]) for one in sites for check in one.said["checks"]}
    found: dict[str, shape.Family] = {}
    for check in defined.checks:
        if check.family in here and check.family not in found:
            found[check.family] = {
                "code": check.family,
                "title": _family_title(check),
                "category": check.category,
                "subcategory": check.subcategory,
                "level": check.level,
                "dqd": check.dqd or None,
                "place": check.place,  # type: ignore[typeddict-item]
                "explanation": check.explanation,
                "remedy": check.remedy,
            }
    return list(found.values())


def _family_title(check: Check) -> str:
    """What all checks of a family have in common; the words of one that stands for itself."""
    if check.code == check.family:
        return check.title
    from omop_etl.gates.definitions import family_title

    return family_title(check.family)


def _matrix(sites: Sequence[SiteInput], results: Sequence[shape.Result]) -> list[shape.Cell]:
    found: list[shape.Cell] = []
    for one in sites:
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for check in one.said["checks"]:
            lines.setdefault(check.get("family", check["code"]), []).append(check)
        for result in results:
            if result["site"] == one.site and result["family"].startswith("C-"):
                lines.setdefault(result["family"], []).append(result)
        for family, own in lines.items():
            broken = [check for check in own if check["verdict"] != "PASS"]
            worst = max(
                broken or own,
                key=lambda check: (
                    VERDICTS.index(check["verdict"]),
                    _share(check["numerator"], check["denominator"]) or 0.0,
                ),
            )
            found.append(
                {
                    "site": one.site,
                    "family": family,
                    "verdict": worst["verdict"],
                    "checks": len(own),
                    "broken": len(broken),
                    "worst": worst["code"] if broken else None,
                    "share": _share(worst["numerator"], worst["denominator"]) if broken or len(own) == 1 else None,
                }
            )
    return found


def _overrides(sites: Iterable[SiteInput]) -> list[shape.Override]:
    return [_as_override(one.site, entry) for one in sites for entry in one.verdict.get("overrides", [])]


# ------------------------------------------------------------------ sites and their history


def _site(one: SiteInput, results: Sequence[shape.Result]) -> shape.SiteFact:
    counts = one.counts
    at_centre = [
        result["verdict"] for result in results if result["site"] == one.site and result["family"].startswith("C-")
    ]
    figures: Mapping[str, int | None] = one.figures if one.stands else dict.fromkeys(_FIGURES)
    return {
        "site": one.site,
        "name": one.name,
        "number": one.number,
        "received_at": one.received_at,
        "extracted_to": one.extracted_to,
        "verdict": one.said["verdict"],
        "centre_verdict": max(at_centre, key=VERDICTS.index, default="PASS") if one.stands else None,
        "persons": figures["persons"],
        "analysable": figures["analysable"],
        "rows": figures["rows"],
        "checks": sum(counts.values()),
        "passed": counts["PASS"],
        "warned": counts["WARN"],
        "blocked": counts["BLOCK"],
        "unmapped_records": figures["unmapped_records"],
        "quarantined": figures["quarantined"],
        "data_docs": one.data_docs,
        "dqd_results": one.dqd_results,
        "notice": _notice(one),
    }


def _notice(one: SiteInput) -> shape.Notice | None:
    if one.notice is None:
        return None
    return {
        "since": str(one.blocked_since),
        "said_at": one.notice["received_at"],
        "number": one.notice["number"],
        "extracted_to": one.notice["extracted_to"],
        "persons": one.notice["persons"],
        "rows": one.notice["rows"],
        "stands": one.stands,
    }


def _trend(sites: Iterable[SiteInput]) -> list[shape.TrendPoint]:
    found: list[shape.TrendPoint] = []
    for one in sites:
        for past in one.past:
            counts = past.get("counts", {})
            found.append(
                {
                    "site": one.site,
                    "number": past["number"],
                    "received_at": past["received_at"],
                    "extracted_to": past.get("extracted_to"),
                    "verdict": past["verdict"],
                    "persons": past.get("persons", 0),
                    "analysable": (past.get("profile") or {}).get("analysable", 0),
                    "rows": past.get("rows", 0),
                    "unmapped_records": past.get("unmapped_records", 0),
                    "quarantined": past.get("quarantined", 0),
                    "checks": sum(counts.values()),
                    "passed": counts.get("PASS", 0),
                    "warned": counts.get("WARN", 0),
                    "blocked": counts.get("BLOCK", 0),
                    "completeness": {
                        check["code"]: _share(check["denominator"] - check["numerator"], check["denominator"])
                        for check in past.get("checks", [])
                        if covers(_COMPLETE, check["code"])
                    },
                }
            )
    return found


def _changes(one: SiteInput) -> list[shape.Change]:
    """What is different from the submission before: the worst first."""
    before = one.compared
    if before is None:
        return []
    found: list[shape.Change] = []

    def add(kind: str, code: str, title: str, was: float | None, now: float | None, text: str) -> None:
        found.append(
            {
                "site": one.site,
                "kind": kind,  # type: ignore[typeddict-item]
                "code": code,
                "title": title,
                "before": was,
                "now": now,
                "text": text,
            }
        )

    old = {check["code"]: check for check in before["checks"]}
    new = {check["code"]: check for check in one.said["checks"]}
    for code, check in new.items():
        was = old.get(code)
        old_verdict = was["verdict"] if was else "PASS"
        shares = (
            _share(was["numerator"], was["denominator"]) if was else None,
            _share(check["numerator"], check["denominator"]),
        )
        order = VERDICTS.index(check["verdict"]) - VERDICTS.index(old_verdict)
        if order > 0:
            kind = "new" if old_verdict == "PASS" else "worse"
            add(kind, code, check["title"], *shares, f"{old_verdict} before, {check['verdict']} now")
        elif order < 0:
            kind = "gone" if check["verdict"] == "PASS" else "better"
            add(kind, code, check["title"], *shares, f"{old_verdict} before, {check['verdict']} now")
        elif check["verdict"] != "PASS" and was and was["numerator"] != check["numerator"]:
            kind = "worse" if check["numerator"] > was["numerator"] else "better"
            add(
                kind,
                code,
                check["title"],
                *shares,
                f"{was['numerator']} {check['unit']} before, {check['numerator']} now",
            )
    for code, check in old.items():
        if code not in new and check["verdict"] != "PASS":
            share = _share(check["numerator"], check["denominator"])
            add("gone", code, check["title"], share, None, f"{check['verdict']} before; nothing to look at now")
    figures = one.told
    for name, title in _FIGURES.items():
        was_count = before.get(name) if name != "analysable" else (before.get("profile") or {}).get("analysable")
        if was_count is not None and was_count != figures[name]:
            add("count", name, title, was_count, figures[name], f"{was_count} before, {figures[name]} now")
    order_of = ("new", "worse", "better", "gone", "count")
    return sorted(found, key=lambda change: (order_of.index(change["kind"]), change["code"]))


# ------------------------------------------------------------------ completeness, queries, comparison, what to mend


def _variables(defined: Definitions) -> list[shape.Variable]:
    return [
        {
            "code": check.code,
            "name": check.title.removesuffix(" are known").removesuffix(" is known").removesuffix(" are there"),
            "goal": None if check.warn is None else 100 - check.warn,
        }
        for check in defined.checks
        if covers(_COMPLETE, check.code)
    ]


def _completeness(sites: Iterable[SiteInput]) -> list[shape.Known]:
    return [
        {
            "site": one.site,
            "variable": check["code"],
            "known": check["denominator"] - check["numerator"],
            "of": check["denominator"],
            "share": _share(check["denominator"] - check["numerator"], check["denominator"]),
            "verdict": check["verdict"],
        }
        for one in sites
        for check in one.verdict["checks"]
        if covers(_COMPLETE, check["code"])
    ]


def _queries(sites: Iterable[SiteInput]) -> list[shape.QueryCount]:
    found: list[shape.QueryCount] = []
    for one in sites:
        counts = one.verdict.get("queries") or {}
        found.append(
            {
                "site": one.site,
                "open": counts.get("open", 0),
                "answered": counts.get("answered", 0),
                "resolved": counts.get("resolved", 0),
                "reappeared": counts.get("reappeared", 0),
            }
        )
    return found


def _comparison(sites: Sequence[SiteInput], results: Sequence[shape.Result]) -> list[shape.Comparison]:
    by_check: dict[str, dict[str, float | None]] = {}
    for result in results:
        if result["code"].startswith("G-") and result["code"] == result["family"]:
            by_check.setdefault(result["code"], {})[result["site"]] = result["share"]
    found: list[shape.Comparison] = []
    for code, shares in by_check.items():
        known = sorted(share for share in shares.values() if share is not None)
        for one in sites:
            share = shares.get(one.site)
            found.append(
                {
                    "site": one.site,
                    "code": code,
                    "share": share,
                    "median": median(known) if known else None,
                    "best": known[0] if known else None,
                    "worst": known[-1] if known else None,
                    "rank": known.index(share) + 1 if share is not None else None,
                    "sites": len(known),
                }
            )
    return sorted(found, key=lambda entry: (entry["site"], entry["code"]))


def _mend(
    sites: Sequence[SiteInput],
    results: Sequence[shape.Result],
    by_code: Mapping[str, Check],
    said_by: Mapping[str, str],
) -> list[shape.Mend]:
    """First what keeps the site out, then what warns, then what is asked; within each, what touches most. A check that is made for
    many columns stands once, with the column that is worst; what another one says better (thresholds.toml, said_by) is left to it."""
    found: list[shape.Mend] = []
    for one in sites:
        own = [result for result in results if result["site"] == one.site and result["numerator"]]
        own = [result for result in own if result["verdict"] != "PASS" or result["severity"] == "REPORT"]
        speaks = {result["family"]: VERDICTS.index(result["verdict"]) for result in reversed(own)}
        own.sort(
            key=lambda result: (
                -VERDICTS.index(result["verdict"]),
                -(result["unit"] == "persons"),
                -result["numerator"],
                result["code"],
            )
        )
        families: dict[str, list[shape.Result]] = {}
        for result in own:
            other = said_by.get(result["family"])
            if other is None or speaks.get(other, -1) < VERDICTS.index(result["verdict"]):
                families.setdefault(result["family"], []).append(result)
        for rank, same in enumerate(families.values(), 1):
            result = same[0]
            # of another release of the checks, as a site may still have it, only what it said itself is known
            check = by_code.get(result["code"]) or by_code.get(result["family"])
            found.append(
                {
                    "site": one.site,
                    "rank": rank,
                    "code": result["code"],
                    "title": result["title"],
                    "verdict": result["verdict"],
                    "records": result["numerator"],
                    "unit": result["unit"],
                    "more": [entry["code"] for entry in same[1:]],
                    "remedy": check.remedy if check else "",
                    "why": _why(result, check.finding if check else ""),
                }
            )
    return found


def _why(result: shape.Result, finding: str) -> str:
    share = f" ({100 * result['share']:.3g} % of {result['denominator']})" if result["share"] is not None else ""
    unit = result["unit"].removesuffix("s") if result["numerator"] == 1 else result["unit"]
    said = " ".join(filter(None, (str(result["numerator"]), unit, finding))) + share
    if result["verdict"] == "BLOCK":
        return f"keeps the submission back: {said}"
    return f"warns: {said}" if result["verdict"] == "WARN" else f"is asked of the site: {said}"


# ------------------------------------------------------------------ files of the slices


def _here(sites: Iterable[SiteInput], name: str) -> list[tuple[SiteInput, Path]]:
    return [(one, one.slice / name) for one in sites if (one.slice / name).is_file()]


def _read(connection: duckdb.DuckDBPyConnection, path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query on one file. Raises E-SLICE-02 for a file that cannot be read."""
    try:
        return connection.execute(sql).fetchall()
    except duckdb.Error:
        raise PalmaresError("E-SLICE-02", str(path.parent), detail=f"{path.name} does not read") from None


def _twins(connection: duckdb.DuckDBPyConnection, sites: Sequence[SiteInput]) -> list[tuple[str, str, int, int]]:
    """Pairs of sites that have linkage tokens in common: how many persons, and how many of them died on two dates."""
    links = _here(sites, PERSON_LINK)
    if not links:
        return []
    linked = " UNION ALL ".join(
        f"SELECT {_text(one.site)} AS site, person_id, linkage_token AS token FROM read_parquet({quoted_path(path)})"
        for one, path in links
    )
    deaths = " UNION ALL ".join(
        f"SELECT {_text(one.site)} AS site, person_id, death_date FROM read_parquet({quoted_path(path)})"
        for one, path in _here(sites, "death.parquet")
    )
    deaths = deaths or "SELECT '' AS site, 0 AS person_id, NULL::DATE AS death_date WHERE false"
    return [
        (str(a), str(b), int(n), int(two))
        for a, b, n, two in _read(
            connection,
            links[0][1],
            f"""WITH link AS ({linked}), died AS (SELECT site, person_id, min(death_date) AS day FROM ({deaths}) GROUP BY ALL),
                known AS (SELECT l.site, l.token, min(d.day) AS day FROM link l
                          LEFT JOIN died d ON d.site = l.site AND d.person_id = l.person_id
                          WHERE l.token IS NOT NULL GROUP BY l.site, l.token)
                SELECT a.site, b.site, count(*), count(*) FILTER (a.day <> b.day)
                FROM known a JOIN known b ON a.token = b.token AND a.site < b.site GROUP BY ALL ORDER BY ALL""",
        )
    ]


def _lines(
    connection: duckdb.DuckDBPyConnection, sites: Sequence[SiteInput], derived: Path
) -> list[tuple[str, int, int]]:
    """Site → persons of whom a later line begins before an earlier one, by the derived number or the one that the site declared; and
    persons with lines."""
    file, people = Path(derived) / "line.parquet", _here(sites, "person.parquet")
    if not file.is_file() or not people:
        return []
    owner = " UNION ALL ".join(
        f"SELECT {_text(one.site)} AS site, person_id FROM read_parquet({quoted_path(path)})" for one, path in people
    )
    return [
        (str(site), int(n), int(of))
        for site, n, of in _read(
            connection,
            file,
            f"""WITH line AS (SELECT person_id, line_number, declared_line, start_date FROM read_parquet({quoted_path(file)})),
                wrong AS (SELECT DISTINCT a.person_id FROM line a JOIN line b USING (person_id)
                          WHERE a.start_date > b.start_date AND (a.line_number < b.line_number OR a.declared_line < b.declared_line))
                SELECT site, count(DISTINCT person_id) FILTER (person_id IN (SELECT person_id FROM wrong)), count(DISTINCT person_id)
                FROM line JOIN ({owner}) USING (person_id) GROUP BY site ORDER BY site""",
        )
    ]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _ledger(
    connection: duckdb.DuckDBPyConnection, sites: Sequence[SiteInput]
) -> tuple[list[shape.Loss], dict[tuple[str, str], int]]:
    """Why resources are not in the CDM; and (site, resource type) → rows that they filled."""
    losses: list[shape.Loss] = []
    rows: dict[tuple[str, str], int] = {}
    for one, path in _here(sites, LEDGER):
        for type_, outcome, reason, resources, filled in _read(
            connection,
            path,
            "SELECT resource_type, outcome, CASE WHEN outcome IN ('excluded', 'quarantined') THEN coalesce(reason, '') END AS why, "
            f"count(*), coalesce(sum(row_count), 0) FROM read_parquet({quoted_path(path)}) GROUP BY ALL ORDER BY ALL",
        ):
            rows[one.site, type_] = rows.get((one.site, type_), 0) + int(filled)
            if reason is not None:
                losses.append(
                    {
                        "site": one.site,
                        "resource_type": type_,
                        "outcome": outcome,
                        "reason": reason,
                        "resources": int(resources),
                    }
                )
    return sorted(losses, key=lambda loss: (loss["site"], -loss["resources"], loss["reason"])), rows


def _balance(sites: Sequence[SiteInput], rows: Mapping[tuple[str, str], int]) -> list[shape.Balance]:
    return [
        {
            "site": one.site,
            "resource_type": type_,
            "read": sum(counts.values()),
            "written": counts.get("written", 0),
            "merged": counts.get("merged", 0),
            "excluded": counts.get("excluded", 0),
            "quarantined": counts.get("quarantined", 0),
            "rows": rows.get((one.site, type_), 0),
        }
        for one in sites
        for type_, counts in sorted(one.manifest.get("resources", {}).items())
    ]


def _unmapped(
    connection: duckdb.DuckDBPyConnection, sites: Sequence[SiteInput]
) -> tuple[list[shape.UnmappedCode], dict[str, tuple[int, int]]]:
    """The codes without a concept, most records first; and site → codes and records."""
    files = _here(sites, UNMAPPED)
    if not files:
        return [], {}
    read = " UNION ALL ".join(
        f"SELECT {_text(one.site)} AS sent_by, * FROM read_csv({quoted_path(path)}, header = true, auto_detect = false, "
        f"""delim = ',', quote = '"', escape = '"', columns = {_UNMAPPED_TYPES})"""
        for one, path in files
    )
    rows = _read(
        connection,
        files[0][1],
        "SELECT coalesce(vocabulary_id, ''), coalesce(source_system, ''), coalesce(source_code, ''), "
        "coalesce(max(source_name), ''), cdm_field, coalesce(reason, ''), list_sort(list(DISTINCT sent_by)), sum(records) "
        f"FROM ({read}) GROUP BY 1, 2, 3, 5, 6 ORDER BY 8 DESC, 3, 5, 2, 6 LIMIT {_MOST_CODES}",
    )
    totals = _read(
        connection, files[0][1], f"SELECT sent_by, count(*), coalesce(sum(records), 0) FROM ({read}) GROUP BY sent_by"
    )
    codes: list[shape.UnmappedCode] = [
        {
            "vocabulary_id": row[0],
            "source_system": row[1],
            "source_code": row[2],
            "source_name": row[3],
            "cdm_field": row[4],
            "reason": row[5],
            "sites": row[6],
            "records": int(row[7]),
        }
        for row in rows
    ]
    return codes, {site: (int(n), int(records)) for site, n, records in totals}


def _unmapped_sites(sites: Sequence[SiteInput], totals: Mapping[str, tuple[int, int]]) -> list[shape.UnmappedSite]:
    """The share is of the records whose concept decides the table: what OHDSI's completeness of standard concepts looks at and
    we may block on."""
    found: list[shape.UnmappedSite] = []
    for one in sites:
        own = [check for check in one.verdict["checks"] if check.get("family") == "G-UNMAPPED" and check["block"]]
        codes, records = totals.get(one.site, (0, 0))
        share = _share(sum(check["numerator"] for check in own), sum(check["denominator"] for check in own))
        found.append({"site": one.site, "codes": codes, "records": records, "share": share})
    return found


# ------------------------------------------------------------------ lock readiness


@cache
def conditions() -> list[dict[str, Any]]:
    """What must hold before a lock: readiness.toml. Raises E-GATE-03 when it does not read."""
    try:
        text = (mappings_folder() / "quality" / "readiness.toml").read_text(encoding="utf-8")
        return list(tomllib.loads(text)["condition"])
    except (OSError, KeyError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise PalmaresError("E-GATE-03", "readiness.toml", detail="it is missing or does not read") from None


def _readiness(sites: Sequence[SiteInput], results: Sequence[shape.Result], cut_off: date | None) -> shape.Readiness:
    standing = [one for one in sites if one.stands]
    rules_: dict[str, Callable[[SiteInput], bool]] = {
        "no-block": lambda one: one.said["verdict"] != "BLOCK",
        "cut-off": lambda one: cut_off is None or (one.extracted_to or "") >= cut_off.isoformat(),
        "one-version": lambda one: _version(one) == _version(max(standing, key=lambda other: other.received_at or "")),
        "no-override": lambda one: all(entry["state"] != "applied" for entry in one.verdict.get("overrides", [])),
        "no-query": lambda one: not any((one.verdict.get("queries") or {}).get(state) for state in _UNSETTLED),
    }
    broken: dict[str, set[str]] = {}
    for result in results:
        if result["verdict"] != "PASS":
            broken.setdefault(result["site"], set()).add(result["code"])
    held: list[shape.Condition] = []
    for entry in conditions():
        if "rule" in entry:
            # of a site without a submission nothing is known but that it is blocked
            asked = sites if entry["rule"] == "no-block" else standing
            failing = [one.site for one in asked if not rules_[entry["rule"]](one)]
        else:
            failing = [
                one.site
                for one in sites
                if any(covers(prefix, code) for code in broken.get(one.site, ()) for prefix in entry["checks"])
            ]
        held.append(
            {
                "code": entry["code"],
                "title": entry["title"],
                "met": not failing,
                "text": entry["text"],
                "sites": failing,
            }
        )
    not_ready = sorted({site for one in held for site in one["sites"]})
    return {
        "ready": not not_ready,
        "conditions": held,
        "sites_ready": [one.site for one in sites if one.site not in not_ready],
        "sites_not_ready": not_ready,
    }


def _version(one: SiteInput) -> tuple[str, str]:
    return str(one.manifest.get("mappings_sha256")), str(one.manifest.get("code_version"))


def as_json(document: shape.QualityData) -> str:
    """The document as it is written."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
