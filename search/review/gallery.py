"""The report's figures by name, each drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from plotly.graph_objects import Figure

from features.runtime.text import printable
from search.record.study_record import StudyRecord
from search.review import figures, parameter_figures
from search.review.frugal import Costed, costed, frugal
from search.review.plotting import MOST_POINTS, thinned, value_of

COSTS = "value-and-cost"
"""Of a study of several stores: the objective against what an image costs."""


class Gallery(Mapping[str, Figure]):
    """The figures that a study has enough trials for."""

    def __init__(self, record: StudyRecord) -> None:
        self._ways = _ways(record)
        self._drawn: dict[str, Figure] = {}

    def __getitem__(self, name: str) -> Figure:
        if name not in self._drawn:
            self._drawn[name] = self._ways[name]()
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ways)

    def __len__(self) -> int:
        return len(self._ways)

    def __repr__(self) -> str:
        return f"Gallery({', '.join(self)})"


def _ways(record: StudyRecord) -> dict[str, Callable[[], Figure]]:
    trials, ranked, article, objective = record.trials, record.ranked, record.article, record.config.objective
    ways: dict[str, Callable[[], Figure]] = {}
    if ranked:
        ways["history"] = partial(figures.history, ranked, article, objective)
    if any(trial.intermediate_values for trial in trials):
        best = ranked[0] if ranked else None
        ways["learning-curves"] = partial(figures.curves, trials, best, article, objective)
    if any(trial.state.is_finished() for trial in trials):
        ways["what-ended-when"] = partial(figures.endings, trials, record.config.epochs)
    importance = parameter_figures.importance(trials, objective)
    if importance is not None:
        ways["importance"] = lambda: importance
    if record.finalists:
        ways["repeats"] = partial(figures.repeats, record.finalists, objective)
    if len(ranked) > 1:
        for name in parameter_figures.parameter_names(ranked):
            ways[f"parameter-{name}"] = partial(parameter_figures.slice_of, ranked, name, objective)
        ways["value-and-size"] = partial(figures.sizes, ranked, article, objective)
        if any(record.config.stores_by_name) and costed(record):
            ways[COSTS] = partial(costs_of, record)
        across = parameter_figures.parallel_coordinates(ranked, objective)
        if across is not None:
            ways["parameters-together"] = lambda: across
    return ways


def costs_of(record: StudyRecord) -> Figure:
    """Draws the objective of a study's heads against what an image costs, best and cheapest marked."""
    heads, objective, found = costed(record), record.config.objective, frugal(record)
    shown = {trial.number for trial in thinned([one.trial for one in heads], MOST_POINTS, objective)}
    marked: dict[str, Costed] = {}
    if found:
        marked["best"] = found.best
        shown |= {found.best.trial.number, found.cheapest.trial.number}
        if found.cheapest.trial.number != found.best.trial.number:
            marked["cheapest within one standard error"] = found.cheapest
    points = {one.trial.number: figures.Point(one.trial.number, one.milliseconds, value_of(one.trial)) for one in heads}
    of_stores = {
        printable(name): [points[one.trial.number] for one in heads if one.store == name and one.trial.number in shown]
        for name in record.config.stores_by_name
    }
    return figures.costs(
        {name: some for name, some in of_stores.items() if some},
        {name: points[one.trial.number] for name, one in marked.items()},
        objective,
    )
