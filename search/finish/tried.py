"""Rows that an exported model is tried with: of the study's store where it is still there, else made up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.files.formats import Inputs
from heads.files.metadata import HeadMetadata
from search.setup.config import StudyConfig

FEATURES = 8
IMAGES = 4
_CELLS = 16
"""Squares of one colour along each side of a made image."""


class Tried(NamedTuple):
    """What goes through a model.

    Attributes:
        rows: (rows, height, width, channels).
        what: What they are, in words.
    """

    rows: Inputs
    what: str


def some_features(config: StudyConfig, metadata: HeadMetadata) -> Tried:
    """Returns a few features as a head takes them: from all over the study's store, or made up.

    Args:
        config: Says where the store is, or was.
        metadata: Of the head. Where it was trained on a compressed store, that has other features than it takes.
    """
    store = _store(config, metadata.store_fingerprint)
    if store is not None and store.header.feature_shape == metadata.feature_shape and len(store.usable):
        rows = store.usable[np.unique(np.linspace(0, len(store.usable) - 1, FEATURES).astype(int))]
        return Tried(store.take(rows, 0).astype(np.float32), f"rows of {store.path.name}")
    drawn = np.random.default_rng(0).standard_normal((FEATURES, *metadata.feature_shape), np.float32)
    return Tried(np.maximum(drawn, 0), "made-up rows")


def _store(config: StudyConfig, fingerprint: str | None) -> FeatureStore | None:
    """The study's store that a head was trained on; its first one where that is not known."""
    stores = [parts.features for parts in config.stores_by_name.values()]
    told = next((one for one in stores if one.fingerprint == fingerprint), stores[0])
    try:
        return FeatureStore(Path(told.path))
    except InputError:  # moved or removed: a head can leave all the same
        return None


def made_images(size: int) -> Inputs:
    """Returns images of squares in random colours: (images, size, size, 3), 0 to 255."""
    cells = np.random.default_rng(0).integers(0, 256, (IMAGES, _CELLS, _CELLS, 3))
    places = np.arange(size) * _CELLS // size
    return cells[:, places][:, :, places].astype(np.float32)
