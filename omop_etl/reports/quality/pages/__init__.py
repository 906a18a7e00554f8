"""The quality data as pages that open from disk: one of all sites, one per site, each in English and in Italian.

    index.html, index.it.html          all sites (of a hospital's own report: the hospital)
    site-<id>.html, site-<id>.it.html  one site, from the same data

A page is one file: style, script and pictures stand in it, and its policy lets no request leave. Everything is in the HTML; the
script sorts, filters and changes the colours. Each picture has its table.
"""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from omop_etl.config import LANGUAGES
from omop_etl.reports.quality.pages import pictures
from omop_etl.reports.quality.pages.translated import reasons, translated
from omop_etl.reports.quality.shape import QualityData

_HERE = Path(__file__).parent
_MARK = {"PASS": "✓", "WARN": "!", "BLOCK": "✕"}
_ORDER: dict[str | None, int] = {"BLOCK": 0, "WARN": 1, "PASS": 2, None: 3}
# the parts of a document that are lists of what belongs to one site
_BY_SITE = (
    "sites", "matrix", "results", "overrides", "trend", "recency", "completeness", "unmapped_sites", "balance", "losses", "drift", "duplicates",
    "queries", "mend", "changes", "comparison",
)  # fmt: skip
_CENTRE = (
    "overview", "readiness", "matrix", "findings", "trend", "recency", "completeness", "funnel", "unmapped", "balance", "drift", "queries",
)  # fmt: skip
_SITE = (
    "overview", "mend", "changes", "findings", "comparison", "trend", "recency", "completeness", "unmapped", "balance", "drift", "queries",
)  # fmt: skip


def write(data: QualityData, folder: Path) -> list[str]:
    """Write the pages of a quality document into `folder`; their names. `safe` in the template stands at what is made here alone:
    the style, the script and the pictures, whose words are escaped."""
    pages = {"index": (data, data["scope"] == "centre")}
    if data["scope"] == "centre":
        for one in data["sites"]:
            pages[f"site-{one['site']}"] = (of_site(data, one["site"]), False)
    written = []
    template = _environment().get_template("page.html")
    for name, (document, centre) in pages.items():
        for language in LANGUAGES:
            context = _context(document, language, centre=centre, has_centre=data["scope"] == "centre", name=name)
            (folder / _file(name, language)).write_text(template.render(context), encoding="utf-8")
            written.append(_file(name, language))
    return written


def of_site(data: QualityData, site: str) -> QualityData:
    """What a document of all sites says of one of them."""
    document = {**data}
    for part in _BY_SITE:
        document[part] = [one for one in cast(list[dict[str, Any]], data[part]) if one["site"] == site]  # type: ignore[literal-required]
    # of a code that others have too, only the sum is known
    document["unmapped_codes"] = [
        {**one, "sites": [site], "records": one["records"] if one["sites"] == [site] else None}
        for one in data["unmapped_codes"]
        if site in one["sites"]
    ]
    document["verdicts"] = {
        verdict: sum(one["verdict"] == verdict for one in data["sites"] if one["site"] == site) for verdict in _MARK
    }
    return cast(QualityData, document)


def words(language: str) -> dict[str, str]:
    """The words of the pages in a language."""
    with (_HERE / "words.csv").open(encoding="utf-8", newline="") as lines:
        return {row["key"]: row[language] for row in csv.DictReader(lines)}


