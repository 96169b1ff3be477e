"""The figures of a study, for its report and the dashboard: Plotly, from trials, nothing on the disk.

Figures stay small however large the study is: what grows with the number of trials is thinned evenly by rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from heads.metrics.scoring import lower_is_better
from search.record.storage import Direction
from search.record.study_record import best_by, curve, epochs_of
from search.review.words import in_words
from search.trials.ranking import is_counted

MOST_CURVES = 200


MOST_POINTS = 400


FEWEST_FOR_IMPORTANCE = 10
"""Below this, an importance is noise."""


COLOURS = {"completed": "#1f5fa8", "pruned": "#c9862b", "failed": "#b3261e", "running": "#3d8b52"}


ARTICLE_COLOUR, BEST_COLOUR = "#7b3fa0", "#0a0a0a"


_STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Point(NamedTuple):
    """A head by what it costs and what it scores."""

    number: int
    parameters: int
    value: float


def state_of(trial: FrozenTrial) -> str:
    """Returns ``completed``, ``pruned``, ``failed`` or ``running``."""
    return _STATES.get(trial.state, "running")


def value_of(trial: FrozenTrial) -> float:
    """The value of a completed trial."""
    assert trial.value is not None
    return trial.value


def history(ranked: Sequence[FrozenTrial], article: FrozenTrial | None, objective: str = "accuracy") -> go.Figure:
    """Values of the completed trials, the best so far, and the article's head as a line."""
    trials = sorted(ranked, key=lambda trial: trial.number)
    numbers = [trial.number for trial in trials]
    values = [_short(value_of(trial)) for trial in trials]
    best = list(accumulate(values, min if lower_is_better(objective) else max))
    figure = _figure("trial", in_words(objective))
    figure.add_scatter(x=numbers, y=values, mode="markers", name="completed", marker=_dots("completed"))
    figure.add_scatter(
        x=numbers, y=best, mode="lines", name="best so far", line={"shape": "hv", "color": BEST_COLOUR, "width": 2}
    )
    if article is not None and numbers:
        level = _short(value_of(article))
        figure.add_scatter(
            x=[numbers[0], numbers[-1]],
            y=[level, level],
            mode="lines",
            name=f"article's head, {level:.4f}",
            line={"color": ARTICLE_COLOUR, "dash": "dash", "width": 1.5},
        )
    _even(figure, values)
    return figure


def curves(
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    article: FrozenTrial | None,
    objective: str = "accuracy",
) -> go.Figure:
    """The objective after each epoch, of at most ``MOST_CURVES`` trials chosen evenly by rank."""
    figure = _figure("epoch", in_words(objective))
    shown = thinned([trial for trial in trials if trial.intermediate_values], MOST_CURVES, objective)
    for state, colour in COLOURS.items():
        members = [trial for trial in shown if state_of(trial) == state]
        if not members:
            continue
        _add_curves(figure, members, state, colour)
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


def sizes(ranked: Sequence[FrozenTrial], article: FrozenTrial | None, objective: str = "accuracy") -> go.Figure:
    """The objective against the number of parameters, with the heads that no smaller one beats joined by a line."""
    front = pareto_front(points(ranked), objective)
    others = points(thinned(ranked, MOST_POINTS, objective))
    figure = _figure("parameters", in_words(objective))
    figure.update_xaxes(type="log", **_log_ticks([point.parameters for point in [*front, *others]], least=3))
    for name, group, mode, style in (
        ("completed", others, "markers", {"marker": _dots("completed")}),
        ("no smaller head is better", front, "lines+markers", {"line": {"shape": "hv", "color": BEST_COLOUR}}),
        ("article's head", points([article] if article else []), "markers", {"marker": _star()}),
    ):
        if group:
            figure.add_scatter(
                x=[point.parameters for point in group],
                y=[_short(point.value) for point in group],
                text=[f"trial {point.number}" for point in group],
                mode=mode,
                name=name,
                hovertemplate="%{text}: %{y:.4f}, %{x:,} parameters<extra></extra>",
                **style,
            )
    _even(figure, [point.value for point in others])
    return figure


