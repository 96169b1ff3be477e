"""Predictions of the rows of a feature store: of features that are there already, wherever they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.runtime.options import option_name
from features.runtime.progress import OnProgress, unwatched
from features.store.reader import FeatureStore
from features.store.source import FeatureSource
from heads.files.metadata import HeadMetadata
from heads.metrics.calibration import with_temperature
from heads.metrics.scoring import predict_probabilities
from heads.prediction.named import Image
from heads.prediction.options import PredictOptions
from heads.prediction.prediction import NOT_FINITE, Prediction, Shares

NO_FEATURES = "no features: the image could not be decoded when the store was made"


def store_among(named: Sequence[Image | FeatureStore]) -> FeatureStore | None:
    """Returns the store that stands alone in the place of images; None where there are images.

    A store among others is an image that cannot be used.

    Raises:
        InputError: An HDF5 file stands alone, and is no store.
    """
    if len(named) != 1:
        return None
    (one,) = named
    if isinstance(one, FeatureStore):
        return one
    return FeatureStore(one) if _is_hdf5(Path(one)) else None


def check_needs_no_image(store: FeatureStore, options: PredictOptions, *, drawn: str | None = None) -> None:
    """Refuses what only an image can answer.

    Args:
        store: What is to be predicted.
        options: How.
        drawn: The option that asks for maps, if one does.

    Raises:
        InputError: Naming the option.
    """
    given = {option_name(name): getattr(options, name) for name in type(options).model_fields if name != "batch_size"}
    usual = {option_name(name): field.default for name, field in type(options).model_fields.items()}
    asked = drawn or next((name for name, value in given.items() if value != usual[name]), None)
    if asked:
        raise InputError(asked, expected="images", found=f"{store.path}, a store: it holds features and no image")


def predict_stored(
    model: Any, metadata: HeadMetadata, store: FeatureSource, *, on_progress: OnProgress = unwatched
) -> Iterator[Prediction]:
    """Yields the prediction of each row, averaged over the store's views; one that has none has its reason.

    Args:
        model: Keras model from the store's features to probabilities.
        metadata: Of the head.
        store: Finished, of the features that the head takes.
        on_progress: Told how many rows of how many are predicted, each once for each view.
    """
    feed = Feed(store, store.usable, memory_bytes=0)  # every row is read once
    found = iter(with_temperature(predict_probabilities(model, feed, on_progress=on_progress), metadata.temperature))
    usable = set(store.usable.tolist())
    for row, path in enumerate(store.header.paths):
        if row not in usable:
            yield Prediction(path, reason=NO_FEATURES)
            continue
        probabilities = next(found)
        if not np.isfinite(probabilities).all():
            yield Prediction(path, reason=NOT_FINITE)
            continue
        shares = Shares(metadata.classes, probabilities)
        yield Prediction(path, metadata.classes[int(probabilities.argmax())], shares)


def _is_hdf5(path: Path) -> bool:
    try:
        return path.is_file() and bool(h5py.is_hdf5(path))
    except (OSError, ValueError):  # an address, or a name that no file can have
        return False
