"""Who is proposed next: ranks at rungs, what the model is of, and a share of chance."""

from __future__ import annotations

import copy
from statistics import mean

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from search.trials.samplers import ENOUGH, EXPLORED, JointSampler, JointSpace, RungSampler, heights_of, make_sampler

optuna.logging.set_verbosity(optuna.logging.WARNING)
RUNGS = (2, 4, 8)
SIGN = {"maximize": 1.0, "minimize": -1.0}


def enter(study, x, value, *, epochs, state=TrialState.RUNNING):
    """Adds a trial with the same score in each of its epochs."""
    study.sampler = RandomSampler(seed=0)
    study.enqueue_trial({"x": x})
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for epoch in range(1, epochs + 1):
        trial.report(value, epoch)
    if state != TrialState.RUNNING:
        study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    return trial.number


def drawn(study, make, count=30):
    """Values of x that samplers of different seeds propose, each for a trial that then fails."""
    found = []
    for seed in range(count):
        study.sampler = make(seed)
        trial = study.ask()
        found.append(trial.suggest_float("x", 0, 1))
        study.tell(trial, state=TrialState.FAIL)
    return found


@pytest.mark.parametrize("direction", SIGN)
def test_good_trials_that_still_train_are_what_is_sought_and_not_whoever_has_ended(direction):
    study = optuna.create_study(direction=direction)
    for index in range(12):
        spread = 0.02 * index / 12
        enter(study, 0.9 + spread, SIGN[direction] * (0.8 + spread), epochs=9)
        enter(study, 0.1 + spread, SIGN[direction] * 0.3, epochs=16, state=TrialState.COMPLETE)
        enter(study, 0.5 + spread, SIGN[direction] * 0.2, epochs=2, state=TrialState.PRUNED)
    ours = drawn(study, lambda seed: RungSampler(RUNGS, seed=seed))
    optunas = drawn(study, lambda seed: TPESampler(seed=seed))
    assert mean(abs(x - 0.9) < 0.2 for x in ours) > 0.8
    assert mean(abs(x - 0.9) < 0.2 for x in optunas) < 0.2


@pytest.mark.parametrize("direction", SIGN)
def test_trials_are_told_apart_at_the_latest_rung_that_enough_have_reached(direction):
    study, sign = optuna.create_study(direction=direction), SIGN[direction]
    late = [enter(study, 0.5, sign * (0.5 + index / 100), epochs=4) for index in range(ENOUGH)]
    alone = enter(study, 0.5, sign * 0.505, epochs=9)  # the only one at the last rung: judged with the others
    early = enter(study, 0.5, sign * 0.9, epochs=3)
    before = enter(study, 0.5, sign * 0.95, epochs=1, state=TrialState.PRUNED)
    enter(study, 0.5, sign * 0.99, epochs=1)  # nothing is known of it yet
    enter(study, 0.5, sign * 0.99, epochs=8, state=TrialState.FAIL)
    heights = heights_of(study, study.get_trials(deepcopy=False), RUNGS)
    assert sorted(heights, key=heights.__getitem__) == [before, early, late[0], alone, *late[1:]]


def test_who_came_to_its_end_before_a_rung_stands_there_with_its_value():
    study = optuna.create_study(direction="maximize")
    for index in range(ENOUGH):
        enter(study, 0.5, index / 100, epochs=8)
    patient = enter(study, 0.5, 0.5, epochs=3, state=TrialState.COMPLETE)
    heights = heights_of(study, study.get_trials(deepcopy=False), RUNGS)
    assert max(heights, key=heights.__getitem__) == patient


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(list(TrialState)), st.floats(0, 1)), max_size=30))
def test_any_study_can_be_drawn_from_and_the_same_seed_draws_the_same(entries):
    study = optuna.create_study(direction="maximize")
    for epochs, state, value in entries:
        if state != TrialState.WAITING:
            enter(study, value, value, epochs=epochs, state=state)
    first, second = (drawn(study, lambda _: RungSampler(RUNGS, seed=3), count=1) for _ in range(2))
    assert first == second


def test_a_third_of_what_bohb_proposes_is_drawn_at_random():
    made = [make_sampler("bohb", seed=1, ordinal=ordinal, epochs=16) for ordinal in range(300)]
    assert mean(isinstance(one, RandomSampler) for one in made) == pytest.approx(EXPLORED, abs=0.08)
    assert all(isinstance(one, RandomSampler | RungSampler) for one in made)


def tried(count, sampler_of, *, first=True):
    """A study whose first trial may have no parameters, as the article's head beside somebody's own function."""
    study = optuna.create_study(direction="maximize")
    if first:
        study.tell(study.ask(), 0.5)
    for index in range(count):
        study.sampler = sampler_of(index)
        trial = study.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_categorical("y", [0, 1])
        trial.report(x, 1)
        study.tell(trial, x - abs(x - y))
    return study


