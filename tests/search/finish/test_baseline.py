"""The estimate of one-at-a-time training: what is sampled, and the sum, by a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ended_study import end_study

from heads.model.fit import DivergedError
from search.finish import baseline
from search.finish.baseline import one_at_a_time
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

START, EPOCH, BATCH = 3.0, 0.5, 0.125
"""Seconds of a head's start-up, of each epoch beside its batches, of a batch."""


@pytest.fixture
def clock(monkeypatch):
    """Training that takes its time by this clock; the heads that were trained, each with its batches an epoch."""
    now = [0.0]
    trained = []

    def train_solo(spec, train, _validation, schedule, *, on_epoch, **_):
        batches = len(train.rows) / schedule.batch_size
        trained.append((spec, batches))
        now[0] += START
        for _epoch in range(schedule.epochs):
            now[0] += EPOCH + BATCH * batches
            on_epoch(None)

    monkeypatch.setattr(baseline, "train_solo", train_solo)
    monkeypatch.setattr(baseline, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return trained


def test_all_trial_epochs_and_every_start_are_reckoned(tmp_path, clock):
    ended = end_study(tmp_path, trials=8)
    trials = [trial for trial in ended.study.get_trials() if is_counted(trial)]
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)  # all rows are sampled, there are few
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in trials)
    whole = len(ended.data.train.rows) / ended.config.batch_size
    assert [batches for _, batches in clock] == [whole] * len(estimate.sampled)
    assert (estimate.seconds_per_trial, estimate.seconds_per_epoch) == (START, pytest.approx(EPOCH + BATCH * whole))
    assert estimate.seconds == pytest.approx(8 * START + trial_epochs * (EPOCH + BATCH * whole), abs=0.05)


def test_with_folds_there_are_as_many_trainings_of_each_trial(tmp_path, clock):
    ended = end_study(tmp_path, trials=8)
    once = one_at_a_time(ended.study, ended.config, ended.study_data)
    folded = one_at_a_time(ended.study, ended.config.model_copy(update={"folds": 3}), ended.study_data)
    assert folded.seconds == pytest.approx(3 * once.seconds, abs=0.2)


def test_of_many_batches_a_few_are_trained_and_what_an_epoch_costs_beside_them_counts_once(tmp_path, clock):
    ended = end_study(tmp_path, batch_size=1)
    whole = len(ended.data.train.rows)
    assert whole > baseline.BATCHES
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    assert [batches for _, batches in clock] == [baseline.BATCHES, baseline.FEWER] * len(estimate.sampled)
    assert estimate.seconds_per_epoch == pytest.approx(EPOCH + BATCH * whole, abs=1e-4)
    assert estimate.seconds_per_trial == START


def test_the_sample_is_of_sound_trials_spread_over_the_widths(tmp_path, clock):
    ended = end_study(tmp_path, trials=18)
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    notes = [TrialNotes.of(ended.study.get_trials()[number]) for number in estimate.sampled]
    assert [one.failure for one in notes] == [None] * baseline.SAMPLES
    assert [one.spec for one in notes] == [spec for spec, _ in clock]
    widths = [one.spec.conv_width for one in notes]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_heads_that_train_longest_are_the_sample(tmp_path, clock, monkeypatch):
    ended = end_study(tmp_path, trials=8)
    trials = [trial for trial in ended.study.get_trials() if is_counted(trial)]
    sound = [trial for trial in trials if TrialNotes.of(trial).failure is None]
    widest = max(sound, key=lambda trial: (TrialNotes.of(trial).spec.conv_width, trial.number))

    def epochs(trial):
        return 1000 if trial.number == widest.number else 1

    of = TrialNotes.of
    told = {trial.number: TrialNotes({**of(trial).attributes, "epochs": epochs(trial)}) for trial in trials}
    monkeypatch.setattr(baseline.TrialNotes, "of", lambda trial: told[trial.number])
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    assert estimate.sampled == (widest.number,)
    whole = len(ended.data.train.rows) / ended.config.batch_size
    total = sum(map(epochs, trials))
    assert estimate.seconds == pytest.approx(8 * START + total * (EPOCH + BATCH * whole), abs=0.05)


def stubborn(monkeypatch, diverges, *, after=0):
    """Training in which some heads diverge, after so many epochs."""
    trains = baseline.train_solo

    def train_solo(spec, *arguments, on_epoch, **told):
        done = []

        def listen(record):
            if diverges(spec) and len(done) == after:
                raise DivergedError("diverged in epoch 1: training loss not finite")
            done.append(record)
            return on_epoch(record)

        return trains(spec, *arguments, on_epoch=listen, **told)

    monkeypatch.setattr(baseline, "train_solo", train_solo)


def test_of_a_head_that_diverges_the_next_one_by_size_is_the_sample(tmp_path, clock, monkeypatch):
    ended = end_study(tmp_path, trials=18)
    usual = one_at_a_time(ended.study, ended.config, ended.study_data)
    identity = TrialNotes.of(ended.study.get_trials()[usual.sampled[1]]).spec.identity
    stubborn(monkeypatch, lambda spec: spec.identity == identity)
    estimate = one_at_a_time(ended.study, ended.config, ended.study_data)
    assert usual.sampled[1] not in estimate.sampled
    assert (estimate.sampled[0], estimate.sampled[-1]) == (usual.sampled[0], usual.sampled[-1])
    assert (estimate.seconds_per_trial, estimate.seconds_per_epoch) == (START, usual.seconds_per_epoch)
    assert estimate.seconds == usual.seconds


def test_of_a_head_that_diverges_late_what_it_trained_serves(tmp_path, clock, monkeypatch):
    ended = end_study(tmp_path, trials=8)
    usual = one_at_a_time(ended.study, ended.config, ended.study_data)
    stubborn(monkeypatch, lambda _: True, after=2)
    assert one_at_a_time(ended.study, ended.config, ended.study_data) == usual


def test_where_every_head_diverges_there_is_no_estimate_and_the_study_ends(tmp_path, clock, monkeypatch):
    ended = end_study(tmp_path, trials=8)
    stubborn(monkeypatch, lambda _: True)
    assert one_at_a_time(ended.study, ended.config, ended.study_data) is None
    assert len(clock) <= baseline.SAMPLES * baseline.TRIES
