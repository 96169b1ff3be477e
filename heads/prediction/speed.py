"""What a head costs to use: how long it takes for one image, on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from heads.metrics.scoring import predict_batch
from heads.model.spec import HeadSpec
from heads.model.weights import multiplications

MOST_ROWS = 32
"""In a batch: as many images as ``heads.predict`` takes at once."""
MOST_VALUES = 2**22
"""Of the features that go through at once."""
RUNS = 5


def milliseconds_per_row(model: Any, feature_shape: tuple[int, int, int]) -> float:
    """Measures how long a head takes for the features of one image in one view, as ``heads.predict`` calls it.

    Args:
        model: keras.Model from (batch, height, width, channels) to (batch, classes).
        feature_shape: (height, width, channels).

    Returns:
        Milliseconds, by the shortest of a few batches.
    """
    rows = int(np.clip(MOST_VALUES // math.prod(feature_shape), 1, MOST_ROWS))
    features = np.random.default_rng(0).standard_normal((rows, *feature_shape), np.float32)
    predict_batch(model, features, rows)
    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        predict_batch(model, features, rows)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * min(seconds) / rows


def multiply_adds(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int) -> int:
    """Returns the multiplications of a head's products for one row; what else it computes is little beside them."""
    return sum(multiplications(spec, feature_shape, classes))


class Pace(NamedTuple):
    """How long heads take, by their size.

    Attributes:
        start: Milliseconds of a row whatever the head.
        each: Milliseconds of a million multiplications.
    """

    start: float
    each: float

    @classmethod
    def through(cls, measured: Mapping[int, float]) -> Pace:
        """Returns the line nearest to what was measured, neither part of it below 0.

        Args:
            measured: Milliseconds by multiplications; one at least.
        """
        sizes, times = np.array([*measured]) / 1e6, np.array([*measured.values()])
        if len(measured) == 1:
            return cls(float(times[0]), 0.0)
        from scipy.optimize import nnls

        start, each = nnls(np.column_stack([np.ones(len(sizes)), sizes]), times)[0].tolist()
        return cls(start, each)

    def of(self, size: int) -> float:
        """Returns the milliseconds of a row through a head of so many multiplications."""
        return self.start + self.each * size / 1e6
