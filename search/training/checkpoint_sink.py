"""Where heads go that ran to their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heads.metrics.scoring import Probabilities, Score
from heads.model.weights import Weights
from search.trials.ask_tell import Asked


class CheckpointSink(Protocol):
    """What becomes of the heads of trials that ran to their end."""

    def offer(
        self, asked: Asked, weights: Sequence[Weights], score: Score, probabilities: Sequence[Probabilities]
    ) -> None:
        """Takes a head, with folds one for each, and what it makes of the validation rows; told only afterwards.

        Raises:
            BuildError: It is of somebody's own function, and will not be written here, nor could it be elsewhere.
        """

    def write_held(self) -> None:
        """Brings to disk what was offered, before it is told: who is stopped in between has left a file too many.

        Raises:
            BuildError: A head of somebody's own function cannot be saved; it is held no longer.
        """

    def write_out(self) -> None:
        """Brings to disk what the record, which is flushed next, takes for granted.

        Raises:
            BottleneckError: It cannot be written, or the directory is another search's by now.
        """