def _file(name: str, language: str) -> str:
    return f"{name}.html" if language == LANGUAGES[0] else f"{name}.{language}.html"


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _context(data: QualityData, language: str, *, centre: bool, has_centre: bool, name: str) -> dict[str, Any]:
    said = words(language)
    data = translated(data, language, said)
    other = next(one for one in LANGUAGES if one != language)
    families = {one["code"]: one for one in data["families"]}
    findings = sorted(
        (one for one in data["results"] if one["verdict"] != "PASS"),
        key=lambda one: (_ORDER[one["verdict"]], one["site"], one["code"]),
    )
    site = "" if centre else f" {data['sites'][0]['site']}" if data["sites"] else ""
    return {
        "d": data,
        "w": said,
        "lang": language,
        "other_lang": other,
        "other_page": _file(name, other),
        "centre_page": _file("index", language),
        "page_of": lambda one: _file(f"site-{one}", language),
        "title": (said["title_centre"] if centre else said["title_site"]) + site,
        "centre": centre,
        "has_centre": has_centre,
        "without": [one["site"] for one in data["sites"] if one["persons"] is None],
        "sums": {key: sum(one[key] or 0 for one in data["sites"]) for key in ("persons", "analysable")},
        "has_documents": any(one["data_docs"] or one["dqd_results"] for one in data["sites"]),
        "contents": [
            (part, said[part if has_centre else f"{part}_run"] if part in ("changes", "trend") else said[part])
            for part in (_CENTRE if centre else _SITE)
        ],
        "mark": _MARK,
        "number": partial(_number, language),
        "order": _ORDER,
        "rows": _matrix(data) if centre else [],
        "findings": findings,
        "categories": {code: one["category"] for code, one in families.items()},
        "titles": {one["code"]: one["title"] for one in data["results"]}
        | {code: one["title"] for code, one in families.items()},
        "reasons": reasons(language),
        "comparison": sorted(
            (one for one in data["comparison"] if one["share"] is not None and one["sites"] > 1),
            key=lambda one: (
                (one["median"] or 0.0) - (one["share"] or 0.0),
                one["code"],
            ),  # the furthest behind the others first
        ),
        "trend": _trend(data),
        "heat": _heat(data),
        "recency_svg": pictures.recency(data["recency"], data["late_months"], said),
        "funnels": [{**one, "svg": pictures.funnel(one, said)} for one in data["funnels"] if one["points"]],
        "style": (_HERE / "style.css").read_text(encoding="utf-8"),
        "script": (_HERE / "page.js").read_text(encoding="utf-8"),
    }


def _number(language: str, value: float | None, form: str = ",") -> str:
    """A number as the language writes it: 1,234.5 or 1.234,5."""
    if value is None:
        return "–"
    said = format(value, form)
    return said if language == LANGUAGES[0] else said.translate(str.maketrans(",.", ".,"))


def _matrix(data: QualityData) -> list[dict[str, Any]]:
    """The families that some site does not pass, the worst first, with a cell per site."""
    sites = [one["site"] for one in data["sites"]]
    titles = {one["code"]: one["title"] for one in data["families"]}
    cells: dict[str, dict[str, Any]] = {}
    for cell in data["matrix"]:
        cells.setdefault(cell["family"], {})[cell["site"]] = cell
    rows = []
    for code, by_site in cells.items():
        verdicts = {cell["verdict"] for cell in by_site.values()}
        blocks, warns = (sum(cell["verdict"] == one for cell in by_site.values()) for one in ("BLOCK", "WARN"))
        if verdicts - {"PASS"}:
            rows.append(
                {
                    "code": code,
                    "title": titles.get(code, code),
                    "cells": [by_site.get(site) for site in sites],
                    "verdicts": " ".join(sorted(verdicts)),
                    "blocks": blocks,
                    "warns": warns,
                    "touched": 1000 * blocks + warns,
                    "rank": (-blocks, -warns, code),
                }
            )
    return sorted(rows, key=lambda row: row["rank"])


def _trend(data: QualityData) -> list[dict[str, Any]]:
    """The last submission of each site, with a bar per submission: what did not pass of it."""
    by_site: dict[str, list[Any]] = {}
    for one in data["trend"]:
        by_site.setdefault(one["site"], []).append(one)
    top = max((one["warned"] + one["blocked"] for one in data["trend"]), default=0) or 1
    rows = []
    for points in by_site.values():
        bars = [
            {"verdict": one["verdict"], "height": round(100 * (one["warned"] + one["blocked"]) / top)} for one in points
        ]
        text = ", ".join(f"{one['received_at'][:10]}: {one['warned']} + {one['blocked']}" for one in points)
        rows.append({**points[-1], "bars": bars[-24:], "bars_text": text})
    return rows


def _heat(data: QualityData) -> list[dict[str, Any]]:
    cells = {(one["site"], one["variable"]): one for one in data["completeness"]}
    # a site without a slice has its row too: nothing is known of it, which is not 0 %
    sites: Sequence[str] = sorted(
        {one["site"] for one in data["completeness"]} | {one["site"] for one in data["sites"] if one["persons"] is None}
    )
    return [{"site": site, "cells": [cells.get((site, one["code"])) for one in data["variables"]]} for site in sites]
