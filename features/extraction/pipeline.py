"""Images to bottlenecks: decoding runs ahead of the backbone in threads, a bounded number of batches at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.images.content import read_content
from features.images.decode import UndecodableError, decode_sizes
from features.images.reading import Reading, Source
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.runtime.portable import cpu_count
from features.store.schema import DIGEST_BYTES

EMPTY = -1
"""Stands in a batch for a place that no source has."""
BATCHES_AHEAD = 3
"""Batches that are decoded or being decoded: the memory needed does not depend on the number of images."""
Sources = Sequence[Source] | Mapping[int, Source]
"""Files, pages or contents of files, by the indices that batches are of."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


class FeatureMaker(Protocol):
    """What the pipeline needs of a backbone."""

    image_size: int
    feature_shape: tuple[int, int, int]

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(batch, size, size, 3) uint8 to (batch, height, width, channels) float32."""
        ...


@dataclass(frozen=True)
class Taker:
    """One of those that take the same images.

    Attributes:
        backbone: Its ``features`` is called from the calling thread only.
        reading: How files are read for it; its tally is told what is noticed. Those whose readings are equal share one
            decoding, and the tally of the first of them.
        name: Stands before what goes wrong with its features; '' for nothing.
    """

    backbone: FeatureMaker
    reading: Reading
    name: str = ""


@dataclass(frozen=True)
class Batch:
    """Bottlenecks of some sources.

    Attributes:
        indices: Which of the sources.
        features: (len(indices), views, height, width, channels); zeros where the source could not be decoded.
        contents: (len(indices), 16) uint8, hash of the bytes that were decoded; zeros where they could not be read.
        reasons: Why a source could not be decoded, by index.
        taker: Which of the takers they are of.
    """

    indices: Sequence[int]
    features: npt.NDArray[Any]
    contents: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    taker: int = 0

    def written(self) -> Written:
        """Returns the rest of it, once its features are in the store."""
        return Written(self.indices, self.contents, self.reasons, self.taker)


@dataclass(frozen=True)
class Written:
    """A ``Batch`` whose features are in the store already, and on the disk."""

    indices: Sequence[int]
    contents: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    taker: int = 0


_Kind = tuple[Reading, int]
"""What decides the pictures of an image: how it is read, and their side in pixels."""


@dataclass(frozen=True)
class _Decoded:
    """What came of a source: the hash of its bytes, and for each kind of pictures the reason where there are none."""

    digest: bytes
    reasons: dict[_Kind, str]


@dataclass(frozen=True)
class _Decoding:
    """A batch on its way: its pictures are filled in by the decoding threads.

    Attributes:
        wanted: For each taker its indices, each at its place; ``EMPTY`` where it takes none.
        pictures: (views, batch_size, size, size, 3) by kind; places that stay empty are black.
        waiting: What comes of each index.
    """

    wanted: Sequence[Sequence[int]]
    pictures: dict[_Kind, npt.NDArray[np.uint8]]
    waiting: dict[int, Future[_Decoded]]


def bottlenecks(
    sources: Sources,
    backbone: FeatureMaker,
    views: Sequence[View],
    *,
    batches: Iterable[Sequence[int]],
    batch_size: int,
    dtype: str,
    reading: Reading | None = None,
) -> Generator[Batch]:
    """Yields the bottlenecks of batches of sources, in order: ``bottlenecks_of_each`` for one backbone.

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
    taker = Taker(backbone, reading or Reading())
    wanted = ((indices,) for indices in batches)
    return bottlenecks_of_each(sources, [taker], views, batches=wanted, batch_size=batch_size, dtype=dtype)


