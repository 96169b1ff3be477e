"""Figures of parameters: axes, ticks and names, of trials that no study has."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.review import figures, parameter_figures


def axis_of(params: list[dict[str, float]], distribution: FloatDistribution) -> dict:
    """The axis ``rate`` of some trials in the parallel coordinates."""
    told = [
        optuna.trial.create_trial(params=one, distributions=dict.fromkeys(one, distribution), value=0.5)
        for one in params
    ]
    figure = parameter_figures.parallel_coordinates(told, "accuracy")
    return next(axis for axis in figure.data[0].dimensions if axis.label == "rate").to_plotly_json()


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (1e-4, 1e-2, ["1e-4", "1e-3", "0.01"]),
        (2e-3, 8e-3, ["2e-3", "5e-3"]),
        (16, 256, ["20", "50", "100", "200"]),
        (2.3e-3, 2.9e-3, ["2.3e-3", "2.9e-3"]),
    ],
)
def test_an_axis_of_logarithms_has_ticks_within_its_range(low, high, texts):
    axis = axis_of([{"rate": low}, {"rate": high}], FloatDistribution(low, high, log=True))
    assert list(axis["ticktext"]) == texts
    assert all(axis["range"][0] - 1e-6 <= at <= axis["range"][1] + 1e-6 for at in axis["tickvals"])


def test_an_axis_holds_ranges_that_differ_from_trial_to_trial():
    told = [
        optuna.trial.create_trial(params={"rate": at}, distributions={"rate": space}, value=0.5)
        for at, space in ((0.2, FloatDistribution(0.1, 1.0, log=True)), (8.0, FloatDistribution(1.0, 10.0, log=True)))
    ]
    axis = parameter_figures.parallel_coordinates(told, "accuracy").data[0].dimensions[1]
    assert list(axis.range) == pytest.approx([-1, 1])


def test_parameters_that_only_later_trials_have_are_among_the_importances():
    figure = parameter_figures.importance({"after 3 epochs": {"a": 0.7, "b": 0.3}, "at the end": {"a": 0.4, "c": 0.6}})
    assert [list(bars.y) for bars in figure.data] == [["b", "c", "a"]] * 2
    assert [list(bars.x) for bars in figure.data] == [[0.3, 0.0, 0.7], [0.0, 0.6, 0.4]]


@pytest.mark.parametrize("log", [False, True])
def test_a_head_without_a_parameter_has_no_place_on_its_axis(log):
    axis = axis_of([{"rate": 0.1}, {"other": 0.1}, {"rate": 1.0}], FloatDistribution(0.1, 1.0, log=log))
    assert [value is None for value in axis["values"]] == [False, True, False]
    assert "0" not in axis.get("ticktext", ())


def test_a_head_without_parameters_has_a_place_among_sizes():
    told = {"epochs": 1, "best_epoch": 1, "validation_loss": 0.5, "validation_accuracy": 0.5, "parameters": 0}
    figure = figures.sizes([optuna.trial.create_trial(value=0.5, user_attrs=told)], None, "accuracy")
    assert list(figure.data[0].x) == [1]


def test_names_in_figures_are_no_markup():
    name = '<i>o</i> & "x"'
    shown = '&lt;i&gt;o&lt;/i&gt; &amp; "x"'
    distribution = {name: CategoricalDistribution([name, "b"])}
    trials = [
        optuna.trial.create_trial(params={name: name}, distributions=distribution, value=value) for value in (0.1, 0.2)
    ]
    figure = parameter_figures.slice_of(trials, name, "accuracy")
    assert figure.layout.xaxis.title.text == shown
    assert list(figure.layout.xaxis.categoryarray) == [shown, "b"]
    assert set(figure.data[0].x) == {shown}
    point = figures.Point(0, 1.0, 0.5)
    assert figures.costs({name: [point]}, {}, "accuracy").data[0].name == shown


def many_parameters(trials: int) -> list[optuna.trial.FrozenTrial]:
    """Trials of 30 parameters, of which p27 alone decides, and p3 is in half of them; the best first."""
    distribution = FloatDistribution(0.0, 1.0)
    made = []
    for index in range(trials):
        params = {f"p{at}": (index * (at + 3) % 11) / 11 for at in range(30)} | {"p27": 1 - index / trials}
        if index % 2:
            del params["p3"]
        own = dict.fromkeys(params, distribution)
        made.append(optuna.trial.create_trial(params=params, distributions=own, value=0.9 - 0.5 * index / trials))
        made[-1]._trial_id = index  # which tells them apart
    return made


def together(trials: list[optuna.trial.FrozenTrial]) -> tuple[list[str], str]:
    sets = parameter_figures.scored_sets(trials, "accuracy")
    return parameter_figures.parameters_together(trials, lambda: parameter_figures.importances(sets))


def test_of_many_parameters_the_most_important_are_drawn_together():
    trials = many_parameters(22)
    names, which = together(trials)
    assert len(names) == parameter_figures.MOST_AXES
    assert "p27" in names
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert which == "24 of 30 parameters, those of the highest importance."
    figure = parameter_figures.parallel_coordinates(trials, "accuracy", names)
    assert [axis.label for axis in figure.data[0].dimensions] == ["accuracy", *names]


def test_of_many_parameters_of_few_trials_those_that_most_have():
    trials = many_parameters(4)
    names, which = together(trials)
    assert names == [f"p{at}" for at in range(25) if at != 3]
    assert which == "24 of 30 parameters, those that most trials have."


@pytest.mark.parametrize(("good", "told"), [(2, True), (28, True), (1, False), (29, False)])
def test_where_all_are_among_the_best_there_is_no_importance(good, told, recwarn):
    """Optuna compares the best tenth with all: where equal values make that the same, it has nothing to say."""
    distribution = {"p": FloatDistribution(0.0, 1.0)}
    trials = [
        optuna.trial.create_trial(params={"p": at / 30}, distributions=distribution, value=0.5 if at < good else 0.4)
        for at in range(29)
    ]
    trials.append(optuna.trial.create_trial(params={"p": 1.0}, distributions=distribution, value=0.9))
    for number, trial in enumerate(trials):
        trial._trial_id = number
    sets = parameter_figures.scored_sets(trials, "accuracy")
    assert bool(sets) == told
    parameter_figures.importances(sets)
    assert not [one for one in recwarn if "quantiles" in str(one.message)]


def test_few_parameters_are_all_drawn_together():
    trials = [optuna.trial.create_trial(value=0.5), optuna.trial.create_trial(value=0.4)]
    assert together(trials) == ([], "")


def test_long_names_leave_room_for_the_plot():
    name, long = "the name of a parameter, which goes on & on and on", "a long choice, " * 9 + "<the end>"
    distribution = {name: CategoricalDistribution([long, "b"])}
    trials = [
        optuna.trial.create_trial(params={name: choice}, distributions=distribution, value=value)
        for choice, value in ((long, 0.1), ("b", 0.2), (long, 0.3))
    ]
    figure = parameter_figures.slice_of(trials, name, "accuracy")
    assert figure.layout.xaxis.title.text == "the name of a pa...s on &amp; on and on"
    assert figure.layout.xaxis.ticktext == ("a long c...the end&gt;", "b")
    escaped = long.replace("<", "&lt;").replace(">", "&gt;")
    assert set(figure.data[0].x) == set(figure.layout.xaxis.tickvals) == {escaped, "b"}
    axis = parameter_figures.parallel_coordinates(trials, "accuracy").data[0].dimensions[1]
    assert max(map(len, (axis.label, *axis.ticktext))) <= 35
    assert max(map(len, parameter_figures.importance({"all": {name: 1.0}}).layout.yaxis.ticktext)) <= 31  # on a phone


@pytest.mark.parametrize(("objective", "called"), [("auc", "AUC"), ("balanced_accuracy", "balanced accuracy")])
def test_the_first_axis_is_called_as_the_objective_is(objective, called):
    trial = optuna.trial.create_trial(params={}, distributions={}, value=0.5)
    assert parameter_figures.parallel_coordinates([trial], objective).data[0].dimensions[0].label == called
