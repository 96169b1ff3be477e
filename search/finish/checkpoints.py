"""The best few heads on disk, and never more of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from features.runtime.errors import InputError
from features.runtime.files import disk_error, left_of
from features.runtime.keras_settings import separate_keras_session
from features.runtime.lock import WriterLock
from heads.files.head_file import Head, read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.files.own_file import NotSavedError, read_own_metadata, save_own_head, why_not_saved
from heads.files.projected import folded_back
from heads.files.refitted import Refitted
from heads.metrics.scoring import Probabilities, Score
from heads.model.build import build_head
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from heads.model.weights import Weights
from search.finish.refit import Refit
from search.finish.searched import Searched
from search.record.head_files import (
    FINALISTS,
    HEADS_FOLDER,
    OWN,
    PLAIN,
    copy_path_of,
    head_files,
    path_of,
    trial_heads,
    unfinished_files,
)
from search.record.kept_heads import other_than
from search.record.results import FinalistRecord
from search.setup.audit import AUDIT_FILE, PAIRS_FILE
from search.setup.config import SPLIT_FILE, package_versions
from search.setup.data import SearchData
from search.setup.file_names import STUDY_FILE
from search.setup.own_head import OwnHead
from search.setup.stores import ALONE
from search.trials.ask_tell import Asked
from search.trials.ranking import article_trial, ranking, ranking_score_of, score_of

KEEP = 5
_OF_SEARCHES = (STUDY_FILE, SPLIT_FILE, AUDIT_FILE, PAIRS_FILE)
"""Files that searches alone write; the report is others', too."""


