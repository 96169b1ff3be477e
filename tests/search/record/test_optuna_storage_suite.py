"""Optuna's own suite for storages, over a journal that is buffered as a search's is, and over mirrors of a database."""

from __future__ import annotations

import inspect
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_database import connected, database
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial

from search.record.journal import BufferedJournal
from search.record.mirror import Mirror, StudyGoneError
from search.record.outages import Patience


class TestBufferedJournal(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[JournalStorage]:
        """A storage; what it wrote is read once more by Optuna's own backend in the end."""
        journal = BufferedJournal(tmp_path / "journal.log")
        storage = JournalStorage(journal)
        yield storage
        journal.close()
        reread = JournalStorage(JournalFileBackend(str(journal.path)))
        assert [study.study_name for study in reread.get_all_studies()] == [
            study.study_name for study in storage.get_all_studies()
        ]

    def test_pickle_storage(self, storage: JournalStorage) -> None:
        """Refused, unlike in Optuna's storages: a copy would write to the same file."""
        with pytest.raises(TypeError, match=r"journal\.log: a journal has one writer, so it is not pickled"):
            pickle.dumps(storage)


class Mirrors:
    """The studies of a database, each through a mirror of its own; Optuna's suite asks one storage for all of them."""

    def __init__(self, database: RDBStorage) -> None:
        self.database = database
        self.mirrors: dict[int, Mirror] = {}
        self._where, self.patience = "the studies", Patience()  # as a mirror has them

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(Mirror, name)

        def call(*arguments: Any, **named: Any) -> Any:
            told = inspect.signature(method).bind(self, *arguments, **named).arguments
            try:
                if not {"study_id", "trial_id"} & told.keys():
                    return method(self, *arguments, **named)  # of the database alone
                found = getattr(self._of(told), name)(*arguments, **named)
            except StudyGoneError as error:  # a mirror is of a study that was there
                raise KeyError from error
            if name == "delete_study":
                self.mirrors.pop(told["study_id"]).close()
            return found

        return call

    def _of(self, told: dict[str, Any]) -> Mirror:
        """The mirror of a study, or of a trial; one that does not know it where none does."""
        if "study_id" not in told:
            mirrors = self.mirrors.values()
            return next((one for one in mirrors if told["trial_id"] in one._trials), next(iter(mirrors)))
        number = told["study_id"]
        if number not in self.mirrors:
            self.mirrors[number] = Mirror(self.database, number, "the study")
        return self.mirrors[number]


def facts(trial: FrozenTrial) -> list[str]:
    """All that a trial says, also of what is no number; the order of attributes is none, and reports are floats."""
    told = vars(trial) | {"intermediate_values": {step: float(at) for step, at in trial.intermediate_values.items()}}
    return [
        f"{name}: {sorted(value.items(), key=str) if isinstance(value, dict) else value}"
        for name, value in sorted(told.items())
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database with tables, to be copied: to make them takes a second."""
    folder = tmp_path_factory.mktemp("tables")
    with database("sqlite", folder):
        yield folder / "made.db"


class TestMirror(StorageTestCase):
    @pytest.fixture
    def storage(self, tables: Path, tmp_path: Path) -> Iterator[Mirrors]:
        """Mirrors; what they wrote is what they show, as who comes anew reads it."""
        url = f"sqlite:///{shutil.copy(tables, tmp_path)}"
        storage = Mirrors(connected(url))
        yield storage
        reread = connected(url)
        for number, mirror in storage.mirrors.items():
            mirror.close()
            shown = map(facts, mirror.get_all_trials(number))
            assert list(shown) == list(map(facts, reread.get_all_trials(number)))
        reread.engine.dispose()

    def test_pickle_storage(self, storage: Mirrors) -> None:
        """Refused, unlike in Optuna's storages: what was noted is in this process's memory."""
        number = storage.create_new_study(directions=[])
        storage.get_all_trials(number)
        with pytest.raises(TypeError):
            pickle.dumps(storage.mirrors[number])
