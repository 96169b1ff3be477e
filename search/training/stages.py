"""The stages of a study: where its state changes hands, and what is said of that."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Stage(StrEnum):
    """What a study does next.

    Whatever a stage found is on the disk, or follows from what is there, once the next one begins: a process that is
    killed between two of them, or within one, leaves a study that ends as if it had not been.
    """

    SEARCH = "search"
    """Trials; ``study.json`` lies there."""
    SMALLER_BANK = "smaller bank"
    """Trials go on in a bank that holds what is left of them; perhaps several times."""
    REPEATS = "repeats"
    """The finalists are trained again from several seeds."""
    REFIT = "refit"
    """What leaves the study is trained on all rows but those of the test."""
    CALIBRATION = "calibration"
    """Temperatures are fitted, and the heads written."""
    TEST = "test"
    """The test rows are used."""
    SUMMARY = "summary"
    """``summary.json`` is written."""
    REPORT = "report"
    """``report.html`` is written."""


OnStage = Callable[[Stage], object]
"""Called with a stage as it begins."""

IN_WORDS = {
    Stage.REPEATS: "the search is over: its best heads are trained again from other seeds",
    Stage.REFIT: "what leaves the study is trained on all rows but those of the test",
    Stage.TEST: "everything is decided: the test rows are used",
}
"""What is told of the stages that take their time and say nothing by themselves."""


def untold(stage: Stage) -> None:
    """An ``OnStage`` that tells nobody."""
