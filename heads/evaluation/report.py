"""The report of ``heads.evaluate --report``: one HTML page with curves and mistakes that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from features.runtime.files import replacing
from features.runtime.text import printable
from features.store.reader import FeatureStore
from features.store.schema import Rows
from heads.evaluation.mistakes import Mistake, Sight, mistakes, sights
from heads.html import print_style as printing
from heads.metrics.classification import Metrics
from heads.metrics.curves import reliability, roc
from heads.metrics.scoring import Probabilities

MAX_MISTAKES = 100
"""Mistakes that are shown; a page with more would be too large to open."""


_MAX_CURVES = 12


_MAX_POINTS = 500


_MAX_COUNTS = 30
"""Classes up to which the counts stand in the confusion matrix."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Rows of a store, scored by a head.

    Attributes:
        title: What was scored on what.
        store: The store.
        rows: Of the store.
        probabilities: (rows, classes).
        metrics: Of the probabilities.
        caveat: What the reader must know about the rows, or ''.
    """

    title: str
    store: FeatureStore
    rows: Rows
    probabilities: Probabilities
    metrics: Metrics
    caveat: str = ""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(rows,) index of the true class."""
        return np.asarray(self.store.labels[self.rows])


def write_report(path: Path, scored: Scored, model: Any, *, images: Path | None) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: The page.
        scored: What it is about.
        model: The head, for what it saw in what it called wrongly.
        images: The folder that the store was extracted from; without it the mistakes are named, not shown.

    Raises:
        BottleneckError: The disk is full or cannot be written.
    """
    found = mistakes(scored.probabilities, scored.store, scored.rows)
    shown = found[:MAX_MISTAKES]
    drawn = list(sights(model, scored.store, shown, images)) if images else [Sight() for _ in shown]
    remark = _remark(found, scored.store, with_images=images is not None)
    page = report_page(scored, list(zip(shown, drawn, strict=True)), remark=remark)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def report_page(scored: Scored, shown: Sequence[tuple[Mistake, Sight]], *, remark: str) -> str:
    """Returns the page: HTML with all it needs inside it."""
    classes = [printable(name) for name in scored.store.classes]
    figures = [confusion_figure(scored.metrics, classes)]
    if len(scored.rows):
        figures.append(roc_figure(scored.metrics, scored.probabilities, scored.labels))
        figures.append(reliability_figure(scored.probabilities, scored.labels))
    return _PAGE.format(
        policy=_POLICY,
        style=_STYLE + printing.STYLE,
        title=escape(printable(scored.title)),
        summary=escape(_summary(scored.metrics)),
        caveat=escape(scored.caveat),
        plotly=get_plotlyjs(),
        printable=printing.SCRIPT,
        width=printing.PAGE_WIDTH // 2,
        places="\n".join(f'<div class="figure" id="figure-{place}"></div>' for place in range(len(figures))),
        # "<" would end the script element that the data stands in
        figures=f"[{','.join(figure.to_json() for figure in figures)}]".replace("<", "\\u003c"),
        table=_class_table(scored.metrics),
        count=int((scored.probabilities.argmax(axis=1) != scored.labels).sum()),
        remark=escape(remark),
        gallery="\n".join(_card(mistake, sight, classes) for mistake, sight in shown),
    )


def confusion_figure(metrics: Metrics, classes: Sequence[str]) -> go.Figure:
    """Rows are true classes; colours are shares of the row, numbers are counts."""
    counts = np.array(metrics.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    template = "%{text}" if len(classes) <= _MAX_COUNTS else ""
    hover = "%{text} of true %{y} called %{x}<extra></extra>"
    heat = go.Heatmap(
        z=shares.tolist(),
        x=list(range(len(classes))),
        y=list(range(len(classes))),
        text=counts.tolist(),
        texttemplate=template,
        hovertemplate=hover,
        zmin=0,
        zmax=1,
        colorscale="Blues",
        showscale=False,
    )
    names = {"tickvals": list(range(len(classes))), "ticktext": [escape(name) for name in classes]}
    names |= {"ticks": "outside", "tickcolor": "white"}  # a gap between names and cells
    figure = go.Figure(heat)
    figure.update_xaxes(title="called", **names)
    figure.update_yaxes(title="true", automargin=True, autorange="reversed", **names)
    return _laid_out(figure, "Confusion matrix")


def roc_figure(metrics: Metrics, probabilities: Probabilities, labels: Any) -> go.Figure:
    """One curve a class; of many classes those with the smallest areas."""
    figure = go.Figure(_diagonal())
    with_area = [(one.auc, label) for label, one in enumerate(metrics.per_class) if one.auc is not None]
    for area, label in sorted(sorted(with_area)[:_MAX_CURVES], key=lambda pair: pair[1]):
        curve = roc(probabilities, labels, label)
        assert curve is not None, "a class with an area has a curve"
        thin = np.unique(np.linspace(0, len(curve.false_positives) - 1, _MAX_POINTS).astype(int))
        name = f"{escape(printable(metrics.per_class[label].name))} (AUC {area:.4f})"
        x, y = curve.false_positives[thin].tolist(), curve.true_positives[thin].tolist()
        figure.add_scatter(x=x, y=y, name=name, mode="lines")
    figure.update_xaxes(title="1 - specificity", range=[-0.01, 1.01])
    figure.update_yaxes(title="sensitivity", range=[-0.01, 1.01])
    return _laid_out(figure, "ROC, each class against the others")


def reliability_figure(probabilities: Probabilities, labels: Any) -> go.Figure:
    """How often the called class is right, by its probability."""
    bins = reliability(probabilities, labels)
    padded = [1.0, *bins.accuracy.tolist(), 1.0]
    dips = [padded[at] > padded[at + 1] < padded[at + 2] for at in range(len(bins.rows))]
    figure = go.Figure(_diagonal())
    figure.add_scatter(
        x=bins.confidence.tolist(),
        y=bins.accuracy.tolist(),
        text=[f"{rows}" for rows in bins.rows],
        hovertemplate="%{text} rows: said %{x:.3f}, right %{y:.3f}<extra></extra>",
        mode="lines+markers+text",
        textposition=["bottom center" if dip else "top center" for dip in dips],  # off the line
        showlegend=False,
    )
    figure.update_xaxes(title="probability of the called class", range=[-0.01, 1.12])  # room for the last number
    figure.update_yaxes(title="share called rightly (numbers: rows)", range=[-0.01, 1.08])
    return _laid_out(figure, f"Reliability (mean gap {bins.error:.3f})")


def _diagonal() -> go.Scatter:
    line = {"dash": "dot", "color": "#9aa5b1"}
    return go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _laid_out(figure: go.Figure, title: str) -> go.Figure:
    font = {"family": "system-ui, sans-serif", "color": "#1a1a1a"}
    legend = {"x": 0.98, "y": 0.02, "xanchor": "right", "yanchor": "bottom"}
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    return figure.update_layout(
        title=title, height=420, template="plotly_white", font=font, legend=legend, margin=margin
    )


def _summary(metrics: Metrics) -> str:
    if metrics.accuracy is None or metrics.accuracy_interval is None:
        return "no rows"
    low, high = metrics.accuracy_interval
    parts = [f"{metrics.rows} rows", f"accuracy {metrics.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"]
    parts += [f"balanced {metrics.balanced_accuracy:.4f}", f"loss {metrics.loss:.4f} nats"]
    return ", ".join(parts)


def _remark(found: Sequence[Mistake], store: FeatureStore, *, with_images: bool) -> str:
    if not found:
        return ""
    parts = ["The surest first."]
    if len(found) > MAX_MISTAKES:
        parts.append(f"The first {MAX_MISTAKES} are shown.")
    if not with_images:
        parts.append("With --images FOLDER they are shown with what the head saw.")
    elif "identity" in store.header.views:
        parts.append("Warm is what speaks for a class (Grad-CAM, each map on its own scale).")
    else:
        parts.append("The store has no view identity, so there are no maps over the images.")
    return " ".join(parts)


def _card(mistake: Mistake, sight: Sight, classes: Sequence[str]) -> str:
    called, true = (escape(classes[index]) for index in (mistake.called, mistake.true))
    sure, chance = (f"{mistake.probabilities[index]:.3f}" for index in (mistake.called, mistake.true))
    shown = _picture(sight.image or None, "as it is")
    shown += _picture(sight.for_called, f"for {called}") + _picture(sight.for_true, f"for {true}")
    reason = f'<p class="soft">{escape(sight.reason)}</p>' if sight.reason else ""
    head = f"<h3>{called} {sure} <small>is {true} {chance}</small></h3>"
    path = escape(printable(mistake.path))
    return f'<article>{head}<p class="soft">{path}</p>{reason}<div class="pictures">{shown}</div></article>'


def _picture(address: str | None, name: str) -> str:
    """One picture of a card, or the remark that there is nothing to see; '' for None."""
    if address is None:
        return ""
    if not address:
        return f"<figure><figcaption>nothing speaks {name}</figcaption></figure>"
    return f'<figure><img src="{address}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _class_table(metrics: Metrics) -> str:
    names = ("rows", "sensitivity", "specificity", "precision", "AUC")
    rows = [
        (f"{one.rows}", *map(_number, (one.sensitivity, one.specificity, one.precision, one.auc)))
        for one in metrics.per_class
    ]
    body = "".join(
        f"<tr><th>{escape(printable(one.name))}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for one, cells in zip(metrics.per_class, rows, strict=True)
    )
    return f"<table><tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""The browser may load nothing: a name in a store cannot make it."""


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; color: #1a1a1a; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: 1rem; margin: 0; }
small, .soft, figcaption { color: #5b6672; font-size: .875rem; font-weight: 400; }
p { margin: .25rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.figure { min-width: 0; }
article { border-top: 1px solid #dfe4ea; padding: 1rem 0; break-inside: avoid; }
.pictures { display: flex; gap: .75rem; }
figure { margin: 0; min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin-top: 1rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .2rem .5rem; text-align: right; border-bottom: 1px solid #dfe4ea; font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
tr:first-child th { color: #5b6672; font-size: .875rem; }
img { display: block; max-width: 100%; height: auto; }
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .figures { grid-template-columns: 1fr 1fr; }
  h2 { break-after: avoid; }
}
"""


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="soft">{summary}</p>
<p class="soft">{caveat}</p>
<div class="figures">
{places}
</div>
<div class="scroll">{table}</div>
<h2>Called wrongly: {count}</h2>
<p class="soft">{remark}</p>
{gallery}
<script type="application/json" id="figures">{figures}</script>
<script>{plotly}</script>
<script>{printable}
const figures = JSON.parse(document.getElementById("figures").textContent);
Promise.all(figures.map(({{data, layout}}, place) =>
  Plotly.newPlot("figure-" + place, data, layout, {{displayModeBar: false, responsive: true}})
    .then((figure) => printable(figure, {width}))
)).then((drawn) => {{ document.body.dataset.drawn = drawn.length; }});
</script>
</body>
</html>
"""
