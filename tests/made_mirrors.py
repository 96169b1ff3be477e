"""Mirrors of one study, each as a process of its own has it; and the database as somebody reads it who comes anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
import sqlalchemy
from made_database import connected, new_study
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import OperationalError

from search.record.mirror import Mirror, StudyGoneError
from search.setup.optuna_internals import id_of_trial

PATIENCE_S = 20
"""Seconds after which a test that waits for a thread has failed."""


class Mirrors:
    """A new study, and those who work on it."""

    def __init__(self, storage: RDBStorage, url: str) -> None:
        self.storage, self.url, self.study = storage, url, new_study(storage)
        self.name = storage.get_study_name_from_id(self.study)
        self.made: list[Mirror] = []

    def join(self, *, shared: bool = True) -> Mirror:
        self.made.append(Mirror(connected(self.url), self.study, "the study", shared=shared))
        return self.made[-1]

    def study_of(self, mirror: Mirror) -> optuna.Study:
        return optuna.load_study(study_name=self.name, storage=mirror, sampler=optuna.samplers.RandomSampler(seed=0))

    @property
    def stored(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self.study)

    def close(self) -> None:
        for mirror in self.made:
            with suppress(StorageInternalError, sqlalchemy.exc.SQLAlchemyError, StudyGoneError):
                mirror.close()


def view(mirror: Mirror) -> list[FrozenTrial]:
    """What a process sees."""
    return mirror.get_all_trials(0)


def claim(mirror: Mirror, worker: str = "me", most: int = 99) -> int:
    (trial,) = mirror.claim(most, worker)
    return id_of_trial(trial)


def away(text: str = "gone") -> OperationalError:
    """What a database raises that cannot be reached."""
    return OperationalError("SELECT", {}, Exception(text))


class Gate:
    """Stands before a function, or behind it: holds its first call until it is opened."""

    def __init__(self, real: Callable[..., Any], *, behind: bool = False) -> None:
        self._real, self._behind, self._calls = real, behind, 0
        self._come, self._open = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self._calls += 1
        if self._calls > 1:
            return self._real(*arguments)
        found = self._real(*arguments) if self._behind else None
        self._come.set()
        assert self._open.wait(PATIENCE_S)
        return found if self._behind else self._real(*arguments)

    def await_call(self) -> None:
        assert self._come.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


class Clock:
    """Stands for the module ``time``: goes on only where somebody says so, or sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
