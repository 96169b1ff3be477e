"""The figures of a study's parameters: which matter, each by itself, all together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from features.runtime.text import abridged, counted
from heads.html.document import in_figure
from heads.metrics.scoring import Objective, ranking_score
from search.record.study_record import best_by, epochs_of
from search.review.plotting import (
    COLOURS,
    MOST_POINTS,
    blank_figure,
    brief,
    dots,
    log_ticks,
    round_numbers,
    short,
    short_score,
    thinned,
    value_of,
)
from search.review.words import objective_in_words
from search.trials.given import study_of
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

FEWEST_FOR_IMPORTANCE = 10
"""Below this, an importance is noise."""
_BEST = 0.1
"""Share of the trials that an importance compares with all of them."""
MOST_AXES = 24
"""Of parameters together: of more, names and ticks lie over each other."""
_FEWEST_TICKS = 2
_MOST_IN_NAME, _MOST_BESIDE, _MOST_IN_TICK = 32, 24, 16
"""Characters: own heads may have parameters and choices of any length, and Plotly makes room by shrinking the plot."""


Scored = list[tuple[FrozenTrial, float]]
"""Trials, and the ranking score that each is judged by."""


def scored_sets(trials: Sequence[FrozenTrial], objective: Objective) -> dict[str, Scored]:
    """Returns the sets of trials that importances are told of, by what they are called; none of too few trials.

    Completed trials are few and all good, where weak ones are pruned. So there are two sets: by the objective after the
    epochs that every trial trained, and by that at the end. A set of fewer than ``FEWEST_FOR_IMPORTANCE`` trials, or of
    which all are among the best, is left out.
    """
    sound = [trial for trial in trials if is_counted(trial) and trial.state != TrialState.FAIL and trial.params]
    completed = [trial for trial in sound if trial.state == TrialState.COMPLETE]
    valued: dict[str, Scored] = {}
    early = min((epochs_of(trial) for trial in sound), default=0)
    if early and len(completed) < len(sound):
        got_so_far = [(trial, value) for trial in sound if (value := best_by(trial, early, objective)) is not None]
        valued[f"after {counted(early, 'epoch')}, {counted(len(got_so_far), 'trial')}"] = got_so_far
    valued[f"at the end, {counted(len(completed), 'trial')}"] = [(trial, value_of(trial)) for trial in completed]
    sets = {
        name: [(trial, ranking_score(value, objective)) for trial, value in some]
        for name, some in valued.items()
        if len(some) >= FEWEST_FOR_IMPORTANCE
    }
    return {name: scored for name, scored in sets.items() if _has_others([score for _, score in scored])}


def _has_others(scores: Sequence[float]) -> bool:
    """Whether some are not among the best, which are compared with all: equal ones are among them, however many."""
    return min(scores) < sorted(scores, reverse=True)[math.ceil(_BEST * len(scores)) - 1]


def importances(sets: Mapping[str, Scored]) -> dict[str, dict[str, float]]:
    """Computes how much each parameter decides, by PED-ANOVA (Watanabe et al. 2023, doi:10.24963/ijcai.2023/488).

    Args:
        sets: See ``scored_sets``.

    Returns:
        The parameters' shares, whose sum is 1, for each of the sets.
    """
    return {name: _importances(scored) for name, scored in sets.items()}


def importance(shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """How much each parameter decides, see ``importances``: a set of bars for each set of trials.

    Parameters are in the order of the first set, those that it has not as the next one has them.
    """
    known: dict[str, float] = {}
    for share in shares.values():  # an own head's parameters need not be in every trial, nor in every set
        known = {**share, **known}
    order = sorted(known, key=lambda name: known[name])
    figure = blank_figure("importance (sum: 1)", "")
    for (name, share), colour in zip(shares.items(), (COLOURS["pruned"], COLOURS["completed"]), strict=False):
        x = [short(share.get(parameter, 0.0)) for parameter in order]
        figure.add_bar(x=x, y=[*map(in_figure, order)], name=name, orientation="h", marker={"color": colour})
    figure.update_yaxes(_brief_ticks(order, _MOST_BESIDE))
    figure.update_layout(height=110 + 34 * len(order), showlegend=True)
    return figure


def parameters_together(
    ranked: Sequence[FrozenTrial], shares: Callable[[], Mapping[str, Mapping[str, float]]]
) -> tuple[list[str], str]:
    """Returns the parameters that ``parallel_coordinates`` has room for, and which they are where that is not all.

    Args:
        ranked: The trials that are drawn.
        shares: Says what is important, see ``importances``; asked only where there is not room for all.
    """
    names = parameter_names(ranked)
    if len(names) <= MOST_AXES:
        return names, ""
    share = next(iter(shares().values()), {})
    held = Counter(name for trial in ranked for name in trial.params)
    kept = {*sorted(names, key=lambda name: (-share.get(name, 0.0), -held[name]))[:MOST_AXES]}
    which = "of the highest importance" if share else "that most trials have"
    return [name for name in names if name in kept], f"{MOST_AXES} of {len(names)} parameters, those {which}."


def parallel_coordinates(
    ranked: Sequence[FrozenTrial], objective: Objective, names: Sequence[str] | None = None
) -> go.Figure:
    """At most ``MOST_POINTS`` completed trials as lines over parameters.

    One trace, whose axes can be brushed: by Plotly with WebGL, or without it by ``heads/html/files/parallel.js``.

    Args:
        ranked: The trials, the best first.
        objective: What they are judged by.
        names: The parameters; all where None.
    """
    shown = thinned(ranked, MOST_POINTS, objective)
    values = [short_score(value_of(trial)) for trial in shown]
    scores = [ranking_score(value, objective) for value in values]
    drawn = [name for name in parameter_names(shown) if names is None or name in names]
    most = _MOST_IN_NAME if len(drawn) <= MOST_AXES // 2 else _MOST_IN_TICK
    axes = [_axis(shown, name) | {"label": abridged(name, most)} for name in drawn]
    figure = blank_figure("", "")
    figure.add_parcoords(
        line={"color": scores, "colorscale": "Blues", "showscale": False},
        dimensions=[{"label": objective_in_words(objective), "values": values}, *axes],
        customdata=[trial.number for trial in shown],
    )
    figure.update_layout(height=430)
    return figure


def parameter_names(trials: Iterable[FrozenTrial]) -> list[str]:
    """Returns the parameters that trials drew, in the order of drawing; not the switches of ``or_zero`` ranges."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if name.removeprefix("use_") not in names or not name.startswith("use_")]


