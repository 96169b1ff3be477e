"""Images to bottlenecks: decoding runs ahead of the backbone in threads, a bounded number of batches at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.images.decode import UndecodableError, decode_image
from features.images.reading import Reading, Source
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.runtime.portable import cpu_count

BATCHES_AHEAD = 3
"""Batches that are decoded or being decoded: the memory needed does not depend on the number of images."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


class FeatureMaker(Protocol):
    """What the pipeline needs of a backbone."""

    image_size: int
    feature_shape: tuple[int, int, int]

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(batch, size, size, 3) uint8 to (batch, height, width, channels) float32."""
        ...


@dataclass(frozen=True)
class Batch:
    """Bottlenecks of some sources.

    Attributes:
        indices: Which of the sources.
        features: (len(indices), views, height, width, channels); zeros where the source could not be decoded.
        reasons: Why it could not, by index.
    """

    indices: range
    features: npt.NDArray[Any]
    reasons: dict[int, str]


@dataclass(frozen=True)
class _Decoding:
    """A batch on its way: its pictures are filled in by the decoding threads."""

    indices: range
    pictures: npt.NDArray[np.uint8]  # (views, batch_size, size, size, 3); rows that stay empty are black
    waiting: tuple[Future[str | None], ...]

    def reasons(self) -> dict[int, str]:
        """Waits for the pictures; returns what went wrong, by index."""
        outcomes = zip(self.indices, (future.result() for future in self.waiting), strict=True)
        return {index: reason for index, reason in outcomes if reason is not None}


def bottlenecks(
    sources: Sequence[Source],
    backbone: FeatureMaker,
    views: Sequence[View],
    *,
    batches: Iterable[range],
    batch_size: int,
    dtype: str,
    reading: Reading | None = None,
) -> Generator[Batch]:
    """Yields the bottlenecks of batches of sources, in order.

    The backbone always sees ``batch_size`` images at once, black ones where a batch is shorter: one compiled program,
    and features that do not depend on how the work was cut up.

    Args:
        sources: Files, pages or contents of files.
        backbone: Its ``features`` is called from the calling thread only.
        views: Each image is decoded once and shown to the backbone in each of these.
        batches: Index ranges into ``sources``, at most ``batch_size`` long each.
        batch_size: Images in a forward pass.
        dtype: ``float16`` or ``float32``, of the features that are returned.
        reading: How files are read; its tally is told what is noticed.

    Raises:
        BottleneckError: Features are not finite, or too large for float16.
    """
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode") as pool:
        size = backbone.image_size
        shape = (len(views), batch_size, size, size, 3)
        how = reading or Reading()
        started = (_start(pool, sources, views, indices, shape=shape, reading=how) for indices in batches)
        ahead = deque(islice(started, BATCHES_AHEAD))
        try:
            while ahead:
                yield _finish(ahead.popleft(), backbone, sources, dtype)
                ahead.extend(islice(started, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(
    pool: ThreadPoolExecutor,
    sources: Sequence[Source],
    views: Sequence[View],
    indices: range,
    *,
    shape: tuple[int, ...],
    reading: Reading,
) -> _Decoding:
    assert len(indices) <= shape[1]
    pictures = np.zeros(shape, np.uint8)
    waiting = (pool.submit(_fill, pictures[:, i], sources[index], views, reading) for i, index in enumerate(indices))
    return _Decoding(indices, pictures, tuple(waiting))


def _fill(pictures: npt.NDArray[np.uint8], source: Source, views: Sequence[View], reading: Reading) -> str | None:
    """Decodes a source into ``pictures`` (views, size, size, 3); returns the reason where that fails."""
    try:
        image = decode_image(source, pictures.shape[1], reading)
    except UndecodableError as error:
        return str(error)
    for picture, view in zip(pictures, views, strict=True):
        picture[:] = view.apply(image)
    return None


def _finish(batch: _Decoding, backbone: FeatureMaker, sources: Sequence[Source], dtype: str) -> Batch:
    reasons = batch.reasons()
    rows = len(batch.indices)
    features = np.zeros((rows, len(batch.pictures), *backbone.feature_shape), dtype)
    usable = [i for i, index in enumerate(batch.indices) if index not in reasons]
    if usable:
        for view, pictures in enumerate(batch.pictures):
            made = backbone.features(pictures)
            made = made[:rows] if len(usable) == rows else made[usable]
            _check_finite(made, dtype, [sources[batch.indices[i]] for i in usable])
            features[usable if len(usable) < rows else slice(None), view] = made
    return Batch(batch.indices, features, reasons)


def _check_finite(features: npt.NDArray[np.float32], dtype: str, sources: Sequence[Source]) -> None:
    """Refuses features that are not finite in ``dtype``, naming the first source that has some.

    The extremes decide for the whole batch: NaN and infinity pass through ``min`` and ``max``.
    """
    limit = FLOAT16_MAX if dtype == "float16" else float(np.finfo(np.float32).max)
    if max(-float(features.min()), float(features.max())) <= limit:
        return
    extremes = np.abs(features).max(axis=(1, 2, 3))
    first = next(i for i, extreme in enumerate(extremes) if not extreme <= limit)
    source = sources[first]
    name = f"image {first + 1} of the batch" if isinstance(source, bytes) else str(source)
    if np.isfinite(extremes[first]):
        raise BottleneckError(
            f"{name}: a feature of {extremes[first]:.3g} does not fit float16 (at most {limit:.0f}):"
            " use --dtype float32, or another --preprocessing"
        )
    raise BottleneckError(
        f"{name}: features that are not finite: do weights and --preprocessing fit? --dtype float32 keeps larger ones"
    )
