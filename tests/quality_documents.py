"""A quality document of three sites with something in every part, for tests of what is drawn from it."""

from typing import Any, cast

from omop_etl.reports.quality.shape import FORMAT, QualityData

SITES = ("alba", "brera", "cervo")
_VERDICT = {"alba": "PASS", "brera": "WARN", "cervo": "BLOCK"}
_ER = "G-RECEPTOR-01"


def _result(site: str, code: str, verdict: str, numerator: int) -> dict[str, Any]:
    return {
        "site": site, "code": code, "family": code, "title": "ER is a share <between> 0 and 100", "table": "measurement",
        "column": "value_as_number", "unit": "records", "numerator": numerator, "denominator": 200, "share": numerator / 200, "warn": 0.0,
        "block": 5.0, "severity": "BLOCK", "verdict": verdict, "message": f"{code} {site}: {numerator} records", "override": None,
    }  # fmt: skip


_NOTICE = {
    "since": "2025-01-16T02:00:00Z", "said_at": "2025-01-18T02:00:00Z", "number": "c0ffee0123456789", "extracted_to": "2025-01-15",
    "persons": 81, "rows": 12100, "stands": True,
}  # fmt: skip


def document_with_one_more() -> QualityData:
    """The same, and Duomo, which was blocked before its first submission: what it told, and no data."""
    data = cast(dict[str, Any], document())
    data["sites"].append(
        {
            **data["sites"][2], "site": "duomo", "name": "Hospital of duomo", "number": None, "received_at": None, "extracted_to": None,
            "centre_verdict": None, "notice": _NOTICE | {"stands": False},
            **dict.fromkeys(("persons", "analysable", "rows", "unmapped_records", "quarantined")),
        }
    )  # fmt: skip
    for part in ("matrix", "results", "mend"):
        data[part] += [one | {"site": "duomo"} for one in data[part] if one["site"] == "cervo"]
    data["trend"] += [one | {"site": "duomo"} for one in data["trend"] if one["site"] == "cervo"][-1:]
    data["verdicts"]["BLOCK"] += 1
    for names in (data["readiness"]["sites_not_ready"], data["readiness"]["conditions"][0]["sites"]):
        names.append("duomo")
    return cast(QualityData, data)


