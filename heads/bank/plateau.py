"""ReduceLROnPlateau for many heads at once: NumPy on the host, the same numbers as the Keras callback.

Every head has its own schedule, so the rates are a vector and the callback's few scalars are arrays. The comparison is
made in float32, because that is what ``keras.callbacks.ReduceLROnPlateau`` does (it compares with ``keras.ops.less``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from heads.model.spec import PLATEAU_MIN_DELTA, PLATEAU_MIN_RATE, HeadSpec

FIELDS = ("rates", "factors", "patience", "best", "waited", "started")
"""The arrays that together are a head's state."""


class Plateau:
    """The learning rates of many heads and when each is cut.

    Args:
        shape: Shape of all arrays, e.g. (folds, slots).

    Attributes:
        rates: float32, the rate in force; 0 where there is no head.
        factors: float64, what a rate is multiplied with.
        patience: int64, epochs without improvement before a cut.
        best: float64, the loss to improve on.
        waited: int64, epochs since the last improvement or cut.
        started: bool, whether ``best`` holds a loss yet: the first one counts as an improvement, even NaN.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rates = np.zeros(shape, np.float32)
        self.factors = np.ones(shape)
        self.patience = np.ones(shape, np.int64)
        self.best = np.zeros(shape)
        self.waited = np.zeros(shape, np.int64)
        self.started = np.zeros(shape, bool)

    def start(self, place: tuple[int, ...], spec: HeadSpec) -> None:
        """Begins the schedule of a head that is new at ``place``."""
        self.rates[place] = spec.learning_rate
        self.factors[place], self.patience[place] = spec.plateau_factor, spec.plateau_patience
        self.best[place], self.waited[place], self.started[place] = 0, 0, False

    def update(self, losses: npt.NDArray[Any], heads: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Takes in the validation losses of an epoch.

        Args:
            losses: Of the shape of the arrays; NaN and infinite ones are compared as Keras does.
            heads: bool, same shape: the heads that had an epoch; the others keep their state.

        Returns:
            bool, same shape: whose rate was cut.
        """
        current = np.asarray(losses, np.float64)
        with np.errstate(over="ignore"):
            better = (current + PLATEAU_MIN_DELTA).astype(np.float32) < self.best.astype(np.float32)
        improved = heads & (better | ~self.started)
        self.best[improved] = current[improved]
        self.waited[improved] = 0
        self.started |= heads
        self.waited[heads & ~improved] += 1
        cut = heads & ~improved & (self.waited >= self.patience) & (self.rates > np.float32(PLATEAU_MIN_RATE))
        lowered = np.maximum(self.rates.astype(np.float64) * self.factors, PLATEAU_MIN_RATE)
        self.rates[cut] = lowered[cut].astype(np.float32)
        self.waited[cut] = 0
        return np.asarray(cut)

    def save(self, place: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
        """Returns the state of one head as 0-d arrays, named as in ``FIELDS``."""
        return {name: np.array(getattr(self, name)[place]) for name in FIELDS}

    def load(self, place: tuple[int, ...], state: dict[str, npt.NDArray[Any]]) -> None:
        """Continues what ``save`` returned."""
        for name in FIELDS:
            getattr(self, name)[place] = state[name]
