"""The report's figures by name, each drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from plotly.graph_objects import Figure

from search.record.study_record import StudyRecord
from search.review import figures, parameter_figures


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
        across = parameter_figures.parallel_coordinates(ranked, objective)
        if across is not None:
            ways["parameters-together"] = lambda: across
    return ways