def document() -> QualityData:
    """Alba passes, Brera is warned, Cervo is blocked."""
    family = {
        "code": _ER, "title": "ER is a share <between> 0 and 100", "category": "Plausibility", "subcategory": "Atemporal", "level": "STUDY",
        "dqd": None, "place": "site", "explanation": "What it means.", "remedy": "Look at the report of pathology.",
    }  # fmt: skip
    sites, matrix, results, trend, recency, known, balance, losses = ([] for _ in range(8))
    for number, site in enumerate(SITES):
        verdict = _VERDICT[site]
        broken = {"PASS": 0, "WARN": 3, "BLOCK": 30}[verdict]
        sites.append(
            {
                "site": site, "name": f"Hospital of {site}", "number": f"{number}a1b2c3d4e5f60718", "received_at": "2025-01-15T10:00:00Z",
                "extracted_to": "2024-12-31", "verdict": verdict, "centre_verdict": "PASS", "persons": 200 - 60 * number,
                "analysable": 150 - 50 * number, "rows": 12000 + number, "checks": 300, "passed": 300 - number, "warned": number % 2,
                "blocked": number // 2, "unmapped_records": 9 * number, "quarantined": number, "data_docs": None, "dqd_results": None,
                "notice": _NOTICE if site == "cervo" else None,
            }
        )  # fmt: skip
        matrix.append(
            {"site": site, "family": _ER, "verdict": verdict, "checks": 1, "broken": int(broken > 0), "worst": _ER if broken else None,
                "share": broken / 200}
        )  # fmt: skip
        results.append(_result(site, _ER, verdict, broken))
        for at in range(3):
            trend.append(
                {
                    "site": site, "number": f"{number}{at}", "received_at": f"2024-1{at}-15T10:00:00Z", "extracted_to": f"2024-0{at + 7}-30",
                    "verdict": verdict, "persons": 100 + at, "analysable": 80, "rows": 9000, "unmapped_records": 4, "quarantined": 1, "checks": 300,
                    "passed": 298, "warned": 3 - at, "blocked": number, "completeness": {"G-COMPLETE-02": 0.9},
                }
            )  # fmt: skip
        recency.append(
            {
                "site": site, "patients": 150, "dead": 30, "alive": 120, "late": 20 * number, "late_share": number / 6, "verdict": verdict,
                "median_months": 2.0, "quartiles_months": (1.0, 5.0), "histogram": [40, 30, 20, 10, 5, 5, 4, 3, 2, 1],
            }
        )  # fmt: skip
        for variable, share in (("G-COMPLETE-02", 0.97 - 0.3 * number), ("G-COMPLETE-03", 0.5)):
            known.append(
                {
                    "site": site,
                    "variable": variable,
                    "known": round(150 * share),
                    "of": 150,
                    "share": share,
                    "verdict": verdict,
                }
            )
        balance.append(
            {
                "site": site, "resource_type": "Observation", "read": 900, "written": 880, "merged": 0, "excluded": 15, "quarantined": 5, "rows": 880,
            }
        )  # fmt: skip
        losses.append(
            {"site": site, "resource_type": "Observation", "outcome": "quarantined", "reason": "Q-JSON", "resources": 5}
        )
    points = [
        {
            "site": site, "events": 30 + 40 * number, "person_years": 100.0 + 40 * number, "rate": (30.0 + 40 * number) / (1 + 0.4 * number),
            "low": 20.0, "high": 55.0, "outside": int(number == 2), "verdict": "WARN" if number == 2 else "PASS",
        }
        for number, site in enumerate(SITES)
    ]  # fmt: skip
    limits = [
        {"person_years": years, "low_95": 30 - 200 / years, "high_95": 40 + 200 / years, "low_998": 30 - 400 / years, "high_998": 40 + 400 / years}
        for years in (20.0, 60.0, 100.0, 140.0, 180.0)
    ]  # fmt: skip
    made = {
        "format": FORMAT, "scope": "centre", "made_at": "2025-01-20T09:30:00Z", "study": "palmares2", "cut_off": "2025-01-01",
        "reference": "2024-12-31", "late_months": 6, "verdicts": {"PASS": 1, "WARN": 1, "BLOCK": 1}, "families": [family], "sites": sites,
        "matrix": matrix, "results": results,
        "overrides": [{"site": "brera", "check": _ER, "by": "Data manager", "reason": "Assay of 2009", "until": "2025-06-30",
            "state": "applied", "note": ""}],
        "trend": trend, "recency": recency,
        "variables": [{"code": "G-COMPLETE-02", "name": "ER", "goal": 95}, {"code": "G-COMPLETE-03", "name": "grade", "goal": None}],
        "completeness": known,
        "funnels": [{"code": "C-FUNNEL-01", "measure": "progression", "title": "Rate of progressions", "rate": 38.0, "points": points,
            "limits": limits}],
        "unmapped_sites": [{"site": site, "codes": 2, "records": 9, "share": 0.01} for site in SITES],
        "unmapped_codes": [
            {"vocabulary_id": "", "source_system": "urn:local", "source_code": f"L-{n}", "source_name": "",
                "cdm_field": "measurement.measurement_concept_id",
             "reason": "unknown-code", "sites": list(SITES[: n + 1]), "records": 30 - n} for n in range(3)
        ],
        "balance": balance, "losses": losses,
        "drift": [
            {"site": "cervo", "code": "C-DRIFT-01", "variable": "menopause", "against": "others", "index": 0.31, "p_value": 0.0004, "verdict": "WARN",
             "here": {"pre": 0.6, "post": 0.4}, "there": {"pre": 0.2, "post": 0.8}, "n_here": 80, "n_there": 300}
        ],
        "duplicates": [{"site": "alba", "other": "brera", "persons": 2}],
        "queries": [{"site": site, "open": 4, "answered": 1, "resolved": 7, "reappeared": 0} for site in SITES],
        "readiness": {
            "ready": False, "sites_ready": ["alba"], "sites_not_ready": ["brera", "cervo"],
            "conditions": [{"code": "R-BLOCK", "title": "no site is blocked", "met": False, "text": "A blocked site is not in the data.",
                "sites": ["cervo"]}],
        },
        "mend": [
            {"site": "cervo", "rank": 1, "code": _ER, "title": family["title"], "verdict": "BLOCK", "records": 30, "unit": "records",
             "more": ["G-RECEPTOR-01-b"], "remedy": "Look at the report of pathology.", "why": "blocks: 30 records"}
        ],
        "changes": [{"site": "cervo", "kind": "worse", "code": _ER, "title": family["title"], "before": 0.01, "now": 0.15,
            "text": "3 records, now 30"}],
        "comparison": [
            {"site": site, "code": _ER, "share": 0.01 * number, "median": 0.01, "best": 0.0, "worst": 0.15, "rank": number + 1, "sites": 3}
            for number, site in enumerate(SITES)
        ],
        "dqd_results": None,
    }  # fmt: skip
    return cast(QualityData, made)
