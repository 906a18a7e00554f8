"""GX Data Docs as pages that open from disk without a network.

GX's own pages fetch their styles, scripts and even the list of results from other hosts. These renderers and this view are
given to GX's site builder instead (`validation.py`): the same site (an index, a page per validated table, a page per suite),
as plain HTML with its style inside.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from omop_etl.gates.expectations import checks_of, details_of

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --pass: #1b7f3b; --warn: #9a6200; --block: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --pass: #6fd08c; --warn: #f0b429; --block: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.PASS { color: var(--pass); } .WARN { color: var(--warn); } .BLOCK { color: var(--block); }
.verdict { font-weight: 600; white-space: nowrap; } .more { opacity: .8; font-size: .9rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } a { color: inherit; } }
"""
_ORDER = ("BLOCK", "WARN", "PASS")


@dataclass(frozen=True)
class Page:
    """A page before it is HTML: a title, a lead, and tables of (heading, column heads, rows); cells are safe HTML."""

    title: str
    lead: str
    home: str
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)


def _share(numerator: int, denominator: int) -> str:
    return f"{100 * numerator / denominator:.2f} %" if denominator else "–"


def _bears(kwargs: dict[str, Any]) -> str:
    said = [
        f"{word} &gt; {kwargs[key]:g} %"
        for key, word in (("warn", "WARN"), ("block", "BLOCK"))
        if kwargs.get(key) is not None
    ]
    return "<br>".join(said) or "reported only"


def _badge(verdict: str) -> str:
    return f'<span class="verdict {verdict}">{verdict}</span>'


class ResultPage:
    """The validation of one table: each check with its counts, the broken ones first."""

    def __init__(self, data_context: Any = None) -> None:
        self._context = data_context

    def render(self, results: Any) -> Page:
        found = sorted((line for result in results.results for line in _lines(result)), key=_rank)
        broken = [_row(line) for line in found if line.verdict != "PASS"]
        kept = [_row(line) for line in found if line.verdict == "PASS"]
        heads = ["verdict", "check", "found", "of", "share", "bears"]
        parts = [("Broken", heads, broken), ("Kept", heads, kept)]
        lead = f"{len(found)} checks, {len(broken)} broken."
        return Page(results.suite_name, lead, "../../../../", [part for part in parts if part[2]])


class SuitePage:
    """A suite: what is expected of one table, and why."""

    def __init__(self, data_context: Any = None) -> None:
        self._context = data_context

    def render(self, suite: Any) -> Page:
        rows = []
        for expectation in suite.expectations:
            config = expectation.configuration
            meta = config.meta or {}
            kind = f"{meta.get('category', '')}{' · OHDSI ' + meta['dqd'] if meta.get('dqd') else ''}"
            rows += [
                [
                    f"<code>{escape(check['code'])}</code>",
                    escape(check["title"]),
                    _bears(check),
                    escape(kind),
                    escape(str(meta.get("explanation", ""))),
                ]
                for check in checks_of(config.kwargs["checks"])
            ]
        heads = ["code", "expected", "bears", "category", "why"]
        lead = f"{len(suite.expectations)} expectations, {len(rows)} checks."
        return Page(suite.name, lead, "../", [("Expectations", heads, rows)])


class IndexPage:
    """The first page: the tables with their verdicts, and every broken check of all tables."""

    def __init__(self, data_context: Any = None) -> None:
        self._context = data_context

    def render(self, links: dict[str, Any]) -> Page:
        tables, broken, worst = [], [], "PASS"
        store = self._context.stores[self._context.validation_results_store_name]
        stored = {key.expectation_suite_identifier.name: store.get(key) for key in store.list_keys()}
        for link in links.get("validations_links", []):
            name = link["expectation_suite_name"]
            lines = sorted((line for result in stored[name].results for line in _lines(result)), key=_rank)
            verdict = lines[0].verdict if lines else "PASS"
            worst = min(worst, verdict, key=_ORDER.index)
            suite = f'<a href="{escape(link["expectation_suite_filepath"])}">expectations</a>'
            page = f'<a href="{escape(link["filepath"])}">{escape(name)}</a>'
            failed = sum(line.verdict != "PASS" for line in lines)
            tables.append([_badge(verdict), page, str(len(lines)), str(failed), suite])
            broken += [[page, *_row(line)] for line in lines if line.verdict != "PASS"]
        tables.sort(key=lambda row: [f">{word}<" in row[0] for word in _ORDER].index(True))
        broken.sort(key=lambda row: ">WARN<" in row[1])
        heads = ["table", "verdict", "check", "found", "of", "share", "bears"]
        parts = [("Broken checks", heads, broken)] if broken else []
        parts.append(("Tables", ["verdict", "table", "checks", "broken", "suite"], tables))
        source = next(iter(self._context.data_sources.all()), "")
        return Page(f"Gate of {source}", f"Verdict: {_badge(worst)}", "", parts)


class OfflineView:
    """A page as HTML that needs no other file."""

    def __init__(self, custom_styles_directory: Any = None, custom_views_directory: Any = None) -> None:
        self._unused = (custom_styles_directory, custom_views_directory)

    def render(self, page: Page, **_: Any) -> str:
        body = "".join(_table(*part) for part in page.tables)
        home = f'<p><a href="{page.home}index.html">All tables</a></p>' if page.home else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head><body>"
            f"<h1>{escape(page.title)}</h1>{home}<p>{page.lead}</p>{body}"
            '<p class="more">Great Expectations Data Docs. Counts only: no value and no id of a record stands here. '
            "What a check means: <code>palmares explain CODE</code>.</p></body></html>\n"
        )


def _table(heading: str, heads: list[str], rows: Iterable[list[str]]) -> str:
    numeric = {"found", "of", "share", "checks", "broken"}
    styles = [' class="number"' if head in numeric else "" for head in heads]
    head = "".join(f'<th scope="col"{style}>{escape(name)}</th>' for name, style in zip(heads, styles, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{style}>{cell}</td>" for cell, style in zip(row, styles, strict=True)) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<h2>{escape(heading)}</h2><div class="wide">{table}</div>'


@dataclass(frozen=True)
class _Line:
    """One check of one result."""

    check: dict[str, Any]
    numerator: int
    denominator: int
    verdict: str
    remedy: str


def _lines(result: Any) -> list[_Line]:
    """The checks of one expectation's result."""
    details = details_of(result)
    remedy = str((result.expectation_config.meta or {}).get("remedy", ""))
    checks = checks_of(result.expectation_config.kwargs["checks"])
    return [_Line(check, remedy=remedy, **details[check["code"]]) for check in checks]


def _rank(line: _Line) -> tuple[int, str]:
    return _ORDER.index(line.verdict), line.check["code"]


def _row(line: _Line) -> list[str]:
    check = line.check
    more = f'<br><span class="more">{escape(line.remedy)}</span>' if line.verdict != "PASS" else ""
    if more and check.get("let_through"):
        more += f'<br><span class="more">Let through by {escape(check["let_through"])}</span>'
    return [
        _badge(line.verdict),
        f"<code>{escape(check['code'])}</code><br>{escape(check['title'])}{more}",
        f"{line.numerator} {escape(check['unit'])}",
        str(line.denominator),
        _share(line.numerator, line.denominator),
        _bears(check),
    ]
