"""The figures of a study's trials, for its report and the dashboard: Plotly, from trials, nothing on the disk.

Figures stay small however large the study is: what grows with the number of trials is thinned evenly by rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from heads.html.document import in_figure
from heads.html.style import BLUE, GREEN, OCHRE, RED
from heads.metrics.scoring import Objective, best_of, ranking_score
from search.record.results import FinalistRecord
from search.record.study_record import curve, epochs_of, state_of
from search.review.plotting import (
    ARTICLE_COLOUR,
    BEST_COLOUR,
    COLOURS,
    MOST_POINTS,
    blank_figure,
    dots,
    even_axis,
    log_ticks,
    short,
    short_score,
    thinned,
    value_of,
    whole_axis,
)
from search.review.words import validation_in_words
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

MOST_CURVES = 200
STORE_COLOURS = (BLUE, OCHRE, GREEN, RED, "#2a8c8c", "#7a5230")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
"""Of the stores of a study: as many colours as can be told apart, then another symbol."""
RINGS = ("circle-open", "square-open")
_CURVE_HOVER = "trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>"


class Point(NamedTuple):
    """A head by what it costs, in parameters or milliseconds, and what it scores."""

    number: int
    cost: float
    value: float


def history(ranked: Sequence[FrozenTrial], article: FrozenTrial | None, objective: Objective) -> go.Figure:
    """Values of the completed trials, the best so far, and the article's head as a line."""
    trials = sorted(ranked, key=lambda trial: trial.number)
    numbers = [trial.number for trial in trials]
    values = [short_score(value_of(trial)) for trial in trials]
    best = list(accumulate(values, lambda *two: best_of(two, objective)))
    figure = blank_figure("trial", validation_in_words(objective))
    figure.add_scatter(x=numbers, y=values, mode="markers", name="completed", marker=dots("completed"))
    figure.add_scatter(
        x=numbers, y=best, mode="lines", name="best so far", line={"shape": "hv", "color": BEST_COLOUR, "width": 2}
    )
    if article is not None and numbers:
        level = short_score(value_of(article))
        figure.add_scatter(
            x=[numbers[0], numbers[-1]],
            y=[level, level],
            mode="lines",
            name=f"article's head, {level:.4f}",
            line={"color": ARTICLE_COLOUR, "dash": "dash", "width": 1.5},
        )
    even_axis(figure, values)
    whole_axis(figure, max(numbers, default=0))
    return figure


def has_curve(trial: FrozenTrial) -> bool:
    """Whether a trial came to a value that can be drawn: of one that diverged at once there is none."""
    return not all(map(math.isnan, trial.intermediate_values.values()))


def curves(
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    article: FrozenTrial | None,
    objective: Objective,
) -> go.Figure:
    """The objective after each epoch, of at most ``MOST_CURVES`` trials chosen evenly by rank."""
    figure = blank_figure("epoch", validation_in_words(objective))
    shown = thinned([trial for trial in trials if has_curve(trial)], MOST_CURVES, objective)
    whole_axis(figure, max((max(trial.intermediate_values) for trial in shown), default=0))
    for state, colour in COLOURS.items():
        of_state = [trial for trial in shown if state_of(trial) == state]
        if not of_state:
            continue
        _add_curves(figure, of_state, state, colour)
    marked = [(best, "best", BEST_COLOUR)]
    if article is not None and best is not None and article.number == best.number:
        marked = [(best, "best: the article's head", BEST_COLOUR)]
    elif article is not None:
        marked.insert(0, (article, "article's head", ARTICLE_COLOUR))
    for trial, name, colour in marked:
        if trial is not None and trial.intermediate_values:
            x, y, numbers = _joined([trial])
            line = {"color": colour, "width": 2.5}
            figure.add_scatter(
                x=x, y=y, customdata=numbers, mode="lines", name=name, line=line, hovertemplate=_CURVE_HOVER
            )
    return figure


