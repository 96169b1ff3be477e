"""What the figures of a study have in common: their layout, colours, axes, and how much they show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from heads.html.style import BLUE, GREEN, LAYOUT, OCHRE, RED
from heads.metrics.scoring import Objective, ranking_score
from search.record.study_record import best_by, epochs_of

MOST_POINTS = 400
COLOURS = {"completed": BLUE, "pruned": OCHRE, "failed": RED, "running": GREEN}
ARTICLE_COLOUR, BEST_COLOUR = "#7b3fa0", "#0a0a0a"
_ROUNDING = 1e-9
_FEW = 8
"""Up to so many whole numbers, an axis has a tick at each of them."""
_LAYOUT = LAYOUT | {
    "height": 400,
    "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
}


def blank_figure(x: str, y: str) -> go.Figure:
    """Returns a figure without data and without a template, with titles for its axes."""
    titles = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return go.Figure(layout=_LAYOUT | titles)


def dots(state: str) -> dict[str, Any]:
    """Returns what the markers of trials in a state look like."""
    return {"color": COLOURS[state], "size": 6, "opacity": 0.55}


def even_axis(figure: go.Figure, values: Iterable[float], *, axis: str = "yaxis") -> None:
    """Gives equal values an axis of their own size: Plotly's would go from one below to one above."""
    if len(set(known := list(values))) == 1:
        figure.update_layout({axis: {"range": [short(known[0] - 0.02), short(known[0] + 0.02)]}})


def whole_axis(figure: go.Figure, most: float, *, axis: str = "xaxis") -> None:
    """Has ticks at whole numbers only, of which there are none between others: Plotly's would be halves of few."""
    if most <= _FEW:
        figure.update_layout({axis: {"dtick": 1}})


def log_ticks(values: Sequence[float], *, least: int) -> dict[str, Any]:
    """Places and texts for an axis of logarithms, of the numbers around ``values``: see ``round_numbers``."""
    ticks = round_numbers(min(values) / 1.2, max(values) * 1.2, least=least)
    return {"tickvals": [short(at) for at in ticks], "ticktext": [brief(at) for at in ticks]}


def round_numbers(low: float, high: float, *, least: int) -> list[float]:
    """Returns the powers of ten from ``low`` to ``high``; where those are fewer than ``least``, 2 and 5 times them too.

    These may be fewer as well.
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    low, high = low * (1 - _ROUNDING), high * (1 + _ROUNDING)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5)):
        found = [at for exponent in exponents for step in steps if low <= (at := step * 10.0**exponent) <= high]
        if len(found) >= least:
            break
    return found


def brief(value: float) -> str:
    """A round number in few characters: 0.01, 1e-5, 20k, 2M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    if value >= 1e-2:
        return f"{value:g}"
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def short(value: float) -> float:
    """Five digits are as many as a figure shows, and a third of the bytes."""
    return float(f"{value:.5g}")


def short_score(value: float) -> float:
    """As ``short``, with as many digits more as it takes to read at four decimals what tables say, rounded once."""
    shorter = (float(f"{value:.{digits}g}") for digits in (5, 7, 9))
    return next((one for one in shorter if f"{one:.4f}" == f"{value:.4f}"), value)


def value_of(trial: FrozenTrial) -> float:
    """The value of a completed trial."""
    assert trial.value is not None
    return trial.value


def thinned(trials: Sequence[FrozenTrial], most: int, objective: Objective) -> list[FrozenTrial]:
    """Returns at most ``most`` trials, best and worst among them, the others chosen evenly by rank.

    Trials of equal value stay in the order that they come in: that of the loss, where they are ranked.
    """
    if len(trials) <= most:
        return list(trials)
    ranked = sorted(trials, key=lambda trial: -_reached(trial, objective))
    return [ranked[index * (len(ranked) - 1) // (most - 1)] for index in range(most)]


def _reached(trial: FrozenTrial, objective: Objective) -> float:
    """What a trial is ranked by: its value, or the best that it came to before it was stopped."""
    value = trial.value
    if value is None or math.isnan(value):
        value = best_by(trial, epochs_of(trial), objective)
    return -math.inf if value is None else ranking_score(value, objective)
