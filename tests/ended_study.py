"""A made study on a tiny real store, its last trial told: what comes afterwards is tried on it, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import build_store
from made_data import made_data
from made_heads import random_head
from made_study import MadeStudy, make_config

from heads.model.spec import HeadSpec
from search.finish.checkpoints import TopCheckpoints
from search.finish.searched import Searched
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.stores import StudyData
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking

SPACE = {
    "conv_width": {"low": 160, "high": 192, "step": 16},  # wider than the article's: made heads are the better for it
    "pooling": ["average", "max"],
    "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
}


@dataclass
class EndedStudy:
    """All that the steps after the search take."""

    made: MadeStudy
    data: SearchData
    checkpoints: TopCheckpoints

    @property
    def folder(self) -> Path:
        return self.made.folder

    @property
    def config(self) -> StudyConfig:
        return self.made.config

    @property
    def study(self):
        return self.made.opened.study

    @property
    def searched(self) -> Searched:
        return self.checkpoints.searched

    @property
    def study_data(self) -> StudyData:
        """The rows as a study of one store has them."""
        return self.searched.data


def end_study(place: Path, *, trials: int = 8, test_share: float = 0.25, **changes: Any) -> EndedStudy:
    """Makes a store, and a study of which the best trials' heads are on the disk, with drawn weights."""
    store = build_store(place / "store.h5", rows=96)
    data = made_data(store, share=0.25, test_share=test_share, seed=1, resident=False)
    settings = {"trials": max(1, trials), "epochs": 4, "batch_size": 16, "finalists": 2, "repeats": 2, "space": SPACE}
    known = {"path": str(store), "fingerprint": data.store.fingerprint}
    settings |= {"split": data.split, "stores": {"features": known}}
    made = MadeStudy(place / "study", make_config(**(settings | changes)))
    made.train(trials, best_epoch=lambda ordinal: 1 + ordinal % made.config.epochs)
    checkpoints = TopCheckpoints(made.searched(data))
    for trial in ranking(made.opened.study)[: checkpoints.keep]:
        spec = TrialNotes.of(trial).spec
        checkpoints.save(trial.number, spec, drawn_weights(spec, data, seed=trial.number), value=trial.value)
    made.close()  # nothing of what comes afterwards writes into the journal
    return EndedStudy(made, data, checkpoints)


def drawn_weights(spec: HeadSpec, data: SearchData, *, seed: int) -> list[np.ndarray]:
    """Weights of a head, drawn."""
    shape, classes = data.store.header.feature_shape, len(data.store.classes)
    weights: list[np.ndarray] = random_head(spec, seed, shape=shape, classes=classes).get_weights()
    return weights


def probabilities(data: SearchData, right: int, *, sure: float = 0.7) -> np.ndarray:
    """(rows, classes) for the validation rows, of which the first ``right`` are classified correctly."""
    labels, classes = data.validation_labels, len(data.store.classes)
    called = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % classes)
    made = np.full((len(labels), classes), (1 - sure) / (classes - 1), np.float32)
    made[np.arange(len(labels)), called] = sure
    return made
