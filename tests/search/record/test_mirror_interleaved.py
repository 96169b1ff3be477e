"""Whatever two processes do to one study and in whatever order: in the end both see what the database says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_database import connected, database, new_study
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.record.mirror import Mirror
from search.setup.optuna_internals import id_of_trial
from search.trials.notes import TrialNotes
from search.trials.ranking import is_interrupted

TRIALS = 5
NOTING = ("claim", "claim", "report", "report", "attribute", "draw", "complete", "fail")
WORKS = st.sampled_from((*NOTING, "give_back", "take_over", "flush", "hand_over"))
STEPS = st.lists(st.tuples(st.integers(0, 1), WORKS, st.integers(0, 3)), min_size=4, max_size=24)
"""Who does what, and of which of its trials."""


@pytest.fixture(scope="module")
def storages(tmp_path_factory) -> Iterator[list[RDBStorage]]:
    """One for each process, and one for who looks at what they did."""
    with database("sqlite", tmp_path_factory.mktemp("interleaved")) as url:
        made = [connected(url) for _ in range(3)]
        yield made
        for storage in made:
            storage.engine.dispose()


class Process:
    """One of two processes: what it does, and what it holds to be so."""

    def __init__(self, storage: RDBStorage, study: int, name: str) -> None:
        self.mirror = Mirror(storage, study, "the study", shared=True)
        self.name = name
        self.told: list[int] = []
        self.reported: dict[int, dict[int, float]] = {}
        self.ended: dict[int, float] = {}
        self.given_back: set[int] = set()

    def do(self, work: str, chosen: int, other: Process) -> None:
        if work == "claim":
            for trial in self.mirror.claim(TRIALS, self.name, chosen % 3 + 1):
                self.reported[id_of_trial(trial)] = {}
        elif work == "take_over":  # as of one that has given no sign of life
            self.mirror.tables.take_back(other.mirror.running)
        elif work == "give_back":
            self.told += self.mirror.flush()
            before = self.mirror.running
            self.mirror.give_back()
            self.given_back.update(before)
        elif work in {"flush", "hand_over"}:
            self.told += getattr(self.mirror, work)()
        elif running := sorted(self.mirror.running):
            self._note(work, running[chosen % len(running)])

    def _note(self, work: str, number: int) -> None:
        mirror, steps = self.mirror, self.reported[number]
        if work == "report":
            steps[len(steps) + 1] = 1 / (1 + len(steps))
            mirror.set_trial_intermediate_value(number, len(steps), steps[len(steps)])
        elif work == "attribute":
            mirror.set_trial_user_attr(number, "noted", len(steps))
        elif work == "draw":
            mirror.set_trial_param(number, "rate", 0.5, FloatDistribution(0, 1))
        elif work == "complete":
            assert mirror.set_trial_state_values(number, TrialState.COMPLETE, [len(steps)])
            self.ended[number] = len(steps)
        else:
            assert mirror.set_trial_state_values(number, TrialState.FAIL)

    def say_of_all(self) -> None:
        """Notes something of each trial that it holds for its own."""
        for number in self.mirror.running:
            self.mirror.set_trial_user_attr(number, "noted", "last")

    def check(self, stored: list[FrozenTrial]) -> None:
        """What it was told, and what came of what it had noted."""
        by_id = {id_of_trial(trial): trial for trial in stored}
        mine = {by_id[number].number for number in self.reported}
        assert max(Counter(self.told).values(), default=1) == 1, "a loss that is told twice"
        assert set(self.told) <= mine - {by_id[number].number for number in self.given_back if number in by_id}
        for number, steps in self.reported.items():
            trial, is_lost = by_id[number], by_id[number].number in self.told
            assert trial.user_attrs["worker"] == self.name
            if not is_lost and number not in self.given_back:
                assert trial.intermediate_values == steps
                assert not is_interrupted(trial)
                assert trial.state != TrialState.RUNNING or number in self.mirror.running
            else:
                assert is_interrupted(trial)
                assert trial.intermediate_values.items() <= steps.items(), "reports after the end"
            if number in self.ended:
                assert is_lost or trial.value == self.ended[number]


@settings(max_examples=30)
@given(steps=STEPS)
def test_in_whatever_order_two_work_on_a_study_both_end_with_what_the_database_says(storages, steps):
    reader, study = storages[2], new_study(storages[2])
    both = [Process(storage, study, f"process {index}") for index, storage in enumerate(storages[:2])]
    try:
        for who, work, chosen in steps:
            both[who].do(work, chosen, both[1 - who])
        for process in both:  # who says nothing more of a trial that it has lost does not hear of that
            process.say_of_all()
        for process in both * 2:  # the second time to hear what the other has written the first time
            process.do("flush", 0, process)
        stored = reader.get_all_trials(study)
        for process in both:
            assert process.mirror.get_all_trials(study) == stored
            process.check(stored)
        assert [trial.number for trial in stored] == list(range(len(stored)))
        counted = [TrialNotes.of(trial).ordinal for trial in stored if not is_interrupted(trial)]
        assert len(set(counted)) == len(counted), "a place that is two trials'"
        assert sorted(counted) == list(range(len(counted))), "a place that nobody has"
        assert not set(both[0].mirror.running) & set(both[1].mirror.running)
    finally:
        for process in both:
            process.mirror.close()
