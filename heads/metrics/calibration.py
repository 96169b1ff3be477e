"""Calibration: probabilities that can be believed (temperature scaling, Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.metrics.curves import reliability
from heads.metrics.scoring import PROBABILITY_FLOOR, Probabilities

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures outside are those of rows that say nothing."""
_SPREAD = 1.0
"""Standard deviation of a temperature's logarithm beforehand: one of 2.7, or of 1 / 2.7, surprises nobody."""
_LEAST = 1e-30
"""Of 0 there is no logarithm. Far below what a loss counts: rows of a very sure head keep their order."""
_TRIED = 31
"""Temperatures that are tried to begin with, each 1.2 times the one before."""
_NUMBERS = 2**17
"""Probabilities that a temperature is tried on, or applied to, at once: as many as a processor's cache holds."""


def fit_temperature(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], *, repeats: int = 1) -> float:
    """Returns the temperature that makes the true classes of some rows most probable, where 1 is the likeliest before.

    Without that, rows that are all classified correctly, or all but one by a hair, would have a head as sure as can be.
    A normal distribution of its logarithm (``_SPREAD``) keeps it where rows do not say more, is outweighed by a few
    wrong ones, and knows no difference in kind between none and one.

    Args:
        probabilities: (rows, classes) of rows that the head was not trained on, at least one.
        labels: (rows,) index of the true class.
        repeats: How often each row is among them, called by several heads: so often it says less than as many rows.
    """
    from scipy.optimize import minimize_scalar

    logs = _logarithms(probabilities)
    logs -= logs.max(axis=1, keepdims=True)
    true = logs[np.arange(len(labels)), labels]
    most = -np.log(PROBABILITY_FLOOR)

    def loss(logarithm: float) -> float:
        """The loss of what ``with_temperature`` makes, from logarithms that are taken once for all temperatures.

        And what the temperature itself costs, as a share of all rows; each is one however often it was called.
        """
        temperature, sums = np.exp(logarithm), np.empty(len(logs))
        for rows in _blocks(logs):
            some = logs[rows] / temperature
            sums[rows] = np.exp(some, out=some).sum(axis=1)
        unlikely = repeats * (logarithm / _SPREAD) ** 2 / (2 * len(logs))
        return float(np.minimum(np.log(sums) - true / temperature, most).mean()) + unlikely

    # Rows at the floor of the loss cost nothing more where it gets colder, so there may be several hollows.
    tried = np.linspace(np.log(COLDEST), np.log(HOTTEST), _TRIED)
    best = int(np.argmin([loss(float(logarithm)) for logarithm in tried]))
    beside = float(tried[max(0, best - 1)]), float(tried[min(best + 1, _TRIED - 1)])
    found = float(minimize_scalar(loss, bounds=beside, method="bounded").x)
    return float(np.exp(min((found, float(tried[best])), key=loss)))


def with_temperature(probabilities: npt.NDArray[Any], temperature: float | None) -> Probabilities:
    """Returns softmax(log(probabilities) / temperature): above 1 less sure, below 1 surer; the ranking stays.

    In memory there is what is returned, and little more: of many rows of a thousand classes each array is a large one.

    Args:
        probabilities: (..., classes); with several views, their average.
        temperature: Above 0; None leaves them as they are.
    """
    if temperature is None:
        return np.asarray(probabilities, np.float32)
    given = probabilities.reshape(-1, probabilities.shape[-1])
    found = np.empty(given.shape, np.float32)
    for rows in _blocks(given):
        scaled = _logarithms(given[rows]) / temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        found[rows] = powers / powers.sum(axis=1, keepdims=True)
    return found.reshape(probabilities.shape)


def _blocks(numbers: npt.NDArray[Any]) -> Iterator[slice]:
    """Yields rows of (rows, classes) in pieces of about ``_NUMBERS``."""
    step = max(1, _NUMBERS // numbers.shape[1])
    return (slice(start, start + step) for start in range(0, len(numbers), step))


def _logarithms(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    bounded: npt.NDArray[np.float64] = np.maximum(probabilities, _LEAST, dtype=np.float64)
    return np.log(bounded, out=bounded)


def describe_calibration(
    probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], temperature: float | None
) -> dict[str, Any]:
    """Returns ``temperature``, and the expected calibration error (``ece``) before and after it."""
    after = with_temperature(probabilities, temperature)
    return {
        "temperature": temperature,
        "ece_before": reliability(probabilities, labels).error,
        "ece_after": reliability(after, labels).error,
    }