def slice_of(ranked: Sequence[FrozenTrial], name: str, objective: Objective) -> go.Figure:
    """The objective against one parameter: at most ``MOST_POINTS`` completed trials in which it had an effect."""
    shown = thinned(ranked, MOST_POINTS, objective)
    shown = [trial for trial in shown if name in trial.params and _has_effect(trial, name)]
    figure = blank_figure(in_figure(abridged(name, _MOST_IN_NAME)), "")
    figure.update_layout(height=260, margin={"l": 48, "r": 12, "t": 12, "b": 48}, showlegend=False)
    figure.update_yaxes(range=_span(value_of(trial) for trial in ranked))  # that of all, to compare by eye
    if not shown:
        return figure
    y = {
        "y": [short_score(value_of(trial)) for trial in shown],
        "text": [f"trial {trial.number}" for trial in shown],
    }
    distribution = shown[0].distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        _add_boxes(figure, [in_figure(str(trial.params[name])) for trial in shown], y, _ordered(distribution.choices))
        return figure
    x = [short(trial.params[name]) for trial in shown]
    figure.add_scatter(x=x, **y, mode="markers", marker=dots("completed"))
    if getattr(distribution, "log", False):
        figure.update_xaxes(type="log", **log_ticks([trial.params[name] for trial in shown], least=2))
    return figure


def _add_boxes(figure: go.Figure, x: Sequence[str], y: Mapping[str, Any], choices: Sequence[str]) -> None:
    """Adds a box, and its points, for each choice of a parameter."""
    figure.add_box(
        x=x,
        **y,
        boxpoints="all",
        jitter=0.5,
        pointpos=0,
        fillcolor="rgba(31,95,168,0.12)",
        line={"color": "#7d8ea3", "width": 1},
        marker={"color": COLOURS["completed"], "size": 5, "opacity": 0.6},
    )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[*map(in_figure, choices)])
    figure.update_xaxes(_brief_ticks(choices, _MOST_IN_TICK))