class TopCheckpoints:
    """Keeps the heads of the best ``keep`` trials of a study, and the article's head beside them.

    Attributes:
        searched: The study.
        keep: How many.
        alone: Whether no other process keeps heads in the directory.
    """

    def __init__(
        self, searched: Searched, *, keep: int = KEEP, alone: bool = True, lock: WriterLock | None = None
    ) -> None:
        """Prepares.

        Args:
            searched: The study.
            keep: Heads to keep.
            alone: Whether no other process keeps heads in the directory.
            lock: That of the directory, which this process holds; None where several share it.

        Raises:
            InputError: There is a file where the heads' folder belongs.
            BottleneckError: The folder cannot be made.
        """
        self._lock = lock
        self.alone = alone
        self.searched = searched
        self.keep = keep
        self._held: dict[int, tuple[Asked, Weights, Score]] = {}
        _make_folder(searched.folder / HEADS_FOLDER)
        if alone:
            for path in _left_by_killed(searched.folder):
                path.unlink(missing_ok=True)
        self.clear_out()

    def check(self) -> None:
        """Makes sure that the directory is still this study's, and that its rows are what they were.

        Raises:
            BottleneckError: It was removed, and may be another search's by now.
            InputError: A store was written to.
        """
        if self._lock is not None:
            self._lock.check()
        self.searched.data.require_unchanged()

    def offer(
        self, asked: Asked, weights: Sequence[Weights], score: Score, probabilities: Sequence[Probabilities]
    ) -> None:
        """Holds a head that belongs to the best so far; ``write_out`` brings it to disk if it still does then.

        With folds there is no one head of the trial: see ``search.finish.refit``. One of somebody's own function that
        is not held is saved for once all the same: it may be a finalist, and the end of a study is late to learn it.

        Raises:
            BuildError: One that is not held cannot be saved.
        """
        study = self.searched.study
        best = ranking(study)[: self.keep]
        worst = score_of(study, best[-1]) if best else None  # of equals the lower number ranks first
        among_best = len(best) < self.keep or worst is None or not worst.better_than(score) or asked.is_article
        if among_best and len(weights) == 1:
            self._held[asked.number] = (asked, weights[0], score)
        elif isinstance(asked.head, OwnSpec):
            self._try_saving(asked.head, asked.number, weights[0])

    def write_held(self) -> None:
        """Writes the heads held, as the best of what has been told so far.

        Raises:
            BuildError: One of somebody's own function cannot be saved; it is held no longer.
        """
        while self._held:
            number = next(iter(self._held))
            asked, weights, score = self._held.pop(number)
            value = ranking_score_of(self.searched.study, score.ranking_score)
            self.save(number, asked.head, weights, store=asked.store, value=value)

    def write_out(self) -> None:
        """Writes the heads held and removes files of heads that are no longer among the best.

        To be called when trials have been told, before the record is flushed: what the record says was told has its
        file. Not for every trial, since many are soon surpassed.

        Raises:
            BottleneckError: As ``check``, whose ``InputError`` is one of them.
        """
        self.check()
        kept = self._kept()
        self._held = {number: held for number, held in self._held.items() if number in kept}
        self.write_held()
        self.clear_out()

    def save(
        self, number: int, head: HeadSpec | OwnSpec, weights: Weights, *, store: str = ALONE, value: float
    ) -> None:
        """Writes the head of a trial on a store; ``value`` is what it scored."""
        data = self.searched.data.of(store)
        metadata = self._metadata(number, head, data, value=value)
        self._write(path_of(self.searched.folder, number), head, weights, metadata, data)

    def save_refit(self, made: Refit, finalist: FinalistRecord | None, temperature: float | None) -> list[Path]:
        """Writes a head that was trained on all rows, and its copies.

        Args:
            made: The head.
            finalist: What is told of its repeats, if it had some.
            temperature: What calibrates it.

        Returns:
            Their files.

        Raises:
            BottleneckError: As ``check``, the disk is full, or it is of somebody's own function and cannot be saved.
        """
        self.check()
        data = self.searched.data.of(made.store)
        training = Refitted(
            parts=data.parts_but_test,
            stores=data.stores_but_test if len(data.stores_but_test) > 1 else (),
            rows=made.rows,
            epochs=made.epochs,
            repeats=finalist.repeats if finalist else None,
            mean=finalist.mean if finalist else None,
            sd=finalist.sd if finalist else None,
        )
        metadata = self._metadata(made.trial, made.head, data, refit=training, temperature=temperature)
        written = []
        for copy, weights in enumerate((made.weights, *made.more)):
            path = copy_path_of(self.searched.folder, made.trial, copy).with_suffix(PLAIN)
            written.append(self._write(path, made.head, weights, metadata, data))
        return written

    def read(self, path: Path) -> Head:
        """Reads a head of this study; one with layers of somebody's own by their function, which is at hand.

        Raises:
            InputError: The file is damaged.
        """
        if path.suffix != OWN:
            return read_head(path)
        metadata = read_own_metadata(path)
        model = self._rebuild(OwnSpec.from_dict(metadata.own or {}), metadata.trial or 0)
        model.load_weights(path)
        return Head(model, metadata)

    def kept_head(self, trial: FrozenTrial) -> Path | None:
        """Where a trial's own head is; None where there is none, or another file in its place."""
        path = path_of(self.searched.folder, trial.number)
        return None if other_than(path, self.searched.config, trial) else path

    def lost(self) -> Iterator[str]:
        """Yields which of the heads that the directory is to keep it does not, in a line each.

        Where several processes share a study, each keeps those that it has trained.
        """
        folder, config = self.searched.folder, self.searched.config
        if config.folds or not self.alone:
            return
        kept = self._kept()
        for trial in ranking(self.searched.study):
            path = path_of(folder, trial.number)
            if trial.number in kept and (found := other_than(path, config, trial)):
                without = "it cannot be exported"
                yield f"{path.relative_to(folder)}: expected the head of trial {trial.number}, found {found}: {without}"

    def clear_out(self) -> None:
        """Removes the files of trials' heads that are no longer among the best."""
        folder, study = self.searched.folder, self.searched.study
        kept = {path_of(folder, number) for number in self._kept()}
        surpassed = {path: number for path, number in trial_heads(folder).items() if path not in kept}
        if surpassed and not self.alone:  # a head is on the disk before its trial is told
            finished = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
            surpassed = {path: number for path, number in surpassed.items() if number in finished}
        for path in surpassed:
            path.unlink(missing_ok=not self.alone)

    def forget_refits_but(self, kept: Collection[Path]) -> None:
        """Removes the heads that an earlier end of the study had left; those of this one are on the disk already."""
        for path in head_files(self.searched.folder, "refit", "copy"):
            if path not in kept:
                path.unlink()

    def _write(
        self, path: Path, head: HeadSpec | OwnSpec, weights: Weights, metadata: HeadMetadata, data: SearchData
    ) -> Path:
        """The one way from weights to a file, which is always of all channels; returns the file's path."""
        if isinstance(head, OwnSpec):
            number = metadata.trial or 0
            model = self._rebuild(head, number)
            model.set_weights(weights)
            try:
                return save_own_head(path, lambda: self._rebuild(head, number), model, metadata)
            except NotSavedError as error:
                raise self._own.not_saved(error.problem) from error
        model = build_head(head, metadata.feature_shape, len(metadata.classes))
        model.set_weights(folded_back(weights, data.store.header.projection))
        save_head(path, model, metadata)
        return path

    def _try_saving(self, head: OwnSpec, number: int, weights: Weights) -> None:
        with separate_keras_session():
            model = self._rebuild(head, number)
            model.set_weights(weights)
            problem = why_not_saved(lambda: self._rebuild(head, number), model, self._own.feature_shape)
        if problem:
            raise self._own.not_saved(problem)

    def _rebuild(self, head: OwnSpec, number: int) -> Any:
        return self._own.rebuild(head, seed=0, number=number)

    @property
    def _own(self) -> OwnHead:
        assert self.searched.own is not None
        return self.searched.own

    def _kept(self) -> set[int]:
        study = self.searched.study
        article = article_trial(study)
        return {trial.number for trial in ranking(study)[: self.keep]} | ({article.number} if article else set())

    def _metadata(self, number: int, head: HeadSpec | OwnSpec, data: SearchData, **more: Any) -> HeadMetadata:
        what = {"own": head.to_dict()} if isinstance(head, OwnSpec) else {"spec": head}
        store, config = data.store, self.searched.config
        return HeadMetadata.of_store(
            store.header,
            store.fingerprint,
            **what,
            study=config.name,
            trial=number,
            **more,
            split=data.recipe,
            versions=package_versions(config.backend),
        )


def _left_by_killed(folder: Path) -> Iterator[Path]:
    """What is still being written in a study directory where nobody else is at work."""
    yield from unfinished_files(folder)
    for searched in (folder, folder / FINALISTS):
        for name in _OF_SEARCHES:
            yield from left_of(searched / name)


def _make_folder(folder: Path) -> None:
    """Makes the folder of the heads in a study directory, which is there: one that was removed is not made again."""
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise InputError(folder, expected="a folder", found="a file") from error
    except OSError as error:
        raise disk_error(folder, error) from error
