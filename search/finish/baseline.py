"""What a study's trials would have taken one at a time: measured on a few of them, for a few epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import mean

import optuna

from features.rows.feed import Feed
from heads.metrics.scoring import EpochRecord
from heads.model.fit import Schedule, train_solo
from search.record.results import OneAtATimeEstimate
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.stores import StudyData
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

SAMPLES = 3
BATCHES = 24
"""Batches of a sampled epoch: mostly all of them, where there are few rows."""
FEWER = 6
"""Batches of a second sample where an epoch has more than ``BATCHES``: what an epoch costs beside its batches, as
callbacks and the first call of a validation, must not be counted once for every few of them."""


@dataclass
class _Stopwatch:
    """Notes when epochs end."""

    ends: list[float]

    def __call__(self, record: EpochRecord) -> bool:
        self.ends.append(time.perf_counter())
        return True


def one_at_a_time(study: optuna.Study, config: StudyConfig, data: StudyData) -> OneAtATimeEstimate:
    """Trains a few of a study's heads by Keras ``fit`` and reckons what all of its trial-epochs would have taken so.

    The sample is spread over the trials' widths. Each head trains three epochs of up to ``BATCHES`` batches, of which
    the first, with its start-up, counts once for each trial, and the others for each trial-epoch.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if is_counted(trial)]
    sound = [trial for trial in trials if TrialNotes.of(trial).failure is None]
    by_width = sorted(sound, key=lambda trial: (TrialNotes.of(trial).spec.conv_width, trial.number))
    count = min(SAMPLES, len(by_width))
    sampled = [by_width[(2 * place + 1) * len(by_width) // (2 * count)] for place in range(count)]
    starts, epochs = zip(*(_sampled(TrialNotes.of(trial), config, data) for trial in sampled), strict=True)
    folds = max(1, config.folds)
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in trials)
    seconds = folds * (len(trials) * mean(starts) + trial_epochs * mean(epochs))
    return OneAtATimeEstimate(
        seconds=round(seconds, 1),
        seconds_per_trial=round(mean(starts), 4),
        seconds_per_epoch=round(mean(epochs), 4),
        sampled=tuple(trial.number for trial in sampled),
    )


def _sampled(notes: TrialNotes, config: StudyConfig, data: StudyData) -> tuple[float, float]:
    """Seconds of a head's start-up, and of each of its epochs on all rows."""
    own = data.of(notes.store)
    trained = len(own.train.rows)
    if own.folds:  # a head trains on all of them but one, which scores it
        trained -= trained // len(own.folds)
    whole = trained / config.batch_size
    start, seconds = _train(notes, config, own, trained, batches=min(BATCHES, whole))
    if whole <= BATCHES:
        return start, seconds
    _, less = _train(notes, config, own, trained, batches=FEWER)
    return start, seconds + (whole - BATCHES) * max(0.0, seconds - less) / (BATCHES - FEWER)


def _train(
    notes: TrialNotes, config: StudyConfig, data: SearchData, trained: int, *, batches: float
) -> tuple[float, float]:
    """Seconds of a head's start-up, and of an epoch of so many batches, with as large a share of what scores it."""
    rows, validation = data.train.rows, data.validation.rows
    scored = len(rows) - trained if data.folds else len(validation)
    taken = rows[: round(batches * config.batch_size)]
    few = Feed(data.store, taken, memory_bytes=2**30)
    share = len(taken) / trained
    validated = Feed(data.validation.store, validation[: max(1, round(share * scored))], memory_bytes=2**30)
    watch = _Stopwatch([time.perf_counter()])
    train_solo(
        notes.spec,
        few,
        validated,
        Schedule(epochs=3, batch_size=config.batch_size, plan_seed=0),
        seed=0,
        on_epoch=watch,
    )
    first, *rest = (after - before for before, after in zip(watch.ends, watch.ends[1:], strict=False))
    return max(0.0, first - min(rest)), min(rest)
