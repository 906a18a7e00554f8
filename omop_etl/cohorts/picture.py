"""The attrition as a CONSORT-like picture: who is left goes down, who is counted out goes right, with the reasons."""

import textwrap
from pathlib import Path
from typing import Any

INK, QUIET, PAPER, KEPT = "#1f2933", "#52606d", "#ffffff", "#e6f0ee"
WIDE, GAP, LINE = 60, 0.32, 0.2  # characters in a box; inches between boxes and per line of text


def draw(table: dict[str, Any], folder: Path, stem: str = "attrition") -> None:
    """Write `<stem>.svg` and `<stem>.png` of a table that `attrition.shown` made; where it also holds `analyses`, the eligible
    stand once more with the number of each. The same table gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    boxes: list[tuple[list[str], list[str]]] = [(_wrap(_persons(table["persons"], "in the warehouse")), [])]
    for step in table["steps"]:
        out = [] if step["excluded"] == 0 else _out(step)
        boxes.append(([*_wrap(step["sentence"]), _persons(step["left"], "left")], out))
    if table.get("analyses"):
        boxes.append(([_persons(table["eligible"], "eligible")], []))
    parts = [
        f"{_persons(one['persons'], one['analysis'].replace('-', ' '))}" + _not_told(one["unknown"])
        for one in table.get("analyses", [])[1:]
    ]
    if parts:
        boxes[-1] = (boxes[-1][0], ["of whom:", *(f"   {part}" for part in parts)])
    heights = [LINE * max(len(kept), len(out), 1) + 0.22 for kept, out in boxes]
    height = sum(heights) + GAP * (len(boxes) - 1) + 1.1
    with rc_context({"svg.hashsalt": "palmares", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(10.5, height), facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, 10.5)
        axes.set_ylim(height, 0)
        axes.axis("off")
        axes.text(0.4, 0.4, f"{table['registry']}  {table['study']}", color=INK, weight="bold", size=11, va="center")
        note = f"* is a number below {table['small_cells']}, or one that would give such a number away."
        axes.text(0.4, 0.68, note, color=QUIET, size=8, va="center")
        y = 0.95
        for number, ((kept, out), tall) in enumerate(zip(boxes, heights, strict=True)):
            last = number == len(boxes) - 1
            _box(axes, 0.4, y, 4.6, tall, kept, fill=KEPT if last else PAPER)
            if out:
                _box(axes, 5.9, y, 4.2, tall, out, fill=KEPT if last else "#fbf3ec")
                axes.annotate("", (5.9, y + tall / 2), (5.0, y + tall / 2), arrowprops=_ARROW)
            if not last:
                axes.annotate("", (2.7, y + tall + GAP), (2.7, y + tall), arrowprops=_ARROW)
            y += tall + GAP
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None, "Creator": None})
        figure.savefig(folder / f"{stem}.png", dpi=130, metadata={"Software": None})


_ARROW = {"arrowstyle": "-|>", "color": QUIET, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}


def _box(axes: Any, x: float, y: float, wide: float, tall: float, lines: list[str], *, fill: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x, y), wide, tall, boxstyle=style, facecolor=fill, edgecolor=QUIET, linewidth=0.8))
    axes.text(x + 0.15, y + tall / 2, "\n".join(lines), color=INK, va="center", ha="left", linespacing=1.35)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDE) or [""]


def _persons(count: int | str, word: str) -> str:
    return f"{count:,} {word}" if isinstance(count, int) else f"{count} {word}"


def _not_told(count: int | str) -> str:
    return "" if count == 0 else f"  ({_persons(count, 'not known')})"


def _out(step: dict[str, Any]) -> list[str]:
    lines = [_persons(step["excluded"], "counted out")]
    for reason in step["reasons"]:
        lines.append(f"   {_persons(reason['persons'], reason['reason'])}")
    return lines