@pytest.mark.parametrize("name", ["tpe", "bohb"])
def test_a_trial_without_parameters_keeps_none_from_being_drawn_jointly(name):
    study = tried(12, lambda place: make_sampler("random", seed=0, ordinal=place, epochs=1))
    ordinals = range(20)
    samplers = [make_sampler(name, seed=0, ordinal=ordinal, epochs=1) for ordinal in ordinals]
    study.sampler = next(one for one in samplers if not isinstance(one, RandomSampler))
    assert study.ask().relative_params.keys() == {"x", "y"}


def test_a_quasi_random_sequence_does_not_stand_still_behind_a_trial_without_parameters():
    """The article's head beside somebody's own function is the first of the study, and has none of its parameters."""
    study = tried(6, lambda place: make_sampler("qmc", seed=0, ordinal=place, epochs=1))
    assert len({trial.params["x"] for trial in study.trials[1:]}) == 6
    study.sampler = make_sampler("qmc", seed=0, ordinal=7, epochs=1)
    assert study.ask().relative_params.keys() == {"x", "y"}


def test_what_a_quasi_random_sequence_has_not_is_drawn_anew_in_every_trial():
    study = tried(1, lambda place: make_sampler("qmc", seed=0, ordinal=place, epochs=1))
    drawn_beside = set()
    for ordinal in range(2, 6):
        study.sampler = make_sampler("qmc", seed=0, ordinal=ordinal, epochs=1)
        drawn_beside.add(study.ask().suggest_float("z", 0, 1))
    assert len(drawn_beside) == 4


def test_where_all_trials_have_parameters_what_is_drawn_is_optunas_own():
    ours = tried(20, lambda place: JointSampler(seed=place), first=False)
    theirs = tried(20, lambda place: TPESampler(seed=place), first=False)
    assert [trial.params for trial in ours.trials] == [trial.params for trial in theirs.trials]


DOMAINS = [
    FloatDistribution(0, 1),
    FloatDistribution(0, 1, log=False),
    FloatDistribution(0, 2),
    IntDistribution(0, 3),
    CategoricalDistribution((0, 1)),
]


def made(number, domains, state):
    """A trial with these domains."""
    return FrozenTrial(
        number=number,
        state=state,
        value=1.0 if state == TrialState.COMPLETE else None,
        datetime_start=None,
        datetime_complete=None,
        params=dict.fromkeys(domains, 0),
        distributions=domains,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 7),
            st.dictionaries(st.sampled_from("cab"), st.sampled_from(DOMAINS), max_size=3),
            st.sampled_from([TrialState.COMPLETE, TrialState.COMPLETE, *TrialState]),
        ),
        max_size=20,
    )
)
def test_a_joint_space_that_is_kept_is_optunas_intersection(changes):
    """Trials end in any order; one that had ended may be another process's and go on, or fail."""
    joint, trials = JointSpace(), {}
    for number, domains, state in changes:
        trials[number] = made(number, domains, state)
        copied = [copy.copy(trials[one]) for one in sorted(trials)]  # as of the trials that have ranks
        expected = intersection_search_space([one for one in copied if one.distributions])
        assert list(joint.of(copied).items()) == list(expected.items())


def test_the_parameters_of_a_trial_are_compared_once_for_all_samplers_of_a_study(monkeypatch):
    """Each anew for each sampler, that was half of an ask in a study of 3,000 trials."""
    study, joint, compared = tried(20, lambda place: RandomSampler(seed=place)), JointSpace(), []
    equal = FloatDistribution.__eq__
    monkeypatch.setattr(FloatDistribution, "__eq__", lambda one, other: compared.append(1) or equal(one, other))
    for name in ("tpe", "bohb"):
        for ordinal in range(12):
            study.sampler = make_sampler(name, seed=0, ordinal=ordinal, epochs=1, joint=joint)
            drawn_jointly = study.ask().relative_params.keys()
            assert drawn_jointly == (set() if isinstance(study.sampler, RandomSampler) else {"x", "y"})
    assert len(compared) == 20


@pytest.mark.parametrize("name", ["tpe", "bohb"])
def test_what_is_drawn_does_not_depend_on_who_else_drew(name):
    joint = JointSpace()
    together = tried(25, lambda place: make_sampler(name, seed=0, ordinal=place, epochs=1, joint=joint))
    alone = tried(25, lambda place: make_sampler(name, seed=0, ordinal=place, epochs=1))
    assert [trial.params for trial in together.trials] == [trial.params for trial in alone.trials]


def test_parameters_that_only_some_trials_have_are_drawn_by_themselves():
    study = optuna.create_study(direction="maximize")
    for index in range(30):
        study.sampler = RandomSampler(seed=index)
        trial = study.ask()
        deep = trial.suggest_categorical("deep", [True, False])
        value = trial.suggest_float("units", 0, 1) if deep else 0.0
        trial.report(value, 8)
        study.tell(trial, value)
    units = []
    for seed in range(20):
        study.sampler = RungSampler(RUNGS, seed=seed)
        trial = study.ask()
        if trial.suggest_categorical("deep", [True, False]):
            units.append(trial.suggest_float("units", 0, 1))
        study.tell(trial, state=TrialState.FAIL)
    assert len(units) > 10
    assert mean(units) > 0.6
