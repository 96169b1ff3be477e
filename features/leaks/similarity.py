"""How alike two images are by their bottlenecks, so that copies of one image stand out.

The similarity of two images is the cosine of their bottlenecks, position by position, without what many images share:
their mean and the 64 directions in which they vary most. What remains is what tells one image from another:
unrelated images of one class are near 0, and a copy that was recompressed or shifted by a pixel is near 1
(docs/architecture.md has the measurement).

Images are first compared by *sketches*, random projections that one pass over the stores computes; what looks alike
there is compared on the full bottlenecks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt

from features.runtime.portable import cpu_count
from features.store.schema import Rows
from features.store.source import FeatureSource

Values = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SKETCH = 521
"""Values of a sketch; the similarity s of two sketches is off by about (1 - s^2) / sqrt(SKETCH). A prime number, so
that the positions of one channel are spread over all of them."""
DIRECTIONS = 64
"""Directions of the largest variance that are taken out, where there are images and values enough."""
SAMPLE = 1024
"""Images that decide the mean and the directions."""
COPY = 0.8
"""Cosine without the mean from which an image of the sample is left out of it, as too much like an earlier one."""
CHUNK_VALUES = 2**21
"""Upper bound of the values in the bottlenecks that a thread reads at once (one at least)."""
WORKERS = min(4, cpu_count())


class Images:
    """Rows of one or more stores with the same kind of features, numbered from 0 on.

    Args:
        parts: Stores, and the rows of each.
    """

    def __init__(self, parts: Sequence[tuple[FeatureSource, Rows]]) -> None:
        self._stores = [store for store, _ in parts]
        self._store = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        self._rows = np.concatenate([rows for _, rows in parts])
        self.paths = tuple(store.header.paths[row] for store, rows in parts for row in rows)
        self.feature_shape = self._stores[0].header.feature_shape

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, images: Indices) -> tuple[Values, Values]:
        """Returns two times (images, values): the bottlenecks, and what they are when the images are mirrored.

        The latter is the view ``flip``, where a store has it. Elsewhere it is the mirrored feature map, which is much
        the same for a backbone that was trained, and not for one with random weights.
        """
        straight, mirrored = self._read(images)
        straight *= self._scale
        mirrored *= self._scale
        return straight, mirrored

    @cached_property
    def _scale(self) -> np.float32:
        """What brings the values near 1, so that their squares are numbers: a power of two, which changes no digit."""
        few = next(self.chunks(self.sample()), np.zeros(0, np.int64))
        largest = max(float(abs(one).max(initial=0)) for one in self._read(few))
        return np.float32(2.0 ** -min(max(math.frexp(largest)[1], -126), 126))

    def _read(self, images: Indices) -> tuple[Values, Values]:
        straight, mirrored = np.empty((2, len(images), *self.feature_shape), np.float32)
        for number, store in enumerate(self._stores):
            here = self._store[images] == number
            if np.any(here):
                views, rows = store.header.views, self._rows[images[here]]
                straight[here] = store.take(rows, views.index("identity") if "identity" in views else 0)
                flipped = straight[here][:, :, ::-1]
                mirrored[here] = store.take(rows, views.index("flip")) if "flip" in views else flipped
        return _finite(straight), _finite(mirrored)

    @property
    def are_symmetric(self) -> bool:
        """Whether the two that ``read`` returns are the same numbers: maps one place wide, and no view ``flip``."""
        return self.feature_shape[1] == 1 and not any("flip" in store.header.views for store in self._stores)

    def chunks(self, images: Indices) -> Iterator[Indices]:
        """Yields ``images`` in pieces that are small enough to be read at once."""
        step = max(1, CHUNK_VALUES // int(np.prod(self.feature_shape)))
        return (images[start : start + step] for start in range(0, len(images), step))

    def sample(self) -> Indices:
        """Returns at most ``SAMPLE`` images, by their paths: wherever they are in the stores, they are the same."""
        order = sorted(range(len(self)), key=lambda image: (crc32(self.paths[image].encode()), self.paths[image]))
        return np.asarray(order[:SAMPLE], np.int64)

    def sketch(self, advance: Callable[[int], object] = lambda images: None) -> tuple[Values, Values]:
        """Returns two times (images, width): sketches of what ``read`` returns of all images, in one pass.

        The width is ``SKETCH``, or that of the images, where these have fewer values. Of images that ``are_symmetric``
        it is one array twice.

        Args:
            advance: Called with the number of images done since the last call.
        """
        chunks = list(self.chunks(np.arange(len(self))))
        kinds = 1 if self.are_symmetric else 2
        found = np.empty((kinds, len(self), min(SKETCH, int(np.prod(self.feature_shape)))), np.float32)
        with ThreadPoolExecutor(WORKERS) as pool:
            done = pool.map(lambda images: [_sketch(read) for read in self.read(images)[:kinds]], chunks)
            for images, sketches in zip(chunks, done, strict=True):
                found[:, images] = sketches
                advance(len(images))
        straight, *mirrored = found
        return straight, mirrored[0] if mirrored else straight


def _finite(read: Values) -> Values:
    """Returns (images, values) of (images, height, width, channels), with 0 for what is not finite.

    That is damage, and ``features.info`` says so; here the other images are still to be compared.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isfinite(read.sum()):
            np.nan_to_num(read, copy=False, posinf=0, neginf=0)
    return read.reshape(len(read), -1)


