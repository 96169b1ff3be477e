"""Pruning that works from the first epochs, on cohorts and on one trial at a time."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.trials.pruning import RungPruner, is_last_survivor, make_pruner, rungs, standing

optuna.logging.set_verbosity(optuna.logging.WARNING)


def cohort(values: list[float], *, epoch: int, pruner: RungPruner) -> tuple[optuna.Study, list[bool]]:
    """All trials report, then all are judged; none has finished."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trials = [study.ask() for _ in values]
    for trial, value in zip(trials, values, strict=True):
        trial.report(value, epoch)
    return study, [trial.should_prune() for trial in trials]


@given(st.lists(st.floats(0, 1), min_size=4, max_size=24, unique=True))
def test_a_first_cohort_is_halved_at_a_rung_and_the_best_half_goes_on(values):
    _, pruned = cohort(values, epoch=2, pruner=RungPruner((2, 4)))
    kept = sorted(value for value, out in zip(values, pruned, strict=True) if not out)
    assert len(kept) == -(-len(values) // 2)
    assert kept == sorted(values)[-len(kept) :]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24), st.sampled_from([1, 3, 5]))
def test_nobody_is_judged_between_rungs(values, epoch):
    _, pruned = cohort(values, epoch=epoch, pruner=RungPruner((2, 4)))
    assert not any(pruned)


def test_few_peers_are_no_evidence_and_who_is_equal_in_all_goes_on():
    assert not any(cohort([0.1, 0.5, 0.9], epoch=2, pruner=RungPruner((2,)))[1])
    assert not any(cohort([0.5] * 8, epoch=2, pruner=RungPruner((2,)))[1])


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_equal_scores_at_a_rung_are_told_apart_by_the_epochs_before(direction):
    study = optuna.create_study(direction=direction, pruner=RungPruner((4,)))
    curves = [(9.0, 0.1, 0.2, 0.5), (0.0, 0.3, 0.4, 0.5), (0.0, 0.2, 0.3, 0.5), (0.0, 0.4, 0.4, 0.5)]
    sign = 1 if direction == "maximize" else -1
    trials = [study.ask() for _ in curves]
    for trial, curve in zip(trials, curves, strict=True):
        for epoch, value in enumerate(curve, 1):
            trial.report(sign * value, epoch)
    assert [trial.should_prune() for trial in trials] == [True, False, True, False]  # the first epoch is too long ago


def test_trials_one_after_the_other_are_judged_against_all_that_came_before():
    study = optuna.create_study(direction="maximize", pruner=RungPruner((1,), minimum_peers=4))
    outcomes = []
    for value in (0.9, 0.8, 0.7, 0.95, 0.1, 0.85, 0.99):
        trial = study.ask()
        trial.report(value, 1)
        pruned = trial.should_prune()
        outcomes.append(pruned)
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
    assert outcomes == [False, False, False, False, True, False, False]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["report", "tell", "fail", "interrupt"]), st.integers(0, 4))),
    st.sampled_from(["maximize", "minimize"]),
    st.sampled_from([2, 3]),
)
@settings(max_examples=30)
def test_what_is_known_of_others_changes_no_verdict(events, direction, reduction):
    """Between two verdicts trials report, come to their ends, or turn out to have been interrupted."""
    pruner = RungPruner((1, 3), reduction=reduction)
    for study in (optuna.create_study(direction=direction, pruner=pruner) for _ in range(2)):
        trials = [study.ask() for _ in range(10)]
        told: set[int] = set()
        for index, trial in enumerate(trials):
            trial.report(index % 4 / 4, 1)
        for number, event, value in events:
            trial = trials[number]
            if number not in told and event == "report":
                trial.report(value / 4, 1 + len(study.get_trials(deepcopy=False)[number].intermediate_values))
            elif number not in told:
                told.add(number)
                if event == "interrupt":
                    trial.set_user_attr("failure", "interrupted")
                study.tell(
                    trial, value if event == "tell" else None, state=None if event == "tell" else TrialState.FAIL
                )
            for frozen in study.get_trials(deepcopy=False):
                assert pruner.prune(study, frozen) == is_behind(study, frozen, reduction)


def is_behind(study: optuna.Study, trial: optuna.trial.FrozenTrial, reduction: int) -> bool:
    """The rule itself: not among the best of all that have a score at the rung."""
    step = trial.last_step
    if step not in (1, 3):
        return False
    peers = [
        one
        for one in study.get_trials(deepcopy=False)
        if step in one.intermediate_values and "failure" not in one.user_attrs
    ]
    standings = sorted((standing(study, peer, step) for peer in peers), reverse=True)
    return len(peers) >= 4 and standing(study, trial, step) < standings[-(-len(peers) // reduction) - 1]


def test_of_a_cohort_at_a_rung_each_is_looked_at_once(monkeypatch):
    """Each anew for each, it was a minute of processor time in a study of 3,000 trials."""
    looked_at = []
    known = lambda study, trial, step: looked_at.append(trial.number) or standing(study, trial, step)  # noqa: E731
    monkeypatch.setattr("search.trials.pruning.standing", known)
    _, pruned = cohort([index / 16 for index in range(16)], epoch=2, pruner=RungPruner((2,)))
    assert pruned == [True] * 8 + [False] * 8
    assert len(looked_at) == 32  # and itself, to be judged


def test_interrupted_trials_are_no_peers_as_they_are_run_again():
    study = optuna.create_study(direction="maximize", pruner=RungPruner((1,)))
    for _ in range(3):
        trial = study.ask()
        trial.report(1.0, 1)
        trial.set_user_attr("failure", "interrupted")
        study.tell(trial, state=TrialState.FAIL)
    trial = study.ask()
    trial.report(0.1, 1)
    assert not trial.should_prune()


@pytest.mark.parametrize("epochs", [1, 2, 6, 12, 50, 400])
def test_rungs_lie_before_the_end(epochs):
    assert all(1 <= rung < epochs for rung in rungs(epochs))
    assert bool(rungs(epochs)) == (epochs > 1)


@pytest.mark.parametrize(("epochs", "expected"), [(400, (50, 100, 200)), (50, (6, 12, 25)), (6, (1, 3)), (2, (1,))])
def test_rungs_are_an_eighth_a_quarter_and_a_half_of_the_way(epochs, expected):
    assert rungs(epochs) == expected


@pytest.mark.parametrize("name", ["halving", "hyperband", "median"])
def test_each_pruner_prunes_weak_trials_before_the_end_of_a_short_study(name):
    epochs, pruned = 20, []
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name, epochs=epochs))
    for number in range(24):
        trial = study.ask()
        quality = (number * 7 % 24) / 24
        for epoch in range(1, epochs + 1):
            trial.report(quality * epoch / epochs, epoch)
            if epoch < epochs and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                pruned.append(quality)
                break
        else:
            study.tell(trial, quality)
    assert len(pruned) >= 6
    assert max(t.value for t in study.get_trials() if t.value is not None) == pytest.approx(23 / 24)


def test_the_last_survivor_is_known():
    study = optuna.create_study(direction="maximize")
    first, second = study.ask(), study.ask()
    assert not is_last_survivor(study, first.number)
    study.tell(first, state=TrialState.PRUNED)
    assert is_last_survivor(study, second.number)
