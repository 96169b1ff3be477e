"""The study: which heads are tried, how they are judged, and how the best one leaves.

From Python: ``run_study`` searches, ``run_study_on_ray`` with several workers, ``open_study`` opens what a search has
left, or is still at; all return a ``Study``. Importing this package starts no backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from features.runtime.lazy import loaded_when_asked_for
from features.runtime.starting import end_if_interrupted

end_if_interrupted(__name__)

if TYPE_CHECKING:
    from search.on_ray import run_study_on_ray
    from search.record.study_record import Progress, StudyRecord
    from search.record.summary import Summary
    from search.review.gallery import FigureName
    from search.running import run_study
    from search.setup.config import StudyConfig
    from search.setup.export_options import ExportOptions
    from search.setup.options import RunOptions
    from search.study import Study, open_study
    from search.training.stages import OnStage, Stage

__all__ = [
    "ExportOptions",
    "FigureName",
    "OnStage",
    "Progress",
    "RunOptions",
    "Stage",
    "Study",
    "StudyConfig",
    "StudyRecord",
    "Summary",
    "open_study",
    "run_study",
    "run_study_on_ray",
]

_HOMES = {
    "ExportOptions": "search.setup.export_options",
    "FigureName": "search.review.gallery",
    "OnStage": "search.training.stages",
    "Progress": "search.record.study_record",
    "RunOptions": "search.setup.options",
    "Stage": "search.training.stages",
    "Study": "search.study",
    "StudyConfig": "search.setup.config",
    "StudyRecord": "search.record.study_record",
    "Summary": "search.record.summary",
    "open_study": "search.study",
    "run_study": "search.running",
    "run_study_on_ray": "search.on_ray",
}

_load, __dir__ = loaded_when_asked_for(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: Optuna and pydantic take their time."""
    with catch_warnings():  # tqdm, which Optuna imports and a search does not use, misses its widgets in a notebook
        filterwarnings("ignore", message="IProgress not found")
        return _load(name)