def _sketch(values: Values) -> Values:
    """Adds each value, with a random sign, to one of SKETCH sums ("feature hashing"); fewer are all kept."""
    size = values.shape[1]
    signed = values * _signs(size)
    if size <= SKETCH:
        return signed
    whole = size // SKETCH * SKETCH
    sums: Values = signed[:, :whole].reshape(len(values), whole // SKETCH, SKETCH).sum(1)
    sums[:, : size - whole] += signed[:, whole:]
    return sums


@lru_cache(maxsize=2)
def _signs(size: int) -> Values:
    return np.random.Generator(np.random.Philox(0)).choice(np.array([-1, 1], np.float32), size)


@dataclass(frozen=True, eq=False)
class Similarity:
    """The measure, as fitted to some images and their mirror images.

    Attributes:
        images: The images.
        sample: Those that it was fitted to, without copies.
        mean: (width,) mean of their sketches, straight and mirrored.
        weights: (2, sample, directions) left singular vectors of these sketches.
        directions: (width, directions) the right ones: what is taken out of a sketch.
        spread: Root mean square of the similarity of two images of the sample: 1 / spread^2 is about the number of
            independent values that are left to tell images apart.
    """

    images: Images
    sample: Indices
    mean: Values
    weights: Values
    directions: Values
    spread: float

    @classmethod
    def fit(cls, images: Images, straight: Values, mirrored: Values) -> Similarity:
        """Takes mean and directions from a sample.

        Of copies in it only one is used: an image that is there twenty times would be a direction of its own, and be
        taken out. Mirror images are used too: where all scans show the eye the same way round, what they share in the
        mirror would otherwise make all of them alike to a mirrored one.

        Args:
            images: The images.
            straight: (images, width) their sketches.
            mirrored: Those of their mirror images.
        """
        sample = images.sample()
        sample = sample[_without_copies(straight[sample] - straight[sample].mean(0))]
        both = np.concatenate([straight[sample], mirrored[sample]])
        mean = both.mean(0, dtype=np.float32)
        both -= mean
        number = min(DIRECTIONS, len(both) // 16, int(np.prod(images.feature_shape)) // 64)
        directions = _principal(both, number)
        weights = np.linalg.qr(both @ directions)[0].reshape(2, len(sample), number)
        spread = _spread(unit((both - (both @ directions) @ directions.T)[: len(sample)]))
        return cls(images, sample, mean, weights, directions, spread)

    def strip(self, sketches: Values) -> None:
        """Takes out of (images, width) sketches what images share, in place; what remains gets length 1."""
        for start in range(0, len(sketches), SAMPLE):
            part = sketches[start : start + SAMPLE]
            part -= self.mean
            part -= (part @ self.directions) @ self.directions.T
            part[:] = unit(part)

    @cached_property
    def _full(self) -> tuple[Values, Values]:
        """(values,) the mean of the bottlenecks and (values, directions) their directions of the largest variance."""
        values = int(np.prod(self.images.feature_shape))
        mean, spanned = np.zeros(values, np.float32), np.zeros((values, self.weights.shape[2]), np.float32)
        done = 0
        for chunk in self.images.chunks(self.sample):
            for read, weights in zip(self.images.read(chunk), self.weights, strict=True):
                mean += read.sum(0) / (2 * len(self.sample))
                spanned += read.T @ weights[done : done + len(chunk)]
            done += len(chunk)
        return mean, np.linalg.qr(spanned)[0]

    def remainders(self, images: Indices) -> tuple[Values, Values]:
        """Returns two times (images, values): what remains of what ``Images.read`` returns, with length 1."""
        mean, directions = self._full

        def strip(read: Values) -> Values:
            read -= mean
            read -= (read @ directions) @ directions.T
            return unit(read)

        straight, mirrored = self.images.read(images)
        return strip(straight), strip(mirrored)


def unit(rows: Values) -> Values:
    """Returns the rows with length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def _without_copies(centred: Values) -> npt.NDArray[np.bool_]:
    """Tells which rows are to be kept: of rows that are almost equal, the first."""
    rows = unit(centred)
    alike = rows @ rows.T >= COPY
    kept = np.zeros(len(rows), bool)
    for row in range(len(rows)):
        kept[row] = not np.any(alike[row, :row] & kept[:row])
    return kept


def _principal(centred: Values, number: int) -> Values:
    """Returns (width, number), orthonormal: the directions of the largest variance, the largest last."""
    found = np.linalg.eigh(centred.T @ centred)[1]
    return np.asarray(found[:, found.shape[1] - number :])


def _spread(rows: Values) -> float:
    """Root mean square of the products of different rows, less what sketching alone adds to it."""
    if len(rows) < 2:
        return 0.0
    total = float(np.sum((rows.T @ rows).astype(np.float64) ** 2)) - len(rows)
    return float(np.sqrt(max(0.0, total / (len(rows) * (len(rows) - 1)) - 1 / SKETCH)))
