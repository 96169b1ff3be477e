"""What calibrates a head that leaves: one temperature, fitted by heads like it to rows that these were not trained on.

With folds, a class may have all of its rows in one fold, as those of its one patient. The heads that judge the fold
know nothing of it, and the head that leaves does: what they make of its rows calibrates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from heads.metrics.calibration import describe_calibration, fit_temperature
from heads.metrics.scoring import Probabilities
from search.record.results import Calibration
from search.setup.data import SearchData


def temperature_of(probabilities: Sequence[Probabilities], data: SearchData) -> float | None:
    """Returns one temperature for all repeats of a head: each of them is a head like the one that leaves.

    Args:
        probabilities: What each makes of the validation rows, (rows, classes).
        data: Has these rows.

    Returns:
        The temperature; None where there is no row to fit it on.
    """
    if not probabilities or not data.has_known_class.any():
        return None
    return fit_temperature(*_known(probabilities, data), repeats=len(probabilities))


def calibration_of(
    probabilities: Sequence[Probabilities], temperature: float | None, data: SearchData
) -> Calibration | None:
    """Returns what a temperature makes of the rows that it was fitted on; None where there are none.

    Args:
        probabilities: As for ``temperature_of``.
        temperature: What that gave.
        data: Likewise.
    """
    if temperature is None:
        return None
    return Calibration(**describe_calibration(*_known(probabilities, data), temperature))


def _known(probabilities: Sequence[Probabilities], data: SearchData) -> tuple[Probabilities, npt.NDArray[np.int32]]:
    """The rows of classes that the heads know, and their labels, of one repeat after the other."""
    known = data.has_known_class
    labels = np.tile(data.validation_labels[known], len(probabilities))
    return np.concatenate([one[known] for one in probabilities]), labels
