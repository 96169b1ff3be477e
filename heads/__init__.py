"""Bottlenecks to classes: the heads, how one is trained, saved, scored and used.

The door for Python: ``load_head("best.hdf5").predict("images/")``. Importing this starts no backend: names are looked
up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.loaded import LoadedHead, load_head
    from heads.metrics.classification import Metrics
    from heads.model.spec import HeadSpec
    from heads.prediction.options import PredictOptions
    from heads.prediction.prediction import Predictions

__all__ = ["HeadSpec", "LoadedHead", "Metrics", "PredictOptions", "Predictions", "load_head"]

_HOMES = {
    "HeadSpec": "heads.model.spec",
    "LoadedHead": "heads.loaded",
    "Metrics": "heads.metrics.classification",
    "PredictOptions": "heads.prediction.options",
    "Predictions": "heads.prediction.prediction",
    "load_head": "heads.loaded",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
