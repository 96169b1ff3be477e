"""A study in a database as one process sees it: what is noted, what comes of others, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from made_database import connected, database, new_study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.record.mirror import Mirror
from search.setup.optuna_internals import id_of_trial


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp("mirror")) as url:
        yield url


@pytest.fixture(scope="module")
def storage(url) -> Iterator[RDBStorage]:
    storage = connected(url)
    yield storage
    storage.engine.dispose()


@pytest.fixture
def join(storage, url) -> Iterator[Callable[[], Mirror]]:
    """Mirrors of one study, each as a process of its own has it."""
    study, made = new_study(storage), []

    def joined() -> Mirror:
        made.append(Mirror(connected(url), study, "study", shared=True))
        return made[-1]

    first = joined()
    first.tables.begin([])
    yield joined
    for mirror in made:
        mirror.close()


def claim(mirror: Mirror, worker: str = "me") -> int:
    (trial,) = mirror.claim(9, worker)
    return id_of_trial(trial)


def seen(mirror: Mirror, number: int) -> FrozenTrial:
    return mirror.get_trial(number)


def test_who_takes_a_trial_over_sees_all_that_was_reported_of_it(join):
    one, two = join(), join()
    theirs = claim(one, "one")
    one.set_trial_intermediate_value(theirs, 1, 0.5)
    one.flush()
    two.flush()
    assert seen(two, theirs).intermediate_values == {1: 0.5}
    one.set_trial_intermediate_value(theirs, 2, 0.25)
    one.give_back()
    again = claim(two, "two")
    assert seen(two, again).user_attrs["rerun_of"] == seen(two, theirs).number
    assert seen(two, theirs).intermediate_values == {1: 0.5, 2: 0.25}
    assert seen(two, theirs).state == TrialState.FAIL