def sizes(ranked: Sequence[FrozenTrial], article: FrozenTrial | None, objective: Objective) -> go.Figure:
    """The objective against the number of parameters, with the heads that no smaller one beats joined by a line."""
    front = pareto_front(points(ranked), objective)
    others = points(thinned(ranked, MOST_POINTS, objective))
    figure = blank_figure("parameters", validation_in_words(objective))
    figure.update_xaxes(type="log", **log_ticks([point.cost for point in [*front, *others]], least=3))
    for name, group, mode, style in (
        ("completed", others, "markers", {"marker": dots("completed")}),
        ("no smaller head is better", front, "lines+markers", {"line": {"shape": "hv", "color": BEST_COLOUR}}),
        ("article's head", points([article] if article else []), "markers", {"marker": _star()}),
    ):
        if group:
            figure.add_scatter(
                x=[point.cost for point in group],
                y=[short_score(point.value) for point in group],
                text=[f"trial {point.number}" for point in group],
                mode=mode,
                name=name,
                hovertemplate="%{text}: %{y:.4f}, %{x:,} parameters<extra></extra>",
                **style,
            )
    even_axis(figure, [point.value for point in others])
    return figure


def costs(of_stores: Mapping[str, Sequence[Point]], marked: Mapping[str, Point], objective: Objective) -> go.Figure:
    """The objective against what an image costs, with the heads that no cheaper one beats joined by a line.

    Args:
        of_stores: Heads by their store's name as text, in milliseconds of an image; a colour each.
        marked: Heads that are named, by what they are called in the legend.
        objective: Of the values.
    """
    everyone = [point for points in of_stores.values() for point in points]
    front = pareto_front(everyone, objective)
    figure = blank_figure("milliseconds per image", validation_in_words(objective))
    figure.update_xaxes(type="log", **log_ticks([point.cost for point in everyone], least=3))
    groups: list[tuple[str, Sequence[Point], str, dict[str, Any]]] = []
    for at, (name, points) in enumerate(of_stores.items()):
        marker = {"color": STORE_COLOURS[at % len(STORE_COLOURS)], "size": 7, "opacity": 0.65}
        marker["symbol"] = SYMBOLS[at // len(STORE_COLOURS) % len(SYMBOLS)]
        groups.append((in_figure(name), points, "markers", {"marker": marker}))
    line = {"shape": "hv", "color": BEST_COLOUR, "width": 1.5}
    groups.append(("no cheaper head is better", front, "lines", {"line": line}))
    for at, (name, point) in enumerate(marked.items()):
        ring = {"symbol": RINGS[at % len(RINGS)], "size": 15, "line": {"width": 2.5, "color": BEST_COLOUR}}
        groups.append((name, [point], "markers", {"marker": {**ring, "color": BEST_COLOUR}}))
    for name, group, mode, style in groups:
        figure.add_scatter(
            x=[short(point.cost) for point in group],
            y=[short_score(point.value) for point in group],
            text=[f"trial {point.number}" for point in group],
            mode=mode,
            name=name,
            hovertemplate="%{text}: %{y:.4f}, %{x} ms per image<extra></extra>",
            **style,
        )
    even_axis(figure, [point.value for point in everyone])
    return figure


def repeats(finalists: Sequence[FinalistRecord], objective: Objective) -> go.Figure:
    """Each repeat of each finalist, best on the mean at the top, with the means as bars.

    Args:
        finalists: As in summary.json, best first.
        objective: Of the values.
    """
    names = [f"trial {one.trial}" + (" (article)" if one.is_article else "") for one in finalists]
    figure = blank_figure(validation_in_words(objective), "")
    pairs = [(v, name) for one, name in zip(finalists, names, strict=True) for v in one.values if v is not None]
    figure.add_scatter(
        x=[short_score(value) for value, _ in pairs],
        y=[name for _, name in pairs],
        mode="markers",
        name="each seed",
        marker={**dots("completed"), "size": 8},
    )
    means = [(one.mean, one.sd, name) for one, name in zip(finalists, names, strict=True) if one.mean is not None]
    figure.add_scatter(
        x=[short_score(mean) for mean, _, _ in means],
        y=[name for _, _, name in means],
        error_x={"type": "data", "array": [short(sd or 0) for _, sd, _ in means], "thickness": 1.5},
        mode="markers",
        name="mean ± sd",
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 3, "color": BEST_COLOUR}},
    )
    even_axis(figure, [value for value, _ in pairs], axis="xaxis")
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names)
    figure.update_layout(height=120 + 44 * len(names))
    return figure


