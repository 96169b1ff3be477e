"""A study that is searched, and what its trials are made of: what is kept of it and comes after it works on this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna

from search.setup.config import StudyConfig
from search.setup.own_head import OwnHead
from search.setup.space import Space
from search.setup.stores import StudyData


@dataclass(frozen=True)
class Searched:
    """A study that is searched.

    Attributes:
        folder: The study directory.
        study: Optuna's study.
        config: What was resolved.
        space: What trials draw from.
        data: Rows to train, validate and test on.
    """

    folder: Path
    study: optuna.Study
    config: StudyConfig
    space: Space | OwnHead
    data: StudyData

    @property
    def own(self) -> OwnHead | None:
        """Somebody's own function, where it makes the heads."""
        return self.space if isinstance(self.space, OwnHead) else None