def repeats(finalists: Sequence[Mapping[str, Any]], objective: str) -> go.Figure:
    """Each repeat of each finalist, best on the mean at the top, with the means as bars.

    Args:
        finalists: As in summary.json, best first.
        objective: Of the values.
    """
    names = [f"trial {one['trial']}" + (" (article)" if one["is_article"] else "") for one in finalists]
    figure = _figure(in_words(objective), "")
    pairs = [(v, name) for one, name in zip(finalists, names, strict=True) for v in one["values"] if v is not None]
    figure.add_scatter(
        x=[_short(value) for value, _ in pairs],
        y=[name for _, name in pairs],
        mode="markers",
        name="each seed",
        marker={**_dots("completed"), "size": 8},
    )
    means = [
        (one["mean"], one["sd"], name) for one, name in zip(finalists, names, strict=True) if one["mean"] is not None
    ]
    figure.add_scatter(
        x=[_short(mean) for mean, _, _ in means],
        y=[name for _, _, name in means],
        error_x={"type": "data", "array": [_short(sd or 0) for _, sd, _ in means], "thickness": 1.5},
        mode="markers",
        name="mean ± sd",
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 3, "color": BEST_COLOUR}},
    )
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names)
    figure.update_layout(height=120 + 44 * len(names))
    return figure


def endings(trials: Sequence[FrozenTrial], epochs: int) -> go.Figure:
    """How many trials ended after how many epochs, and how."""
    figure = _figure("epochs trained", "trials")
    finished = [trial for trial in trials if is_counted(trial)]
    width = max(0.8, epochs / 60)
    for state in ("completed", "pruned", "failed"):
        counts = Counter(epochs_of(trial) for trial in finished if state_of(trial) == state)
        if counts:
            at = sorted(counts)
            figure.add_bar(x=at, y=[counts[x] for x in at], name=state, marker={"color": COLOURS[state]}, width=width)
    figure.update_layout(
        barmode="stack", xaxis={"range": [-epochs / 50, epochs * 1.02 + 0.5]}, yaxis={"rangemode": "tozero"}
    )
    return figure


def importance(trials: Sequence[FrozenTrial], objective: str = "accuracy") -> go.Figure | None:
    """How much each parameter decides, by PED-ANOVA (Watanabe et al. 2023, doi:10.24963/ijcai.2023/488).

    Completed trials are few and all good, where weak ones are pruned. So there are two sets of bars: the objective
    after the epochs that every trial trained, and at the end. A set of fewer than ``FEWEST_FOR_IMPORTANCE`` trials, or
    of equal values, is left out; ``None`` where nothing is left.
    """
    counted = [trial for trial in trials if is_counted(trial) and trial.state != TrialState.FAIL and trial.params]
    completed = [trial for trial in counted if trial.state == TrialState.COMPLETE]
    shares = {}
    early = min((epochs_of(trial) for trial in counted), default=0)
    if early and len(completed) < len(counted):
        scored = [(trial, value) for trial in counted if (value := best_by(trial, early, objective)) is not None]
        shares[f"after {early} epoch{'s' * (early > 1)}, {len(scored)} trials"] = _importances(scored, objective)
    at_end = [(trial, value_of(trial)) for trial in completed]
    shares[f"at the end, {len(completed)} trials"] = _importances(at_end, objective)
    shares = {name: share for name, share in shares.items() if share}
    if not shares:
        return None
    order = sorted(next(iter(shares.values())), key=lambda name: next(iter(shares.values()))[name])
    figure = _figure("importance (sum: 1)", "")
    for (name, share), colour in zip(shares.items(), (COLOURS["pruned"], COLOURS["completed"]), strict=False):
        x = [_short(share.get(parameter, 0.0)) for parameter in order]
        figure.add_bar(x=x, y=order, name=name, orientation="h", marker={"color": colour})
    figure.update_layout(height=110 + 34 * len(order), showlegend=True)
    return figure


