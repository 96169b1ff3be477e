"""What the heads that a study keeps make of its validation rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial

from features.rows.feed import Feed
from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import InputError
from features.runtime.files import identity
from features.store.reader import FeatureStore
from features.store.relabelled import with_classes
from heads.files.head_file import read_head, read_metadata
from heads.files.projected import for_features_of
from heads.metrics.classification import measure
from heads.metrics.scoring import predict_probabilities
from search.record.head_files import OWN, kept_numbers, path_of
from search.record.study_record import StudyRecord, read_split
from search.setup.config import SPLIT_FILE
from search.trials.notes import TrialNotes


def kept_trials(record: StudyRecord) -> list[FrozenTrial]:
    """Returns the trials of which a head is in the study directory, best first."""
    kept = set(kept_numbers(record.folder))
    return [trial for trial in record.ranked if trial.number in kept]


def kept_heads(record: StudyRecord) -> dict[int, object]:
    """Returns which files the kept trials' own heads are just now, by the trials' numbers."""
    return {trial.number: identity(path_of(record.folder, trial.number)) for trial in kept_trials(record)}


def validation_confusions(record: StudyRecord) -> Iterable[tuple[FrozenTrial, list[list[int]], list[str]]]:
    """Yields the (true, called) counts on the validation rows and the class names, for each trial's own head.

    Nothing with folds, where a trial has no head of its own.

    Raises:
        InputError: The store has gone or is another one now.
    """
    config = record.config
    kept = ((trial, path_of(record.folder, trial.number)) for trial in kept_trials(record))
    trials = [trial for trial, path in kept if path.is_file() and path.suffix != OWN]
    if config.folds or not trials:
        return
    use_backend(rather=config.backend)
    start_backend()
    classes = read_metadata(path_of(record.folder, trials[0].number)).classes
    rows = read_split(record.folder).get("validation", [])
    feeds: dict[str, Feed] = {}
    for trial in trials:
        name, path = TrialNotes.of(trial).store, path_of(record.folder, trial.number)
        if name not in feeds:
            feeds[name] = _validation(record, name, classes, rows)
        feed = feeds[name]
        model = for_features_of(path, read_head(path).model, feed.store.header)
        metrics = measure(predict_probabilities(model, feed), feed.labels, feed.store.classes)
        yield trial, [list(counts) for counts in metrics.confusion], list(feed.store.classes)


def _validation(record: StudyRecord, name: str, classes: Sequence[str], rows: Sequence[int]) -> Feed:
    """The validation rows in the store of a name."""
    stores = record.config.stores_by_name.get(name, record.config.stores)
    store = stores.validation or stores.features
    opened = FeatureStore(Path(store.path))
    opened.check_recorded(store.identity, "this study was made with")
    source = with_classes(opened, classes, known_to=str(record.folder))
    if any(row >= len(opened) for row in rows):
        raise InputError(record.folder / SPLIT_FILE, field="rows", expected=f"rows of {opened.path}", found="others")
    return Feed(source, np.asarray(rows, np.int64), memory_bytes=2**28)