def bottlenecks_of_each(
    sources: Sources,
    takers: Sequence[Taker],
    views: Sequence[View],
    *,
    batches: Iterable[Sequence[Sequence[int]]],
    batch_size: int,
    dtype: str,
) -> Generator[Batch]:
    """Yields what several backbones make of batches of sources, in order: for each batch one taker after another.

    A backbone always sees ``batch_size`` images at once, black ones where a batch is shorter or has an empty place:
    one compiled program, and features that do not depend on an image's neighbours. Their last bits may depend on its
    place in the batch.

    Args:
        sources: Files, pages or contents of files.
        takers: The backbones.
        views: Each image is shown to each backbone in each of these; it is decoded once for all.
        batches: For each batch and taker indices into ``sources``, at most ``batch_size``; ``EMPTY`` for a place that
            stays empty, and none at all for a taker that needs nothing of the batch. An index that several takers
            want is at the same place for all of them.
        batch_size: Images in a forward pass.
        dtype: ``float16`` or ``float32``, of the features that are returned.

    Raises:
        BottleneckError: Features are not finite, or too large for float16.
    """
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode") as pool:
        shape = (len(views), batch_size)
        started = (_start(pool, sources, takers, views, wanted, shape=shape) for wanted in batches)
        ahead = deque(islice(started, BATCHES_AHEAD))
        try:
            while ahead:
                yield from _finish(ahead.popleft(), takers, sources, dtype)
                ahead.extend(islice(started, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(
    pool: ThreadPoolExecutor,
    sources: Sources,
    takers: Sequence[Taker],
    views: Sequence[View],
    wanted: Sequence[Sequence[int]],
    *,
    shape: tuple[int, int],
) -> _Decoding:
    kinds: dict[int, dict[_Kind, int]] = {}  # of the pictures of each index, with its place
    for taker, indices in zip(takers, wanted, strict=True):
        assert len(indices) <= shape[1]
        for place, index in enumerate(indices):
            if index != EMPTY:
                kinds.setdefault(index, {})[_kind(taker)] = place
    needed = dict.fromkeys(kind for of_index in kinds.values() for kind in of_index)
    pictures = {kind: np.zeros((*shape, kind[1], kind[1], 3), np.uint8) for kind in needed}
    waiting = {
        index: pool.submit(
            _fill, {kind: pictures[kind][:, place] for kind, place in of_index.items()}, sources[index], views
        )
        for index, of_index in kinds.items()
    }
    return _Decoding(wanted, pictures, waiting)


def _kind(taker: Taker) -> _Kind:
    return taker.reading, taker.backbone.image_size


def _fill(pictures: dict[_Kind, npt.NDArray[np.uint8]], source: Source, views: Sequence[View]) -> _Decoded:
    """Decodes a source into ``pictures`` (views, size, size, 3) of each kind."""
    content = read_content(source)
    reasons: dict[_Kind, str] = {}
    for reading in dict.fromkeys(reading for reading, _ in pictures):
        sizes = [size for other, size in pictures if other == reading]
        try:
            squares = decode_sizes(content.source, sizes, reading)
        except BottleneckError as error:  # not enough memory: bytes have no name to give
            if isinstance(source, bytes):
                raise
            raise BottleneckError(f"{source}: not enough memory to decode it") from error
        for size, square in squares.items():
            if isinstance(square, UndecodableError):
                reasons[reading, size] = str(square)
                continue
            for picture, view in zip(pictures[reading, size], views, strict=True):
                picture[:] = view.apply(square)
    return _Decoded(content.digest, reasons)


def _finish(batch: _Decoding, takers: Sequence[Taker], sources: Sources, dtype: str) -> Iterator[Batch]:
    decoded = {index: future.result() for index, future in batch.waiting.items()}
    for number, (taker, wanted) in enumerate(zip(takers, batch.wanted, strict=True)):
        placed = {index: place for place, index in enumerate(wanted) if index != EMPTY}
        if not placed:
            continue
        kind = _kind(taker)
        reasons = {index: decoded[index].reasons[kind] for index in placed if kind in decoded[index].reasons}
        try:
            features = _features(taker.backbone, batch.pictures[kind], placed, reasons.keys(), sources, dtype=dtype)
        except BottleneckError as error:
            if not taker.name:
                raise
            raise BottleneckError(f"{taker.name}: {error}") from error
        digests = b"".join(decoded[index].digest for index in placed)
        contents = np.frombuffer(digests, np.uint8).reshape(len(placed), DIGEST_BYTES)
        yield Batch([*placed], features, contents, reasons, number)


def _features(
    backbone: FeatureMaker,
    pictures: npt.NDArray[np.uint8],
    placed: dict[int, int],
    bad: Collection[int],
    sources: Sources,
    *,
    dtype: str,
) -> npt.NDArray[Any]:
    """(len(placed), views, height, width, channels) of the indices in ``placed``; zeros for those that are ``bad``."""
    rows = len(placed)
    features = np.zeros((rows, len(pictures), *backbone.feature_shape), dtype)
    usable = [row for row, index in enumerate(placed) if index not in bad]
    places = [place for index, place in placed.items() if index not in bad]
    if usable:
        used = [sources[index] for index in placed if index not in bad]
        for view, shown in enumerate(pictures):
            made = backbone.features(shown)
            made = made[: len(places)] if places[-1] == len(places) - 1 else made[places]
            _check_finite(made, dtype, used)
            features[usable if len(usable) < rows else slice(None), view] = made
    return features


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