def parallel_coordinates(ranked: Sequence[FrozenTrial], objective: str = "accuracy") -> go.Figure | None:
    """At most ``MOST_POINTS`` completed trials as lines over all parameters; ``None`` for fewer than two.

    One trace, whose axes can be brushed: by Plotly with WebGL, or by our own script (``heads.html``) without it.
    """
    shown = thinned(ranked, MOST_POINTS, objective)
    if len(shown) < 2:
        return None
    values = [_short(value_of(trial)) for trial in shown]
    scores = [-value for value in values] if lower_is_better(objective) else values
    axes = [_axis(shown, name) for name in parameter_names(shown)]
    figure = _figure("", "")
    figure.add_parcoords(
        line={"color": scores, "colorscale": "Blues", "showscale": False},
        dimensions=[{"label": objective.replace("_", " "), "values": values}, *axes],
        customdata=[trial.number for trial in shown],
    )
    figure.update_layout(height=430)
    return figure


def parameter_names(trials: Iterable[FrozenTrial]) -> list[str]:
    """Returns the parameters that trials drew, in the order of drawing; not the switches of ``or_zero`` ranges."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if name.removeprefix("use_") not in names or not name.startswith("use_")]


def slice_of(ranked: Sequence[FrozenTrial], name: str, objective: str = "accuracy") -> go.Figure:
    """The objective against one parameter: at most ``MOST_POINTS`` completed trials in which it had an effect."""
    shown = thinned(ranked, MOST_POINTS, objective)
    shown = [trial for trial in shown if name in trial.params and _has_effect(trial, name)]
    figure = _figure(name, "")
    figure.update_layout(height=260, margin={"l": 48, "r": 12, "t": 12, "b": 48}, showlegend=False)
    figure.update_yaxes(range=_span(value_of(trial) for trial in ranked))  # that of all, to compare by eye
    if not shown:
        return figure
    distribution = shown[0].distributions[name]
    values = [_short(value_of(trial)) for trial in shown]
    labels = [f"trial {trial.number}" for trial in shown]
    if isinstance(distribution, CategoricalDistribution):
        figure.add_box(
            x=[str(trial.params[name]) for trial in shown],
            y=values,
            text=labels,
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            fillcolor="rgba(31,95,168,0.12)",
            line={"color": "#7d8ea3", "width": 1},
            marker={"color": COLOURS["completed"], "size": 5, "opacity": 0.6},
        )
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=_ordered(distribution.choices))
        return figure
    figure.add_scatter(
        x=[_short(trial.params[name]) for trial in shown],
        y=values,
        text=labels,
        mode="markers",
        marker=_dots("completed"),
    )
    if getattr(distribution, "log", False):
        figure.update_xaxes(type="log", **_log_ticks([trial.params[name] for trial in shown], least=2))
    return figure


def points(trials: Iterable[FrozenTrial]) -> list[Point]:
    """Returns what completed trials cost and score."""
    return [Point(t.number, int(t.user_attrs["parameters"]), value_of(t)) for t in trials]


def pareto_front(all_points: Iterable[Point], objective: str = "accuracy") -> list[Point]:
    """Returns the points that no other beats or equals with as few parameters or fewer, smallest first."""
    sign = -1 if lower_is_better(objective) else 1
    front: list[Point] = []
    for point in sorted(all_points, key=lambda p: (p.parameters, -sign * p.value, p.number)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


def thinned(trials: Sequence[FrozenTrial], most: int, objective: str = "accuracy") -> list[FrozenTrial]:
    """Returns at most ``most`` trials, best and worst among them, the others chosen evenly by rank.

    Trials of equal value stay in the order that they come in: that of the loss, where they are ranked.
    """
    if len(trials) <= most:
        return list(trials)
    sign = -1 if lower_is_better(objective) else 1
    ranked = sorted(trials, key=lambda trial: -sign * _reached(trial, objective))
    return [ranked[place * (len(ranked) - 1) // (most - 1)] for place in range(most)]


_CURVE_HOVER = "trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>"


_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1a1a1a"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        **_LAYOUT,
        height=400,
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
    )
    return figure


def _dots(state: str) -> dict[str, Any]:
    return {"color": COLOURS[state], "size": 6, "opacity": 0.55}


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
        y += [*map(_short, known.values()), None]
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


def _even(figure: go.Figure, values: Iterable[float]) -> None:
    """Gives equal values an axis of their own size: Plotly's would go from one below to one above."""
    if len(set(known := list(values))) == 1:
        figure.update_yaxes(range=[_short(known[0] - 0.02), _short(known[0] + 0.02)])


