"""The estimate of one-at-a-time training: what is sampled, and the sum, by a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ended_study import end_study

from search.finish import baseline
from search.finish.baseline import one_at_a_time
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted


@pytest.fixture
def clock(monkeypatch):
    """Training that takes 5 s in its first epoch and 2 s in each later one; the heads that were trained."""
    now = [0.0]
    trained = []

    def train_solo(spec, _train, _validation, schedule, *, on_epoch, **_):
        trained.append(spec)
        for epoch in range(schedule.epochs):
            now[0] += 2.0 if epoch else 5.0
            on_epoch(None)

    monkeypatch.setattr(baseline, "train_solo", train_solo)
    monkeypatch.setattr(baseline, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return trained


def test_all_trial_epochs_and_every_start_are_reckoned(tmp_path, clock):
    ended = end_study(tmp_path, trials=8)
    trials = [trial for trial in ended.study.get_trials() if is_counted(trial)]
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)  # all rows are sampled, there are few
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in trials)
    assert (estimate.seconds_per_trial, estimate.seconds_per_epoch) == (3.0, 2.0)
    assert estimate.seconds == 8 * 3.0 + trial_epochs * 2.0


def test_an_epoch_of_a_few_batches_counts_as_the_share_that_it_is(tmp_path, clock):
    ended = end_study(tmp_path, batch_size=4)
    share = baseline.BATCHES * 4 / len(ended.data.train.rows)
    assert share < 1
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    assert estimate.seconds_per_epoch == pytest.approx(2.0 / share, abs=1e-4)


def test_the_sample_is_of_sound_trials_spread_over_the_widths(tmp_path, clock):
    ended = end_study(tmp_path, trials=18)
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    notes = [TrialNotes.of(ended.study.get_trials()[number]) for number in estimate.sampled]
    assert [one.failure for one in notes] == [None] * baseline.SAMPLES
    assert [one.spec for one in notes] == clock
    widths = [spec.conv_width for spec in clock]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
