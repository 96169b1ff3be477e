"""What a study's trials would have taken one at a time: measured on a few of them, for a few epochs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from features.rows.feed import Feed
from heads.metrics.scoring import EpochRecord
from heads.model.fit import DivergedError, Schedule, train_solo
from search.record.results import OneAtATimeEstimate
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.stores import StudyData
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

SAMPLES = 3
TRIES = 3
"""Heads next to each other by size that a sample may be of: one that diverges says little of the time it takes."""
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


def one_at_a_time(study: optuna.Study, config: StudyConfig, data: StudyData) -> OneAtATimeEstimate | None:
    """Trains a few of a study's heads by Keras ``fit`` and reckons what all of its trial-epochs would have taken so.

    The sample is spread over the trial-epochs, from those of the smallest heads to those of the largest: trials that
    are stopped early may be other ones than those that train to the end. Each head of the sample trains three epochs
    of up to ``BATCHES`` batches, of which the first, with its start-up, counts once for each trial, and the others for
    each trial-epoch. A trial that was soon stopped may diverge here: then it is the next one by size.

    Returns:
        None where every head that was tried diverged.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if is_counted(trial)]
    by_size, middles = _spread(trials, data)

    @cache
    def measured(place: int) -> tuple[float, float] | None:
        try:
            return _sampled(TrialNotes.of(by_size[place]), config, data)
        except DivergedError:
            return None

    nearest = [_nearest(measured, middle, len(by_size)) for middle in middles]
    thirds = Counter(place for place in nearest if place is not None)
    if not thirds:
        return None
    start, epoch = np.average([measured(place) for place in thirds], axis=0, weights=list(thirds.values())).tolist()
    folds = max(1, config.folds)
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in trials)
    return OneAtATimeEstimate(
        seconds=round(folds * (len(trials) * start + trial_epochs * epoch), 1),
        seconds_per_trial=round(start, 4),
        seconds_per_epoch=round(epoch, 4),
        sampled=tuple(by_size[place].number for place in thirds),
    )


def _spread(trials: Sequence[FrozenTrial], data: StudyData) -> tuple[list[FrozenTrial], list[int]]:
    """The sound trials by size, and the places of those with the middle epoch of each third of all trial-epochs."""
    sound = [trial for trial in trials if TrialNotes.of(trial).failure is None]
    by_size = sorted(sound, key=lambda trial: (_size(TrialNotes.of(trial), data), trial.number))
    ends = np.cumsum([TrialNotes.of(trial).epochs for trial in by_size])
    middles = (2 * np.arange(SAMPLES) + 1) * ends[-1] / (2 * SAMPLES)
    return by_size, np.searchsorted(ends, middles, side="right").tolist()


def _nearest(measured: Callable[[int], object], middle: int, count: int) -> int | None:
    """The place nearest to ``middle`` of a head that could be measured; None where too many could not."""
    nearest = sorted(range(count), key=lambda place: (abs(place - middle), -place))[:TRIES]
    return next((place for place in nearest if measured(place) is not None), None)


def _size(notes: TrialNotes, data: StudyData) -> int:
    """Multiply-adds of the first layer, which most of a head's time goes by."""
    return math.prod(data.of(notes.store).store.header.feature_shape) * notes.spec.conv_width


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
    schedule = Schedule(epochs=3, batch_size=config.batch_size, plan_seed=0)
    try:
        train_solo(notes.spec, few, validated, schedule, seed=0, on_epoch=watch)
    except DivergedError:
        if len(watch.ends) < 3:  # not an epoch beside the first
            raise
    first, *rest = (after - before for before, after in zip(watch.ends, watch.ends[1:], strict=False))
    return max(0.0, first - min(rest)), min(rest)
