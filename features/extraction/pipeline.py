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

from features.images.content import read_content
from features.images.decode import UndecodableError, decode_image
from features.images.reading import Reading, Source
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.runtime.portable import cpu_count
from features.store.schema import DIGEST_BYTES

EMPTY = -1
"""Stands in a batch for a place that no source has."""
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
        contents: (len(indices), 16) uint8, hash of the bytes that were decoded; zeros where they could not be read.
        reasons: Why a source could not be decoded, by index.
    """

    indices: Sequence[int]
    features: npt.NDArray[Any]
    contents: npt.NDArray[np.uint8]
    reasons: dict[int, str]


@dataclass(frozen=True)
class _Decoded:
    """What came of a source: the hash of its bytes, and the reason where they are no picture."""

    digest: bytes
    reason: str | None = None


@dataclass(frozen=True)
class _Decoding:
    """A batch on its way: its pictures are filled in by the decoding threads."""

    indices: Sequence[int]
    places: Sequence[int]  # where each of them stands among the pictures
    pictures: npt.NDArray[np.uint8]  # (views, batch_size, size, size, 3); rows that stay empty are black
    waiting: tuple[Future[_Decoded], ...]


def bottlenecks(
    sources: Sequence[Source],
    backbone: FeatureMaker,
    views: Sequence[View],
    *,
    batches: Iterable[Sequence[int]],
    batch_size: int,
    dtype: str,
    reading: Reading | None = None,
) -> Generator[Batch]:
    """Yields the bottlenecks of batches of sources, in order.

    The backbone always sees ``batch_size`` images at once, black ones where a batch is shorter or has an empty place:
    one compiled program, and features that do not depend on an image's neighbours. Their last bits may depend on its
    place in the batch.

    Args:
        sources: Files, pages or contents of files.
        backbone: Its ``features`` is called from the calling thread only.
        views: Each image is decoded once and shown to the backbone in each of these.
        batches: Indices into ``sources``, at most ``batch_size`` each; ``EMPTY`` for a place that stays empty.
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
    batch: Sequence[int],
    *,
    shape: tuple[int, ...],
    reading: Reading,
) -> _Decoding:
    assert len(batch) <= shape[1]
    pictures = np.zeros(shape, np.uint8)
    places = [place for place, index in enumerate(batch) if index != EMPTY]
    indices = [batch[place] for place in places]
    waiting = [
        pool.submit(_fill, pictures[:, place], sources[index], views, reading)
        for place, index in zip(places, indices, strict=True)
    ]
    return _Decoding(indices, places, pictures, tuple(waiting))


def _fill(pictures: npt.NDArray[np.uint8], source: Source, views: Sequence[View], reading: Reading) -> _Decoded:
    """Decodes a source into ``pictures`` (views, size, size, 3)."""
    content = read_content(source)
    try:
        image = decode_image(content.source, pictures.shape[1], reading)
    except UndecodableError as error:
        return _Decoded(content.digest, str(error))
    except BottleneckError as error:  # not enough memory: bytes have no name to give
        if isinstance(source, bytes):
            raise
        raise BottleneckError(f"{source}: not enough memory to decode it") from error
    for picture, view in zip(pictures, views, strict=True):
        picture[:] = view.apply(image)
    return _Decoded(content.digest)


def _finish(batch: _Decoding, backbone: FeatureMaker, sources: Sequence[Source], dtype: str) -> Batch:
    decoded = [future.result() for future in batch.waiting]
    reasons = {index: one.reason for index, one in zip(batch.indices, decoded, strict=True) if one.reason is not None}
    rows = len(batch.indices)
    features = np.zeros((rows, len(batch.pictures), *backbone.feature_shape), dtype)
    usable = [i for i, index in enumerate(batch.indices) if index not in reasons]
    places = [batch.places[i] for i in usable]
    if usable:
        for view, pictures in enumerate(batch.pictures):
            made = backbone.features(pictures)
            made = made[: len(places)] if places[-1] == len(places) - 1 else made[places]
            _check_finite(made, dtype, [sources[batch.indices[i]] for i in usable])
            features[usable if len(usable) < rows else slice(None), view] = made
    contents = np.frombuffer(b"".join(one.digest for one in decoded), np.uint8).reshape(rows, DIGEST_BYTES)
    return Batch(batch.indices, features, contents, reasons)


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
