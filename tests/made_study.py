"""Study directories made in a moment: real journals, made-up curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from conftest import ROOT
from optuna.trial import FrozenTrial

from features.runtime.files import write_json
from heads.metrics.classification import ClassMetrics
from heads.metrics.scoring import EpochRecord, Score
from heads.model.weights import initial_weights
from search.finish.searched import Searched
from search.finish.verdict import verdict
from search.record.head_files import refit_path_of
from search.record.opened_study import OpenedStudy
from search.record.results import (
    BankFigures,
    Calibration,
    Difference,
    Ensemble,
    EnsembleOnTest,
    FinalistCost,
    FinalistRecord,
    Finalists,
    HeadOnTest,
    HeldOutTest,
    OneAtATimeEstimate,
    RefitRecord,
)
from search.record.storage import open_record
from search.record.summary import summarise, write_summary
from search.setup.config import SPLIT_FILE, StudyConfig
from search.setup.data import SearchData
from search.setup.space import Space, read_study_file
from search.setup.stores import StudyData
from search.trials.ask_tell import Asked, Book
from search.trials.notes import TrialNotes
from search.trials.ranking import article_trial, is_article, ranking

SPACE = read_study_file(ROOT / "studies" / "heads.toml").space
COUNTS = {"train": 400, "validation": 100, "test": 80}
PATIENTS = {"train": 200, "validation": 50, "test": 40}


def make_config(**changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": "made",
        "seed": 3,
        "trials": 12,
        "epochs": 8,
        "batch_size": 10,
        "folds": 0,
        "engine": "fused",
        "pages": 32,
        "dtype": "float32",
        "sampler": "random",
        "pruner": "halving",
        "backend": "tensorflow",
        "storage": None,
        "space": SPACE.to_dict(),
        "stores": {"features": {"path": "store.h5", "fingerprint": "ab" * 32}, "validation": None, "test": None},
        "split": {
            "identity": "cd" * 8,
            "counts": COUNTS,
            "patients": PATIENTS,
            "validation": 0.15,
            "test": 0.1,
            "seed": 3,
        },
        "versions": {"keras": "3.15.1", "optuna": "5.0.0"},
    }
    return StudyConfig(**(values | changes))


class MadeStudy:
    """A study directory under construction, its journal held open as a running search holds it."""

    def __init__(self, folder: Path, config: StudyConfig, *, resume: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = config
        self.opened: OpenedStudy = open_record(folder, config.name, config.storage, direction="maximize", resume=resume)
        config.write(folder)
        write_json(folder / SPLIT_FILE, {"rows": {"train": [], "validation": [], "test": []}})
        self.book = Book(self.opened.study, config, Space.from_dict(config.space, "here"))

    def searched(self, data: SearchData) -> Searched:
        """What comes after the trials works on, where they are of one store."""
        return Searched(self.folder, self.opened.study, self.config, self.book.space, StudyData.of_one(data))

    def accuracy(self, asked: Asked, epoch: int) -> float:
        width = asked.spec.conv_width / 256
        return round((0.6 + 0.3 * width + 0.1 * (asked.seed % 100) / 100) * (1 - 0.5**epoch), 4)

    def train(self, count: int, *, reason: str = "diverged", best_epoch: Callable[[int], int] | None = None) -> None:
        """Runs trials: a fifth of them fail or are pruned, others complete, with their last epoch as the best.

        Args:
            count: How many.
            reason: Why some failed.
            best_epoch: Another best epoch of a trial that completes, by its ordinal.
        """
        for _ in range(count):
            asked = self.book.ask()
            assert asked is not None
            end = self.config.epochs
            if asked.ordinal % 10 in (3, 4, 6):
                end = max(1, end // 2)
            for epoch in range(1, end + 1):
                accuracy = math.nan if asked.ordinal % 10 == 6 and epoch == end else self.accuracy(asked, epoch)
                asked.trial.report(accuracy, epoch)
            if asked.ordinal % 10 == 6:
                self.book.fail(asked, reason, epochs=end)
            elif end < self.config.epochs:
                self.book.prune(asked, epochs=end)
            else:
                accuracy = self.accuracy(asked, end)
                needed = best_epoch(asked.ordinal) if best_epoch else end
                best = EpochRecord(needed, 0.1, Score(1 - accuracy, accuracy, accuracy), 1e-3)
                TrialNotes.write(asked.trial, learning_rates=[asked.spec.learning_rate] * needed)
                parameters = sum(array.size for array in initial_weights(asked.spec, (2, 2, 64), 4, seed=0))
                self.book.complete(asked, best, epochs=end, parameters=parameters)
        self.opened.flush()

    def begin(self) -> Asked:
        """Leaves a trial running, two epochs in."""
        asked = self.book.ask()
        assert asked is not None
        for epoch in (1, 2):
            asked.trial.report(self.accuracy(asked, epoch), epoch)
        self.opened.flush()
        return asked

    def conclude(self, classes: tuple[str, str] = ("A", "B")) -> None:
        """Writes summary.json as the end of a search does."""
        ranked, article = ranking(self.opened.study), article_trial(self.opened.study)
        assert article is not None
        finalists = [self.finalist(trial, 0.9 - 0.01 * index) for index, trial in enumerate(ranked[2::-1])]
        if article.number not in {one.trial for one in finalists}:
            finalists.append(self.finalist(article, 0.7))
        best, members = finalists[0].trial, tuple(one.trial for one in finalists)
        calibration = Calibration(temperature=1.3, ece_before=0.061, ece_after=0.024)
        per_class = {"rows": 40, "sensitivity": 0.9, "specificity": 0.8, "precision": 0.7, "auc": None}
        scores = {
            "rows": 80,
            "patients": 40,
            "balanced_accuracy": 0.85,
            "loss": 0.4321,
            "per_class": tuple(ClassMetrics(name=name, **per_class) for name in classes),
            "confusion": ((37, 3), (8, 32)),
            "calibration": calibration,
        }
        others = {**scores, "accuracy": 0.8125, "accuracy_interval": (0.7, 0.9)}
        test = HeldOutTest(
            trial=best,
            is_article=False,
            uses=1,
            heads="ef" * 8,
            accuracy=0.8625,
            accuracy_interval=(0.7703, 0.9215),
            **scores,
            article=HeadOnTest(trial=article.number, **others),
            difference=Difference(value=0.05, interval=(-0.0125, 0.11), larger_than_chance=False),
            ensemble=EnsembleOnTest(trials=members, **others),
        )
        summary = replace(
            summarise(self.opened.study, self.config, chosen=best),
            finalists=Finalists(cost=FinalistCost(trial_epochs=90, seconds=2.5), heads=tuple(finalists)),
            ensemble=Ensemble(trials=members, temperature=0.9),
            refit=RefitRecord(trial=best, rows=500, epochs=7, parts=("train", "validation")),
            calibration=calibration,
            test=test,
            verdict=verdict(test),
            bank=BankFigures(
                pages=32,
                dtype="float32",
                compilations=1,
                heads_at_once=6.5,
                page_occupancy=0.91,
                trial_epochs_per_second=9.0,
                gflops=123.4,
                training_seconds=10.0,
                bookkeeping_seconds=0.5,
                bookkeeping_share=0.0476,
            ),
            one_at_a_time=OneAtATimeEstimate(
                seconds=321.0, seconds_per_trial=1.0, seconds_per_epoch=1.0, sampled=(1, 2, 3)
            ),
        )
        write_summary(self.folder, summary)

    def keep_head(self, trial: int) -> None:
        """Leaves the file of a trial's head, for who does not read it."""
        path = refit_path_of(self.folder, trial)
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def finalist(self, trial: FrozenTrial, mean: float) -> FinalistRecord:
        values = (mean - 0.02, mean, mean + 0.02)
        return FinalistRecord(
            trial=trial.number,
            is_article=is_article(trial),
            mean=mean,
            sd=0.02,
            repeats=3,
            diverged=0,
            epochs=7,
            values=values,
            losses=tuple(1 - value for value in values),
        )

    def close(self) -> Path:
        self.opened.close()
        return self.folder
