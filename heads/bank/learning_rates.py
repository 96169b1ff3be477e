"""The learning rates of many heads at once: NumPy on the host, the same numbers as Keras' callbacks.

Every head has its own schedule, so the rates are a vector and the callback's few scalars are arrays. The comparison is
made in float32, because that is what ``keras.callbacks.ReduceLROnPlateau`` does (it compares with ``keras.ops.less``).
A cosine follows from the epochs alone, whatever the losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from heads.model.spec import PLATEAU_MIN_DELTA, PLATEAU_MIN_RATE, HeadSpec, cosine_rate

FIELDS = ("rates", "factors", "patience", "best", "waited", "started")
"""The arrays that together are a head's state."""
COSINE_FIELDS = (*FIELDS, "first", "trained", "length")
"""Those of a head whose rate follows a cosine."""


class LearningRates:
    """The learning rates of many heads and when each changes.

    Args:
        shape: Shape of all arrays, e.g. (folds, slots).

    Attributes:
        rates: float32, the rate in force; 0 where there is no head.
        factors: float64, what a rate is multiplied with.
        patience: int64, epochs without improvement before a cut.
        best: float64, the loss to improve on.
        waited: int64, epochs since the last improvement or cut.
        started: bool, whether ``best`` holds a loss yet: the first one counts as an improvement, even NaN.
        first: float64, where a cosine begins.
        trained: int64, epochs of a cosine so far.
        length: int64, epochs until a cosine is at zero; 0 where the rate is cut on plateaus.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rates = np.zeros(shape, np.float32)
        self.factors = np.ones(shape)
        self.patience = np.ones(shape, np.int64)
        self.best = np.zeros(shape)
        self.waited = np.zeros(shape, np.int64)
        self.started = np.zeros(shape, bool)
        self.first = np.zeros(shape)
        self.trained = np.zeros(shape, np.int64)
        self.length = np.zeros(shape, np.int64)

    def start(self, place: tuple[int, ...], spec: HeadSpec, epochs: int | None = None) -> None:
        """Begins the schedule of a head that is new at ``place``.

        Args:
            place: Where.
            spec: The head.
            epochs: How long it trains: a cosine needs to know.
        """
        self.rates[place] = spec.learning_rate
        self.first[place], self.trained[place] = spec.learning_rate, 0
        self.length[place] = epochs if epochs and spec.follows_cosine else 0
        self.factors[place], self.patience[place] = spec.plateau_factor, spec.plateau_patience
        self.best[place], self.waited[place], self.started[place] = 0, 0, False

    def update(self, losses: npt.NDArray[Any], heads: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Takes in the validation losses of an epoch.

        Args:
            losses: Of the shape of the arrays; NaN and infinite ones are compared as Keras does.
            heads: bool, same shape: the heads that had an epoch; the others keep their state.

        Returns:
            bool, same shape: whose rate was lowered.
        """
        current = np.asarray(losses, np.float64)
        with np.errstate(over="ignore"):
            better = (current + PLATEAU_MIN_DELTA).astype(np.float32) < self.best.astype(np.float32)
        improved = heads & (better | ~self.started)
        self.best[improved] = current[improved]
        self.waited[improved] = 0
        self.started |= heads
        self.waited[heads & ~improved] += 1
        bent = heads & (self.length > 0)
        waits = heads & ~improved & ~bent & (self.waited >= self.patience)
        cut = waits & (self.rates > np.float32(PLATEAU_MIN_RATE))
        lowered = np.maximum(self.rates.astype(np.float64) * self.factors, PLATEAU_MIN_RATE)
        self.rates[cut] = lowered[cut].astype(np.float32)
        self.waited[cut] = 0
        self.trained[bent] += 1
        for place in zip(*np.nonzero(bent), strict=True):
            self.rates[place] = cosine_rate(self.first[place], int(self.trained[place]), int(self.length[place]))
        return np.asarray(cut | bent)

    def save(self, place: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
        """Returns the state of one head as 0-d arrays, named as in ``FIELDS`` or ``COSINE_FIELDS``."""
        names = COSINE_FIELDS if self.length[place] else FIELDS
        return {name: np.array(getattr(self, name)[place]) for name in names}

    def load(self, place: tuple[int, ...], state: dict[str, npt.NDArray[Any]]) -> None:
        """Continues what ``save`` returned."""
        self.length[place] = 0
        for name, value in state.items():
            getattr(self, name)[place] = value
