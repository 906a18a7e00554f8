"""The pictures of the quality pages as SVG: recency of follow-up, funnel of event rates. What they show stands beside them as a table."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from omop_etl.reports.quality.shape import Funnel, Recency

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 16, 46


def _ticks(top: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to at least `top`."""
    if top <= 0:
        return [0.0, 1.0]
    size = 10.0 ** math.floor(math.log10(top / wanted))
    step = next(size * times for times in (1, 2, 5, 10) if size * times * wanted >= top)
    return [step * number for number in range(math.ceil(top / step) + 1)]


def _frame(title: str, text: str, x: Sequence[float], y: Sequence[float], x_name: str, y_name: str, inner: str) -> str:
    across, down = _scales(x[-1], y[-1])
    lines = "".join(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in y
    )
    # the last tick is the frame's end: no number where it would stand on the one before
    apart = [
        tick
        for tick, next_ in zip(x, [*x[1:], x[-1] * 2 or 1.0], strict=True)
        if next_ - tick > x[-1] / 30 or tick == x[0]
    ]
    marks = "".join(
        f'<text x="{across(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
        for tick in apart
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(title)}. {escape(text)}">'
        f"{lines}{marks}"
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text transform="translate(14 {(_HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
        f"{inner}</svg>"
    )


def _scales(right: float, top: float):  # type: ignore[no-untyped-def]
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return (lambda x: _LEFT + wide * x / right), (lambda y: _HEIGHT - _BOTTOM - high * min(y, top) / top)


def recency(rows: Sequence[Recency], late_months: int, words: Mapping[str, str]) -> str:
    """Living patients of all sites shown, by months since they were seen; nothing where there are none."""
    bins = max((len(one["histogram"]) for one in rows), default=0)
    counts = [sum(one["histogram"][place] for one in rows if place < len(one["histogram"])) for place in range(bins)]
    if not sum(counts):
        return ""
    y = _ticks(max(counts))
    across, down = _scales(bins, y[-1])
    width = across(1) - across(0) - 2
    bars = "".join(
        f'<rect class="{"late" if month >= late_months else "bar"}" x="{across(month) + 1:.1f}" y="{down(count):.1f}" width="{width:.1f}" '
        f'height="{_HEIGHT - _BOTTOM - down(count):.1f}"><title>{month}{"+" if month == bins - 1 else ""}: {count}</title></rect>'
        for month, count in enumerate(counts)
    )
    late = sum(counts[late_months:])
    text = f"{words['alive']} {sum(counts)}, {words['late']} {late}"
    x = [float(month) for month in range(0, bins + 1, max(1, bins // 12))]
    if x[-1] != bins:
        x.append(float(bins))
    return _frame(words["recency"], text, x, y, words["median"].split()[-1].strip("()"), words["alive"], bars)


def funnel(one: Funnel, words: Mapping[str, str]) -> str:
    """Each site's rate over its person-years, with the limits of chance; sites outside are named."""
    points = [point for point in one["points"] if point["rate"] is not None]
    x = _ticks(max([point["person_years"] for point in points] + [1.0]) * 1.05)
    highest = max([point["rate"] or 0 for point in points] + [one["rate"] or 0]) * 1.25
    y = _ticks(max(highest, 1.0))
    across, down = _scales(x[-1], y[-1])
    inner = ""
    limits = [limit for limit in one["limits"] if limit["person_years"] <= x[-1]]
    for name, kind in (("low_95", "l95"), ("high_95", "l95"), ("low_998", "l998"), ("high_998", "l998")):
        way = " ".join(
            f"{across(limit['person_years']):.1f},{down(limit[name]):.1f}"  # type: ignore[literal-required]
            for limit in limits
        )
        inner += f'<polyline class="{kind}" points="{way}"/>' if way else ""
    if one["rate"] is not None:
        inner += f'<line class="mean" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down(one["rate"]):.1f}" y2="{down(one["rate"]):.1f}"/>'
    for point in points:
        place = f'cx="{across(point["person_years"]):.1f}" cy="{down(point["rate"] or 0):.1f}"'
        inner += (
            f'<circle class="{"out" if point["outside"] else "in"}" r="5" {place}>'
            f"<title>{escape(point['site'])}: {point['rate']:.1f} ({point['events']} / {point['person_years']:.1f})</title></circle>"
        )
        if point["outside"]:
            inner += f'<text x="{across(point["person_years"]) + 8:.1f}" y="{down(point["rate"] or 0) + 4:.1f}">{escape(point["site"])}</text>'
    out = [point["site"] for point in points if point["outside"]]
    return _frame(one["title"], ", ".join(out), x, y, words["person_years"], words["rate"], inner)
