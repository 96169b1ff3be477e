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

from heads.html import parallel_coordinates as parallel
from heads.html import print_style as printing


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
            style=_STYLE + parallel.STYLE + printing.STYLE,
            body="\n".join(self._body),
            plotly=get_plotlyjs() if self._figures else "",
            template=_script_json(TEMPLATE),
            figures=_script_json(self._figures),
            draw=parallel.DRAW + printing.SCRIPT + _DRAW if self._figures else "",
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
        cells = []
        for place, (name, cell) in enumerate(zip(head, row, strict=True)):
            hit = " class=hit" if marked_diagonal and number == place - 1 else ""
            named = f' data-name="{escape(name)}"' if wide else ""
            cells.append(f"<td{hit}{named}>{escape(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    kind = ' class="wordy"' if wide else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{names}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


_AXIS = {
    "gridcolor": "#e4e8ee",
    "linecolor": "#9aa5b1",
    "zerolinecolor": "#e4e8ee",
    "automargin": True,
    "title": {"font": {"size": 13}},
}


TEMPLATE = {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}}


_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Nothing is loaded, and no script is made of text."""


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
.scroll { overflow-x: auto; margin: .75rem 0;  /* shaded at an edge behind which there is more */
  background: linear-gradient(90deg, #fff 40%, #fff0) 0 0 / 2rem 100% no-repeat local,
    linear-gradient(270deg, #fff 40%, #fff0) 100% 0 / 2rem 100% no-repeat local,
    linear-gradient(90deg, #1a1a1a2e, #fff0) 0 0 / .8rem 100% no-repeat scroll,
    linear-gradient(270deg, #1a1a1a2e, #fff0) 100% 0 / .8rem 100% no-repeat scroll; }
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
@media screen and (max-width: 48rem) {
  .cards { grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
  table { font-size: .8rem; }
  th, td { padding: .3rem .4rem; }
  .facts th { white-space: normal; min-width: 7rem; }
  .wordy thead { display: none; }  /* each row is a block: the numbers with their names, then the words */
  .wordy tr { display: flex; flex-wrap: wrap; column-gap: 1rem; padding: .4rem 0;
    border-bottom: 1px solid var(--rule); }
  .wordy td { border: 0; padding: .1rem 0; text-align: left; }
  .wordy td:last-child { flex-basis: 100%; min-width: 0; }
  .wordy td:not(:last-child)::before { content: attr(data-name) " "; color: var(--soft); }
}
@media print {
  @page { margin: 14mm; }
  :root { font-size: 9.5pt; }
  body { max-width: none; padding: 0; font-size: 1rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .card, tr { break-inside: avoid; }
  h2 { break-after: avoid; margin-top: 1.5rem; }
  p { max-width: none; orphans: 3; widows: 3; }
  .scroll { overflow: visible; background: none; }
  .wide, .wordy td:last-child { min-width: 0; }
  .grid { grid-template-columns: repeat(3, 1fr); }
  th, td { padding: .2rem .5rem; }
  .wordy thead th { white-space: normal; }
  .cards { grid-template-columns: repeat(5, 1fr); }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
"""


_DRAW = f"""
const figures = JSON.parse(document.getElementById("figures").textContent);
const template = JSON.parse(document.getElementById("template").textContent);
const options = {{responsive: true, displayModeBar: false}};
async function draw(place, {{data, layout}}) {{
  if (data[0] && data[0].type === "parcoords") return drawParallel("figure-" + place, data[0], layout.height);
  const figure = await Plotly.newPlot("figure-" + place, data, {{...layout, template, autosize: true}}, options);
  printable(figure, {printing.PAGE_WIDTH} / (figure.closest(".grid") ? 3 : 1));
}}
(async () => {{
  for (const [place, figure] of figures.entries()) {{
    await draw(place, figure).catch((error) => console.error("figure", place, error));
    await new Promise((done) => setTimeout(done));  // so that the page can be scrolled in between
  }}
  document.body.dataset.drawn = figures.length;
}})();
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
