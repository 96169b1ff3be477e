"""Processes that work on one study, all of them this one: each with a connection, a mirror and signs of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from made_mirrors import Mirrors
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from search.record.crew import Crew, SharedOrdinals
from search.record.mirror import Mirror
from search.record.owner import Owner

DEAD = {"process": 2**22 + 5}
"""No such process: Linux counts to 2**22."""
ELSEWHERE = {"host": "elsewhere", "machine": "another"}


@dataclass
class Process:
    """One that works on the study."""

    mirror: Mirror
    crew: Crew
    study: optuna.Study

    @property
    def name(self) -> str:
        return self.crew.name

    def ordinals(self, most: int, *, pages: int = 64) -> SharedOrdinals:
        return self.crew.ordinals(self.study, most, pages=pages)

    def complete(self, trial: Trial) -> None:
        self.study.tell(trial, 0.5)
        self.mirror.flush()


class Crews(Mirrors):
    """A new study, and those who work on it together."""

    def __init__(self, storage: RDBStorage, url: str) -> None:
        super().__init__(storage, url)
        self._joined: list[Crew] = []

    def process(self, *, grace: float = 120) -> Process:
        """Lets one join; it gives no sign by itself while a test runs, unless it has little grace."""
        mirror = self.join()
        crew = Crew(self.url, self.study, self.name, mirror, grace=grace)
        self._joined.append(crew)
        return Process(mirror, crew, self.study_of(mirror))

    @property
    def attributes(self) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(self.study)

    @property
    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.stored]

    def put(self, attribute: str, **changes: Any) -> Owner:
        """Notes another process: this one, changed."""
        other = replace(Owner.of_this_process(), **changes)
        self.storage.set_study_user_attr(self.study, attribute, asdict(other))
        return other

    def close(self) -> None:
        for crew in self._joined:
            with suppress(StorageInternalError, SQLAlchemyError):
                crew.close()
        super().close()
