"""What a study's trials would have taken one at a time: measured on a few of them, on a few batches."""

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
BATCHES = 6
"""Batches of the sampled epochs: enough for a rate."""


@dataclass
class _Stopwatch:
    """Notes when epochs end."""

    ends: list[float]

    def __call__(self, record: EpochRecord) -> bool:
        self.ends.append(time.perf_counter())
        return True


def one_at_a_time(study: optuna.Study, config: StudyConfig, data: StudyData) -> OneAtATimeEstimate:
    """Trains a few of a study's heads by Keras ``fit`` and reckons what all of its trial-epochs would have taken so.

    The sample is spread over the trials' widths. Each head trains three epochs of a few batches, of which the first,
    with its start-up, counts once for each trial, and the others for each trial-epoch.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if is_counted(trial)]
    sound = [trial for trial in trials if TrialNotes.of(trial).failure is None]
    by_width = sorted(sound, key=lambda trial: (TrialNotes.of(trial).spec.conv_width, trial.number))
    count = min(SAMPLES, len(by_width))
    sampled = [by_width[(2 * place + 1) * len(by_width) // (2 * count)] for place in range(count)]
    starts, epochs = [], []
    for trial in sampled:
        few, validated, share = _few(data.of(TrialNotes.of(trial).store), config)
        watch = _Stopwatch([time.perf_counter()])
        schedule = Schedule(epochs=3, batch_size=config.batch_size, plan_seed=0)
        train_solo(TrialNotes.of(trial).spec, few, validated, schedule, seed=0, on_epoch=watch)
        first, *rest = (after - before for before, after in zip(watch.ends, watch.ends[1:], strict=False))
        starts.append(max(0.0, first - min(rest)))
        epochs.append(min(rest) / share)
    folds = max(1, config.folds)
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in trials)
    seconds = folds * (len(trials) * mean(starts) + trial_epochs * mean(epochs))
    return OneAtATimeEstimate(
        seconds=round(seconds, 1),
        seconds_per_trial=round(mean(starts), 4),
        seconds_per_epoch=round(mean(epochs), 4),
        sampled=tuple(trial.number for trial in sampled),
    )


def _few(data: SearchData, config: StudyConfig) -> tuple[Feed, Feed, float]:
    """A few batches to train on, as large a share of the validation rows, and that share."""
    rows, validation = data.train.rows, data.validation.rows
    trained, scored = len(rows), len(validation)
    if data.folds:  # a head trains on all of them but one, which scores it
        scored = len(rows) // len(data.folds)
        trained = len(rows) - scored
    taken = rows[: min(BATCHES * config.batch_size, trained)]
    share = len(taken) / trained
    few = Feed(data.store, taken, memory_bytes=2**30)
    validated = Feed(data.validation.store, validation[: max(1, round(share * scored))], memory_bytes=2**30)
    return few, validated, share
