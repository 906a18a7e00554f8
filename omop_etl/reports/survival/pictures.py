"""The pictures of the survival report. Lines differ in dash as well as in colour: not everyone tells colours apart."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omop_etl.reports.survival.design import Design
from omop_etl.reports.survival.estimates import Curve, Ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# colours of equal weight for colour-blind readers (Okabe and Ito), with a dash each
INKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
DASHES = ("solid", "dashed", "dashdot", "dotted", (0, (5, 1, 1, 1)))


def _figure(wide: float, tall: float) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, tall), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def survival(curves: Sequence[Curve], title: str) -> "Figure":
    """Kaplan-Meier curves with their bands."""
    figure, axes = _figure(8, 4.6)
    for one, ink, dash in zip(curves, INKS, DASHES, strict=False):
        months, share, low, high = ([point[i] for point in one.points] for i in range(4))
        axes.step(months, share, where="post", color=ink, linestyle=dash, label=one.arm)
        axes.fill_between(months, low, high, step="post", color=ink, alpha=0.15, linewidth=0)
    axes.set(xlabel="months from the start", ylabel="probability", ylim=(0, 1.02), title=title)
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    return figure


def forest(ratios: Mapping[str, Sequence[Ratio]], plan: Design, words: Mapping[str, str]) -> "Figure":
    """Hazard ratios of the arms, one mark per way of estimating them."""
    rows = [(arm, term, kind) for arm, term in zip(plan.arms[1:], plan.treatments, strict=True) for kind in words]
    figure, axes = _figure(8, 0.45 * len(rows) + 1.1)
    for place, (_, term, kind) in enumerate(rows):
        one = next(found for found in ratios[kind] if found.term == term)
        number = list(words).index(kind)
        axes.plot([one.low, one.high], [place, place], color=INKS[number], linewidth=1.6)
        axes.plot([one.ratio], [place], marker="sDo"[number], color=INKS[number])
    axes.axvline(1, color="#52606d", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{arm}, {words[kind].lower()}" for arm, _, kind in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = [0.25, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 4]
    low, high = axes.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel(f"hazard ratio against {plan.arms[0]}")
    return figure


def balance(plan: Design, before: Mapping[str, float], after: Mapping[str, float], limit: float) -> "Figure":
    """Standardised mean differences before and after weighting."""
    terms = sorted(plan.terms, key=lambda one: -before[one.name])
    figure, axes = _figure(8, 0.26 * len(terms) + 1.1)
    places = range(len(terms))
    axes.plot([before[one.name] for one in terms], places, "o", color=INKS[1], label="before", fillstyle="none")
    axes.plot([after[one.name] for one in terms], places, "s", color=INKS[0], label="after")
    axes.axvline(limit, color="#52606d", linewidth=0.8, linestyle="dashed")
    axes.set_yticks(places, [one.label for one in terms], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("standardised mean difference, largest of the pairs")
    axes.legend(frameon=False)
    return figure


def log_log(curves: Sequence[Curve]) -> "Figure":
    """log(-log S) against log time."""
    figure, axes = _figure(8, 3.8)
    for one, ink, dash in zip(curves, INKS, DASHES, strict=False):
        points = [(math.log(m), math.log(-math.log(s))) for m, s, _, _ in one.points if m > 0 and 0 < s < 1]
        axes.step(
            [x for x, _ in points], [y for _, y in points], where="post", color=ink, linestyle=dash, label=one.arm
        )
    axes.set(xlabel="log months", ylabel="log(-log survival)")
    axes.legend(frameon=False)
    return figure
