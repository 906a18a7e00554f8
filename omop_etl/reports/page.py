"""A report as one HTML file that opens from disk: no network, no script; each picture has its words and its table beside it."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2933; background: #fff; margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem } h3 { font-size: 1.05rem }
table { border-collapse: collapse; margin: .8rem 0 1.4rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem; border-bottom: 1px solid #cbd2d9 }
td.n, th.n { text-align: right }
thead th { background: #f0f4f8 }
figure { margin: 1rem 0 } figure img { max-width: 100%; height: auto } figcaption { color: #3e4c59 }
.note { border-left: 4px solid #486581; background: #f0f4f8; padding: .6rem 1rem }
.wide { overflow-x: auto }
"""


@dataclass
class Page:
    """Headings, sentences, tables and pictures, in the order in which they are added."""

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def say(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def notes(self, sentences: Sequence[str]) -> None:
        """What a reader must know before the numbers."""
        if sentences:
            items = "".join(f"<li>{html.escape(one)}</li>" for one in sentences)
            self.parts.append(f'<div class="note"><ul>{items}</ul></div>')

    def table(self, caption: str, header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        """A table; all but the first column are set as numbers. The first cell of a row is its heading."""
        head = "".join(
            f'<th scope="col"{_number(place)}>{html.escape(str(one))}</th>' for place, one in enumerate(header)
        )
        body = "\n".join(
            "<tr>"
            + "".join(
                f'<th scope="row">{html.escape(str(cell))}</th>'
                if place == 0
                else f'<td class="n">{html.escape(str(cell))}</td>'
                for place, cell in enumerate(row)
            )
            + "</tr>"
            for row in rows
        )
        self.parts.append(
            f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(caption, quote=True)}"><table><caption>'
            f"{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        )

    def picture(self, figure: "Figure", words: str, caption: str) -> None:
        """A picture inside the page; `words` are read out to those who do not see it."""
        data = base64.b64encode(svg(figure).encode()).decode()
        self.parts.append(
            f'<figure><img alt="{html.escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def html(self) -> str:
        """The whole file."""
        title = html.escape(self.title)
        body = "\n".join(self.parts)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE}</style></head><body><main>\n<h1>{title}</h1>\n{body}\n</main></body></html>\n"
        )


def _number(place: int) -> str:
    return ' class="n"' if place else ""


def svg(figure: "Figure") -> str:
    """A picture as SVG; the same picture gives the same text."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "palmares", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
