"""What caching buys: an epoch of the article's head with the backbone in the loop, against one on cached bottlenecks.

    python benchmarks/uncached.py --images FOLDER [--backbone inception_v3] [--weights random] [--limit 192]

Both train the same head, by Keras ``fit``, on the same images; an epoch of each is warmed up, then ``--repetitions`` of
each are timed in turn. The images are decoded in the loop on the one side, as nothing is cached there; the cached
side has paid for one extraction, which is reported too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.runtime.backend import use_backend

if TYPE_CHECKING:
    from features.extraction.backbones import Backbone
    from features.rows.feed import Feed
    from features.store.reader import FeatureStore


def main() -> None:
    arguments = parse()
    use_backend(arguments.backend)
    from features.extraction.backbones import build_backbone
    from features.extraction.extraction import extract_store
    from features.extraction.options import ExtractionOptions
    from features.rows.feed import Feed
    from features.store.reader import FeatureStore

    how = {name: getattr(arguments, name) for name in ("backbone", "weights", "limit")}
    options = ExtractionOptions(**how, views="identity")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5"
        begun = time.perf_counter()
        extract_store(arguments.images, path, options)
        extraction = time.perf_counter() - begun
        store = FeatureStore(path)
        feed = Feed(store, store.usable, memory_bytes=2**33)
        backbone = build_backbone(options.spec)
        uncached = Uncached(backbone, arguments.images, store, arguments.batch_size)
        cached = Cached(feed, arguments.batch_size)
        for side in (uncached, cached):
            side.epoch()
        pairs = [(uncached.epoch(), cached.epoch()) for _ in range(arguments.repetitions)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    images = len(feed.rows)
    print(
        f"{arguments.backbone}, {images} images, batches of {arguments.batch_size}, {len(pairs)} repetitions, medians"
    )
    print(f"  backbone in the loop  {slow:8.2f} s an epoch  {images / slow:8.1f} images/s")
    print(f"  cached bottlenecks    {fast:8.2f} s an epoch  {images / fast:8.1f} images/s")
    print(f"  factor                {slow / fast:8.1f}")
    print(f"  extraction, once      {extraction:8.2f} s, start-up included")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="image folder, one sub-folder per class")
    parser.add_argument("--backbone", default="inception_v3")
    parser.add_argument(
        "--weights", default="random", help="random (speed does not depend on them), imagenet or a file"
    )
    parser.add_argument("--limit", type=int, default=192, help="images")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    return parser.parse_args()


class Uncached:
    """Images through the frozen backbone into the head, in every epoch."""

    def __init__(self, backbone: Backbone, folder: Path, store: FeatureStore, batch_size: int) -> None:
        import keras

        from features.images.decode import decode_image
        from heads.model.build import build_head
        from heads.model.spec import HeadSpec

        images = keras.Input((backbone.image_size, backbone.image_size, 3))
        head = build_head(HeadSpec(), backbone.feature_shape, len(store.classes))
        self.model = keras.Model(images, head(backbone.image_model()(images, training=False)))
        self.model.compile("adam", "sparse_categorical_crossentropy", jit_compile=keras.backend.backend() == "jax")
        rows = store.usable
        starts = range(0, len(rows), batch_size)

        class Images(keras.utils.PyDataset):  # type: ignore[misc]
            def __len__(self) -> int:
                return len(starts)

            def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
                batch = rows[starts[step] : starts[step] + batch_size]
                decoded = [decode_image(folder / store.header.paths[row], backbone.image_size) for row in batch]
                return np.stack(decoded), store.labels[batch]

        self.images = Images(workers=2, use_multiprocessing=False, max_queue_size=4)

    def epoch(self) -> float:
        """Trains for an epoch; returns seconds."""
        begun = time.perf_counter()
        self.model.fit(self.images, epochs=1, verbose=0)
        return time.perf_counter() - begun


class Cached:
    """The same head on cached bottlenecks."""

    def __init__(self, feed: Feed, batch_size: int) -> None:
        import keras

        from heads.model.build import build_head
        from heads.model.spec import HeadSpec

        self.model = build_head(HeadSpec(), feed.shape, len(feed.store.classes))
        self.model.compile("adam", "sparse_categorical_crossentropy", jit_compile=keras.backend.backend() == "jax")
        self.features, self.labels = feed.take(feed.rows, 0), feed.labels
        self.batch_size = batch_size

    def epoch(self) -> float:
        """Trains for an epoch; returns seconds."""
        begun = time.perf_counter()
        self.model.fit(self.features, self.labels, batch_size=self.batch_size, epochs=1, verbose=0)
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