def endings(trials: Sequence[FrozenTrial], epochs: int) -> go.Figure:
    """How many trials ended after how many epochs, and how."""
    figure = blank_figure("epochs trained", "trials")
    finished = [trial for trial in trials if is_counted(trial)]
    width = max(0.8, epochs / 60)
    for state in ("completed", "pruned", "failed"):
        counts = Counter(epochs_of(trial) for trial in finished if state_of(trial) == state)
        if counts:
            at = sorted(counts)
            figure.add_bar(x=at, y=[counts[x] for x in at], name=state, marker={"color": COLOURS[state]}, width=width)
    whole_axis(figure, epochs)
    whole_axis(figure, max(Counter(map(epochs_of, finished)).values(), default=0), axis="yaxis")
    figure.update_layout(
        barmode="stack", xaxis={"range": [-epochs / 50, epochs * 1.02 + 0.5]}, yaxis={"rangemode": "tozero"}
    )
    return figure


def points(trials: Iterable[FrozenTrial]) -> list[Point]:
    """Returns what completed trials cost and score; an own head without parameters counts as one of 1.

    There is no logarithm of 0.
    """
    return [Point(t.number, max(1, TrialNotes.of(t).parameters), value_of(t)) for t in trials]


def pareto_front(all_points: Iterable[Point], objective: Objective) -> list[Point]:
    """Returns the points that no other beats or equals at the same cost or a lower one, cheapest first."""
    score = {point: ranking_score(point.value, objective) for point in all_points}
    front: list[Point] = []
    for point in sorted(score, key=lambda point: (point.cost, -score[point], point.number)):
        if not front or score[point] > score[front[-1]]:
            front.append(point)
    return front


def _star() -> dict[str, Any]:
    return {"color": ARTICLE_COLOUR, "size": 14, "symbol": "star"}


def _joined(trials: Iterable[FrozenTrial]) -> tuple[list[int | None], list[float | None], list[int | None]]:
    """Strings curves into one trace with gaps between them: hundreds of traces would be slow to draw."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        known = {epoch: value for epoch, value in curve(trial).items() if not math.isnan(value)}
        x += [*known, None]
        y += [*map(short_score, known.values()), None]
        numbers += [*[trial.number] * len(known), None]
    return x, y, numbers


def _add_curves(figure: go.Figure, trials: Iterable[FrozenTrial], state: str, colour: str) -> None:
    """Adds curves of trials: pale lines, dots where there is one epoch only, a line in the legend that is not pale."""
    x, y, numbers = _joined(trials)
    line = {"color": colour, "width": 1}
    common: dict[str, Any] = {"name": state, "legendgroup": state, "hovertemplate": _CURVE_HOVER}
    figure.add_scatter(x=x, y=y, customdata=numbers, mode="lines", line=line, opacity=0.45, showlegend=False, **common)
    # a curve ends at None: a point between two of them is a whole curve, of which a line shows nothing
    gaps = [None, *x]
    alone = [at for at in range(len(x) - 1) if x[at] is not None and gaps[at] is None and x[at + 1] is None]
    if alone:
        dots = {"color": colour, "size": 4, "opacity": 0.45}
        some = {"x": [x[at] for at in alone], "y": [y[at] for at in alone]}
        some["customdata"] = [numbers[at] for at in alone]
        figure.add_scatter(**some, mode="markers", marker=dots, showlegend=False, **common)
    figure.add_scatter(x=[None], y=[None], mode="lines", line={"color": colour, "width": 2}, **common)
