"""A trial that trains in the bank."""

from __future__ import annotations

from dataclasses import dataclass, field

from heads.metrics.scoring import EpochRecord
from search.trials.ask_tell import Asked


@dataclass
class BankedTrial:
    """A trial that trains in the bank.

    Attributes:
        asked: The trial.
        slot: Its place, the same in every fold.
        first_epoch: Epoch of the bank, from 0, that was its first.
        epochs: How many it has trained.
        best: Its best epoch so far, or its last where that counts.
        rates: Its learning rate in each epoch, with folds the mean over them.
    """

    asked: Asked
    slot: int
    first_epoch: int
    epochs: int = 0
    best: EpochRecord | None = None
    rates: list[float] = field(default_factory=list)

    @property
    def store(self) -> str:
        """Name of the store that it trains on."""
        return self.asked.store
