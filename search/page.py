"""One HTML page that holds all it needs: text first, then figures drawn one after another by the Plotly inside it.

Everything that comes from outside goes through ``html.escape``; data for scripts through ``_script_json``. The page's
own policy forbids the browser to load anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs


class Page:
    """A page under construction.

    Args:
        title: Of the page; its first heading.
        subtitle: A sentence below it.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self.title = title
        self.subtitle = subtitle
        self._body: list[str] = []
        self._figures: list[dict[str, Any]] = []

    def cards(self, cards: Iterable[tuple[str, str, str]]) -> None:
        """Adds large numbers: what it is, the number, a remark."""
        cells = (
            f'<div class="card"><div class="what">{escape(what)}</div><div class="number">{escape(number)}</div>'
            f'<div class="remark">{escape(remark)}</div></div>'
            for what, number, remark in cards
        )
        self._body.append(f'<div class="cards">{"".join(cells)}</div>')

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section of HTML made by this module's functions."""
        self._body.append(f"<section><h2>{escape(heading)}</h2>\n{chr(10).join(filter(None, parts))}</section>")

    def figure(self, figure: Any | None, label: str, *, wide: bool = False) -> str:
        """Takes a Plotly figure in, to be drawn with the page.

        Args:
            figure: ``plotly.graph_objects.Figure``; nothing is drawn for ``None``.
            label: What it shows, for readers who do not see it.
            wide: Whether it scrolls sideways on a narrow screen instead of shrinking.
        """
        if figure is None:
            return ""
        data = json.loads(figure.to_json())
        data["layout"].pop("template", None)  # the same for all, and 7 kB each: the script has it
        self._figures.append(data)
        place, height = len(self._figures) - 1, figure.layout.height
        names = f'id="figure-{place}" role="img" aria-label="{escape(label)}"'
        element = f'<div class="figure" {names} style="height:{height}px"></div>'
        return f'<div class="scroll"><div class="wide">{element}</div></div>' if wide else element

    @staticmethod
    def grid(figures: Iterable[str]) -> str:
        """Small figures beside each other, as many as the screen is wide."""
        return f'<div class="grid">{"".join(figures)}</div>'

    def html(self) -> str:
        """Returns the whole page."""
        return _FRAME.format(
            policy=escape(_POLICY, quote=False),
            title=escape(self.title),
            subtitle=escape(self.subtitle),
            style=_STYLE,
            body="\n".join(self._body),
            plotly=get_plotlyjs() if self._figures else "",
            template=_script_json(_TEMPLATE),
            figures=_script_json(self._figures),
            draw=_DRAW if self._figures else "",
        )


def prose(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def strong(text: str) -> str:
    """A paragraph that is read first."""
    return f'<p class="verdict">{escape(text)}</p>'


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>'


def plain(text: str, *, folded: str = "") -> str:
    """Text to copy as it is; behind the title ``folded`` where one is given."""
    block = f"<pre>{escape(text)}</pre>"
    return f"<details><summary>{escape(folded)}</summary>{block}</details>" if folded else block


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    cells = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{"".join(cells)}</tbody></table></div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, wide: bool = False, marked_diagonal: bool = False
) -> str:
    """A table; the last column of a ``wide`` one holds sentences, the diagonal is marked for a confusion matrix."""
    lines = []
    for number, row in enumerate(rows):
        cells = (
            f"<td{' class=hit' if marked_diagonal and number == place - 1 else ''}>{escape(cell)}</td>"
            for place, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    kind = ' class="wordy"' if wide else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{names}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


_AXIS = {"gridcolor": "#e4e8ee", "linecolor": "#9aa5b1", "zerolinecolor": "#e4e8ee", "automargin": True}
_TEMPLATE = {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}}

_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
"""Nothing is loaded; Plotly's parallel coordinates compile their shaders' callers, hence unsafe-eval."""

_STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #5b6672; --rule: #dfe4ea; --ground: #f6f7f9; --blue: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); }
p { max-width: 46rem; overflow-wrap: anywhere; margin: .6rem 0; }
.subtitle, .note { color: var(--soft); }
.verdict { font-size: 1.1rem; font-weight: 600; border-left: .25rem solid var(--blue); padding-left: .75rem; }
.note { font-size: .875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin-top: 1.25rem; }
.card { background: var(--ground); border: 1px solid var(--rule); border-radius: .5rem; padding: .75rem .9rem; }
.card .number { font-size: 1.6rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card .what, .card .remark { font-size: .85rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .65rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:first-child, td:first-child, .facts td, .wordy th:last-child, .wordy td:last-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.facts th { font-weight: 600; white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
.wordy td:last-child { min-width: 22rem; }
td.hit { background: #e3edf8; font-weight: 650; }
pre { background: var(--ground); border: 1px solid var(--rule); border-radius: .4rem; padding: .7rem .9rem;
  overflow-x: auto; font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--blue); }
.figure { width: 100%; }
.wide { min-width: 64rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: .5rem; }
@media (max-width: 48rem) { .wordy td:last-child { min-width: 34rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  section, .card, .figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  .wide { min-width: 0; }
  .wordy td:last-child { min-width: 0; }
  pre { white-space: pre-wrap; }
  h2 { break-after: avoid; }
}
"""

_DRAW = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const template = JSON.parse(document.getElementById("template").textContent);
const options = {responsive: true, displayModeBar: false};
function draw(place) {
  if (place === figures.length) { document.body.dataset.drawn = place; return; }
  const {data, layout} = figures[place];
  const done = () => setTimeout(draw, 0, place + 1);
  Plotly.newPlot("figure-" + place, data, {...layout, template, autosize: true}, options).then(done, done);
}
draw(0);
const redraw = () => document.querySelectorAll(".figure").forEach((figure) => Plotly.Plots.resize(figure));
window.addEventListener("beforeprint", redraw);
window.addEventListener("afterprint", redraw);
"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="subtitle">{subtitle}</p></header>
<main>
{body}
</main>
<script type="application/json" id="template">{template}</script>
<script type="application/json" id="figures">{figures}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""
