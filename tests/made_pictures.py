"""Small made pictures, the store of their features, and a head trained on it: what the commands need, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.rows.feed import Feed
from features.store.reader import FeatureStore
from features.store.schema import Rows
from heads.files.head_file import save_head
from heads.files.metadata import HeadMetadata
from heads.model.build import build_head
from heads.model.fit import Schedule, train_solo
from heads.model.spec import HeadSpec

KINDS = ("bright", "dark", "striped")
SIZE = (60, 48)
"""Width and height of a picture."""
MISLABELLED = "dark/bright-99-0.png"
"""A bright picture in the folder of the dark ones, which the head was not trained on: it calls it bright."""
_LEVELS = {"bright": 190, "dark": 60, "striped": 120}


@dataclass(frozen=True)
class World:
    """An image folder, its store, and a head that was trained on it.

    Attributes:
        images: 9 images of each kind, and a mislabelled one.
        store: Views identity and flip.
        head: Its backbone has random weights: predicting needs no files.
    """

    images: Path
    store: Path
    head: Path


def draw(kind: str, generator: np.random.Generator, size: tuple[int, int] = SIZE) -> Image.Image:
    """Returns a picture of one kind: noise about a level of grey."""
    pixels = generator.normal(_LEVELS[kind], 25, (size[1], size[0]))
    if kind == "striped":
        pixels[::4] += 90
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_world(folder: Path, *, views: str = "identity,flip") -> World:
    """Makes images, store and head in a folder."""
    world = World(folder / "images", folder / "store.h5", folder / "head.hdf5")
    generator = np.random.default_rng(0)
    for kind in KINDS:
        (world.images / kind).mkdir(parents=True)
        for number in range(9):
            draw(kind, generator).save(world.images / kind / f"{kind}-{number // 3}-{number}.png")
    draw("bright", generator).save(world.images / MISLABELLED)
    how = {"backbone": "mobilenet", "weights": "random:3", "image_size": 64, "alpha": 0.25, "preprocessing": "unit"}
    extract_store(world.images, world.store, ExtractionOptions(**how, views=views, batch_size=28))
    store, head = FeatureStore(world.store), HeadSpec(conv_width=16, batch_norm=False, learning_rate=0.01)
    rows = np.delete(store.usable, store.header.paths.index(MISLABELLED))
    train_head(world.head, store, rows, head, epochs=15, batch_size=16)
    return world


def train_head(path: Path, store: FeatureStore, rows: Rows, spec: HeadSpec, *, epochs: int, batch_size: int) -> None:
    """Trains a head on rows of a store, which are its validation rows too, and writes it to a file."""
    feed = Feed(store, rows, memory_bytes=10**9)
    trained = train_solo(spec, feed, feed, Schedule(epochs=epochs, batch_size=batch_size, plan_seed=0), seed=0)
    model = build_head(spec, feed.shape, len(store.classes))
    model.set_weights(trained.weights)
    save_head(path, model, HeadMetadata.of_store(store.header, store.fingerprint, spec=spec, versions={}))
