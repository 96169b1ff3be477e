"""Bottlenecks to classes: the heads, how one is trained, saved, scored and used.

The door for Python: ``load_head("best.hdf5").predict("images/")``. Importing this starts no backend: names are looked
up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.runtime.lazy import loaded_when_asked_for
from features.runtime.starting import end_if_interrupted

end_if_interrupted(__name__)

if TYPE_CHECKING:
    from heads.evaluation.evaluation import ChosenRows, Evaluation
    from heads.loaded import LoadedHead, load_head
    from heads.metrics.classification import Metrics
    from heads.model.spec import HeadSpec
    from heads.prediction.options import PredictOptions
    from heads.prediction.prediction import Predictions

__all__ = [
    "ChosenRows",
    "Evaluation",
    "HeadSpec",
    "LoadedHead",
    "Metrics",
    "PredictOptions",
    "Predictions",
    "load_head",
]

_HOMES = {
    "ChosenRows": "heads.evaluation.evaluation",
    "Evaluation": "heads.evaluation.evaluation",
    "HeadSpec": "heads.model.spec",
    "LoadedHead": "heads.loaded",
    "Metrics": "heads.metrics.classification",
    "PredictOptions": "heads.prediction.options",
    "Predictions": "heads.prediction.prediction",
    "load_head": "heads.loaded",
}


__getattr__, __dir__ = loaded_when_asked_for(__name__, _HOMES)
