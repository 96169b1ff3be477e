"""Near-identical images: one scan saved twice, recompressed, brightened, mirrored or moved by a few pixels.

An image that is in two parts of a data set makes the score on one of them better than it is, whatever the patients'
names say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.leaks.similarity import SKETCH, Images, Indices, Similarity, Values
from features.runtime.progress import OnProgress, unwatched

SPREADS = 20.0
"""How far above the similarity of unrelated images a near-identical pair is, in spreads (docs/architecture.md)."""
LOWEST, HIGHEST = 0.4, 0.999
"""Bounds of the threshold. Below the lower one, where only random weights lead, sketches are too coarse to find pairs
by; the upper one lets copies of the very same file be found in any store."""
LIMIT = 10_000
"""Pairs that are compared on the full bottlenecks: where there are more, the data set itself is the problem."""
BLOCK = 2048
"""Images of each side that are compared at once."""


class Pair(NamedTuple):
    """Two near-identical images.

    Attributes:
        first: Number of one image.
        second: Number of the other, a larger one.
        similarity: At most 1, to 4 decimals.
        mirrored: Whether they are alike once one of them is mirrored.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


@dataclass(frozen=True)
class NearIdentical:
    """The near-identical pairs among some images.

    Attributes:
        pairs: The pairs, the most alike first.
        threshold: The least similarity that counts.
        truncated: Whether there were more than ``LIMIT`` to look at, so that there may be more pairs.
    """

    pairs: tuple[Pair, ...]
    threshold: float
    truncated: bool


def find_near_identical(
    images: Images, groups: npt.NDArray[np.int64], *, on_progress: OnProgress = unwatched
) -> NearIdentical:
    """Finds the pairs of near-identical images that are in different groups.

    Takes one pass over the stores, 4 KB of memory an image, and 3 * SKETCH multiplications for each pair of images
    of different groups; half of the memory and a third of the multiplications where a mirror changes nothing, and less
    where images have fewer values. The same images give the same pairs in whatever order they are.

    Args:
        images: The images.
        groups: (images,) group of each.
        on_progress: Told how many of how many images are done.
    """
    steps = _Steps(len(images), on_progress)
    sketches, mirrored = images.sketch(steps.advance)
    similarity = Similarity.fit(images, sketches, mirrored)
    similarity.strip(sketches)
    if mirrored is not sketches:
        similarity.strip(mirrored)
    threshold = round(float(np.clip(np.tanh(SPREADS * similarity.spread), LOWEST, HIGHEST)), 4)
    # Four standard deviations of a sketch's error, at the threshold.
    floor = threshold - 4 * (1 - threshold**2) / np.sqrt(SKETCH)
    candidates, truncated = _candidates(sketches, mirrored, groups, floor, steps.advance)
    found = [pair for pair in _compare(similarity, candidates) if pair.similarity >= threshold]
    found.sort(key=lambda pair: (-pair.similarity, *sorted((images.paths[pair.first], images.paths[pair.second]))))
    return NearIdentical(tuple(found), threshold, truncated)


class _Steps:
    """Tells a progress display how many images are done, each of them in two steps."""

    def __init__(self, images: int, on_progress: OnProgress) -> None:
        self._done, self._images, self._on_progress = 0, images, on_progress

    def advance(self, images: int) -> None:
        """Counts one step of some images."""
        self._done += images
        self._on_progress(self._done // 2, self._images)


def _candidates(
    sketches: Values,
    mirrored: Values,
    groups: npt.NDArray[np.int64],
    floor: float,
    advance: Callable[[int], object],
) -> tuple[Indices, bool]:
    """Returns (pairs, 2) images whose sketches are at least ``floor`` alike, and whether some had to be left out.

    Of more than ``LIMIT`` the most alike are kept; memory stays bounded.
    """
    order = np.argsort(groups, kind="stable")  # blocks of one group need no comparing
    blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
    best, pairs, truncated = np.zeros(0, np.float32), np.zeros((0, 2), np.int64), False
    for number, one in enumerate(blocks):
        for other in blocks[number:]:
            if groups[one[0]] == groups[other[-1]]:  # sorted: all between them are of the group, too
                continue
            alike = sketches[one] @ sketches[other].T
            if mirrored is not sketches:
                np.maximum(alike, mirrored[one] @ sketches[other].T, out=alike)
                np.maximum(alike, sketches[one] @ mirrored[other].T, out=alike)
            rows, columns = np.nonzero(alike >= floor)
            counts = groups[one[rows]] != groups[other[columns]]
            if one is other:
                counts &= rows < columns
            rows, columns = rows[counts], columns[counts]
            best = np.concatenate([best, alike[rows, columns]])
            pairs = np.concatenate([pairs, np.sort(np.stack([one[rows], other[columns]], 1), axis=1)])
            if len(best) > LIMIT:
                kept = np.argsort(-best, kind="stable")[:LIMIT]
                best, pairs, truncated = best[kept], pairs[kept], True
                floor = max(floor, float(best[-1]))
        advance(len(one))
    return pairs, truncated


def _compare(similarity: Similarity, pairs: Indices) -> Iterator[Pair]:
    """Compares candidates on their full bottlenecks."""
    for first, second in zip(*(similarity.images.chunks(side) for side in pairs.T), strict=True):
        one, one_mirrored = similarity.remainders(first)
        other, other_mirrored = similarity.remainders(second)
        straight = np.sum(one * other, axis=1)
        turned = np.maximum(np.sum(one * other_mirrored, axis=1), np.sum(one_mirrored * other, axis=1))
        for pair in zip(first, second, np.maximum(straight, turned), turned > straight, strict=True):
            yield Pair(int(pair[0]), int(pair[1]), round(min(1.0, float(pair[2])), 4), bool(pair[3]))
