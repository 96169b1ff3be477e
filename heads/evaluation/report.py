"""The report of ``heads.evaluate --report``: one HTML file with curves and mistakes that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from markupsafe import Markup

from features.runtime.files import write_text
from features.runtime.text import abridged, capitalized, listed, printable
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.evaluation.mistakes import Mistake, Sight, can_be_mapped, mistakes, sights
from heads.html.document import Document, exhibit, in_figure, note, table
from heads.html.style import BLUE, GREY, LAYOUT
from heads.metrics.classification import Metrics
from heads.metrics.curves import reliability, roc
from heads.metrics.excerpt import CLASS_COLUMNS, MOST_CLASSES, class_rows, confused_lines, worst_classes
from heads.metrics.scoring import Probabilities

MAX_MISTAKES = 100
"""Mistakes that are shown; a file with more would be too large to open."""
_MAX_CURVES = 12
_MAX_INSIDE, _BRIEF = 6, 12
"""Curves, and characters of a name, up to which the names stand in the empty corner below the curves.

Longer ones stand upright below a matrix.
"""
_WIDEST = 24
"""Characters of a class's name in a figure, which is to fit a phone; the table has all of them."""
_COLOURS = 10
"""Of Plotly's curves; of more, the later ones are dashed."""
_MAX_POINTS = 500
_NAMED = 20
"""Classes without rows that are named."""
_MAX_COUNTS = 30
"""Classes up to which the counts stand in the confusion matrix."""
_MAX_BESIDE = 10
"""Classes up to which the matrix stands beside another figure."""
_HEIGHT = 420
_LINE = 20
"""Pixels of a class's line in a matrix of its own width."""


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
    store: FeatureSource
    rows: Rows
    probabilities: Probabilities
    metrics: Metrics
    caveat: str = ""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(rows,) index of the true class."""
        return np.asarray(self.store.labels[self.rows])


def write_report(path: Path, scored: Scored, model: Any, *, images: Path | None) -> None:
    """Writes the report, whole or not at all.

    Args:
        path: The file.
        scored: What it is about.
        model: The head, for what it saw in what it misclassified.
        images: The folder that the store was extracted from; without it the mistakes are named, not shown.

    Raises:
        BottleneckError: The disk is full or cannot be written.
    """
    found = mistakes(scored.probabilities, scored.store, scored.rows)
    shown = found[:MAX_MISTAKES]
    drawn = list(sights(model, scored.store, shown, images)) if images else [Sight() for _ in shown]
    remark = _remark(found, scored.store, with_images=images is not None)
    text = make_report(scored, list(zip(shown, drawn, strict=True)), remark=remark)
    write_text(path, text, shared=True)


def make_report(scored: Scored, shown: Sequence[tuple[Mistake, Sight]], *, remark: str) -> str:
    """Returns the report's HTML.

    Args:
        scored: What it is about.
        shown: Mistakes and what the head saw in them.
        remark: What to know about these.
    """
    classes = [printable(name) for name in scored.store.classes]
    document = Document(printable(scored.title), _summary(scored.metrics))
    document.lead(note(scored.caveat) if scored.caveat else "")
    figures = []
    if len(classes) <= MOST_CLASSES:
        large = len(classes) > _MAX_BESIDE
        matrix = confusion_figure(scored.metrics, classes)
        drawn = document.figure(matrix, "how often each class was called what", wide=large)
        figures += [] if large else [drawn]
        document.lead("" if figures else drawn)
    if len(scored.rows):
        curves = roc_figure(scored.metrics, scored.probabilities, scored.labels)
        figures.append(document.figure(curves, "sensitivity against specificity of each class"))
        believed = reliability_figure(scored.probabilities, scored.labels)
        figures.append(
            document.figure(believed, "share of rows classified correctly, by the probability of the called class")
        )
    document.lead(document.grid(figures, pairs=True), *_class_table(scored.metrics))
    if len(classes) > _MAX_BESIDE:
        document.add("Confused most often", _pair_table(scored.metrics))
    count = int((scored.probabilities.argmax(axis=1) != scored.labels).sum())
    cards = (_card(mistake, sight, classes) for mistake, sight in shown)
    document.add(f"Misclassified: {count}", note(remark) if remark else "", *cards)
    return document.html()


def confusion_figure(metrics: Metrics, classes: Sequence[str]) -> go.Figure:
    """Rows are true classes; colours are shares of the row, numbers are counts."""
    counts = np.array(metrics.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    template = "%{text}" if len(classes) <= _MAX_COUNTS else ""
    hover = "%{text} of true %{y} called %{x}<extra></extra>"
    brief = _brief(classes)
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
    names = {"tickvals": list(range(len(classes))), "ticktext": [in_figure(name) for name in brief]}
    names |= {"ticks": "outside", "tickcolor": "white"}  # a gap between names and cells
    figure = go.Figure(heat)
    longest = max(map(len, brief))
    upright = len(classes) > _MAX_BESIDE or longest > _BRIEF
    angle = -90 if upright else None
    figure.update_xaxes(title="called", automargin=True, tickangle=angle, **names)
    figure.update_yaxes(title="true", automargin=True, autorange="reversed", **names)
    height = max(_HEIGHT, _LINE * len(classes) + 130 + 6 * longest) if upright else _HEIGHT
    return _laid_out(figure, "Confusion matrix").update_layout(height=height)


def roc_figure(metrics: Metrics, probabilities: Probabilities, labels: Any) -> go.Figure:
    """One curve per class; of many classes those with the smallest areas."""
    figure = go.Figure(_diagonal())
    with_area = [(one.auc, label) for label, one in enumerate(metrics.per_class) if one.auc is not None]
    names = _brief([printable(one.name) for one in metrics.per_class])
    shown = sorted(sorted(with_area)[:_MAX_CURVES], key=lambda pair: pair[1])
    for at, (area, label) in enumerate(shown):
        curve = roc(probabilities, labels, label)
        assert curve is not None, "a class with an area has a curve"
        thin = np.unique(np.linspace(0, len(curve.false_positives) - 1, _MAX_POINTS).astype(int))
        name = f"{in_figure(names[label])} (AUC {area:.4f})"
        x, y = curve.false_positives[thin].tolist(), curve.true_positives[thin].tolist()
        dash = "solid" if at < _COLOURS else "dash"
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line={"dash": dash})
    figure.update_xaxes(title="1 - specificity", range=[-0.01, 1.01])
    figure.update_yaxes(title="sensitivity", range=[-0.01, 1.01])
    figure = _laid_out(figure, "ROC, each class against the others")
    if len(shown) > _MAX_INSIDE or any(len(names[label]) > _BRIEF for _, label in shown):
        below = {"x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"}
        figure.update_layout(height=_HEIGHT + _LINE * len(shown), legend=below)
    return figure


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
        line={"color": BLUE},
        textposition=["bottom center" if dip else "top center" for dip in dips],  # off the line
        showlegend=False,
    )
    figure.update_xaxes(title="probability of the called class", range=[-0.01, 1.12])  # room for the last number
    figure.update_yaxes(title="share classified correctly (numbers: rows)", range=[-0.01, 1.08])
    return _laid_out(figure, f"Reliability (mean gap {bins.error:.3f})")


def _brief(names: Sequence[str]) -> list[str]:
    """Names that a figure has room for; of those that are alike once they are cut, each with its place."""
    cut = [abridged(name, _WIDEST) for name in names]
    return [
        name if cut.count(name) == 1 else f"{place}: {abridged(names[place - 1], _WIDEST - 4)}"
        for place, name in enumerate(cut, start=1)
    ]


def _diagonal() -> go.Scatter:
    line = {"dash": "dot", "color": GREY}
    return go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _laid_out(figure: go.Figure, title: str) -> go.Figure:
    legend = {"x": 0.98, "y": 0.02, "xanchor": "right", "yanchor": "bottom"}
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    heading = {"text": title, "x": 0.05}
    figure.update_xaxes(title_standoff=15).update_yaxes(title_standoff=15)
    return figure.update_layout(LAYOUT, title=heading, height=_HEIGHT, legend=legend, margin=margin)


def _summary(metrics: Metrics) -> str:
    if metrics.accuracy is None or metrics.accuracy_interval is None:
        return "no rows"
    low, high = metrics.accuracy_interval
    parts = [f"{metrics.rows} rows", f"accuracy {metrics.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"]
    parts += [f"balanced {metrics.balanced_accuracy:.4f}", f"loss {metrics.loss:.4f} nats"]
    return ", ".join(parts)


def _remark(found: Sequence[Mistake], store: FeatureSource, *, with_images: bool) -> str:
    if not found:
        return ""
    parts = ["The surest first."]
    if len(found) > MAX_MISTAKES:
        parts.append(f"The first {MAX_MISTAKES} are shown.")
    if not with_images:
        parts.append("With --images FOLDER they are shown with what the head saw.")
    elif not can_be_mapped(store):
        parts.append("The features are vectors, which know no places: there are no maps over the images.")
    elif "identity" in store.header.views:
        parts.append("Warm is what speaks for a class (Grad-CAM, each map on its own scale).")
    else:
        parts.append("The store has no view identity, so there are no maps over the images.")
    return " ".join(parts)


def _card(mistake: Mistake, sight: Sight, classes: Sequence[str]) -> str:
    called, true = classes[mistake.called], classes[mistake.true]
    sure, chance = (f"{mistake.probabilities[index]:.3f}" for index in (mistake.called, mistake.true))
    seen = [(sight.image or None, "as it is"), (sight.for_called, f"for {called}"), (sight.for_true, f"for {true}")]
    return exhibit(
        Markup("<bdi>{}</bdi> {}").format(called, sure),  # what runs from right to left takes no figure along
        Markup("is <bdi>{}</bdi> {}").format(true, chance),
        [printable(mistake.path), *([sight.reason] if sight.reason else [])],
        [(address, name if address else f"nothing speaks {name}") for address, name in seen if address is not None],
    )


def _class_table(metrics: Metrics) -> list[str]:
    shown, told = worst_classes(metrics.per_class)
    parts: list[str] = [table(("", *CLASS_COLUMNS), class_rows(shown), named_rows=True)]
    if told:
        parts.insert(0, note(f"{capitalized(told)}; --json has all."))
    if metrics.rows and metrics.absent:
        parts.insert(0, note(f"Classes without rows: {listed(map(printable, metrics.absent), _NAMED)}."))
    return parts


def _pair_table(metrics: Metrics) -> str:
    right = sum(pair.rows for pair in metrics.pairs if pair.true == pair.called)
    lines = confused_lines(metrics.confused, rows=metrics.rows, right=right)
    return table(("true", "called", "rows"), [tuple(map(printable, line)) for line in lines])
