"""The report's figures by name, each drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property, partial

from plotly.graph_objects import Figure

from features.runtime.text import printable
from search.record.study_record import StudyRecord
from search.review import figures, parameter_figures
from search.review.cheapest_head import CostedTrial, cheapest_head, costed_trials
from search.review.plotting import MOST_POINTS, thinned, value_of


class FigureName(StrEnum):
    """What the figures are called; that of a single parameter has the name of ``name_of_parameter``."""

    HISTORY = "history"
    LEARNING_CURVES = "learning-curves"
    WHAT_ENDED_WHEN = "what-ended-when"
    IMPORTANCE = "importance"
    REPEATS = "repeats"
    VALUE_AND_SIZE = "value-and-size"
    VALUE_AND_COST = "value-and-cost"
    """Of a study of several stores: the objective against what an image costs."""
    PARAMETERS_TOGETHER = "parameters-together"


def name_of_parameter(parameter: str) -> str:
    """Returns what the figure of a parameter is called."""
    return f"parameter-{parameter}"


class Gallery(Mapping[str, Figure]):
    """The figures that a study has enough trials for."""

    def __init__(
        self, record: StudyRecord, *, most_curves: int = figures.MOST_CURVES, template: str | None = None
    ) -> None:
        """Finds out which there are, without drawing them.

        Args:
            record: The study's.
            most_curves: Learning curves that are drawn, at most.
            template: Plotly's name of what the figures are to look like; None where something else decides that.
        """
        self._record = record
        self._template = template
        self._sets = parameter_figures.scored_sets(record.trials, record.config.objective)
        ways = _of_trials(record, most_curves) | self._of_parameters(record)
        self._ways = {str(name): way for name, way in ways.items()}
        self._drawn: dict[str, Figure] = {}

    def __getitem__(self, name: str) -> Figure:
        if name not in self._drawn:
            figure = self._ways[name]()
            if self._template:
                figure.layout.template = self._template
            self._drawn[name] = figure
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ways)

    def __len__(self) -> int:
        return len(self._ways)

    def __repr__(self) -> str:
        return f"Gallery({', '.join(self)})"

    @cached_property
    def together(self) -> tuple[list[str], str]:
        """The parameters that are drawn together, and which they are where that is not all."""
        return parameter_figures.parameters_together(self._record.ranked, lambda: self._shares)

    @cached_property
    def _shares(self) -> dict[str, dict[str, float]]:
        return parameter_figures.importances(self._sets)

    def _of_parameters(self, record: StudyRecord) -> dict[str, Callable[[], Figure]]:
        ranked, objective = record.ranked, record.config.objective
        ways: dict[str, Callable[[], Figure]] = {}
        if self._sets:
            ways[FigureName.IMPORTANCE] = self._importance  # no lambda: a notebook may pickle what it holds
        if len(ranked) > 1:
            for name in parameter_figures.parameter_names(ranked):
                ways[name_of_parameter(name)] = partial(parameter_figures.slice_of, ranked, name, objective)
            ways[FigureName.PARAMETERS_TOGETHER] = self._parameters_together
        return ways

    def _importance(self) -> Figure:
        return parameter_figures.importance(self._shares)

    def _parameters_together(self) -> Figure:
        objective = self._record.config.objective
        return parameter_figures.parallel_coordinates(self._record.ranked, objective, self.together[0])


def _of_trials(record: StudyRecord, most_curves: int) -> dict[str, Callable[[], Figure]]:
    trials, ranked, article, objective = record.trials, record.ranked, record.article, record.config.objective
    ways: dict[str, Callable[[], Figure]] = {}
    if ranked:
        ways[FigureName.HISTORY] = partial(figures.history, ranked, article, objective)
    if curved := [trial for trial in trials if figures.has_curve(trial)]:
        best = ranked[0] if ranked else None
        some = thinned(curved, most_curves, objective)
        ways[FigureName.LEARNING_CURVES] = partial(figures.curves, some, best, article, objective)
    if any(trial.state.is_finished() for trial in trials):
        ways[FigureName.WHAT_ENDED_WHEN] = partial(figures.endings, trials, record.config.epochs)
    if record.finalists:
        ways[FigureName.REPEATS] = partial(figures.repeats, record.finalists, objective)
    if len(ranked) > 1:
        ways[FigureName.VALUE_AND_SIZE] = partial(figures.sizes, ranked, article, objective)
        if any(record.config.stores_by_name) and costed_trials(record):
            ways[FigureName.VALUE_AND_COST] = partial(_costs_of, record)
    return ways


def _costs_of(record: StudyRecord) -> Figure:
    """Draws the objective of a study's heads against what an image costs, best and cheapest marked."""
    heads, objective, found = costed_trials(record), record.config.objective, cheapest_head(record)
    shown = {trial.number for trial in thinned([one.trial for one in heads], MOST_POINTS, objective)}
    marked: dict[str, CostedTrial] = {}
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
