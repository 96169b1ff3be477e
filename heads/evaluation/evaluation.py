"""A head on the rows of a store: which rows, what to know about them, and how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.rows.feed import Feed
from features.runtime.progress import OnProgress, unwatched
from features.store.reader import FeatureStore
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.evaluation.rows import Part, fitted, is_one_of, is_trained_on, rows_of
from heads.files.metadata import HeadMetadata
from heads.files.projected import what_is_lost
from heads.metrics.calibration import with_temperature
from heads.metrics.classification import Metrics, measure
from heads.metrics.scoring import Probabilities, predict_probabilities


@dataclass(frozen=True)
class Evaluation:
    """What a head makes of rows of a store.

    Attributes:
        probabilities: (rows, classes), averaged over the store's views, calibrated where the head is.
        metrics: Of the probabilities.
    """

    probabilities: Probabilities
    metrics: Metrics


@dataclass(frozen=True)
class ChosenRows:
    """Rows of a store that a head fits.

    Attributes:
        store: The store, complete, with the head's classes.
        rows: Of the store.
        caveat: What the reader must know about them, or ''.
    """

    store: FeatureSource
    rows: Rows
    caveat: str = ""

    @classmethod
    def of(cls, part: Part, head: Path, metadata: HeadMetadata, store: FeatureStore) -> ChosenRows:
        """Chooses a part of a store.

        Args:
            part: Which rows: all, or a part as the head's study split this very store.
            head: The head's file, for messages.
            metadata: What it says of itself.
            store: The store.

        Raises:
            InputError: The store is not complete, does not fit the head, or cannot be split as it was.
        """
        store.require_complete()
        source = fitted(head, metadata, store)
        return cls(source, rows_of(part, head, metadata, source), _caveat(part, metadata, source))

    def evaluate(self, model: Any, temperature: float | None, on_progress: OnProgress = unwatched) -> Evaluation:
        """Scores a head.

        Args:
            model: The head.
            temperature: What calibrates it, if anything does.
            on_progress: Told how many rows of how many are predicted, each once for each view.
        """
        feed = Feed(self.store, self.rows, memory_bytes=0)  # every row is read once
        probabilities = with_temperature(predict_probabilities(model, feed, on_progress=on_progress), temperature)
        store, rows = self.store, self.rows
        metrics = measure(probabilities, store.labels[rows], store.classes, patients=store.patients[rows])
        return Evaluation(probabilities, metrics)


def _caveat(part: Part, metadata: HeadMetadata, store: FeatureSource) -> str:
    """What to know about the rows and their features, or ''.

    A store that was updated, or made in other views, is another one than the head's, of images that it was trained on.
    """
    refit, own = metadata.refit, is_trained_on(metadata, store)
    again = refit is not None and part is Part.VALIDATION and part.value in refit.parts
    refit_on_it = refit is not None and is_one_of(refit.stores, store)
    caveats = []
    if (own and (part is Part.ALL or again)) or (not own and refit_on_it):
        caveats.append("includes the rows that the head was trained on: its score on new images will be lower")
    elif not own and metadata.store_fingerprint:
        caveats.append(
            "is not the store that the head was trained on: if it holds images of that one, its score on new images"
            " will be lower"
        )
    elif own and part is Part.VALIDATION:
        caveats.append(
            "are the rows by which its epoch was chosen, and it among other heads: its score on new images will be"
            " lower"
        )
    return "; ".join(filter(None, (*caveats, what_is_lost(metadata, store.header))))
