"""The best few heads on disk, and never more of them."""

from __future__ import annotations

from pathlib import Path

import optuna

from features.errors import InputError
from heads.files import HeadMetadata, save_head
from heads.model import Weights, build_head
from heads.scoring import Score
from heads.spec import HeadSpec
from search.book import Asked
from search.config import StudyConfig, package_versions
from search.data import SearchData
from search.trials import article_trial, ranking, score_of

KEEP = 5
FOLDER = "heads"


class Shelf:
    """Keeps the heads of the best ``keep`` trials of a study, and the article's head beside them."""

    def __init__(
        self, folder: Path, study: optuna.Study, config: StudyConfig, data: SearchData, *, keep: int = KEEP
    ) -> None:
        self.folder = folder
        self.study = study
        self.config = config
        self.data = data
        self.keep = keep
        self._held: dict[int, tuple[HeadSpec, Weights, Score]] = {}
        (folder / FOLDER).mkdir(exist_ok=True)
        self.clear_out()

    def offer(self, asked: Asked, weights: Weights, score: Score) -> None:
        """Holds a head that belongs to the best so far; ``write_out`` brings it to disk if it still does then."""
        best = ranking(self.study)[: self.keep]
        if len(best) < self.keep or score.better_than(score_of(best[-1])) or asked.is_article:
            self._held[asked.number] = (asked.spec, weights, score)

    def write_out(self) -> None:
        """Writes the heads held and removes files of heads that are no longer among the best.

        To be called when trials have been told, before the record is flushed: what the record says was told has its
        file. Not for every trial, since many are soon surpassed.
        """
        kept = self._kept()
        for number, (spec, weights, score) in self._held.items():
            if number in kept:
                self.save(number, spec, weights, value=score.accuracy)
        self._held.clear()
        self.clear_out()

    def save(self, number: int, spec: HeadSpec, weights: Weights, *, value: float) -> None:
        """Writes the head of a trial; ``value`` is the trial's."""
        metadata = self._metadata(number, spec, value)
        model = build_head(spec, metadata.feature_shape, len(metadata.classes))
        model.set_weights(weights)
        save_head(path_of(self.folder, number), model, metadata)

    def clear_out(self) -> None:
        """Removes the files of heads that are no longer among the best."""
        files = {path_of(self.folder, number) for number in self._kept()}
        for path in (self.folder / FOLDER).glob("*.hdf5"):
            if path not in files:
                path.unlink()

    def _kept(self) -> set[int]:
        article = article_trial(self.study)
        return {trial.number for trial in ranking(self.study)[: self.keep]} | ({article.number} if article else set())

    def _metadata(self, number: int, spec: HeadSpec, value: float) -> HeadMetadata:
        store, config = self.data.store, self.config
        return HeadMetadata.of_store(
            store.header,
            store.fingerprint,
            spec=spec,
            study=config.name,
            trial=number,
            value=value,
            split=self.data.remakeable_split,
            versions=package_versions(config.backend),
        )


def path_of(folder: Path, number: int) -> Path:
    """Where a study directory keeps the head of a trial."""
    return folder / FOLDER / f"trial-{number}.hdf5"


def find_head(folder: Path, number: int) -> Path:
    """Returns the file of a trial's head.

    Raises:
        InputError: It was not kept; those that were are named.
    """
    path = path_of(folder, number)
    if not path.is_file():
        kept = sorted(int(p.stem.removeprefix("trial-")) for p in (folder / FOLDER).glob("trial-*.hdf5"))
        names = ", ".join(map(str, kept)) or "none yet"
        raise InputError("--trial", expected=f"one of those kept, {names}", found=number)
    return path