def _brief_ticks(names: Sequence[str], most: int) -> dict[str, Any]:
    """What an axis of names says where some are too long for it; the names themselves tell what lies where."""
    if all(len(name) <= most for name in names):
        return {}
    return {"tickvals": [*map(in_figure, names)], "ticktext": [in_figure(abridged(name, most)) for name in names]}


def _span(values: Iterable[float]) -> list[float]:
    known = list(values)
    margin = 0.06 * (max(known) - min(known)) or 0.01
    return [short(min(known) - margin), short(max(known) + margin)]


def _axis(trials: Sequence[FrozenTrial], name: str) -> dict[str, Any]:
    """An axis of the parallel coordinates: choices by their place, logarithms with a notch below them for 0.

    A trial without the parameter, as an own head may be, has no place on it.
    """
    held = [trial for trial in trials if name in trial.params]
    distribution = held[0].distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        choices = _ordered(distribution.choices)
        values = [choices.index(str(t.params[name])) if name in t.params else None for t in trials]
        places, span = [*range(len(choices))], [0, max(1, len(choices) - 1)]
        texts = [abridged(choice, _MOST_IN_TICK) for choice in choices]
        return {"label": name, "values": values, "tickvals": places, "ticktext": texts, "range": span}
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    off = [name in t.params and not t.params.get(f"use_{name}", True) for t in trials]
    drawn = [None if zero else t.params.get(name) for t, zero in zip(trials, off, strict=True)]
    if not distribution.log:
        return {"label": name, "values": _values(drawn, off, 0.0)}
    ends = _ends(trial.distributions[name] for trial in held)
    low, high = map(math.log10, ends)
    floor = low - 0.15 * max(high - low, 1) if any(off) else low
    marks = round_numbers(*ends, least=_FEWEST_TICKS)
    if len(marks) < _FEWEST_TICKS:
        marks = [*ends]
    ticks = {math.log10(at): brief(short(at)) for at in marks} | ({floor: "0"} if any(off) else {})
    logs = _values([value if value is None else math.log10(value) for value in drawn], off, floor)
    return {"label": name, "values": logs, "tickvals": [*ticks], "ticktext": [*ticks.values()], "range": [floor, high]}


def _ends(distributions: Iterable[BaseDistribution]) -> tuple[float, float]:
    """From where to where numbers were drawn; an own head's range may follow another parameter of the trial."""
    numeric = [one for one in distributions if isinstance(one, (IntDistribution, FloatDistribution))]
    return min(one.low for one in numeric), max(one.high for one in numeric)


def _values(drawn: Sequence[float | None], off: Sequence[bool], zero: float) -> list[float | None]:
    """What trials drew, ``zero`` where that is switched off, None where a trial has no such parameter."""
    told = zip(drawn, off, strict=True)
    return [zero if is_off else value if value is None else short(value) for value, is_off in told]


def _importances(scored: Scored) -> dict[str, float]:
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BEST)
    return dict(optuna.importance.get_param_importances(study_of(scored), evaluator=evaluator))


def _has_effect(trial: FrozenTrial, name: str) -> bool:
    """Every parameter is drawn in every trial; those of what a head has not are of no effect.

    Neither are those that stand in a trial for what the space cannot say of a head that was given, the article's.
    """
    if TrialNotes.of(trial).has_spec:
        spec = TrialNotes.of(trial).spec
        if name in spec.idle - {"optimizer"}:  # which is itself no matter of something that a head has not
            return False
        if getattr(spec, name, trial.params[name]) != trial.params[name]:
            return False
    return bool(trial.params.get(f"use_{name}", True))


def _ordered(choices: Sequence[Any]) -> list[str]:
    numeric = all(isinstance(choice, (int, float)) for choice in choices)
    return [str(choice) for choice in (sorted(choices) if numeric else choices)]