def _log_ticks(values: Sequence[float], *, least: int) -> dict[str, Any]:
    """Places and texts for an axis of logarithms: powers of ten; where those are fewer than ``least``, 2 and 5 too."""
    low, high = min(values) / 1.2, max(values) * 1.2
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5)):
        ticks = [at for exponent in exponents for step in steps if low <= (at := step * 10.0**exponent) <= high]
        if len(ticks) >= least:
            break
    return {"tickvals": [_short(at) for at in ticks], "ticktext": [_brief(at) for at in ticks]}


def _brief(value: float) -> str:
    """A round number in few characters: 0.01, 1e-5, 20k, 2M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    if value >= 1e-2:
        return f"{value:g}"
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _span(values: Iterable[float]) -> list[float]:
    known = list(values)
    margin = 0.06 * (max(known) - min(known)) or 0.01
    return [_short(min(known) - margin), _short(max(known) + margin)]


def _axis(trials: Sequence[FrozenTrial], name: str) -> dict[str, Any]:
    """An axis of the parallel coordinates: choices by their place, logarithms with a notch below them for 0."""
    held = [trial for trial in trials if name in trial.params]
    distribution = held[0].distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        choices = _ordered(distribution.choices)
        values = [choices.index(str(t.params[name])) if name in t.params else None for t in trials]
        places, span = [*range(len(choices))], [0, max(1, len(choices) - 1)]
        return {"label": name, "values": values, "tickvals": places, "ticktext": choices, "range": span}
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    used = [name in t.params and bool(t.params.get(f"use_{name}", True)) for t in trials]
    if not distribution.log:
        return {
            "label": name,
            "values": [_short(t.params[name]) if on else 0 for t, on in zip(trials, used, strict=True)],
        }
    low, high = math.log10(distribution.low), math.log10(distribution.high)
    floor = low if all(used) else low - 0.15 * max(high - low, 1)
    ticks: dict[float, str] = {at: _brief(10.0**at) for at in range(math.ceil(low), math.floor(high) + 1)}
    if not all(used):
        ticks[floor] = "0"
    logs = [_short(math.log10(t.params[name])) if on else floor for t, on in zip(trials, used, strict=True)]
    return {"label": name, "values": logs, "tickvals": [*ticks], "ticktext": [*ticks.values()], "range": [floor, high]}


def _importances(scored: Sequence[tuple[FrozenTrial, float]], objective: str) -> dict[str, float]:
    if len(scored) < FEWEST_FOR_IMPORTANCE or len({value for _, value in scored}) < 2:
        return {}
    study = _study_of(scored, "minimize" if lower_is_better(objective) else "maximize")
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _study_of(scored: Iterable[tuple[FrozenTrial, float]], direction: Direction) -> optuna.Study:
    """A study in memory of completed trials with the given values, for Optuna's own functions to look at."""
    study = optuna.create_study(direction=direction)
    for trial, value in scored:
        study.add_trial(create_trial(params=trial.params, distributions=trial.distributions, value=value))
    return study


def _has_effect(trial: FrozenTrial, name: str) -> bool:
    """Every parameter is drawn in every trial; those of hidden layers that a head has not are of no effect."""
    if name in ("dense_units", "dense_dropout"):
        return bool(trial.user_attrs["spec"]["dense_layers"])
    return bool(trial.params.get(f"use_{name}", True))


def _ordered(choices: Sequence[Any]) -> list[str]:
    numeric = all(isinstance(choice, (int, float)) for choice in choices)
    return [str(choice) for choice in (sorted(choices) if numeric else choices)]


def _reached(trial: FrozenTrial, objective: str) -> float:
    """A trial's value, or the best that it came to before it was stopped."""
    if trial.value is not None and not math.isnan(trial.value):
        return trial.value
    best = best_by(trial, epochs_of(trial), objective)
    return best if best is not None else math.inf if lower_is_better(objective) else 0.0


def _short(value: float) -> float:
    """Five digits are as many as a figure shows, and a third of the bytes."""
    return float(f"{value:.5g}")
