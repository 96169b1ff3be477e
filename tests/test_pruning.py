"""Pruning that works from the first epochs, on cohorts and on one trial at a time."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.pruning import RungPruner, is_last_survivor, make_pruner, rungs

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


def test_few_peers_are_no_evidence_and_ties_go_on():
    assert not any(cohort([0.1, 0.5, 0.9], epoch=2, pruner=RungPruner((2,)))[1])
    assert not any(cohort([0.5] * 8, epoch=2, pruner=RungPruner((2,)))[1])


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
