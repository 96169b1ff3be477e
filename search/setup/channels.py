"""``--channels auto``: the fewest directions of the channels with which a few heads do as well as with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import optuna
from pydantic import BaseModel, ConfigDict

from features.compression.directions import Directions
from features.rows.feed import steps_of
from features.rows.split import fold_rows, groups_of
from features.runtime.errors import InputError
from features.store.projected import ProjectedStore
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.metrics.intervals import is_within, paired_difference
from heads.model.spec import HeadSpec
from search.setup.new_study import new_study
from search.setup.seeds import derive_seed
from search.setup.space import ARTICLE, Space

if TYPE_CHECKING:
    from search.setup.cross_validation import Head

CANDIDATES = (64, 128, 256, 512)
"""Numbers of channels that are tried, the fewest first, where there are more."""
DRAWN = 3
"""Heads of the space beside the article's."""
TRIED_FOLDS = 2
TRIED_STEPS, TRIED_FEWEST_EPOCHS, TRIED_MOST_EPOCHS = 40, 6, 12
"""Batches that a head trains on, about, within so many epochs: enough to tell what it can use."""
MOST_ROWS = 2048
"""Training rows that are looked at, evenly spaced where there are more: enough for a difference of a percent."""


class MeasuredChannels(BaseModel):
    """What a few heads made of so many channels, compared with all of them.

    Attributes:
        channels: How many.
        accuracy: Mean over the heads, by folds.
        difference: That of all channels less this one.
        error: Standard error of the difference, with patients as units.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    accuracy: float
    difference: float
    error: float

    @property
    def keeps(self) -> bool:
        """Whether the heads lose no more than the standard error."""
        return is_within(self.difference, self.error)


def choose_channels(
    directions: Directions, source: FeatureSource, rows: Rows, space: Space, *, seed: int, batch_size: int
) -> tuple[int, tuple[MeasuredChannels, ...]]:
    """Tries numbers of channels, the fewest first, until one keeps the accuracy of all.

    The article's head and a few drawn ones are cross-validated by patient, with all channels and with each number, one
    bank for each; a row's differences are averaged over the heads.

    Args:
        directions: Of the training rows.
        source: Of all channels.
        rows: The training rows.
        space: What the trials draw from.
        seed: Of the study.
        batch_size: Of the study.

    Returns:
        The number of channels, all of them where no other will do, and what was measured, all channels last.

    Raises:
        InputError: The rows cannot be split into folds.
    """
    from search.setup.cross_validation import cross_validate

    most = source.header.feature_shape[2]
    tried_rows = rows if len(rows) <= MOST_ROWS else rows[np.arange(MOST_ROWS) * len(rows) // MOST_ROWS]
    fold_seed = derive_seed(seed, "channels")
    try:
        folds = fold_rows(
            tried_rows, source.labels, source.patients, folds=TRIED_FOLDS, seed=fold_seed, classes=source.classes
        )
    except InputError as error:
        raise InputError(
            "--channels auto", expected=f"rows for {TRIED_FOLDS} folds", found=str(error), hint="use --channels NUMBER"
        ) from error
    heads = _heads(space, seed)
    steps = steps_of(len(tried_rows), TRIED_FOLDS, batch_size)
    epochs = min(TRIED_MOST_EPOCHS, max(TRIED_FEWEST_EPOCHS, TRIED_STEPS // steps))
    ordered = np.concatenate(folds)
    patients, labels = groups_of(source.patients[ordered]), source.labels[ordered]

    def right(features: FeatureSource) -> npt.NDArray[np.float64]:
        """(rows,) share of the heads that classify a row correctly."""
        predicted = cross_validate(features, folds, heads, epochs=epochs, batch_size=batch_size, seed=fold_seed)
        return np.asarray(np.mean([of_head.argmax(axis=1) == labels for of_head in predicted], axis=0))

    whole = right(source)
    measured: list[MeasuredChannels] = []
    for channels in (number for number in CANDIDATES if number < most):
        projected = right(ProjectedStore(source, directions.first(channels)))
        lost, deviation = paired_difference(whole, projected, patients)
        accuracy = float(projected.mean())
        measured.append(MeasuredChannels(channels=channels, accuracy=accuracy, difference=lost, error=deviation))
        if measured[-1].keeps:
            break
    chosen = measured[-1].channels if measured and measured[-1].keeps else most
    all_of_them = MeasuredChannels(channels=most, accuracy=float(whole.mean()), difference=0.0, error=0.0)
    return chosen, (*measured, all_of_them)


def drawn_heads(space: Space, number: int, *, seed: int) -> list[HeadSpec]:
    """Draws heads of a space at random."""
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(number)]


def channels_in_words(measured: Sequence[MeasuredChannels]) -> str:
    """Returns what was measured, for the notes of a study."""
    *tried, whole = measured
    told = [f"{one.channels:,}: {one.accuracy:.4f} ({-one.difference:+.4f} ± {one.error:.4f})" for one in tried]
    return ", ".join([*told, f"all {whole.channels:,}: {whole.accuracy:.4f}"])


def _heads(space: Space, seed: int) -> list[Head]:
    specs = [ARTICLE, *drawn_heads(space, DRAWN, seed=derive_seed(seed, "channels heads"))]
    return [(spec, derive_seed(seed, "channels weights", number)) for number, spec in enumerate(specs)]
