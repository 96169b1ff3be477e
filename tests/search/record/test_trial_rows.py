"""Trials read from a database's rows are those that Optuna reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_database import connected, database, new_study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.record.trial_rows import read_trials
from search.setup.optuna_internals import id_of_trial

BEYOND_ALL = 2**31 - 1
DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1, log=True),
    "width": IntDistribution(1, 9),
    "pooling": CategoricalDistribution(["average", None, True, 2, 0.5]),
}
NUMBERS = st.floats(allow_nan=False, width=64)
PARAMS = {"rate": st.floats(1e-4, 1), "width": st.integers(1, 9), "pooling": st.sampled_from(["average", None, True])}
ATTRIBUTES = st.dictionaries(
    st.sampled_from("abc"), st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists, max_leaves=4)
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request, tmp_path_factory) -> Iterator[RDBStorage]:
    with database(request.param, tmp_path_factory.mktemp("rows")) as url:
        storage = connected(url)
        yield storage
        storage.engine.dispose()


@st.composite
def made_trials(draw) -> FrozenTrial:
    state = draw(st.sampled_from(TrialState))
    names = draw(st.sets(st.sampled_from(sorted(PARAMS))))
    return create_trial(
        state=state,
        values=[draw(NUMBERS)] if state == TrialState.COMPLETE else None,
        params={name: draw(PARAMS[name]) for name in names},
        distributions={name: DISTRIBUTIONS[name] for name in names},
        user_attrs=draw(ATTRIBUTES),
        system_attrs=draw(ATTRIBUTES),
        intermediate_values=draw(st.dictionaries(st.integers(0, 99), st.floats(width=64), max_size=4)),
    )


def facts(trial: FrozenTrial) -> dict[str, Any]:
    """All of it; ``repr`` tells NaN from a number and 1 from 1.0."""
    return {
        name: {key: repr(one) for key, one in value.items()} if isinstance(value, dict) else repr(value)
        for name, value in vars(trial).items()
    }


def read(storage: RDBStorage, number: int, among=(), beyond: int = -1) -> list[FrozenTrial]:
    return read_trials(storage, number, among=among, beyond=beyond)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(made_trials(), min_size=1, max_size=4))
def test_they_are_what_optuna_reads(storage, made):
    number = new_study(storage)
    for trial in made:
        storage.create_new_trial(number, trial)
    assert list(map(facts, read(storage, number))) == list(map(facts, storage.get_all_trials(number)))


def test_infinity_is_no_missing_value(storage):
    number = new_study(storage)
    steps = {1: math.inf, 2: -math.inf, 3: math.nan, 4: 0.0}
    for value in (math.inf, -math.inf, 0.0):
        trial = create_trial(state=TrialState.COMPLETE, values=[value], intermediate_values=steps)
        storage.create_new_trial(number, trial)
    found = read(storage, number)
    assert [trial.values for trial in found] == [[math.inf], [-math.inf], [0.0]]
    assert repr(found[0].intermediate_values) == repr(steps)


def test_trials_are_read_by_number_and_beyond_one(storage):
    number = new_study(storage)
    made = create_trial(state=TrialState.COMPLETE, values=[1.0])
    numbers = [storage.create_new_trial(number, made) for _ in range(4)]
    storage.create_new_trial(new_study(storage), made)

    def places(among, beyond) -> list[int]:
        return [numbers.index(id_of_trial(trial)) for trial in read(storage, number, among, beyond)]

    assert places([], -1) == [0, 1, 2, 3]
    assert places([], numbers[1]) == [2, 3]
    assert places({numbers[0]}, numbers[2]) == [0, 3]
    assert places([numbers[2], numbers[0], BEYOND_ALL], BEYOND_ALL) == [0, 2]
    assert places([], BEYOND_ALL) == []


def test_a_study_that_is_not_there_is_none_without_trials(storage):
    assert read(storage, new_study(storage)) == []
    with pytest.raises(KeyError):
        read(storage, 10**6)
